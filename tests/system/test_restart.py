"""Nodes that come back: under the same name they are new, and what they were before is dead for good."""

import asyncio
import signal
from functools import partial

from tests.system.chaos import Network
from tests.system.fleet import Fleet, Raised, Worker, agreed, always, check_agreement, states, until

HEARTBEAT = 0.2


async def creation_of(worker: Worker, node: str) -> int:
    """The creation of a node as another one knows it."""
    return int((await worker.ask("call", target=["kinfolk", worker.name], request=["nodes"]))[node])


async def test_a_restarted_node_is_new_everywhere_and_its_old_names_and_pids_are_dead(fleet: Fleet):
    workers = ada, bob, carl = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT)
    old = await bob.ask("register_many", names=[f"old/{number}" for number in range(20)])
    kept = await ada.ask("register", name="kept")
    first = (await bob.state()).creation
    await asyncio.gather(*(worker.ask("watch") for worker in (ada, carl)))

    await bob.kill()
    bob = await fleet.start("bob", join=["ada"], heartbeat=HEARTBEAT)
    workers = [ada, bob, carl]
    await agreed(workers, {"kept": kept})
    second = (await bob.state()).creation
    assert second > first
    assert [await creation_of(worker, bob.name) for worker in workers] == [second] * 3
    new = await bob.ask("register_many", names=["old/0", "new"])
    await check_agreement(workers, {"kept": kept, **new})
    assert not set(new.values()) & set(old.values())

    # A call to the dead raises at once; a message to them is dropped and counted. Also from the node itself, and also
    # for a number that the new start has given again.
    for worker in workers:
        for pid in (old["old/0"], old["old/19"]):
            raised = await worker.attempt("call", target=pid, request=["echo", 1])
            assert isinstance(raised, Raised) and raised.error == "NoProcess", raised
            before = (await worker.state()).counters.get("sends_to_dead_processes", 0)
            await worker.ask("send", target=pid, message="for the dead")
            assert (await worker.state()).counters["sends_to_dead_processes"] == before + 1
    assert await bob.ask("seen", pid=new["old/0"]) == []

    # The old names never return: a removal is the last that is heard of each old pid.
    await always(partial(check_agreement, workers, {"kept": kept, **new}), 3 * HEARTBEAT)
    for worker in (ada, carl):
        events = [event[1:] for event in await worker.ask("events")]
        for name, pid in old.items():
            assert [event[0] for event in events if event[1:] == [name, pid]] == ["+", "-"]


async def test_a_restart_that_nobody_has_noticed_supersedes_the_dead_node(fleet: Fleet):
    # The end of the old connections is never told, and the others would wait for a minute before they give them up.
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        ada, bob, carl = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT, down_after=60.0)
        old = await bob.ask("register", name="db")
        network.freeze(["bob"], ["ada", "carl"])
        await bob.kill()
        assert (await ada.state()).names == {"db": old}, "nobody has noticed"
        bob = await fleet.start("bob", join=["ada"], heartbeat=HEARTBEAT)
        workers = [ada, bob, carl]
        await agreed(workers, {})
        new = await bob.ask("register", name="db")
        await check_agreement(workers, {"db": new})
        raised = await carl.attempt("call", target=old, request=["echo", 1])
        assert isinstance(raised, Raised) and raised.error == "NoProcess"


async def test_all_nodes_restarted_one_after_the_other_have_their_names_again(fleet: Fleet):
    words = ("ada", "bob", "carl")
    workers = await fleet.mesh(*words, heartbeat=HEARTBEAT)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    for index, word in enumerate(words):
        await workers[index].end()
        others = [other for other in words if other != word]
        workers[index] = await fleet.start(word, join=others, heartbeat=HEARTBEAT)
        names[f"{word}/own"] = await workers[index].ask("register", name=f"{word}/own")
        await agreed(workers, names)


async def test_the_survivors_of_a_killed_holder_race_for_its_name_and_one_has_it(fleet: Fleet):
    workers = await fleet.mesh("ada", "bob", "carl", "dora", heartbeat=HEARTBEAT)
    *survivors, victim = workers
    held = await victim.ask("register", name="leader")
    # They claim the name the moment they see it fall free, which is not the same moment for all.
    attempts = [asyncio.create_task(_succeed(worker, held)) for worker in survivors]
    await victim.kill()
    outcomes = await asyncio.gather(*attempts)
    winners = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(winners) == 1, outcomes
    assert {outcome.error for outcome in outcomes if isinstance(outcome, Raised)} == {"NameTaken"}
    await check_agreement(survivors, {"leader": winners[0]})


async def test_a_node_stopped_for_long_is_dropped_and_wakes_to_rejoin_without_declaring_anybody_dead(fleet: Fleet):
    workers = ada, bob, carl = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
    carl.signal(signal.SIGSTOP)
    without = {name: pid for name, pid in names.items() if name != "carl/own"}
    await agreed([ada, bob], without, within=5 * HEARTBEAT + 10 * HEARTBEAT)
    await asyncio.sleep(5 * HEARTBEAT)  # stopped for longer than a whole period past that
    taken = await ada.ask("register", name="while/asleep")
    carl.signal(signal.SIGCONT)
    await agreed(workers, {**names, "while/asleep": taken})
    silent = [line for line in carl.log() if "is down: heard nothing" in line]
    assert silent == [], "it has slept itself"
    assert [line for line in ada.log() if "is down: heard nothing" in line], "ada has dropped it for its silence"
    for state in await states([ada, bob]):
        assert state.counters["peers_lost"] == 1


async def test_a_node_stopped_for_half_the_time_loses_nothing_and_gets_its_messages_in_order(fleet: Fleet):
    workers = ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT, down_after=2.0)
    pid = await bob.ask("register", name="db")
    bob.signal(signal.SIGSTOP)
    for number in range(50):
        await ada.ask("send", target="db", message=number)
    await asyncio.sleep(1.0)
    bob.signal(signal.SIGCONT)
    await until(partial(bob.has_seen, pid, list(range(50))), "all messages have come, in order")
    await always(partial(check_agreement, workers, {"db": pid}), 3 * HEARTBEAT)
    for state in await states(workers):
        assert state.counters.get("peers_lost", 0) == 0


async def _succeed(worker: Worker, held: str) -> str | Raised:
    await until(partial(_free, worker, held), "the name is free")
    outcome: str | Raised = await worker.attempt("register", name="leader")
    return outcome


async def _free(worker: Worker, held: str) -> bool:
    return bool(await worker.ask("whereis", name="leader") != held)
