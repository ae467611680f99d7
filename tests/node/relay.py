"""A way to a node that can be stalled: its name is the relay's port, and it listens elsewhere."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from kinfolk import Node
from tests.node.nodes import Nodes
from tests.system.chaos import Lane, Proxy
from tests.system.fleet import free_port


class Relay:
    """Whoever dials the node comes through here."""

    def __init__(self) -> None:
        port = free_port()
        self.target = f"127.0.0.1:{port}"
        self._there, self._back = Lane(), Lane()
        self._proxy = Proxy(self._there, self._back, port)

    async def __aenter__(self) -> Self:
        self._proxy.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._proxy.refuse()
        await self._proxy.reset()
        await asyncio.sleep(0)

    @property
    def accepted(self) -> int:
        """How many connections have come."""
        return self._proxy.accepted

    def name(self, word: str) -> str:
        """The name of the node behind it."""
        return f"{word}@127.0.0.1:{self._proxy.port}"

    def stall(self, *, there: bool = True, back: bool = True) -> None:
        """Nothing arrives any longer: neither what goes to the node, nor what comes from it."""
        if there:
            self._there.moving.clear()
        if back:
            self._back.moving.clear()

    def delay(self, seconds: float) -> None:
        """Everything takes so long, each way."""
        self._there.delay = self._back.delay = seconds

    def heal(self) -> None:
        """Everything moves, and everybody can connect."""
        self._proxy.resets = False
        self._proxy.open()
        self._there.moving.set()
        self._back.moving.set()

    async def cut(self, *, accept: bool = False) -> None:
        """Reset every connection, and refuse new ones; or accept them and reset them at once, as some forwarders do."""
        await self._proxy.refuse()
        await self._proxy.reset()
        if accept:
            self._proxy.resets = True
            self._proxy.open()

    async def drop(self) -> None:
        """Reset every connection."""
        await self._proxy.reset()


class Between:
    """Two nodes that are connected, each of which dials the other through a relay."""

    def __init__(self, first: Node, second: Node, relays: tuple[Relay, Relay]) -> None:
        self.nodes = [first, second]
        self._relays = relays

    def stall(self) -> None:
        """Nothing arrives at either from the other."""
        for relay in self._relays:
            relay.stall()

    def delay(self, seconds: float) -> None:
        """Everything between the two takes so long, each way."""
        for relay in self._relays:
            relay.delay(seconds)

    def heal(self) -> None:
        """Everything moves again."""
        for relay in self._relays:
            relay.heal()


@asynccontextmanager
async def between(nodes: Nodes, first: str, second: str, **settings: Any) -> AsyncGenerator[Between]:
    """Two nodes that can be parted."""
    async with Relay() as there, Relay() as back:
        one = await nodes.start(back.name(first), listen=back.target, **settings)
        other = await nodes.start(there.name(second), listen=there.target, **settings)
        await one.connect(other.name)
        yield Between(one, other, (there, back))
        await nodes.close()
