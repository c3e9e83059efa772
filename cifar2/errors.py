"""Faults that the user can mend, told in one line; everything else is a bug and keeps its traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something outside the code is wrong; the message says what, where, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Call ``main``; a fault of the user's or of the file system ends the process with one line and exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'the system'}: {error.strerror or error}")
