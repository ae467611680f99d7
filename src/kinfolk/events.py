"""A watch: what is in a table of the node, then every change of it, in order.

`Watch` knows nothing of names or groups: a table has rows (key, pid), a change adds or removes one. Who lags too far
behind gets one event with the whole table instead, never an unbounded queue.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from kinfolk.ids import Pid

E = TypeVar("E")
Row = tuple[str, Pid]

_SLICE = 5000  # rows that a watch looks at before others get their turn: a few milliseconds


class Watch(ABC, Generic[E]):
    """The async iterator that `watch` returns. `close()` ends it; so does dropping it.

    Args:
        pattern: a key, or a prefix followed by ``*``.
        max_events: how far the watcher may lag behind. Beyond, waiting events are replaced by the table.

    Raises:
        ValueError: not a pattern.
    """

    def __init__(self, pattern: str, max_events: int) -> None:
        if not pattern or "*" in pattern[:-1]:
            raise ValueError(f"pattern {pattern!r}: give a name, or a prefix followed by the only wildcard, '*'")
        self._prefix, self._any = (pattern[:-1], True) if pattern.endswith("*") else (pattern, False)
        self._max_events = max_events
        self._rows = self._table()  # what is there comes first
        self._looked = 0  # at so many rows in this turn of the loop
        self._gathered: list[Row] | None = None  # the rows of a resync, as far as they have been looked at
        self._events: deque[E] = deque()
        self._lags = False
        self._future: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while True:
            if self._lags:
                # The table of this moment: between two inputs of the kernel it fits the changes that follow. In the
                # midst of one, when `changed` is called, it may be ahead of them.
                self._resync()
            row = await self._next_row()
            if self._lags:
                continue
            if row is not None:
                return self._added(row)
            if self._gathered is not None:
                rows, self._gathered = self._gathered, None
                return self._resynced(rows)
            if self._events:
                return self._events.popleft()
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            if self._future is not None:
                raise RuntimeError("two tasks wait for one watch: give each a watch of its own")
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._forget()
        self._wake()

    def fail(self, error: Exception) -> None:
        """Raise this once everything that happened before has been seen."""
        if self._lags:
            self._resync()
        self._error = error
        self._wake()

    # --- for the table's own kind of watch ---

    @abstractmethod
    def _table(self) -> Iterator[Row]:
        """The rows as they are now, copied at once, which is quick; they are looked at bit by bit, which is not.

        With a pattern that is a prefix they need not match.
        """

    @abstractmethod
    def _added(self, row: Row) -> E:
        """The event for a row that was there at first."""

    @abstractmethod
    def _resynced(self, rows: list[Row]) -> E:
        """The event for one who lags: the table as it is."""

    def _take_in(self, key: str, change: E) -> None:
        """The table has changed at this key."""
        if self._matches(key):
            self._append(change)

    def _append(self, change: E) -> None:
        """Something has happened that whoever watches is to see."""
        if self._closed or self._lags:
            return
        if len(self._events) >= self._max_events:
            self._forget()
            self._lags = True
        else:
            self._events.append(change)
        self._wake()

    # --- inside ---

    def _forget(self) -> None:
        self._rows, self._gathered, self._lags = iter(()), None, False
        self._events.clear()

    def _resync(self) -> None:
        """Begin to gather a resync: of the table as it is now, whatever happens until it has been gathered."""
        self._rows, self._gathered, self._lags = self._table(), [], False

    async def _next_row(self) -> Row | None:
        """The next row that matches, unless rows are gathered. None at the end, or when the watcher lags again."""
        while True:
            if self._looked >= _SLICE:
                self._looked = 0
                await asyncio.sleep(0)
            row = None if self._lags else next(self._rows, None)
            if row is None:
                return None
            self._looked += 1
            if not self._matches(row[0]):
                continue
            if self._gathered is None:
                return row
            self._gathered.append(row)

    def _matches(self, key: str) -> bool:
        return key.startswith(self._prefix) if self._any else key == self._prefix

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
