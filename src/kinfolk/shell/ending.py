"""The end of an event loop that was closed with a node on it.

A loop tells nobody that it is closed. But it drops its timers then, and of the one here nobody else holds the handle:
so it goes in the very step of the close. Nothing need ask before each message whether the loop is still there.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from weakref import ref

_EVERY = 86_400.0
"""Seconds after which the timer is set again: some loops take no longer ones."""


class LoopEnd:
    """Tells when a loop is closed.

    Args:
        loop: that is looked at.
        closed: called in the step of the close; must not raise.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, closed: Callable[[], None]) -> None:
        self._loop = loop
        self._closed = closed
        self._set()

    def cancel(self) -> None:
        """Look no longer."""
        timer = self._timer()
        if timer is not None:
            timer.cancel()

    def _set(self) -> None:
        # In a context of its own: else that of whoever starts the node is kept.
        self._timer = ref(self._loop.call_later(_EVERY, self._set, context=Context()), self._dropped)

    def _dropped(self, _: object) -> None:
        if self._loop.is_closed():  # else it was cancelled, or has just rung
            self._closed()
