"""`kinfolk cookie`: the secret that the nodes of a cluster share."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from kinfolk.cli import exits, output
from kinfolk.cookie import new_cookie

app = App(name="cookie", help="The secret that the nodes of a cluster share.")


@app.command
def new(*, file: Path | None = None, json: Annotated[bool, Parameter(negative="", show_default=False)] = False) -> int:
    """Make a cookie and print it, alone.

    Parameters
    ----------
    file
        Write it to this new file, which only you can read, and print nothing.
    json
        Print JSON: the cookie, or the name of the file that has it.
    """
    cookie = new_cookie()
    text = f"{cookie}\n"
    if file is None:
        if json:
            output.show_json({"cookie": cookie})
        else:
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
    if json:
        output.show_json({"file": str(file)})
    return exits.YES
