"""Makes nodes for a test, all in one loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kinfolk import Call, NameLost, NameTaken, Node, Pid, Process
from kinfolk.cookie import Cookie, new_cookie

PATIENCE = 10.0
HEARTBEAT = 0.2


class Nodes:
    """The nodes of a test: with one cookie, quick to notice, joined with whom they are told."""

    def __init__(self) -> None:
        self.cookie = Cookie(new_cookie())
        self.all: list[Node] = []

    def make(self, word: str, *join: Node, **settings: Any) -> Node:
        """A node that has not started."""
        settings = {"cookie": self.cookie, "heartbeat": HEARTBEAT, "join": [node.name for node in join], **settings}
        node = Node(word if "@" in word else f"{word}@127.0.0.1:0", **settings)
        self.all.append(node)
        return node

    async def start(self, word: str, *join: Node, **settings: Any) -> Node:
        """A node that has started and joined."""
        node = self.make(word, *join, **settings)
        await node.start()
        return node

    async def mesh(self, *words: str, **settings: Any) -> list[Node]:
        """Nodes that are connected, each with all others."""
        first = await self.start(words[0], **settings)
        rest = await asyncio.gather(*(self.start(word, first, **settings) for word in words[1:]))
        nodes = [first, *rest]
        await until(lambda: all(len(node.peers()) == len(nodes) - 1 for node in nodes))
        return nodes

    async def close(self) -> None:
        """Close all of them."""
        await asyncio.gather(*(node.close() for node in self.all))
        self.all.clear()


async def until(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait until a condition holds; its value."""
    async with asyncio.timeout(within):
        while not (value := condition()):  # noqa: ASYNC110 - conditions of other nodes set no event
            await asyncio.sleep(0.005)
    return value


async def ended(awaitable: Awaitable[Any], within: float = PATIENCE) -> BaseException | Any:
    """What an awaitable comes to, be it an error."""
    return (await asyncio.wait_for(asyncio.gather(awaitable, return_exceptions=True), within))[0]


async def echo(me: Process) -> None:
    """Answers calls with what they said."""
    async for call in me.calls():
        call.reply(call.body)


async def idle(me: Process) -> None:
    """Never looks into its mailbox."""
    await asyncio.Event().wait()


async def collect(me: Process, into: list[Any]) -> None:
    """Remembers what it gets."""
    while True:
        message = await me.receive()
        match message:
            case NameLost() | NameTaken():
                into.append(type(message))
            case Call(body="return"):
                return
            case Call(body=body):
                into.append(body)  # and never answers
            case _:
                into.append(message)


def holders(nodes: list[Node], name: str) -> set[Pid | None]:
    """What the nodes resolve a name to."""
    return {node.names.whereis(name) for node in nodes}
