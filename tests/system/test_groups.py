"""Groups across OS processes over TLS: who is in them, what they hear, and what a SIGKILL leaves of them."""

import asyncio
import signal
import time
from functools import partial

from tests.system.fleet import Fleet, Worker, until

WORDS = ("ada", "bob", "carl")


async def agree(workers: list[Worker], groups: dict[str, list[str]]) -> bool:
    found = await asyncio.gather(*(worker.ask("groups") for worker in workers))
    for worker, known in zip(workers, found, strict=True):
        assert known == groups, f"{worker} knows {known}"
    return True


async def heard(workers: dict[str, Worker], messages: list[object]) -> bool:
    for pid, worker in workers.items():
        seen = await worker.ask("seen", pid=pid)
        assert seen == messages, f"{pid} has heard {seen}"
    return True


async def test_all_nodes_know_all_members_and_a_killed_node_takes_exactly_its_own_along(fleet: Fleet):
    workers = await fleet.mesh(*WORDS)
    where: dict[str, Worker] = {}
    for worker in workers * 3:
        where[await worker.ask("join", group="room")] = worker
    bobs = [pid for pid, worker in where.items() if worker.word == "bob"]
    await workers[1].ask("join", group="bob's own", pid=bobs[0])
    await until(partial(agree, workers, {"room": sorted(where), "bob's own": bobs[:1]}), "all know all")
    await workers[0].ask("broadcast", group="room", message="one")
    await until(partial(heard, where, ["one"]), "everybody has heard")

    ada, bob, carl = workers
    await bob.kill()
    left = {pid: worker for pid, worker in where.items() if worker is not bob}
    await until(partial(agree, [ada, carl], {"room": sorted(left)}), "bob's members are gone")
    assert time.monotonic() - bob.killed_at < 1.0
    await carl.ask("broadcast", group="room", message="two")
    await until(partial(heard, left, ["one", "two"]), "those who are left have heard, once")
    assert (await carl.state()).counters.get("sends_to_lost_nodes", 0) == 0

    # Another start of the node has none of the members of the first.
    bob = await fleet.start("bob", join=["ada"])
    assert await bob.ask("groups") == {"room": sorted(left)}
    new = await bob.ask("join", group="room")
    await until(partial(agree, [ada, bob, carl], {"room": sorted([*left, new])}), "bob is back with one")
    await ada.ask("broadcast", group="room", message="three")
    await until(partial(heard, left, ["one", "two", "three"]), "those who were there have heard")
    await until(partial(heard, {new: bob}, ["three"]), "and who came")


async def test_who_was_cut_off_for_a_moment_is_back_with_who_came_and_went_meanwhile(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", down_after=1.0, heartbeat=0.2)
    stays, goes = [await bob.ask("join", group="room") for _ in range(2)]
    await until(partial(agree, [ada, bob], {"room": sorted([stays, goes])}), "both know both")
    ada.signal(signal.SIGSTOP)  # bob counts ada out, and ada finds the session closed when it wakes
    await until(partial(bob.has_lost, 1), "bob has lost ada")
    await bob.ask("leave", group="room", pid=goes)
    comes = await bob.ask("join", group="room")
    ada.signal(signal.SIGCONT)
    await until(partial(agree, [ada, bob], {"room": sorted([stays, comes])}), "they agree again")
    await ada.ask("broadcast", group="room", message="hi")
    await until(partial(heard, {stays: bob, comes: bob}, ["hi"]), "members have heard")
    assert await bob.ask("seen", pid=goes) == []
