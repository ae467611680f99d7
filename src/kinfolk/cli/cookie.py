"""`kinfolk cookie`: the secret that the nodes of a cluster share."""

import os
import sys
from pathlib import Path

from cyclopts import App

from kinfolk.cli import exits
from kinfolk.cookie import new_cookie

app = App(name="cookie", help="The secret that the nodes of a cluster share.")


@app.command
def new(*, file: Path | None = None) -> int:
    """Make a cookie and print it, alone.

    Parameters
    ----------
    file
        Write it to this new file, which only you can read, and print nothing.
    """
    text = new_cookie() + "\n"
    if file is None:
        sys.stdout.write(text)
        return exits.YES
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise exits.Usage(f"{file} is there already: a cookie is never overwritten; name another file") from None
    except OSError as error:
        raise exits.Usage(exits.line_of(error)) from None
    with open(fd, "w", encoding="utf-8") as opened:
        opened.write(text)
    return exits.YES
