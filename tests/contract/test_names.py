"""What is promised of names, by its number in the design, with every registry.

1 one winner; 2 told the truth; 3 convergence; 4 no resurrection, no stale removal; 5 the dead are not named; 6 a break
between two nodes changes nothing at a third; 7 lookup waits for nothing, all else ends in time; 10 restart safety.
"""

import asyncio
import threading
from typing import Any

import pytest

from kinfolk import (
    NameAdded,
    NameLost,
    NameRemoved,
    NameTaken,
    NameUnknown,
    Node,
    NoProcess,
    NotConfirmed,
    Pid,
    Registration,
)
from tests.contract.conftest import Contract
from tests.node.nodes import collect, echo, ended, holders, idle, until
from tests.node.relay import between


async def test_1_of_those_who_race_for_a_name_exactly_one_wins_and_the_others_are_told_who(contract: Contract):
    mesh = await contract.start("ada", "bob", "eve")
    for turn in range(3):
        name = f"race/{turn}"
        pids = [node.spawn(idle) for node in mesh for _ in range(2)]
        outcomes = await asyncio.gather(
            *(ended(node.names.register(name, pid)) for node in mesh for pid in pids if pid.node == node.name)
        )
        (won,) = [outcome for outcome in outcomes if isinstance(outcome, Registration)]
        assert [error.holder for error in outcomes if isinstance(error, NameTaken)] == [won.pid] * 5
        await contract.resolved(mesh, name, won.pid)
        assert isinstance(await ended(mesh[turn % 3].names.register(name, mesh[turn % 3].spawn(idle))), NameTaken)


async def test_1_a_name_has_one_holder_at_a_time_however_often_it_changes(contract: Contract):
    mesh = await contract.start("ada", "bob")
    held: list[Pid] = []

    async def fight(node: Node) -> None:
        pid = node.spawn(idle)
        for _ in range(20):
            claim: Any = await ended(node.names.register("x", pid))
            if isinstance(claim, NameTaken):
                await asyncio.sleep(0)
                continue
            assert not held, "somebody else holds it"
            held.append(pid)
            assert node.names.whereis("x") == pid
            await asyncio.sleep(0)
            held.remove(pid)
            await claim.release()

    await asyncio.gather(*(fight(node) for node in mesh))
    await contract.resolved(mesh, "x", None)


async def test_1_the_same_process_again_is_the_same_registration_and_other_nodes_register_it_as_well(
    contract: Contract,
):
    ada, bob = await contract.start("ada", "bob")
    pid = ada.spawn(echo)
    claims = await asyncio.gather(*(ada.names.register("x", pid) for _ in range(3)))
    assert len(set(claims)) == 1 and {claim.epoch for claim in claims} == {claims[0].epoch}
    away = await bob.names.register("away", pid)
    assert away.pid == pid and (away.epoch is None) == (contract.registry == "mesh")
    await contract.resolved([ada, bob], "away", pid)
    await bob.names.unregister("away")
    await contract.resolved([ada, bob], "away", None)
    dead = ada.spawn(idle)
    ada.kill(dead)
    assert isinstance(await ended(bob.names.register("y", dead)), NoProcess)


async def test_1_a_register_that_is_cancelled_leaves_the_name_free(contract: Contract):
    ada, bob = await contract.start("ada", "bob")
    pid = ada.spawn(idle)
    for turns in range(4):
        task = asyncio.create_task(ada.names.register("x", pid))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await ended(task)
        await until(lambda: holders([ada, bob], "x") == {None})
    await ada.names.register("x", ada.spawn(idle))  # whatever was under way is over before that
    await ada.names.unregister("x")
    await bob.names.register("x", bob.spawn(idle))


async def test_1_register_nowait_holds_here_at_once_and_everywhere_soon(contract: Contract):
    ada, bob = await contract.start("ada", "bob")
    pid = ada.spawn(idle)
    claim = ada.names.register_nowait("x", pid)
    assert ada.names.whereis("x") == pid
    await until(lambda: bob.names.whereis("x") == pid)
    assert await ada.names.register("x", pid) == claim
    with pytest.raises(NameTaken):
        bob.names.register_nowait("x", bob.spawn(idle))
    await claim.release()
    await contract.resolved([ada, bob], "x", None)


async def test_2_who_loses_a_confirmed_name_is_told_once(contract: Contract):
    told: list[Any] = []
    if contract.registry == "mesh":  # two partitions, each with a holder, meet
        ada, bob = [await contract.nodes.start(word) for word in ("ada", "bob")]
        await ada.names.register("x", ada.spawn(idle))
        await asyncio.sleep(0.005)  # so that the clocks tell which was first
        pid = (await bob.names.register("x", bob.spawn(collect, told), on_lost="message")).pid
        await bob.connect(ada.name)
    else:  # etcd ends a lease
        ada, bob = await contract.start("ada", "bob")
        pid = (await bob.names.register("x", bob.spawn(collect, told), on_lost="message")).pid
        tenure, client = bob.kernel.tenure, ada._parts.client
        assert tenure is not None and client is not None
        await client._revoke(tenure._lease)
    await until(lambda: told)
    assert bob.names.whereis("x") != pid and bob.is_alive(pid)
    await until(lambda: ada.names.whereis("x") != pid)
    await ended(bob.names.register("y", pid))  # all that was under way has been heard
    assert told == [NameLost]


