"""Deadlines by key: the one place where a kernel keeps what is to happen later."""

import heapq
from collections.abc import Hashable, Iterator


class Timers:
    """A set of keys, each due at one moment (seconds, any scale). Setting a key again moves it."""

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0

    def set(self, key: Hashable, when: float) -> None:
        """Make the key due at this moment."""
        self._count += 1
        self._due[key] = when, self._count
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 64 + 2 * len(self._due):
            # Cancelled keys stay in the heap until they surface; many short orders would pile up there.
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[:2]]
            heapq.heapify(self._heap)

    def cancel(self, key: Hashable) -> None:
        """Forget the key, if it is there."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """When the first key is due, None without any."""
        while self._heap:
            when, count, key = self._heap[0]
            if self._due.get(key) == (when, count):
                return when
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Iterator[tuple[Hashable, float]]:
        """Take out, in order, each key that is due by now, with the moment it was due."""
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            yield key, when

    def __contains__(self, key: Hashable) -> bool:
        return key in self._due
