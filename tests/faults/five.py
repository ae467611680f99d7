"""Five nodes, as every scenario has them, and what always has to hold whatever is done to them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tests.system.fleet import SLACK, Fleet, Raised, State, Worker, agreed, resident, states, until

H = 0.25
"""Seconds between two heartbeats."""
D = 5 * H
"""Seconds of silence after which a node is down."""
WORDS = ("ada", "bob", "carl", "dora", "eve")
"""The nodes 1 to 5."""
MIB = 1024 * 1024
GROWTH = 40 * MIB
"""Bytes by which a process may have grown in the end."""


class Five:
    """The nodes, connected, each with all others."""

    def __init__(self, fleet: Fleet, workers: list[Worker]) -> None:
        self.fleet = fleet
        self.workers = workers

    def __getitem__(self, number: int) -> Worker:
        """Node 1 to 5."""
        return self.workers[number - 1]

    def but(self, *numbers: int) -> list[Worker]:
        """All others."""
        return [worker for number, worker in enumerate(self.workers, 1) if number not in numbers]

    async def own_names(self) -> dict[str, str]:
        """Register a name on each node, with which it can be found; all of them."""
        return {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in self.workers}

    async def everywhere(self, name: str, *but: int) -> set[str | None]:
        """What the nodes resolve a name to, at this moment."""
        return set(await asyncio.gather(*(worker.ask("whereis", name=name) for worker in self.but(*but))))

    async def resolve(self, name: str, pid: str | None, heartbeats: float, *but: int) -> None:
        """Wait until all nodes do that."""

        async def they_do() -> bool:
            return await self.everywhere(name, *but) == {pid}

        await until(they_do, f"{name} is {pid} everywhere", heartbeats * H * SLACK)

    async def agree(self, names: dict[str, str], heartbeats: float) -> None:
        """Wait until all nodes are connected, know these names, and each name's process answers."""
        await agreed(self.workers, names, heartbeats * H * SLACK)
        await self.answer(names)

    async def answer(self, names: dict[str, str]) -> None:
        """Each name's process answers a call, from a node of its own choice."""
        answers = await asyncio.gather(
            *(
                self.workers[number % len(self.workers)].ask("call", target=name, request=["echo", number])
                for number, name in enumerate(names)
            )
        )
        assert answers == [[pid, number] for number, pid in enumerate(names.values())]

    async def lost(self, *numbers: int) -> list[int]:
        """How many peers each of these nodes has lost."""
        found = await states([self[number] for number in numbers])
        return [state.counters.get("peers_lost", 0) for state in found]


@contextmanager
def within(heartbeats: float, what: str) -> Generator[None]:
    """What is done in here takes no longer."""
    began = time.monotonic()
    yield
    took = (time.monotonic() - began) / H
    assert took <= heartbeats * SLACK, f"{what} took {took:.1f} heartbeats, and may take {heartbeats:g}"


@asynccontextmanager
async def five_nodes(fleet: Fleet, *, growth: int = GROWTH, **settings: Any) -> AsyncGenerator[Five]:
    """Start them; 2 to 5 join by 1 alone. In the end: one session a pair, bounded memory, no task left over.

    That no log has an exception is looked after by the fleet. `growth`: bytes that a process may have grown by then.
    """
    workers = list(await asyncio.gather(*map(fleet.enter, WORDS)))
    settings = {"heartbeat": H, **settings}
    await workers[0].ask("start", name=workers[0].name, join=[], **settings)
    join = [workers[0].name]
    with within(10, "the mesh"):
        await asyncio.gather(*(w.ask("start", name=w.name, join=join, **settings) for w in workers[1:]))
        await agreed(workers, {})
    five = Five(fleet, workers)
    await one_session_a_pair(five)
    sizes = {worker.pid: resident(worker) for worker in workers}
    yield five
    await one_session_a_pair(five)
    grown = {w.word: resident(w) - sizes[w.pid] for w in five.workers if w.pid in sizes}
    assert all(size < growth for size in grown.values()), f"they have grown by {grown}"
    for state in await states(five.workers):
        check_counters(state)
    assert await asyncio.gather(*(worker.ask("close") for worker in five.workers)) == [[]] * len(five.workers)


async def one_session_a_pair(five: Five) -> None:
    """Each node is connected with all others, once."""
    count = len(five.workers)

    def are_there() -> bool:
        return five.fleet.connections() == count * (count - 1) // 2

    await until(are_there, "there is one connection for each pair")


def check_counters(state: State) -> None:
    """Nothing has happened that never may."""
    for bad in ("protocol_errors", "registry_divergence_total"):
        assert state.counters.get(bad, 0) == 0, f"{state.name} has counted {bad}"


def taken(raised: object) -> str | None:
    """The holder that a NameTaken has named."""
    assert isinstance(raised, Raised) and raised.error == "NameTaken", raised
    return raised.holder


async def latencies(caller: Worker, target: str, over: asyncio.Event) -> list[float]:
    """Call until it is over; how long each call has taken, in order of length."""
    took: list[float] = []
    while not over.is_set():
        began = time.monotonic()
        await caller.ask("call", target=target, request=["echo", 1])
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.005)
    return sorted(took)


@asynccontextmanager
async def calls_undisturbed(caller: Worker, target: str, heartbeats: float = 1) -> AsyncGenerator[None]:
    """Of the calls that go on meanwhile, 99 in 100 are answered in so many heartbeats."""
    over = asyncio.Event()
    calling = asyncio.create_task(latencies(caller, target, over))
    try:
        yield
    finally:
        over.set()
        took = await calling
    slow = took[int(len(took) * 0.99)] / H
    assert slow < heartbeats * SLACK, f"one call in a hundred took {slow:.1f} heartbeats and more"
