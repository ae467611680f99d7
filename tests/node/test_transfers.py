"""A name moves to another process: nobody finds it free, or with two, and what goes wrong leaves it where it was."""

import asyncio
from typing import Any

import pytest

from kinfolk import NameAdded, NameRemoved, NodeLost, NoProcess, NotMoved, Pid
from kinfolk.errors import NameTaken, NameUnknown
from tests.node.nodes import Nodes, collect, echo, ended, holders, idle, until
from tests.node.relay import between


async def follow(node: Any, name: str, into: list[Any]) -> None:
    watch = node.names.watch(name)
    while True:
        event = await anext(watch)
        into.append((type(event).__name__, event.pid))


@pytest.mark.parametrize(
    ("asker", "to"), [("ada", "ada"), ("ada", "bob"), ("bob", "ada"), ("bob", "bob"), ("bob", "carl")]
)
async def test_a_name_moves_to_any_process_from_any_node(nodes: Nodes, asker: str, to: str):
    mesh = ada, _, _ = await nodes.mesh("ada", "bob", "carl")
    by_word = {node.name.partition("@")[0]: node for node in mesh}
    lost: list[Any] = []
    old, new = ada.spawn(collect, lost), by_word[to].spawn(echo)
    stale = await ada.names.register("db", old)
    await until(lambda: holders(mesh, "db") == {old})
    changes: dict[Any, list[Any]] = {node: [] for node in mesh}
    watches = [asyncio.create_task(follow(node, "db", changes[node])) for node in mesh]
    await until(lambda: all(len(seen) == 1 for seen in changes.values()))

    registration = await by_word[asker].names.transfer("db", new)
    assert registration.pid == new and holders(mesh, "db") == {new}
    assert await ada.call("db", "hi") == "hi"
    expected = [(NameAdded.__name__, old), (NameRemoved.__name__, old), (NameAdded.__name__, new)]
    await until(lambda: all(seen == expected for seen in changes.values()))
    assert ada.is_alive(old) and not lost, "it gave the name up, and lost nothing"
    with pytest.raises(NameUnknown, match="this registration has ended"):
        await stale.release()
    await registration.release()
    assert holders(mesh, "db") == {None}
    for watch in watches:
        watch.cancel()


async def test_a_name_that_has_moved_counts_as_old_as_it_is(nodes: Nodes):
    """After a partition the older claim wins: the one that was moved there, and moved again within its node."""
    ada, bob = await nodes.mesh("ada", "bob")
    first, second, third = ada.spawn(idle), bob.spawn(idle), bob.spawn(idle)
    await ada.names.register("db", first)
    await ada.names.transfer("db", second)
    await bob.names.transfer("db", third)
    own = bob.kernel.names.own["db"]
    assert own.confirmed and own.claim.pid == third
    await bob.names.transfer("db", first)
    claim = ada.kernel.names.own["db"].claim
    assert claim.pid == first and claim.stamp < own.claim.stamp


async def test_a_name_stays_where_it_is_if_it_cannot_move(nodes: Nodes):
    ada, bob = mesh = await nodes.mesh("ada", "bob")
    old, dead = ada.spawn(idle), bob.spawn(idle)
    await ada.names.register("db", old)
    await until(lambda: holders(mesh, "db") == {old})
    bob.kill(dead)
    for asker in mesh:
        assert isinstance(await ended(asker.names.transfer("db", dead)), NoProcess)
        with pytest.raises(NodeLost, match="not connected"):
            await asker.names.transfer("db", Pid("carl@127.0.0.1:1", 1, 1))
        with pytest.raises(NameUnknown):
            await asker.names.transfer("nobody has it", old)
        assert holders(mesh, "db") == {old}
    other = ada.spawn(idle)
    ada.kill(other)
    with pytest.raises(NoProcess):
        await bob.names.transfer("db", other)
    assert (await ada.names.transfer("db", old)).pid == old, "it is there"


async def test_at_its_deadline_a_name_stays_for_good(nodes: Nodes):
    async with between(nodes, "ada", "bob", down_after=9.0) as pair:
        ada, bob = pair.nodes
        old, new = ada.spawn(idle), bob.spawn(idle)
        await ada.names.register("db", old)
        await until(lambda: holders(pair.nodes, "db") == {old})
        pair.stall()
        moving = asyncio.create_task(ada.names.transfer("db", new, timeout=0.3))
        await asyncio.sleep(0)
        assert isinstance(await ended(ada.names.transfer("db", new)), NotMoved), "it is on its way already"
        assert isinstance(await ended(moving), NotMoved)
        pair.heal()
        await bob.call(ada.spawn(echo), "by now bob has heard of it, and that it is over")
        assert holders(pair.nodes, "db") == {old} and bob.names.moving("db") is None
        await ada.names.transfer("db", new)
        assert holders(pair.nodes, "db") == {new}


async def test_a_third_cannot_take_a_name_that_moves(nodes: Nodes):
    ada, bob, carl = mesh = await nodes.mesh("ada", "bob", "carl")
    holder = ada.spawn(idle)
    await ada.names.register("db", holder)
    for _ in range(10):
        new = (bob if holder.node == ada.name else ada).spawn(idle)
        outcome, moved = await asyncio.gather(
            ended(carl.names.register("db", carl.spawn(idle), timeout=1)), ended(carl.names.transfer("db", new))
        )
        assert isinstance(outcome, NameTaken) and not isinstance(moved, Exception)
        assert holders(mesh, "db") == {new}
        holder = new


async def test_whoever_waits_no_longer_leaves_the_name_in_one_place(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    old = ada.spawn(idle)
    await ada.names.register("db", old)
    for turns in range(12):
        new = bob.spawn(idle)
        task = asyncio.create_task(ada.names.transfer("db", new))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await until(lambda: ada.names.moving("db") is None and bob.names.moving("db") is None)
        await until(lambda: len(holders(mesh, "db")) == 1)
        (holder,) = holders(mesh, "db")
        assert holder in (old, new)
        if holder == new:
            await bob.names.transfer("db", old)
