"""Who waits until a link is clear: let in one by one, in their order, before anybody who has not waited.

Whoever is let in acts in that very step. So nothing can come between the room and its use: no other sender, no
cancellation, no wakeup that gets lost.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Gate:
    """The queue before one link."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: OrderedDict[asyncio.Future[Any], Callable[[], None]] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    def wait(self, future: "asyncio.Future[Any]", action: Callable[[], None]) -> None:
        """Queue up.

        Args:
            future: as soon as it is done, by whomever, its owner waits no longer.
            action: what to do when it is its turn. What it raises becomes the future's exception.
        """
        self._queue[future] = action
        future.add_done_callback(lambda _: self._queue.pop(future, None))

    def let_in(self) -> bool:
        """Let in the next who still waits. Returns whether there was one."""
        while self._queue:
            future, action = self._queue.popitem(last=False)
            if future.done():
                continue
            try:
                action()
            except Exception as error:  # noqa: BLE001 - its owner's business
                future.set_exception(error)
            return True
        return False

    def close(self, end: Callable[["asyncio.Future[Any]"], None]) -> None:
        """Nobody is let in any more: end the futures of all who wait."""
        while self._queue:
            future, _ = self._queue.popitem(last=False)
            if not future.done():
                end(future)
