"""A member of the demo's cluster: a node that does what it is told, a line of JSON at a time, until its input ends."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import json

import kinfolk
from kinfolk import NameTaken, Node, Pid, Process


async def greeter(me: Process) -> None:
    """Answer those who greet, until somebody says bye."""
    async for call in me.calls():
        match call.body:
            case ["greet", who]:
                call.reply(f"hello {who}, I am {me.pid}")
            case _:
                call.reply("bye")
                return


class Member:
    """The orders that a member takes. Each returns what is answered."""

    node: Node

    async def ready(self) -> None:
        """Nothing: the program runs."""

    async def start(self, name: str, join: list[str]) -> str:
        """Start the node; its name, with the port it got."""
        self.word = name.partition("@")[0]
        self.node = await kinfolk.start(name, join=join)
        return self.node.name

    async def state(self) -> dict[str, Any]:
        """What the node knows: a `checks.State`."""
        names = {name: str(pid) for name, pid in self.node.names.snapshot().items()}
        return {"name": self.node.name, "peers": list(self.node.peers()), "names": names}

    async def register(self, name: str) -> str:
        """Spawn a greeter and give it this name; its pid."""
        pid = self.node.spawn(greeter)
        try:
            await self.node.names.register(name, pid)
        except NameTaken:
            self.node.kill(pid)
            raise
        return str(pid)

    async def unregister(self, name: str) -> None:
        """Give up a name."""
        await self.node.names.unregister(name)

    async def greet(self, name: str) -> object:
        """Look a name up and call who has it; the answer."""
        pid = self.node.names.whereis(name)
        return "nobody has the name" if pid is None else await self.node.call(pid, ["greet", self.word])

    async def dismiss(self, name: str) -> None:
        """Have the process with this name exit."""
        await self.node.call(name, ["bye"])

    async def call(self, pid: str, request: object) -> object:
        """Call a process by the text of its pid; the answer."""
        return await self.node.call(Pid.parse(pid), request)


async def obey() -> None:
    """Do what each line says, and answer with a line: a `checks.Reply`."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    member = Member()
    while line := await orders.readline():
        do, arguments = json.decode(line)
        order: Callable[..., Awaitable[Any]] = getattr(member, do)
        try:
            reply = {"value": await order(*arguments)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the story judges it
            value = str(error.holder) if isinstance(error, NameTaken) else None
            reply = {"error": type(error).__name__, "detail": str(error), "value": value}
        sys.stdout.write(json.encode(reply).decode() + "\n")
        sys.stdout.flush()
    if hasattr(member, "node"):
        await member.node.close()


if __name__ == "__main__":
    kinfolk.run(obey)
