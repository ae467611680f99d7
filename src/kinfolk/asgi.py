"""A node within a web application: it starts with it, and leaves before the server ends.

A server that is told to end (uvicorn, by SIGTERM) takes no new connection, and waits for what is under way: a stream to
a browser, which has no end of its own, among it. The node would be told after that. `lifespan` turns it around: the
node leaves first, while the server still serves; its processes end, the streams that they feed end with them; and then
the server is told. So it is when somebody else lets the node leave.

    serving  -- SIGTERM, SIGINT -->  draining  -- the node has closed -->  the server gets that signal
    serving  -- the node is drained or closed -->  the server gets SIGTERM
    serving  -- the application ends -->  draining
    draining  -- another signal -->  the server gets it at once
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from kinfolk.logs import fields
from kinfolk.node import Node

_log = logging.getLogger("kinfolk")

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def lifespan(node: Node, *then: Callable[[], Awaitable[object]]) -> AsyncGenerator[Node]:
    """Start a node for the lifespan of an application of FastAPI, Starlette or the like, and let it leave at the end.

    ::

        @asynccontextmanager
        async def lifespan(web: FastAPI) -> AsyncGenerator[None]:
            async with kinfolk.asgi.lifespan(kinfolk.Node()) as node:
                web.state.node = node
                yield

    Args:
        node: one that has not started. Make it where the application is made, not where a module is imported that may
            then be forked.
        then: called once the node has closed, and before the server is told: what ends streams that no process feeds,
            as in ``lifespan(node, dashboard.close)``. What one of them raises is logged, and the next is called.

    Raises:
        Exception: what `Node.start` raises.

    Outside of the program's main thread no signal is taken, and none given.
    """
    async with node:
        signals = _Signals(node)
        farewell = asyncio.create_task(_farewell(node, then, signals), name=f"kinfolk: {node.name} in an application")
        try:
            yield node
            signals.application_ends()
            _ = await node.drain()
        finally:
            signals.application_ends()
            await node.close()
            await farewell


async def _farewell(node: Node, then: Sequence[Callable[[], Awaitable[object]]], signals: "_Signals") -> None:
    await node.wait_closed()
    try:
        for call in then:
            try:
                await call()
            except Exception as error:  # noqa: BLE001 - it is of the application, and logged
                about = fields(node.name, reason=repr(error))
                _log.exception("what an application does once its node has closed has failed", extra=about)
    finally:
        signals.node_has_left()


class _Signals:
    """The signals that end a program, taken from the server for a while: at first they are for the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._last = signal.SIGTERM
        self._serving = threading.current_thread() is threading.main_thread()
        self._of_the_server: list[tuple[int, Any]] = []
        if self._serving:
            self._of_the_server = [(number, signal.signal(number, self._told)) for number in _ENDINGS]

    def _told(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._leave, signal.Signals(number))

    def _leave(self, number: signal.Signals) -> None:
        self._last = number
        self._give_back()
        if self._node.draining is None:
            _ = self._node.start_draining()

    def _give_back(self) -> None:
        for number, handler in self._of_the_server:
            signal.signal(number, handler)
        self._of_the_server.clear()

    def node_has_left(self) -> None:
        """So the server is told as well, unless it ends already."""
        self._give_back()
        if self._serving:
            signal.raise_signal(self._last)

    def application_ends(self) -> None:
        """The server ends already."""
        self._serving = False
        self._give_back()
