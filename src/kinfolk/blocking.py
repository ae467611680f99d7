"""`node.blocking`: a node for the other threads of its program. Each method blocks its thread until it is done."""

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kinfolk.effects import OnLost
from kinfolk.errors import NodeClosed
from kinfolk.ids import Pid
from kinfolk.messages import Replies
from kinfolk.registry import Registration
from kinfolk.shell.dataplane import Target

if TYPE_CHECKING:
    from kinfolk.node import Node

T = TypeVar("T")
R = TypeVar("R")

_LOOK = 0.5  # seconds between two looks at whether the loop has ended


class Blocking:
    """What other threads may do with a node. Arguments, results and errors are those of the node's own methods.

    On the thread of the node's loop each raises RuntimeError: it would wait for itself.
    """

    def __init__(self, node: "Node", loop: Callable[[], asyncio.AbstractEventLoop | None]) -> None:
        self._node = node
        self._loop = loop

    def send(self, target: Target, message: object) -> None:
        """As `Node.send`."""

        async def send() -> None:
            self._node.send(target, message)

        self._run(send)

    def send_when_clear(self, target: Target, message: object, *, timeout: float | None = None) -> None:
        """As `Node.send_when_clear`."""
        self._run(lambda: self._node.send_when_clear(target, message, timeout=timeout))

    @overload
    def call(self, target: Target, request: Replies[R], *, timeout: float | None = 5.0) -> R: ...
    @overload
    def call(self, target: Target, request: object, *, timeout: float | None = 5.0) -> Any: ...
    def call(self, target: Target, request: object, *, timeout: float | None = 5.0) -> Any:
        """As `Node.call`."""
        return self._run(lambda: self._node.call(target, request, timeout=timeout))

    def register(self, name: str, pid: Pid, *, timeout: float | None = None, on_lost: OnLost = "exit") -> Registration:
        """As `Names.register`."""
        return self._run(lambda: self._node.names.register(name, pid, timeout=timeout, on_lost=on_lost))

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise NodeClosed(f"{self._node!r} is not running")
        if self._node.is_own_thread(threading.get_ident()):
            raise RuntimeError("this is the thread of the node's loop: await the node's own method here")
        work = make()
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # closed since we looked
            work.close()
            raise NodeClosed(f"{self._node!r} has ended with its loop") from None
        # A loop that ends does not tell: it drops what it was given too late.
        while not concurrent.futures.wait([future], timeout=_LOOK).done:
            if loop.is_closed() and not future.done():
                if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                    work.close()
                raise NodeClosed(f"{self._node!r} has ended with its loop before this was done")
        return future.result()
