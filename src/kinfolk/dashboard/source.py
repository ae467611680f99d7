"""Whom the dashboard asks: a node of this program, or any other one through sessions of an observer."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from kinfolk.errors import CallFailed, NodeLost
from kinfolk.observer import Observer, came_of
from kinfolk.service import SERVICE_NAME

if TYPE_CHECKING:
    from kinfolk.node import Node

ANSWER = 5.0
"""Seconds in which an answer must come."""
_IDLE = 4
"""Sessions that are kept open for the next questions."""
_AT_ONCE = 12
"""Questions that are asked at a time, each in a session of its own; those of `_WAITING` do not count."""
_WAITING = frozenset({"events", "drain"})
"""What is answered when something has happened, which may take long."""


class Source(ABC):
    """Asks the service of one node (see `kinfolk.service`), and through it those of its peers."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the node."""

    @abstractmethod
    async def ask(self, request: Sequence[object], timeout: float = ANSWER) -> Any:
        """Ask. Several may at the same time.

        Raises:
            KinfolkError: it cannot be asked, or has refused.
        """

    async def act(self, request: Sequence[object], timeout: float = ANSWER) -> Any:
        """Ask for something to be done, and return what came of it; see `Observer.act`."""
        return came_of(await self.ask(request, timeout))

    async def at(self, node: str, request: Sequence[object], timeout: float = ANSWER) -> Any:
        """Ask a peer of the node, or the node itself."""
        if node == self.name:
            return await self.ask(request, timeout)
        return await self.act(["at", node, list(request)], timeout)

    async def close(self) -> None:  # noqa: B027 - most have nothing to end
        """Nobody asks any more."""


class Here(Source):
    """A node of this program, on the running loop."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    @property
    def name(self) -> str:
        """Of the node."""
        return self._node.name

    async def ask(self, request: Sequence[object], timeout: float = ANSWER) -> Any:
        """See `Source`."""
        return await self._node.call((SERVICE_NAME, self.name), list(request), timeout=timeout)


class Afar(Source):
    """A node that an observer asks. When the node has been restarted, sessions with it are opened anew.

    Args:
        observer: a session with the node; it stays the caller's, and is not used.
    """

    def __init__(self, observer: Observer) -> None:
        self._name = observer.name
        self._observer = observer
        self._idle: list[Observer] = []
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    @property
    def name(self) -> str:
        """Of the node."""
        return self._name

    async def ask(self, request: Sequence[object], timeout: float = ANSWER) -> Any:
        """See `Source`."""
        async with contextlib.nullcontext() if _waits(request) else self._asking:
            return await self._ask(request, timeout)

    async def _ask(self, request: Sequence[object], timeout: float) -> Any:
        while self._idle:
            try:
                return await self._through(self._idle.pop(), request, timeout)
            except NodeLost:
                pass  # the session had ended unseen; nothing that a dashboard says does harm if it is said twice
        return await self._through(await self._observer.another().open(), request, timeout)

    async def close(self) -> None:
        """End the sessions."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _through(self, session: Observer, request: Sequence[object], timeout: float) -> Any:
        usable = False
        try:
            answer = await session.call(list(request), timeout=timeout)
            usable = True
        except CallFailed:
            usable = True  # it is an answer
            raise
        finally:
            if usable and not self._closed and len(self._idle) < _IDLE:
                self._idle.append(session)
            else:
                await session.close()
        return answer


def _waits(request: Sequence[object]) -> bool:
    """Whether it is one of `_WAITING`, of the node itself or of a peer."""
    asked = cast("Sequence[object]", request[2]) if request[0] == "at" else request
    return asked[0] in _WAITING
