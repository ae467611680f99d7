"""What clients in OS processes of their own see of names, while links break and a node dies, is what is promised."""

import asyncio
import random
import time
from collections.abc import Iterable
from typing import Any

import pytest

from tests.histories.checker import check
from tests.histories.history import (
    Apart,
    Bounds,
    Exit,
    Gone,
    History,
    Lookup,
    Lost,
    Register,
    Rest,
    Unregister,
)
from tests.system.chaos import Network
from tests.system.fleet import Fleet, Raised, Worker, agreed

WORDS = ("ada", "bob", "carl", "dora")
HEARTBEAT = 0.2
DOWN_AFTER = 1.0
BOUNDS = Bounds(hop=2.0, silence=DOWN_AFTER + 2 * HEARTBEAT + 3.0)
"""With what a machine takes that has much else to do."""
NAMES = ("x", "y")


class Recorder:
    """Gives orders to workers, and writes down what comes of them.

    Times are taken here, before an order is given and after its answer has come: what happens there lies in between.
    """

    def __init__(self, workers: list[Worker], rng: random.Random) -> None:
        self.workers = workers
        self.rng = rng
        self.history = History(BOUNDS)
        self.pids: dict[str, Worker] = {}

    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.runs]

    async def client(self, until: float) -> None:
        """One thing after the other."""
        while time.monotonic() < until:
            worker, name = self.rng.choice(self.alive()), self.rng.choice(NAMES)
            try:
                match self.rng.random():
                    case chance if chance < 0.4:
                        await self.register(worker, name)
                    case chance if chance < 0.6:
                        await self.unregister(worker, name)
                    case chance if chance < 0.8:
                        await self.kill(worker)
                    case _:
                        await self.look(self.alive())
            except (ConnectionError, TimeoutError):
                pass  # it was killed in the midst of that
            await asyncio.sleep(0.02 * self.rng.random())

    async def register(self, worker: Worker, name: str) -> None:
        pid = await worker.ask("spawn")
        self.pids[pid] = worker
        record = Register(name, pid, time.monotonic())
        self.history.add(record)
        outcome = await worker.attempt("register", name=name, pid=pid, on_lost="message")
        record.ended = time.monotonic()
        record.outcome = "failed" if isinstance(outcome, Raised) else "held"
        if isinstance(outcome, Raised):
            record.holder = outcome.holder
        await self.look(self.alive())

    async def unregister(self, worker: Worker, name: str) -> None:
        began = time.monotonic()
        try:
            pid, done = await worker.ask("give_up", name=name)
        except ConnectionError:
            # It was killed in the midst of that: it may have been anybody's.
            self.history.add(*(Unregister(name, pid, began, time.monotonic()) for pid in self.pids))
            return
        if pid is not None:
            self.history.add(Unregister(name, pid, began, time.monotonic(), done))
            await self.look(self.alive())

    async def kill(self, worker: Worker) -> None:
        pids = [pid for pid, home in self.pids.items() if home is worker]
        if pids:
            pid = self.rng.choice(pids)
            record = Exit(pid, time.monotonic())
            self.history.add(record)
            await worker.ask("kill", pid=pid)
            record.ended = time.monotonic()
            await self.look(self.alive())

    async def look(self, workers: Iterable[Worker]) -> None:
        """Each resolves each name."""
        await asyncio.gather(*(self._look(worker, name) for worker in workers for name in NAMES))

    async def _look(self, worker: Worker, name: str) -> None:
        began = time.monotonic()
        pid = await worker.ask("whereis", name=name)
        self.history.add(Lookup(worker.name, name, pid, began, time.monotonic()))

    async def rest(self) -> None:
        """All are connected, and nothing is under way: everybody has answered all that was asked."""
        alive = self.alive()
        await agreed(alive)
        at = time.monotonic()
        await self.look(alive)
        self.history.add(Rest(frozenset(worker.name for worker in alive), at, time.monotonic()))

    async def losses(self, workers: Iterable[Worker]) -> None:
        """Which of their processes were told that they have lost a name. To be asked once, at the end."""
        workers = list(workers)
        for pid, worker in list(self.pids.items()):
            if worker in workers:
                for what, name in await worker.ask("seen", pid=pid):
                    assert what == "NameLost", "and nothing else was told"
                    self.history.add(Lost(name, pid, time.monotonic()))

    # --- what goes wrong ---

    async def drop(self, network: Network, one: Worker, other: Worker) -> None:
        self.history.fault([one.name], [other.name], time.monotonic())
        await network.drop([one.word], [other.word])

    async def part(self, network: Network, some: list[Worker], seconds: float) -> None:
        others = [worker for worker in self.alive() if worker not in some]
        self.history.fault([worker.name for worker in some], [worker.name for worker in others], time.monotonic())
        network.part([worker.word for worker in some], [worker.word for worker in others])
        now = time.monotonic()
        apart = [Apart(frozenset((one.name, other.name)), now) for one in some for other in others]
        self.history.add(*apart)
        await asyncio.sleep(seconds)
        for pair in apart:
            pair.ended = time.monotonic()
        network.heal()

    async def die(self, worker: Worker) -> None:
        creation = (await worker.state()).creation
        await self.losses([worker])
        now = time.monotonic()
        self.history.fault([worker.name], [other.name for other in self.workers], now)
        self.history.add(Gone(f"{worker.name}/{creation:x}", now))
        await worker.kill()


async def run(fleet: Fleet, seed: int, seconds: float) -> list[Any]:
    rng = random.Random(seed)
    async with Network(fleet, WORDS) as network:
        workers = await fleet.mesh(*WORDS, heartbeat=HEARTBEAT, down_after=DOWN_AFTER)
        recorder = Recorder(workers, rng)
        await recorder.rest()

        async def faults() -> None:
            await asyncio.sleep(seconds / 6)
            await recorder.drop(network, *rng.sample(workers, 2))
            await asyncio.sleep(seconds / 6)
            await recorder.part(network, rng.sample(workers, 2), seconds / 3)
            await asyncio.sleep(seconds / 6)
            await recorder.die(rng.choice(workers))

        until = time.monotonic() + seconds
        await asyncio.gather(faults(), *(recorder.client(until) for _ in range(4)))
        await recorder.rest()
        until = time.monotonic() + seconds / 4  # at peace again
        await asyncio.gather(*(recorder.client(until) for _ in range(3)))
        await recorder.rest()
        await recorder.losses(recorder.alive())
    history = recorder.history
    held = [what for what in history.happened if isinstance(what, Register) and what.outcome == "held"]
    assert len(held) > 5 and sum(isinstance(what, Lookup) for what in history.happened) > 100
    violations = check(history)
    story = (str(what) for what in history.happened if not isinstance(what, Lookup))
    assert not violations, "\n".join([*violations, "", *story])
    return history.happened


@pytest.mark.slow
async def test_what_clients_in_several_processes_see_is_what_is_promised(fleet: Fleet):
    await run(fleet, 0, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nor_is_anything_else_seen_in_a_longer_time(fleet: Fleet, seed: int):
    await run(fleet, seed, 20.0)
