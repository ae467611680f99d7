"""How commands end: exit codes, and the errors that users meet."""

import logging
import os
import sys
from typing import NoReturn

from kinfolk.errors import AuthenticationFailed, CallFailed, CallTimeout, KinfolkError, NodeLost, NodeUnreachable

YES, NO, USAGE, UNREACHABLE, TIMED_OUT = range(5)


class Usage(Exception):
    """The command was given something it cannot work with."""


EXPECTED = (Usage, KinfolkError)
"""Errors that are told in one line. Any other is a bug of ours or of the user's program, and shows its traceback."""


def code_of(error: Exception) -> int:
    """The exit code of an expected error."""
    match error:
        case Usage():
            return USAGE
        case CallTimeout():
            return TIMED_OUT
        case NodeUnreachable() | AuthenticationFailed() | NodeLost() | CallFailed():
            return UNREACHABLE
        case _:
            return NO


def at_once(code: int) -> NoReturn:
    """End the program here and now, whatever of it still runs; what has been logged and printed is written."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def line_of(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and not isinstance(error, KinfolkError) and error.filename is not None:
        text = f"{os.fspath(error.filename)}: {error.strerror}"
    else:
        text = str(error)
    return " ".join(text.split())
