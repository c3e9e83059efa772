"""Faults that the user can mend, told in one line; everything else is a bug and keeps its traceback."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Something outside the code is wrong; the message says what, where, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Call ``main``; a fault of the user's or of the file system ends the process with one line and exit code 1.

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
        sys.exit(f"error: {error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print(
            f"stopped by {by.name}; what was going on starts again, training from its last checkpoint", file=sys.stderr
        )
        sys.exit(128 + by)
    finally:
        signal.signal(signal.SIGTERM, before)
