"""`kinfolk dashboard`: pages that show a cluster, as one node knows it, in a browser."""

import asyncio
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from kinfolk.cli import exits
from kinfolk.cli.asking import Asking, ask
from kinfolk.cookie import check_private
from kinfolk.observer import Observer

_TOKEN = "KINFOLK_DASHBOARD_TOKEN"  # noqa: S105 - the name of the variable that it is in


def dashboard(
    name: Annotated[str | None, Parameter(name="NODE", show_default=False)] = None,
    /,
    *,
    listen: str = "127.0.0.1:4380",
    token_file: Annotated[
        Path | None,
        Parameter(
            help="File of the token that whoever looks must show, of mode 0600. Needed beyond loopback, and to kill"
            f" processes or drain nodes. Default: {_TOKEN}, else none."
        ),
    ] = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Serve the dashboard of the cluster, as one node knows it, until Ctrl-C. When that node restarts, it goes on.

    Parameters
    ----------
    name
        The node, by name or as host:port. Default: as for --node.
    listen
        Where to serve it; port 0 takes a free one.
    """
    asking = asking if name is None else dataclasses.replace(asking, node=name)
    try:
        serve = importlib.import_module("kinfolk.dashboard").serve
    except ModuleNotFoundError as error:
        raise exits.Usage(f"the dashboard needs {error.name}: pip install 'kinfolk[dashboard]'") from None
    token = _token(token_file)
    try:
        ask(asking, lambda node: _serve(serve, node, listen, token))
    except KeyboardInterrupt:
        pass  # the way to end it
    return exits.YES


async def _serve(serve: Any, node: Observer, listen: str, token: str | None) -> None:
    try:
        async with serve(node, listen, token=token) as where:
            print(f"http://{where}/ shows the cluster as {node.name} knows it, until Ctrl-C", flush=True)
            await asyncio.Event().wait()
    except (ValueError, OSError) as error:
        raise exits.Usage(exits.line_of(error)) from None


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN)
    try:
        with open(file, encoding="utf-8") as opened:
            check_private(file, "the token file", os.fstat(opened.fileno()))
            return opened.read().strip()
    except (ValueError, OSError) as error:
        raise exits.Usage(exits.line_of(error)) from None
