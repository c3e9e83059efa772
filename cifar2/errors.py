"""Errors that the user can fix, reported in one line. Anything else is a bug and keeps its traceback."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import NoReturn

NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(Exception):
    """An error that the user can fix; the message states what, where, and what to do."""


def describe(error: OSError) -> str:
    """The system's message, with advice if the file or folder is read-only or belongs to another user."""
    advice = "; use a clone of your own, or get access to it" if error.errno in NOT_PERMITTED else ""
    return f"{error.strerror or error}{advice}"


def did_you_mean(given: object, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message about ``given``: the most similar of ``known``, or all of them after ``otherwise``."""
    known = list(known)
    for close in get_close_matches(given[:50].lower() if isinstance(given, str) else "", known, 1, 0.7):
        return f"; did you mean {close}?"
    return f"; {otherwise} {', '.join(known)}" if otherwise else ""


def run(main: Callable[[], None]) -> None:
    """Call ``main``, and report an error of the user, the file system or a program in one line with exit code 1.

    Ctrl-C (SIGINT) and SIGTERM are reported in one line too, with exit code 130 or 143.
    """
    by = signal.SIGINT

    def terminate(*_: object) -> NoReturn:
        nonlocal by
        by = signal.SIGTERM
        raise KeyboardInterrupt  # Ray's waiting would wrap any other exception in its own

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'the system'}: {describe(error)}")
    except subprocess.CalledProcessError as error:
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd[:2]))
        message = " ".join((error.stderr or "see its message above").split())
        sys.exit(f"error: {command} failed: {message}")
    except KeyboardInterrupt:
        print(f"interrupted by {by.name}; run it again: training resumes from its last checkpoint", file=sys.stderr)
        sys.exit(128 + by)
    finally:
        signal.signal(signal.SIGTERM, before)
