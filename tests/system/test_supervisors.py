"""Trees of processes over several programs, of which some die: everybody lives on, exactly once, and nothing leaks."""

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest

from tests.system.fleet import Fleet, Worker, until


async def leaves(workers: list[Worker]) -> list[tuple[Worker, str, str]]:
    """All that live: where, number and pid."""
    living = await asyncio.gather(*(worker.ask("leaves") for worker in workers))
    return [(worker, *leaf) for worker, found in zip(workers, living, strict=True) for leaf in found.items()]


async def check_tree(workers: list[Worker], numbers: set[str]) -> list[tuple[Worker, str, str]]:
    """Every leaf lives exactly once, where and as what its supervisor says."""
    found = await leaves(workers)
    counts = Counter(number for _, number, _ in found)
    assert counts.keys() == numbers, f"missing: {sorted(numbers - counts.keys())[:5]}"
    assert set(counts.values()) == {1}
    (root,) = await workers[0].ask("tree")
    told = {leaf["id"]: leaf["pid"] for branch in root["children"] for leaf in branch["children"]}
    assert told == {number: pid for _, number, pid in found}
    assert all(leaf["state"] == "running" for branch in root["children"] for leaf in branch["children"])
    return found


async def settled(workers: list[Worker], numbers: set[str]) -> list[tuple[Worker, str, str]]:
    """Wait until the tree is whole."""
    found: list[Any] = await until(lambda: check_tree(workers, numbers), "the tree is whole", within=30)
    return found


async def left(workers: list[Worker]) -> list[dict[str, int]]:
    return list(await asyncio.gather(*(worker.ask("left") for worker in workers)))


async def branch_of(worker: Worker, name: str) -> dict[str, Any]:
    (root,) = await worker.ask("tree")
    found: dict[str, Any] = next(branch for branch in root["children"] if branch["id"] == name)
    return found


async def live_through(fleet: Fleet, count: int, kills: int, seed: int) -> None:
    choose = random.Random(seed)
    fleet.expected_mishaps += ["crashed: LookupError", "Traceback", "gives up", "LookupError: a leaf was told to crash"]
    workers = ada, *_ = await fleet.mesh("ada", "bob", "carl", allow_spawn=["plants:leaf"])
    before = await left(workers)
    branches = [list(range(start, count, 10)) for start in range(10)]
    numbers = {"-1", *map(str, range(count))}
    await ada.ask("supervise_tree", branches=branches, nodes=[worker.name for worker in workers])
    found = await settled(workers, numbers)
    assert {worker for worker, _, _ in found} == set(workers), "they are spread over all nodes"
    grown = await left(workers)

    killed = 0
    while killed < kills:
        found = [leaf for leaf in await leaves(workers) if leaf[1] != "-1"]
        for worker, _, pid in choose.sample(found, 8):
            match choose.choice(["kill", "crash", "return"]):
                case "kill":
                    await choose.choice(workers).ask("kill", pid=pid)
                case word:
                    await worker.ask("send", target=pid, message=word)
        branch = await branch_of(ada, f"branch {choose.randrange(10)}")
        if branch["pid"] is not None:
            await ada.ask("kill", pid=branch["pid"])
        killed += 10
        await asyncio.sleep(choose.choice([0, 0, 0.05, 0.2]))
    await settled(workers, numbers)
    await until(lambda: check_left(workers, grown), "nothing has leaked")

    # The fragile branch takes two restarts; with the third it gives up, and the root starts it again.
    for deaths in range(1, 8):
        (old,) = (await branch_of(ada, "fragile"))["children"]
        await ada.ask("kill", pid=old["pid"])
        await until(partial(renewed, ada, old["pid"]), "the fragile leaf is back")
        assert (await branch_of(ada, "fragile"))["restarts"] == deaths // 3
    await ada.ask("stop_tree")
    assert await leaves(workers) == []
    await until(lambda: check_left(workers, before), "nothing is left over")


async def check_left(workers: list[Worker], expected: list[dict[str, int]]) -> bool:
    now = await left(workers)
    assert now == expected, f"{now}, and not {expected}"
    return True


async def renewed(worker: Worker, old: str) -> bool:
    children = (await branch_of(worker, "fragile")).get("children", [])
    return bool(children and children[0]["pid"] not in (None, old) and children[0]["state"] == "running")


@pytest.mark.slow
async def test_a_tree_over_three_nodes_survives_random_deaths(fleet: Fleet):
    await live_through(fleet, count=120, kills=30, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_tree_of_a_thousand_over_three_nodes_survives_two_hundred_deaths(fleet: Fleet):
    await live_through(fleet, count=1000, kills=200, seed=2)
