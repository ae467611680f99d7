"""What workers supervise."""

import os
import time
from collections.abc import Sequence

from kinfolk import Child, Process, Reason, Request, Server, Supervisor
from kinfolk.core.restarts import Strategy

LEAF = "leaf/"


async def leaf(me: Process, number: int) -> None:
    """Lives under a name of its node, so that it would die were there two of it."""
    me.node.names.local.register(f"{LEAF}{number}", me.pid)
    if await me.receive() == "crash":
        raise LookupError("a leaf was told to crash")


def tree(branches: Sequence[Sequence[int]], nodes: Sequence[str]) -> list[Child]:
    """A branch for each row of numbers, with a leaf for each, on one node after the other; and a fragile one."""
    strategies: tuple[Strategy, ...] = ("one_for_one", "one_for_one", "rest_for_one")
    found: list[Child] = []
    for place, numbers in enumerate(branches):
        leaves = [Child(leaf, number, id=f"{number}", on=nodes[number % len(nodes)]) for number in numbers]
        branch = Supervisor(leaves, strategy=strategies[place % len(strategies)], intensity=10_000)
        found.append(Child(branch, id=f"branch {place}"))
    fragile = Supervisor([Child(leaf, -1, id="-1")], intensity=2, period=600)
    return [*found, Child(fragile, id="fragile")]


async def chief(me: Process, history: str) -> None:
    """Writes into a file where it runs from when to when; every line is there even if it is killed just after."""
    word = me.node.name.partition("@")[0]
    file = os.open(history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{time.monotonic()} + {word}\n".encode())
    try:
        if await me.receive() == "crash":
            raise LookupError("a chief was told to crash")
    finally:
        os.write(file, f"{time.monotonic()} - {word}\n".encode())
        os.close(file)


class Tick(Request[str], tag="tick"):
    """Something to be done once."""

    what: str


class Ticked(Request[list[str]], tag="ticked"):
    """All that has been done, in its order."""


class Clock(Server):
    """Does what it is told, and hands on what it has done. Each run writes down, in a file, when it does something.

    A line of the file is a time, a sign and a node: ``+`` for the first thing that a run does, ``-`` for when it stops.
    """

    async def init(self, history: str) -> None:
        self.done: list[str] = []
        self.file = os.open(history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.runs = False

    async def tick(self, message: Tick) -> str:
        self._note("+")
        self.done.append(message.what)
        return message.what

    async def ticked(self, message: Ticked) -> list[str]:
        self._note("+")
        return self.done

    async def hand_over(self) -> list[str]:
        self._note("-")
        return self.done

    async def take_over(self, state: list[str]) -> None:
        self.done += state

    async def terminate(self, reason: Reason) -> None:
        self._note("-")
        os.close(self.file)

    def _note(self, sign: str) -> None:
        if self.runs != (sign == "+"):
            self.runs = not self.runs
            os.write(self.file, f"{time.monotonic()} {sign} {self.node.name.partition('@')[0]}\n".encode())
