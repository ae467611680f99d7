"""What nodes of the tests start on each other."""

import asyncio
import os
from typing import Any

from kinfolk import Exit, Process, Request, Server
from tests.node import nodes as helpers
from tests.node.nodes import collect

constant = 5
beside = (os, collect)  # things that names may try to reach from here


class Work(Request[int], tag="work"):
    """Something to be done."""

    number: int


async def echo(me: Process, *prefix: object) -> None:
    """Answers with what it was started with, and what it was asked."""
    async for call in me.calls():
        call.reply([*prefix, call.body])


async def wait(me: Process, name: str = "") -> None:
    """Lives until it is ended; under a name of its node, if it is given one."""
    if name:
        me.node.names.local.register(name, me.pid)
    await asyncio.Event().wait()


async def trap(me: Process, name: str) -> None:
    """Remembers the exits that it traps, and tells who asks."""
    me.trap_exit = True
    me.node.names.local.register(name, me.pid)
    seen: list[Any] = []
    while True:
        message = await me.receive()
        if isinstance(message, Exit):
            seen.append([message.pid, str(message.reason)])
        else:
            message.reply(seen)


async def crash(me: Process, text: str) -> None:
    """Dies in its first step."""
    raise LookupError(text)


async def done(me: Process) -> None:
    """Has nothing to do."""


async def _private(me: Process) -> None:
    """Not for others."""


def plain(me: Process) -> None:
    """No process."""
    raise AssertionError("this must not be called on a peer's word")


class Shop:
    """What a server looks like from here."""

    async def init(self, start: int) -> None:
        """Takes one argument."""

    async def method(self) -> None:
        """Not at the top of a module."""

    @staticmethod
    async def inner(me: Process) -> None:
        """Likewise."""


class NoShop:
    """Without init."""


alias = helpers.echo


class Idle(Server):
    """Takes no notice of the ends of others."""

    async def ended(self, message: Exit) -> None:
        """Does nothing."""


class Waits(Server):
    """Its `init` waits until somebody opens its gate."""

    async def init(self) -> None:
        self.node.names.local.register("gate", self.me.pid)
        assert await self.me.receive(str) == "open"
