"""Nodes are restarted one after the other while all others call a singleton by its name: it moves with its state."""

from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.system.fleet import Fleet, Worker, agreed, until

CLIENTS = 3


def runs(history: Path) -> list[tuple[float, float]]:
    """When the singleton began and stopped to do something, run by run; the last may still go on."""
    lines = [line.split() for line in history.read_text().splitlines()]
    begun = [(float(when), word) for when, sign, word in lines if sign == "+"]
    ended = [(float(when), word) for when, sign, word in lines if sign == "-"]
    assert [word for _, word in begun[: len(ended)]] == [word for _, word in ended]
    return [(start, end) for (start, _), (end, _) in zip(begun, ended, strict=False)]


async def stands_by(worker: Worker) -> bool:
    (tree,) = await worker.ask("tree")
    return tree["children"][0]["state"] in ("standby", "running")


async def is_busy(worker: Worker, before: int) -> bool:
    return len(await worker.ask("clock")) > before


@pytest.mark.parametrize(
    ("words", "rounds"),
    [
        (["ada", "bob", "carl"], 1),
        pytest.param(["ada", "bob", "carl", "dora", "emil"], 3, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
async def test_no_call_is_lost_or_done_twice_and_no_two_run(fleet: Fleet, words: list[str], rounds: int):
    history = fleet.directory / "clock"
    workers = {worker.word: worker for worker in await fleet.mesh(*words)}
    results: list[dict[str, Any]] = []

    async def stand_by(worker: Worker) -> None:
        await worker.ask("supervise_clock", history=str(history))
        await until(partial(stands_by, worker), f"{worker} stands by")

    async def restart(leaving: Worker, life: int) -> Worker:
        others = [worker for worker in workers.values() if worker is not leaving]
        await until(partial(is_busy, others[0], len(await others[0].ask("clock"))), "there is a load")
        results.append(await leaving.ask("ticked"))  # its own clients end with it; those of the others go on
        assert await leaving.ask("drain") is True
        await leaving.end()
        again = workers[leaving.word] = await fleet.start(leaving.word, join=[others[0].word])
        await agreed(workers.values())
        await again.ask("tick", clients=CLIENTS, prefix=f"{again.word}/{life}/")
        return again

    for worker in workers.values():
        await stand_by(worker)
        await worker.ask("tick", clients=CLIENTS, prefix=f"{worker.word}/0/")
    for life in range(1, rounds + 1):
        new: list[Worker] = []
        while len(new) < len(words):
            # Who has it goes next, and who is new stands by only before the last old one goes: it moves each time.
            (holder,) = {(await worker.ask("whereis", name="clock")) for worker in workers.values()}
            leaving = workers[holder.partition("@")[0]]
            assert leaving not in new
            if len(new) == len(words) - 1:
                for worker in new:
                    await stand_by(worker)
            new.append(await restart(leaving, life))
        await stand_by(new[-1])
    results.extend([await worker.ask("ticked") for worker in workers.values()])

    assert [each for result in results for each in result["unanswered"]] == []
    answered = Counter(each for result in results for each in result["answered"])
    done = Counter(await workers[words[0]].ask("clock"))
    assert done == answered and set(done.values()) == {1}, (done - answered, answered - done)
    assert len(done) > 20 * rounds * len(words)
    spans = runs(history)
    assert len(spans) == rounds * len(words), "it has moved with each restart"
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "two have run at once"
