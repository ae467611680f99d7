"""Wall clocks that are wrong: they have a say in who wins a conflict, and in nothing else."""

import asyncio

import pytest

from tests.system.fleet import Fleet, Raised, Worker, agreed, states

WORDS = ("ada", "bob", "carl")
HOURS = 3600.0
SINCE_1970 = 1_900_000_000.0
WILD = (5 * HOURS, -5 * HOURS, -2 * SINCE_1970, 30 * HOURS, 1e9, 1e12, 0.0)
"""Seconds by which a clock is wrong, one after the other: hours, before 1970, and past every stamp and creation."""


async def come_and_go(worker: Worker, rounds: int) -> None:
    """Register and give up names, one after the other."""
    for number in range(rounds):
        name = f"{worker}/{number % 3}"
        pid = await worker.ask("register", name=name)
        await worker.ask("unregister", name=name)
        await worker.ask("kill", pid=pid)


async def race(workers: list[Worker]) -> tuple[Worker, str]:
    """All want one name at once. Who has it, and for which process."""
    ends = await asyncio.gather(*(worker.attempt("register", name="leader") for worker in workers))
    winners = [(worker, pid) for worker, pid in zip(workers, ends, strict=True) if not isinstance(pid, Raised)]
    assert len(winners) == 1, ends
    assert all(end.error == "NameTaken" and end.holder == winners[0][1] for end in ends if isinstance(end, Raised))
    return winners[0]


async def test_a_clock_that_jumps_about_changes_nothing_but_who_wins(fleet: Fleet):
    workers = await fleet.mesh(*WORDS)
    ada, bob, carl = workers
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    for seconds in WILD:
        await bob.ask("shift_clock", seconds=seconds)
        await asyncio.gather(*(come_and_go(worker, 4) for worker in workers))
        winner, pid = await race(workers)
        assert await agreed(workers, {**names, "leader": pid}) == {**names, "leader": pid}
        await winner.ask("kill", pid=pid)
        await agreed(workers, names)
        for worker in (ada, carl):
            probe = await worker.ask("register", name=f"{worker}/probe")
            assert -60 < await worker.ask("stamped", name=f"{worker}/probe") < 120, "its stamps have run away"
            await worker.ask("kill", pid=probe)
    await agreed(workers, names)
    assert all(state.counters.get("peers_lost", 0) == 0 for state in await states(workers))


@pytest.mark.parametrize("shift", [-5 * HOURS, -2 * SINCE_1970, 1e12], ids=["5 h behind", "before 1970", "past all"])
async def test_a_node_that_restarts_with_a_wrong_clock_is_a_newer_start_of_itself(fleet: Fleet, shift: float):
    ada, bob = await fleet.mesh("ada", "bob")
    old = await bob.ask("register", name="bob/own")
    before = (await bob.state()).creation
    await bob.kill()
    bob = await fleet.enter("bob")
    await bob.ask("start", name=bob.name, join=[ada.name], shift=shift)
    assert (await bob.state()).creation > before
    new = await bob.ask("register", name="bob/own")
    await agreed([ada, bob], {"bob/own": new})
    raised = await ada.attempt("call", target=old, request=["echo", 1])
    assert isinstance(raised, Raised) and raised.error == "NoProcess"
    assert await ada.ask("call", target=new, request=["echo", 1]) == [new, 1]


async def test_clocks_that_are_hours_apart_share_one_table(fleet: Fleet):
    workers = await asyncio.gather(*map(fleet.enter, WORDS))
    for worker, hours in zip(workers, (0, -7, 7), strict=True):
        join = [workers[0].name] if worker is not workers[0] else []
        await worker.ask("start", name=worker.name, join=join, shift=hours * HOURS)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    await asyncio.gather(*(come_and_go(worker, 10) for worker in workers))
    _, leader = await race(list(workers))
    await agreed(workers, {**names, "leader": leader})
