import os
import signal
import subprocess

import pytest

from cifar2.errors import UserError, run


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("what, where, what to do"), "error: what, where, what to do"),
        (OSError(28, "No space left on device"), "error: the system: No space left on device"),
        (
            PermissionError(13, "Permission denied", "metrics"),
            "error: metrics: Permission denied; use a clone of your own, or get access to it",
        ),
        (
            subprocess.CalledProcessError(128, ["git", "show", "a"], stderr="fatal: no\n\ta\n"),
            "error: git show failed: fatal: no a",
        ),
        (subprocess.CalledProcessError(1, ["dvc", "repro"]), "error: dvc repro failed: see its message above"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_1(error, line):
    with pytest.raises(SystemExit) as stop:
        run(raising(error))
    assert stop.value.code == line


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_line_and_its_exit_code(number, capsys):
    cleaned = []

    def main():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 128 + number
    assert cleaned
    error = capsys.readouterr().err
    assert error.startswith(f"interrupted by {number.name}")
    assert error.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == before
