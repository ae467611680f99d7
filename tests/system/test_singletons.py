"""Singletons over several programs: the one that runs it crashes, is killed, or is cut off, again and again."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from tests.system.chaos import Network
from tests.system.fleet import Fleet, Worker, agreed, until

WORDS = ("ada", "bob", "carl")
HEARTBEAT = 0.2
DOWN_AFTER = 5 * HEARTBEAT
SLACK = 2.0
"""Seconds that two busy cores may add."""


class Run(NamedTuple):
    """Somebody ran it, from when to when."""

    word: str
    began: float
    ended: float


class Rounds:
    """A fleet whose chief is ended in one way or another, and the history of its runs."""

    def __init__(self, fleet: Fleet, network: Network) -> None:
        self.fleet = fleet
        self.network = network
        self.history = fleet.directory / "history"
        self.killed: list[tuple[str, float]] = []
        self.parted: list[tuple[float, float]] = []

    async def begin(self) -> None:
        """Start everybody."""
        workers = await self.fleet.mesh(*WORDS, heartbeat=HEARTBEAT)
        for worker in workers:
            await worker.ask("supervise_chief", history=str(self.history))

    @property
    def workers(self) -> list[Worker]:
        return [self.fleet.workers[word] for word in WORDS]

    async def settled(self, *not_as: str) -> tuple[Worker, str]:
        """Wait until one runs it, the others stand by, and all know; who, and its pid."""
        found = await until(partial(self._one_runs, not_as), "one runs")
        worker: Worker = self.fleet.workers[found.partition("@")[0]]
        return worker, str(found)

    async def _one_runs(self, not_as: Sequence[str]) -> str:
        trees = await asyncio.gather(*(worker.ask("tree") for worker in self.workers))
        states = sorted(child["state"] for (root,) in trees for child in root["children"])
        assert states == ["running", *["standby"] * (len(WORDS) - 1)], states
        pids = {child["pid"] for (root,) in trees for child in root["children"]} - {None}
        pids |= set(await asyncio.gather(*(worker.ask("whereis", name="chief") for worker in self.workers)))
        assert len(pids) == 1, pids
        pid: str = pids.pop()
        assert pid not in not_as, pid
        return pid

    async def crash(self) -> None:
        """It dies of an exception."""
        holder, pid = await self.settled()
        await holder.ask("send", target=pid, message="crash")
        await self.settled(pid)

    async def kill(self) -> None:
        """Its program is killed, and starts anew."""
        holder, pid = await self.settled()
        self.killed.append((holder.word, monotonic()))
        await holder.kill()
        others = [worker for worker in self.workers if worker is not holder]
        await until(partial(self._seen_by, others, pid), "another one runs", DOWN_AFTER + HEARTBEAT + SLACK)
        again = await self.fleet.start(holder.word, join=[others[0].word], heartbeat=HEARTBEAT)
        await again.ask("supervise_chief", history=str(self.history))
        await self.settled(pid)

    async def part(self) -> None:
        """Its node is cut off, until the others have one as well."""
        holder, pid = await self.settled()
        others = [worker for worker in self.workers if worker is not holder]
        began = monotonic()
        self.network.part([holder.word], [worker.word for worker in others])
        await until(partial(self._seen_by, others, pid), "another one runs", DOWN_AFTER + HEARTBEAT + SLACK)
        self.network.heal()
        await agreed(self.workers)
        await self.settled()
        self.parted.append((began, monotonic()))

    async def _seen_by(self, workers: Iterable[Worker], not_as: str) -> bool:
        return all([await worker.ask("whereis", name="chief") not in (None, not_as) for worker in workers])

    def runs(self) -> list[Run]:
        """Every run, as its code has written it down; of one that was killed, until then."""
        return read(self.history, self.killed)

    def check(self) -> None:
        """One run goes on; no two were at one time, except while they could not know of each other."""
        runs = self.runs()
        assert sum(run.ended == float("inf") for run in runs) == 1
        for one, other in combinations(runs, 2):
            together = max(one.began, other.began), min(one.ended, other.ended)
            assert together[0] >= together[1] or any(
                began <= together[0] and together[1] <= ended for began, ended in self.parted
            ), f"{one} and {other}"


def read(history: Path, killed: list[tuple[str, float]]) -> list[Run]:
    """The runs that a history tells of: lines of time, + or -, and word."""
    lines = [(line.split()[2], float(line.split()[0]), line.split()[1]) for line in history.read_text().splitlines()]
    events = sorted([*lines, *((word, at, "-") for word, at in killed)], key=lambda event: event[1])
    began: dict[str, float] = {}
    runs: list[Run] = []
    for word, at, sign in events:
        if sign == "+":
            assert word not in began, f"{word} runs it twice"
            began[word] = at
        elif word in began:
            runs.append(Run(word, began.pop(word), at))
    return [*runs, *(Run(word, at, float("inf")) for word, at in began.items())]


async def live_through(fleet: Fleet, count: int, seed: int) -> None:
    choose = random.Random(seed)
    fleet.expected_mishaps += ["crashed: LookupError", "Traceback", "LookupError: a chief was told to crash"]
    async with Network(fleet, WORDS) as network:
        rounds = Rounds(fleet, network)
        await rounds.begin()
        ways = [rounds.crash, rounds.kill, rounds.part]
        for number in range(count):
            await ways[number % 3 if number < 3 else choose.randrange(3)]()
        await rounds.settled()
        rounds.check()
        assert len(rounds.runs()) > count - len(rounds.parted), "each round ended a run and began one"
        for worker in rounds.workers:
            await worker.ask("stop_tree")
            assert (await worker.ask("left"))["supervisors"] == 0
            assert (await worker.ask("left"))["relations"] == 0


async def test_one_runs_whatever_ends_it(fleet: Fleet):
    await live_through(fleet, 3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_one_runs_through_a_hundred_rounds(fleet: Fleet):
    await live_through(fleet, 100, seed=2)


def test_the_check_finds_two_at_once(tmp_path: Path):
    history = tmp_path / "history"
    rounds = Rounds.__new__(Rounds)
    rounds.history, rounds.killed, rounds.parted = history, [], []
    history.write_text("1.0 + ada\n2.0 + bob\n2.5 - ada\n")
    with pytest.raises(AssertionError, match="Run"):
        rounds.check()
    rounds.parted = [(1.5, 2.6)]
    rounds.check()
    rounds.parted, rounds.killed = [], [("ada", 1.9)]
    rounds.check()