async def test_3_tables_are_equal_once_nothing_changes(contract: Contract):
    mesh = await contract.start("ada", "bob", "eve")
    kept: dict[str, Pid] = {}

    async def churn(node: Node, number: int) -> None:
        for turn in range(8):
            pid = node.spawn(idle)
            claim: Any = await ended(node.names.register(f"name/{(number + turn) % 10}", pid))
            if turn % 3 == 0 or isinstance(claim, NameTaken):
                node.kill(pid)
            elif turn % 3 == 1:
                await claim.release()
            else:
                kept[claim.name] = pid

    await asyncio.gather(*(churn(node, number) for number, node in enumerate(mesh * 2)))
    await until(lambda: all(node.names.snapshot() == kept for node in mesh))


async def test_4_a_removal_removes_what_it_names_and_what_is_removed_stays_away(contract: Contract):
    ada, bob = await contract.start("ada", "bob")
    watch = bob.names.watch("x")
    seen: list[NameAdded | NameRemoved | Any] = []

    async def follow() -> None:
        async for event in watch:
            seen.append(event)  # noqa: PERF401 - one by one, as they come

    following = asyncio.create_task(follow())
    pids = [ada.spawn(idle) for _ in range(6)]
    old: Registration | None = None
    for pid in pids:
        claim = await ada.names.register("x", pid)
        if old is not None:
            with pytest.raises(NameUnknown, match="nothing was changed"):
                await old.release()
            assert ada.names.whereis("x") == pid
        await claim.release()
        old = claim
    await until(lambda: len(seen) == 2 * len(pids))
    expected = [event for pid in pids for event in (NameAdded("x", pid), NameRemoved("x", pid))]
    assert seen == expected
    watch.close()
    await following
    with pytest.raises(NameUnknown):
        await bob.names.unregister("x")


async def test_5_the_dead_are_not_named(contract: Contract):
    ada, bob = await contract.start("ada", "bob")
    pid = ada.spawn(idle)
    names = [f"name/{number}" for number in range(20)]
    await asyncio.gather(*(ada.names.register(name, pid) for name in names))
    await until(lambda: len(bob.names) == len(names))
    exited = asyncio.create_task(ada.wait_exit(pid))
    exited.add_done_callback(lambda _: found.extend(ada.names.snapshot()))
    found: list[str] = []
    await asyncio.sleep(0)
    ada.kill(pid)
    assert not ada.names.snapshot()
    await exited
    assert not found
    await until(lambda: not bob.names.snapshot())
    await ada.names.register("x", ada.spawn(idle))
    await until(lambda: bob.names.whereis("x"))
    await ada.close()
    await until(lambda: bob.names.whereis("x") is None)
    await bob.names.register("x", bob.spawn(idle))


async def test_6_a_break_between_two_nodes_changes_nothing_at_a_third(contract: Contract):
    eve = await contract.nodes.start("eve")
    async with between(contract.nodes, "ada", "bob", join=[eve.name]) as pair:
        ada, bob = pair.nodes
        await until(lambda: len(eve.peers()) == 2)
        await ada.names.register("a", ada.spawn(idle))
        await bob.names.register("b", bob.spawn(idle))
        await until(lambda: len(eve.names) == 2)
        before, watch = eve.names.snapshot(), eve.names.watch()
        for _ in before:
            await anext(watch)
        pair.stall()
        await until(lambda: bob.name not in ada.peers() and ada.name not in bob.peers())
        await eve.names.register("last", eve.spawn(idle))
        event: Any = await anext(watch)
        assert event.name == "last", "nothing came before it"
        pair.heal()
        await until(lambda: ada.peers() == [bob.name, eve.name])
        assert {name: eve.names.whereis(name) for name in before} == before


async def test_7_lookup_waits_for_nothing_and_all_else_ends_in_time(contract: Contract):
    async with between(contract.nodes, "ada", "bob", down_after=30.0) as pair:
        ada, bob = pair.nodes
        held = (await bob.names.register("held", bob.spawn(idle))).pid
        mine = await ada.names.register("mine", ada.spawn(idle))
        await until(lambda: ada.names.whereis("held") == held)
        pair.stall()
        if contract.registry == "etcd":
            client = ada._parts.client
            assert client is not None
            client._etcd.endpoints = ("127.0.0.1:9",)  # nobody answers there
        found: list[Pid | None] = []
        thread = threading.Thread(target=lambda: found.append(ada.names.whereis("held")))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert found == [held]
        loop = asyncio.get_running_loop()
        for what, error in (
            (ada.names.register("x", ada.spawn(idle), timeout=0.1), NotConfirmed),
            (mine.release(timeout=0.1), type(None)),
            (ada.names.wait_for("x", timeout=0.1), NameUnknown),
        ):
            begun = loop.time()
            assert isinstance(await ended(what), error)
            assert loop.time() - begun < 3
        assert ada.names.whereis("mine") is None
        assert (ada.names.staleness() == 0.0) == (contract.registry == "mesh")


async def test_10_a_node_that_starts_again_has_none_of_its_old_names_and_its_old_pids_are_dead(contract: Contract):
    ada, bob = await contract.start("ada", "bob")
    old = (await ada.names.register("x", ada.spawn(echo))).pid
    await contract.resolved([ada, bob], "x", old)
    await ada.close()
    again = await contract.nodes.start(ada.name, bob)
    assert again.creation > old.creation and again.names.whereis("x") is None
    await until(lambda: bob.names.whereis("x") is None and bob.peers() == [again.name])
    assert isinstance(await ended(bob.call(old, "hi")), NoProcess)
    new = (await again.names.register("x", again.spawn(echo))).pid
    await contract.resolved([again, bob], "x", new)
    assert await bob.call("x", "hi") == "hi"
