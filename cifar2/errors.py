"""Faults that the user can mend, told in one line; everything else is a bug and keeps its traceback."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import NoReturn

NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(Exception):
    """Something outside the code is wrong; the message says what, where, and what to do."""


def describe(error: OSError) -> str:
    """The system's message and, where a file or folder is another user's or read-only, what to do."""
    advice = "; use a clone of your own, or get access to it" if error.errno in NOT_PERMITTED else ""
    return f"{error.strerror or error}{advice}"


def did_you_mean(given: object, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message about ``given``: which of ``known`` is similar, or after ``otherwise`` all of them."""
    known = list(known)
    for close in get_close_matches(given[:50].lower() if isinstance(given, str) else "", known, 1, 0.7):
        return f"; did you mean {close}?"
    return f"; {otherwise} {', '.join(known)}" if otherwise else ""


def run(main: Callable[[], None]) -> None:
    """Call ``main``; an error of the user, of the file system or of a program ends with one line and exit code 1.

    So does Ctrl-C (SIGINT) or SIGTERM, with exit code 130 or 143; what is half-written then is taken away.
    """
    by = signal.SIGINT

    def terminate(*_: object) -> NoReturn:
        nonlocal by
        by = signal.SIGTERM
        # An exception of another kind would come out of Ray's waiting as a fault of its own.
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'the system'}: {describe(error)}")
    except subprocess.CalledProcessError as error:
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd[:2]))
        message = " ".join((error.stderr or "its message is above").split())
        sys.exit(f"error: {command} failed: {message}")
    except KeyboardInterrupt:
        print(
            f"stopped by {by.name}; what was going on starts again, training from its last checkpoint", file=sys.stderr
        )
        sys.exit(128 + by)
    finally:
        signal.signal(signal.SIGTERM, before)
