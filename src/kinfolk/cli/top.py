"""`kinfolk top`: the nodes of a cluster, and the processes that stand first by something, live on a terminal."""

import importlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.errors import KinfolkError
from kinfolk.looking import TOP
from kinfolk.observer import Observer

Sort = Literal["waiting", "received", "age", "name", "node"]
SORTS: tuple[Sort, ...] = get_args(Sort)
_PATIENCE = 1.0
"""Seconds that a peer of the asked node has for its answer: who is silent must not keep the others waiting long."""


class Wanted(NamedTuple):
    """What to look at.

    Args:
        sort: by what processes are sorted.
        pattern: only processes with this in a name, in what they run, or in their node's name.
        limit: at most so many processes.
    """

    sort: Sort
    pattern: str
    limit: int


class Look(NamedTuple):
    """What was seen at one moment.

    Attributes:
        nodes: each with its name, its state, and as far as it has answered with what it has.
        processes: those on top, each with its node.
        took: seconds until all had answered.
    """

    nodes: list[dict[str, Any]]
    processes: list[dict[str, Any]]
    took: float


def top(
    *,
    sort: Sort = "waiting",
    filter: Annotated[str, Parameter(show_default=False)] = "",  # noqa: A002 - the option's name
    every: float = 2.0,
    limit: int = 100,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Show the nodes of the cluster, and the processes with most to do, live on a terminal. Needs kinfolk[tui].

    Keys sort, filter, pause, and tell more of a process. With --json it looks once, and needs no terminal.

    Parameters
    ----------
    sort
        By what: the most of it first, or the alphabet.
    filter
        Only processes with this text in a name, in what they run, or in the name of their node.
    every
        Seconds between two looks; more, if the nodes take long to answer.
    limit
        At most so many processes, up to 200.
    """
    if not 0 < every < float("inf"):
        raise exits.Usage(f"--every {every:g}: it must be a positive number of seconds")
    if not 0 < limit <= TOP:
        raise exits.Usage(f"--limit {limit}: it must be from 1 to {TOP}; `kinfolk ps --all` lists every process")
    wanted = Wanted(sort, filter, limit)
    if asking.json:
        seen = ask(asking, lambda node: look(node, wanted))
        output.show_json({"nodes": seen.nodes, "processes": seen.processes})
        return exits.YES
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in (None, "", "dumb"):
        raise exits.Usage(
            "`kinfolk top` needs a terminal: use `kinfolk ps --all`, or `kinfolk top --json` for one look"
        )
    try:
        live = importlib.import_module("kinfolk.cli.live").Live
    except ModuleNotFoundError as error:
        raise exits.Usage(f"`kinfolk top` needs {error.name}: pip install 'kinfolk[tui]'") from None

    async def follow(node: Observer) -> int:
        code: int = await live(node, wanted, await look(node, wanted), every).follow()
        return code

    return ask(asking, follow)


async def look(node: Observer, wanted: Wanted) -> Look:
    """Ask every node for its part. Each sorts for itself and sends no more than is shown.

    Raises:
        NodeLost, CallTimeout: the asked node; of others their state tells.
    """
    begun = time.monotonic()
    request = ["top", "waiting" if wanted.sort == "node" else wanted.sort, wanted.pattern, wanted.limit]
    stalled: dict[str, float] = await node.call(["stalled"])
    nodes: list[dict[str, Any]] = []
    processes: list[dict[str, Any]] = []
    for name in await node.call(["nodes"]):
        told, state = await _part(node, name, request, stalled.get(name))
        processes += [{"node": name, **row} for row in told.pop("top", ())]
        nodes.append({**told, "node": name, "state": state})
    return Look(nodes, in_order(processes, wanted.sort)[: wanted.limit], time.monotonic() - begun)


async def _part(node: Observer, name: str, request: list[Any], stalled: float | None) -> tuple[dict[str, Any], str]:
    """What one node tells, and its state."""
    if name == node.name:
        told: dict[str, Any] = await node.call(request)
    elif stalled is not None:
        return {}, f"stalled for {stalled:.1f} s"
    else:
        try:
            told = await node.act(["at", name, request], timeout=_PATIENCE)
        except KinfolkError as error:
            return {}, f"no answer: {exits.line_of(error)}"
    return told, "up" if told["ready"] else "draining"


def in_order(processes: list[dict[str, Any]], sort: Sort) -> list[dict[str, Any]]:
    """The processes of several nodes in one order; those that are as high stay as they are."""
    return sorted(processes, key=lambda row: _key(row, sort))


def _key(row: Mapping[str, Any], sort: Sort) -> Any:
    match sort:
        case "node":
            return row["node"]
        case "name":
            return not row["names"], row["names"][:1]
        case _:
            return -row[sort]


async def process(node: Observer, name: str, pid: str) -> dict[str, Any] | None:
    """All there is to tell of one process; None if it has ended.

    Args:
        name: of its node.

    Raises:
        KinfolkError: nobody could be asked.
    """
    request = ["process", pid]
    told: dict[str, Any] | None
    told = await (node.call(request) if name == node.name else node.act(["at", name, request], timeout=_PATIENCE))
    return told
