"""`kinfolk watch`: what happens to names, and to nodes, as one node sees it."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractContextManager, aclosing, nullcontext
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol

from cyclopts import Parameter
from msgspec import json

from kinfolk.cli import exits
from kinfolk.cli.asking import Asking, ask
from kinfolk.observer import Observer
from kinfolk.wire.handshake import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WAIT = 10.0
"""Seconds after which a node that has nothing to tell says so; a silence longer than this is its own."""
_REDRAW = 0.1  # seconds
_GONE = 500  # names that have gone and may find room on a screen

Kind = Literal["added", "removed", "resync", "up", "down", "stalled", "resumed"]
Event = list[str | float]
"""Its kind, and what belongs to it: see `_FIELDS`."""
_FIELDS: dict[str | float, tuple[str, ...]] = {
    "added": ("name", "pid"),
    "removed": ("name", "pid"),
    "resync": (),
    "up": ("node", "creation"),
    "down": ("node", "reason"),
    "stalled": ("node", "seconds"),
    "resumed": ("node", "seconds"),
}


def watch(
    pattern: Annotated[str, Parameter(show_default=False)] = "*",
    /,
    *,
    nodes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    kind: Annotated[list[Kind] | None, Parameter(negative="")] = None,
    count: int | None = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Follow the names of the cluster, as one node knows them: those that are there, then every change, until Ctrl-C.

    A resync means that this command could not keep up: changes are missing, and what is there follows anew.

    Parameters
    ----------
    pattern
        A name, or the beginning of names followed by *. Default: all.
    nodes
        Also the node's peers, whatever the pattern: which are up, go down (and why), stall and resume.
    kind
        Only events of this kind; of several if it is given several times.
    count
        End after so many events.
    """
    if not pattern or "*" in pattern[:-1]:
        raise exits.Usage(f"{pattern!r} is no pattern: give a name, or the beginning of names followed by *")
    if count is not None and count < 1:
        raise exits.Usage(f"--count {count}: it must be 1 or more")

    request = ["watch", pattern, "nodes"] if nodes else ["watch", pattern]

    async def follow(node: Observer) -> None:
        left = count
        with _output(node.name, pattern, asking.json) as output:
            async with aclosing(_batches(node, request, asking.timeout)) as batches:
                async for batch in batches:
                    wanted = [event for event in batch if kind is None or event[0] in kind][:left]
                    output.show(wanted)
                    if left is not None:
                        left -= len(wanted)
                        if left == 0:
                            return

    try:
        ask(asking, follow)
    except KeyboardInterrupt:
        pass  # the way to end it
    return exits.YES


async def _batches(node: Observer, request: list[str], timeout: float) -> AsyncGenerator[list[Event]]:
    """The events as they come. The node answers at least every `WAIT` seconds, so that its end is noticed."""
    number = await node.call(request)
    while True:
        events: list[Event] | None = await node.call(["events", number, WAIT], timeout=WAIT + timeout)
        if events is None:  # forgotten, since this program was stopped for long
            number = await node.call(request)
            yield [["resync"]]
        else:
            yield events


# --- how events are shown ---


class Output(Protocol):
    """Where events go."""

    def show(self, events: Iterable[Event]) -> None:
        """Show them, in order, before it returns or soon after."""
        ...


def _output(node: str, pattern: str, as_json: bool) -> AbstractContextManager[Output]:
    if as_json:
        return nullcontext(JsonLines())
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_dumb_terminal:
            return Screen(console, f"match {pattern} at {node}")
    return nullcontext(Lines())


class JsonLines:
    """One JSON object a line."""

    def show(self, events: Iterable[Event]) -> None:
        """Print them."""
        for event in events:
            line = json.encode(dict(zip(("event", *_FIELDS[event[0]]), event, strict=True)))
            sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


class Lines:
    """What belongs to an event, with tabs between. No escape sequence, tab or line end in a name gets through."""

    def show(self, events: Iterable[Event]) -> None:
        """Print them."""
        sys.stdout.writelines("\t".join(printable(_text(each)) for each in event) + "\n" for event in events)
        sys.stdout.flush()


_STATES = {
    "up": "node, creation {}",
    "down": "node, down: {}",
    "stalled": "node, whose loop has stood still for {} s",
    "resumed": "node, whose loop had stood still for {} s",
}


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}"


class Row(NamedTuple):
    """A name on the screen, or a node with its state in place of the pid."""

    order: int
    """That of its last change among all changes."""
    name: str
    pid: str
    time: str
    is_there: bool


class Screen:
    """A list on a terminal: the names that are there, and those that have just gone; what changed last is on top."""

    def __init__(self, console: "Console", what: str) -> None:
        from rich.live import Live

        self._console = console
        self._what = what
        self._there: dict[tuple[str, bool], Row] = {}  # in the order of their changes; True for a node
        self._gone: dict[tuple[str, bool], Row] = {}
        self._nodes: set[str] = set()  # those that are there
        self._changes = self._resyncs = 0
        self._redraw: asyncio.TimerHandle | None = None
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._rendered)

    def __enter__(self) -> "Screen":
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._redraw is not None:
            self._redraw.cancel()
        self._live.stop()  # draws for the last time

    def show(self, events: Iterable[Event]) -> None:
        """Take them into the list, which is drawn again soon: however many come, the terminal keeps up."""
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        for kind, *change in events:
            if kind == "resync":
                self._resyncs += 1
                for table in (self._there, self._gone, self._nodes):
                    table.clear()
                continue
            self._changes += 1
            name, pid = map(_text, change)
            state = _STATES.get(str(kind))
            row = Row(self._changes, name, state.format(pid) if state else pid, now, kind not in ("removed", "down"))
            key = name, state is not None
            self._there.pop(key, None)
            self._gone.pop(key, None)
            (self._there if row.is_there else self._gone)[key] = row
            if state is not None:
                (self._nodes.add if row.is_there else self._nodes.discard)(name)
        for key in list(islice(self._gone, max(0, len(self._gone) - _GONE))):
            del self._gone[key]
        if self._redraw is None:
            self._redraw = asyncio.get_running_loop().call_later(_REDRAW, self._draw)

    def _draw(self) -> None:
        self._redraw = None
        self._live.refresh()

    def _rows(self) -> list[Row]:
        """Those that fit; of those that have gone as many as leave room for the others, but some in any case."""
        room = max(1, self._console.size.height - 3)
        gone = list(islice(reversed(self._gone.values()), max(room - len(self._there), room // 3)))
        there = islice(reversed(self._there.values()), room - len(gone))
        return sorted([*gone, *there], reverse=True)

    def _rendered(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for title in ("", "NAME", "PID", "CHANGED"):
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        for row in self._rows():
            sign = Text("+", "green") if row.is_there else Text("-", "red")
            name = Text(printable(row.name), "cyan" if row.is_there else "dim")
            table.add_row(sign, name, Text(printable(row.pid), "dim"), Text(row.time, "dim"))
        resyncs = f", {self._resyncs} resyncs" if self._resyncs else ""
        nodes = f", {len(self._nodes)} peers" if self._nodes else ""
        names = len(self._there) - len(self._nodes)
        status = f"{names} names {self._what}{nodes}, {self._changes} changes{resyncs}; Ctrl-C ends"
        return Group(table, Text(printable(status), "dim", no_wrap=True, overflow="ellipsis"))
