"""The screen of `kinfolk top`. Needs the extra ``kinfolk[tui]``."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, cast

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from kinfolk.cli import exits
from kinfolk.cli.top import SORTS, Look, Sort, Wanted, in_order, look, process
from kinfolk.errors import KinfolkError
from kinfolk.ids import Pid
from kinfolk.observer import Observer
from kinfolk.wire.handshake import printable

_CALM = 10
"""A look that took so long is followed by a pause that is so many times as long: who is slow is asked less often."""
_REDIAL = (0.5, 1.0, 2.0, 5.0)
"""Seconds between the attempts to reach a node that was lost; the last again and again."""
_TITLES = {"waiting": "MAILBOX", "received": "MESSAGES", "age": "AGE", "name": "NAME", "node": "NODE"}
_NODES = ("NODE", "STATE", "PROCESSES", "MAILBOXES", "NAMES")


class Rows(DataTable[Text]):
    """A table whose rows can be chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Info")]

    def fill(self, rows: dict[str, Sequence[str]]) -> None:
        """Put other rows in the place of those that are there. The cursor stays on the row with its key."""
        keys = list(self.rows)
        chosen = keys[self.cursor_row].value if 0 <= self.cursor_row < len(keys) else None
        place = self.scroll_y
        self.clear()
        for key, cells in rows.items():
            self.add_row(*(Text(printable(cell)) for cell in cells), key=key)
        if chosen in rows:
            self.move_cursor(row=self.get_row_index(chosen), scroll=False)
        self.scroll_to(y=place, animate=False)


