"""Importing the package, before any of its modules."""

import getpass
import importlib
import os
import platform
import subprocess
import sys

import pytest

import cifar2
from tests.clone import ROOT


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


FAULTS = """
import resource
import cifar2
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for i in range(110):
    if i == 10:
        start = faults()
    torch.zeros(3, 2**18).add(1)
print(faults() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory that is used again")
def test_memory_of_freed_tensors_is_used_again():
    """Each of the 200 tensors has 768 pages, and each new page is a fault."""
    variables = os.environ | {"THP_MEM_ALLOC_ENABLE": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 768
