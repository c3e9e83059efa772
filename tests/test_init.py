"""Importing the package, before any of its modules."""

import getpass
import importlib
import os
import sys

import pytest

import cifar2


def test_windows_is_one_line_that_names_wsl(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match=r"^error: CIFAR-2 runs on Linux and macOS; on Windows, use it inside WSL "):
        importlib.reload(cifar2)


def test_user_without_a_name_is_named_by_number(monkeypatch):
    """As with `docker run --user 12345`; DVC, Ray and PyTorch ask for the name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    importlib.reload(cifar2)
    assert getpass.getuser() == str(os.getuid())


def test_name_of_a_user_stays(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    importlib.reload(cifar2)
    assert os.environ["LOGNAME"] == "ada"
