"""What commands print: a table on a terminal, tab-separated lines in a pipe, JSON when asked."""

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from msgspec import json

from kinfolk.wire.handshake import printable

_LONG = 1000
"""Rows beyond which a table is no pleasure: neither to lay out nor to look at."""

_WIDE = 10_000
"""Letters of the widest table that is not folded."""


class Progress:
    """Tells a human, on stderr, how far long work has come; the line is gone when the work is done.

    Nothing is told of what takes no longer than `SOON`, or if stderr is no terminal.

    Args:
        what: is counted.
    """

    SOON = 0.5  # seconds

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._write("")

    def at(self, count: int) -> None:
        """So many are done."""
        if time.monotonic() - self._begun < self.SOON or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        self._is_shown = True
        self._write(f"{count:,} {self._what} ...")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str, *, prose: bool = False) -> None:
    """Print rows. What names contain is made harmless: no escape sequence, tab or line end gets through.

    Args:
        columns: their titles, for a table.
        empty: what to tell a human in place of an empty table.
        prose: whether cells are sentences, which are folded to fit a terminal. Names and pids are to be copied whole.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if len(rows) > _LONG or not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if prose else _WIDE)
    if not rows:
        console.print(Text(empty, style="dim"))
        return
    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", style="" if number else "cyan")
    for row in rows:
        table.add_row(*map(Text, row))  # a Text, so that brackets in a name are no markup
    console.print(table)


def show_json(value: object) -> None:
    """Print one JSON document."""
    print(json.format(json.encode(value), indent=2).decode())