class Live(App[int]):
    """Looks again and again, and shows it.

    Args:
        node: whom to ask; its session is open.
        wanted: what to look at, to begin with.
        seen: the first look.
        every: seconds between two looks.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #status { height: 1; text-style: bold; }
    #nodes { height: auto; max-height: 30%; }
    #processes { height: 1fr; }
    #about { height: auto; max-height: 40%; border-top: solid; display: none; }
    #filter { dock: bottom; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("p", "pause", "Pause"),
        Binding("m", "sort('waiting')", "by Mailbox"),
        Binding("r", "sort('received')", "by Received"),
        Binding("a", "sort('age')", "by Age"),
        Binding("n", "sort('name')", "by Name"),
        Binding("o", "sort('node')", "by nOde"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave", "Back"),
    ]

    def __init__(self, node: Observer, wanted: Wanted, seen: Look, every: float) -> None:
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)  # only then it sets no colour at all
        self._node = node
        self._wanted = wanted
        self._seen = seen
        self._every = every
        self._paused = False
        self._trouble = ""
        self._chosen: tuple[str, str] | None = None  # the node and the pid of the process that is told of
        self._again = asyncio.Event()

    async def follow(self) -> int:
        """Run until the user, or a signal, ends it. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit, 128 + number)
        code = await self.run_async()
        await self._node.close()
        return self.return_code or code or exits.YES

    def compose(self) -> ComposeResult:
        """The screen, from top to bottom."""
        yield Static(id="status", markup=False)
        yield Rows(id="nodes", cursor_type="row")
        yield Rows(id="processes", cursor_type="row")
        yield Static(id="about", markup=False)
        yield Input(placeholder="text in a name, in what runs, or in the node's name", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Show the first look, and go on looking."""
        self.query_one("#nodes", Rows).add_columns(*_NODES)
        self.query_one("#processes", Rows).focus()
        self._show()
        self.run_worker(self._follow(), name="look")

    # --- looking ---

    async def _follow(self) -> None:
        took = self._seen.took
        while True:
            await self._wait(max(self._every, _CALM * took))
            if self._paused:
                continue
            try:
                self._seen = await look(self._node, self._wanted)
                took = self._seen.took
                await self._tell()
            except KinfolkError as error:
                await self._redial(error)
            self._show()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()
        self._again.clear()

    async def _redial(self, error: KinfolkError) -> None:
        """The session is lost: say so, and open another, however long that takes."""
        attempt = 0
        while True:
            await self._node.close()
            pause = _REDIAL[min(attempt, len(_REDIAL) - 1)]
            self._trouble = f"LOST: {exits.line_of(error)}; dials again every {pause:g} s"
            self._show()
            await asyncio.sleep(pause)
            attempt += 1
            try:
                self._node = await self._node.another().open()
            except KinfolkError as failed:
                error = failed
            else:
                self._trouble = ""
                self._again.set()
                return

    async def _tell(self) -> None:
        """Show what there is to tell of the process that was chosen."""
        about = self.query_one("#about", Static)
        about.display = self._chosen is not None
        if self._chosen is None:
            return
        name, pid = self._chosen
        try:
            lines = _lines(pid, await process(self._node, name, pid))
        except KinfolkError as error:
            if name == self._node.name:
                raise
            lines = [f"no answer: {exits.line_of(error)}"]  # of a peer; our own session would fail at the next look
        if self._chosen == (name, pid):
            about.update("\n".join(map(printable, lines)))

    # --- showing ---

    def _show(self) -> None:
        sort = self._wanted.sort
        processes = in_order(self._seen.processes, sort)
        marks = {word: f"{title} v" if word == sort else title for word, title in _TITLES.items()}
        table = self.query_one("#processes", Rows)
        titles = [marks["name"], "RUNS", marks["waiting"], marks["received"], marks["age"], marks["node"], "PID"]
        if [str(column.label) for column in table.columns.values()] != titles:
            table.clear(columns=True)
            table.add_columns(*titles)
        table.fill({row["pid"]: _cells(row) for row in processes})
        self.query_one("#nodes", Rows).fill({row["node"]: _node_cells(row) for row in self._seen.nodes})
        self.query_one("#status", Static).update(printable(self._status(len(processes))))

    def _status(self, shown: int) -> str:
        if self._trouble:
            return self._trouble
        there = [row for row in self._seen.nodes if "processes" in row]
        every, matching = (sum(row[word] for row in there) for word in ("processes", "matching"))
        found = f", {matching} match {self._wanted.pattern!r}" if self._wanted.pattern else ""
        clock = time.strftime("%H:%M:%S")
        state = "PAUSED" if self._paused else f"every {self._every:g} s"
        nodes = f"{clock} {self._node.name}: {len(self._seen.nodes)} nodes"
        return f"{nodes}, {every} processes{found}, {shown} shown; {state}"

    # --- keys ---

    def action_sort(self, sort: Sort) -> None:
        """Sort by this."""
        assert sort in SORTS, "the bindings name no other"
        self._wanted = self._wanted._replace(sort=sort)
        self._show()
        self._again.set()

    def action_pause(self) -> None:
        """Look no more, or go on looking."""
        self._paused = not self._paused
        self._show()
        self._again.set()

    def action_filter(self) -> None:
        """Let the user write what to look for."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.value = self._wanted.pattern
        field.focus()

    def action_leave(self) -> None:
        """Leave the filter, or the process that is told of."""
        self._leave_filter()
        self._chosen = None
        self.query_one("#about", Static).display = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Look for what was written."""
        self._wanted = self._wanted._replace(pattern=event.value)
        self._leave_filter()
        self._again.set()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one("#processes", Rows).focus()

    async def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Tell more of a process; of a node, show its processes alone."""
        key = str(event.row_key.value)
        if self.query_one("#nodes", Rows).has_focus:
            self._wanted = self._wanted._replace(pattern=key)
        else:
            self._chosen = Pid.parse(key).node, key
        self._again.set()


def _cells(row: dict[str, Any]) -> list[str]:
    age = str(timedelta(seconds=int(row["age"])))
    counts = [str(row["waiting"]), str(row["received"])]
    return [" ".join(row["names"]), row["runs"], *counts, age, row["node"], row["pid"]]


def _node_cells(row: dict[str, Any]) -> list[str]:
    return [row["node"], row["state"], *(str(row.get(word, "")) for word in ("processes", "waiting", "names"))]


def _lines(pid: str, told: dict[str, Any] | None) -> list[str]:
    return [f"{pid} has ended"] if told is None else [f"{word}: {_text(value)}" for word, value in told.items()]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return " ".join(map(str, cast("list[object]", value))) or "-"
    return "-" if value is None else str(value)
