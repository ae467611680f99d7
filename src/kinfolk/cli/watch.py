"""`kinfolk watch`: what happens to names, as one node sees it."""

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

Kind = Literal["added", "removed", "resync"]
Event = list[str]
"""Its kind; then, unless it is a resync, the name and the pid."""


def watch(
    pattern: Annotated[str, Parameter(show_default=False)] = "*",
    /,
    *,
    kind: Annotated[list[Kind] | None, Parameter(negative="")] = None,
    count: int | None = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Follow the names of the cluster, as one node knows them: those that are there, then every change, until Ctrl-C.

    A resync means that this command could not keep up: changes are missing, and the names that are there follow anew.

    Parameters
    ----------
    pattern
        A name, or the beginning of names followed by *. Default: all.
    kind
        Only events of this kind; of several if it is given several times.
    count
        End after so many events.
    """
    if not pattern or "*" in pattern[:-1]:
        raise exits.Usage(f"{pattern!r} is no pattern: give a name, or the beginning of names followed by *")
    if count is not None and count < 1:
        raise exits.Usage(f"--count {count}: it must be 1 or more")

    async def follow(node: Observer) -> None:
        left = count
        with _output(node.name, pattern, asking.json) as output:
            async with aclosing(_batches(node, pattern, asking.timeout)) as batches:
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


async def _batches(node: Observer, pattern: str, timeout: float) -> AsyncGenerator[list[Event]]:
    """The events as they come. The node answers at least every `WAIT` seconds, so that its end is noticed."""
    number = await node.call(["watch", pattern])
    while True:
        events: list[Event] | None = await node.call(["events", number, WAIT], timeout=WAIT + timeout)
        if events is None:  # forgotten, since this program was stopped for long
            number = await node.call(["watch", pattern])
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
            line = json.encode(dict(zip(("event", "name", "pid"), event, strict=False)))
            sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


class Lines:
    """Kind, name and pid, with tabs between. No escape sequence, tab or line end in a name gets through."""

    def show(self, events: Iterable[Event]) -> None:
        """Print them."""
        sys.stdout.writelines("\t".join(map(printable, event)) + "\n" for event in events)
        sys.stdout.flush()


class Row(NamedTuple):
    """A name on the screen."""

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
        self._there: dict[str, Row] = {}  # in the order of their changes
        self._gone: dict[str, Row] = {}
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
                self._there.clear()
                self._gone.clear()
                continue
            self._changes += 1
            name, pid = change
            row = Row(self._changes, name, pid, now, kind == "added")
            self._there.pop(name, None)
            self._gone.pop(name, None)
            (self._there if row.is_there else self._gone)[name] = row
        for name in list(islice(self._gone, max(0, len(self._gone) - _GONE))):
            del self._gone[name]
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
        status = f"{len(self._there)} names {self._what}, {self._changes} changes{resyncs}; Ctrl-C ends"
        return Group(table, Text(printable(status), "dim", no_wrap=True, overflow="ellipsis"))
