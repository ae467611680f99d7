"""Loops that stand still in a long computation: their nodes are stalled, and not dead."""

import asyncio
import signal
import time
from functools import partial

import pytest

from tests.system.fleet import Fleet, Worker, agreed, always, states, until

HEARTBEAT = 0.2
DOWN_AFTER = 5 * HEARTBEAT


async def is_stalled(worker: Worker, other: Worker) -> bool:
    return other.name in (await worker.state()).stalled


async def none_is_stalled(workers: list[Worker]) -> bool:
    return not any(state.stalled for state in await states(workers))


async def check_kept(workers: list[Worker], other: Worker, names: dict[str, str]) -> None:
    """At this moment, these have the session with the other one, know that it is stalled, and know these names."""
    for state in await states(workers):
        assert other.name in state.peers and state.stalled.keys() == {other.name}
        assert state.names == names


async def losses(workers: list[Worker]) -> list[int]:
    return [state.counters.get("peers_lost", 0) for state in await states(workers)]


@pytest.mark.slow
async def test_a_node_that_computes_for_twice_the_time_keeps_names_links_and_sessions(fleet: Fleet):
    workers = ada, bob, carl = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT, stall_after=2 * HEARTBEAT)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    await agreed(workers, names)
    watcher = await ada.ask("spawn")
    await ada.ask("act", pid=watcher, verb="watch stalls", what=[bob.name])
    await ada.ask("act", pid=watcher, verb="monitor", what=[names["bob/own"]])
    await bob.ask("compute", seconds=2 * DOWN_AFTER)
    began = time.monotonic()
    await until(partial(is_stalled, ada, bob), "ada knows that bob is stalled")
    await until(partial(is_stalled, carl, bob), "carl knows that bob is stalled")
    assert time.monotonic() - began < 2 * DOWN_AFTER, "while it is"
    call = asyncio.create_task(ada.ask("call", target="bob/own", request=["echo", 1]))
    for number in range(20):
        await ada.ask("send", target="bob/own", message=number)
    await always(partial(check_kept, [ada, carl], bob, names), DOWN_AFTER / 2)
    assert await call == [names["bob/own"], 1], "it was answered late"
    await until(partial(none_is_stalled, workers), "bob goes on")
    assert await losses(workers) == [0, 0, 0]
    await agreed(workers, names)
    assert await bob.ask("seen", pid=names["bob/own"]) == list(range(20)), "everything has come, in order"
    seen = [["PeerUp", bob.name], ["PeerStalled", bob.name], ["PeerResumed", bob.name]]
    assert await ada.ask("seen", pid=watcher) == seen
    assert (await ada.state()).counters["peer_stalls"] == 1
    assert [line for line in ada.log() if f"{bob.name} is stalled: its event loop stands still" in line]
    assert [line for line in ada.log() if f"{bob.name} goes on" in line]
    (own,) = [line for line in bob.log() if "the event loop stood still for" in line]
    assert "asyncio.to_thread" in own


async def test_a_stall_of_half_the_time_is_reported_and_drops_nothing(fleet: Fleet):
    workers = ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT)
    names = {"db": await bob.ask("register", name="db")}
    await bob.ask("block", seconds=DOWN_AFTER / 2)
    await until(partial(is_stalled, ada, bob), "it is reported")
    await until(partial(none_is_stalled, workers), "and over")
    await agreed(workers, names)
    assert await losses(workers) == [0, 0]


@pytest.mark.slow
async def test_a_stall_beyond_the_limit_costs_the_session_and_all_is_whole_again_after_it(fleet: Fleet):
    workers = ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT, stalled_limit=DOWN_AFTER)
    names = {"db": await bob.ask("register", name="db")}
    await agreed(workers, names)
    await bob.ask("block", seconds=3 * DOWN_AFTER)
    await until(partial(ada.has_lost, 1), "ada gives bob up")
    (line,) = [line for line in ada.log() if f"{bob.name} is down" in line]
    assert "its event loop has stood still for" in line and "longer than stalled_limit" in line
    assert await ada.ask("whereis", name="db") is None
    await agreed(workers, names)
    assert [line for line in bob.log() if "is down: heard nothing" in line] == [], "it has stood still itself"
    assert "it ended the session (stalled)" in "\n".join(bob.log())


@pytest.mark.slow
async def test_a_node_that_is_stopped_in_the_middle_of_a_stall_is_dead_in_the_usual_time(fleet: Fleet):
    workers = ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT)
    names = {"db": await bob.ask("register", name="db")}
    await agreed(workers, names)
    await bob.ask("block", seconds=2 * DOWN_AFTER)
    await until(partial(is_stalled, ada, bob), "it is reported")
    bob.signal(signal.SIGSTOP)
    began = time.monotonic()
    await until(partial(ada.has_lost, 1), "ada gives bob up", within=3 * DOWN_AFTER)
    assert time.monotonic() - began >= DOWN_AFTER - 2 * HEARTBEAT
    assert [line for line in ada.log() if f"{bob.name} is down: heard nothing" in line]
    bob.signal(signal.SIGCONT)
    await agreed(workers, names)


@pytest.mark.slow
async def test_without_reports_a_stalled_node_is_a_silent_one(fleet: Fleet):
    workers = ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT, stall_reports=False)
    names = {"db": await bob.ask("register", name="db")}
    await agreed(workers, names)
    await bob.ask("block", seconds=2 * DOWN_AFTER)
    await until(partial(ada.has_lost, 1), "ada gives bob up")
    assert [line for line in ada.log() if f"{bob.name} is down: heard nothing" in line]
    await agreed(workers, names)
    assert "peer_stalls" not in (await ada.state()).counters


@pytest.mark.slow
async def test_with_the_usual_times_ten_seconds_of_computing_lose_nobody_and_are_told_within_two(fleet: Fleet):
    workers = ada, bob, carl = await fleet.mesh("ada", "bob", "carl")
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    await agreed(workers, names)
    await bob.ask("compute", seconds=10.0)
    began = time.monotonic()
    for other in (ada, carl):
        await until(partial(is_stalled, other, bob), f"{other} knows")
    assert time.monotonic() - began < 2.0
    await always(partial(check_kept, [ada, carl], bob, names), began + 9.0 - time.monotonic())
    await until(partial(none_is_stalled, workers), "bob goes on")
    await agreed(workers, names)
    assert await losses(workers) == [0, 0, 0]
