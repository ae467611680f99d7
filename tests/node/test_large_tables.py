"""Names in number: they come in parts while changes go on, and a peer that comes back gets only what came after."""

import asyncio
from typing import Any

import pytest

from kinfolk import NameAdded, NameRemoved, Node, Pid
from kinfolk.core.ledger import Claim
from tests.node.nodes import Nodes, echo, idle, until
from tests.node.relay import Relay

MANY = 5_000


def register_many(node: Node, pid: Pid, count: int, prefix: str = "name") -> dict[str, Pid]:
    table = {f"{prefix}/{number}": pid for number in range(count)}
    for name in table:
        node.names.register_nowait(name, pid)
    return table


def bytes_from(node: Node, peer: Node) -> int:
    """What has come from the peer in this session."""
    [link] = [link for link in node._parts.transport._links.values() if link.name == peer.name]
    return link.bytes_in


async def test_a_peer_that_comes_back_gets_only_what_came_after(nodes: Nodes):
    async with Relay() as relay:
        ada = await nodes.start(relay.name("ada"), listen=relay.target)
        holder, other = ada.spawn(idle), ada.spawn(echo)
        table = register_many(ada, holder, MANY)
        bob = await nodes.start("bob", ada)
        assert bob.names.snapshot() == table
        whole = bytes_from(bob, ada)
        await relay.cut()
        await until(lambda: not (ada.peers() or bob.peers()))
        assert bob.names.snapshot() == {} and bob.names.whereis("name/0") is None
        await ada.names.unregister("name/1")
        await ada.names.register("late", other)
        relay.heal()
        await until(lambda: bob.names.whereis("late") == other)
        del table["name/1"]
        await until(lambda: bob.names.snapshot() == {**table, "late": other})
        assert bob.counters["mirrors_resumed"] == 1 and bob.counters["mirrors_synced"] == 1
        assert bytes_from(bob, ada) < whole / 20
        assert await bob.call("late", "hi") == "hi"


async def test_what_a_lost_peer_withdrew_meanwhile_is_never_seen_again(nodes: Nodes):
    async with Relay() as relay:
        ada = await nodes.start(relay.name("ada"), listen=relay.target)
        first, second = ada.spawn(idle), ada.spawn(idle)
        for number in range(50):
            await ada.names.register(f"gone/{number}", first)
        await ada.names.register("stays", second)
        bob = await nodes.start("bob", ada)
        await relay.cut()
        await until(lambda: not (ada.peers() or bob.peers()))
        await until(lambda: not bob.kernel.names.busy)
        ada.kill(first)
        watch = bob.names.watch()
        relay.heal()
        assert await asyncio.wait_for(anext(watch), 10) == NameAdded("stays", second)
        assert bob.names.snapshot() == {"stays": second}
        assert bob.counters["mirrors_resumed"] == 1


async def test_a_peer_whose_absence_the_log_does_not_cover_syncs_anew(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    async with Relay() as relay:
        ada = await nodes.start(relay.name("ada"), listen=relay.target)
        holder = ada.spawn(idle)
        await ada.names.register("first", holder)
        bob = await nodes.start("bob", ada)
        await relay.cut()
        await until(lambda: not (ada.peers() or bob.peers()))
        table = {"first": holder, **register_many(ada, holder, ada.kernel.settings.log)}
        relay.heal()
        await until(lambda: bob.names.snapshot() == table)
        assert bob.counters["mirrors_resumed"] == 0 and bob.counters["mirrors_synced"] == 2


async def test_names_are_complete_when_join_returns_though_they_change_all_the_time(nodes: Nodes):
    ada = await nodes.start("ada")
    holder = ada.spawn(idle)
    table = register_many(ada, holder, MANY)
    going = True

    async def change() -> None:
        number = 0
        while going:
            number += 1
            for name in (f"name/{number % MANY}", f"name/{(7 * number) % MANY}"):
                await ada.names.unregister(name)
                ada.names.register_nowait(name, holder)
            await asyncio.sleep(0)

    changing = asyncio.create_task(change())
    try:
        for number in range(3):
            node = await nodes.start(f"node{number}", ada)
            missing = [name for name in table if node.names.whereis(name) is None]
            assert len(missing) <= 4, "those that are on their way at this very moment"
            await node.close()
    finally:
        going = False
        await changing
    last = await nodes.start("last", ada)
    assert last.names.snapshot() == ada.names.snapshot() == table


@pytest.mark.slow
async def test_a_peer_with_many_names_is_refused_at_once_when_it_is_lost(nodes: Nodes):
    async with Relay() as relay:
        ada = await nodes.start(relay.name("ada"), listen=relay.target)
        table = register_many(ada, ada.spawn(idle), MANY)
        bob = await nodes.start("bob", ada)
        watch = bob.names.watch("name/*")
        for _ in range(MANY):
            assert isinstance(await anext(watch), NameAdded)
        await relay.cut()
        left: list[int] = []
        for _ in range(MANY):
            assert isinstance(await anext(watch), NameRemoved)
            left.append(len(bob.kernel.names.view))
            assert not any(map(bob.names.whereis, table)), "none is found after the first has gone"
        assert left[0] > 0 == left[-1], "they go in slices"


async def test_a_process_with_many_names_takes_them_all_with_it_at_once_for_lookups(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    holder = ada.spawn(idle)
    table = register_many(ada, holder, MANY)
    await until(lambda: bob.names.snapshot() == table)
    ada.kill(holder)
    assert ada.names.snapshot() == {} and ada.names.whereis("name/1") is None
    again = await ada.names.register("name/1", ada.spawn(idle))
    await until(lambda: bob.names.snapshot() == {"name/1": again.pid})
    assert ada.names.snapshot() == {"name/1": again.pid}


async def test_what_comes_is_handled_in_slices_and_in_order(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.shell.transport.READ_SLICE", -1.0)  # one frame, and then others have their turn
    ada, bob = await nodes.mesh("ada", "bob")
    heard: list[Any] = []

    async def hear(me: Any) -> None:
        while True:
            heard.append(await me.receive())

    listener = bob.spawn(hear)
    table = register_many(ada, ada.spawn(idle), 2_000)
    for number in range(500):
        ada.send(listener, number)
        if number % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(heard) == 500 and bob.names.snapshot() == table)
    assert heard == list(range(500))
    await ada.close()
    await until(lambda: bob.names.snapshot() == {})


async def test_what_was_said_before_a_node_closes_arrives_however_slowly_it_is_read(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kinfolk.shell.transport.READ_SLICE", -1.0)
    ada, bob = await nodes.mesh("ada", "bob")
    heard: list[Any] = []

    async def hear(me: Any) -> None:
        while True:
            heard.append(await me.receive())

    listener = bob.spawn(hear)
    for number in range(3_000):
        ada.send(listener, number)
        ada.send(("nobody", bob.name), "another kind of frame")
    await ada.close()
    await until(lambda: not bob.peers())
    assert heard == list(range(3_000))


@pytest.mark.parametrize("where", ["mirror", "view"])
async def test_what_was_damaged_in_memory_is_found_and_repaired_without_losing_the_session(nodes: Nodes, where: str):
    ada, bob = await nodes.mesh("ada", "bob")
    right = await ada.names.register("right", ada.spawn(echo))
    wrong = bob.spawn(idle)
    names = bob.kernel.names
    if where == "mirror":
        made = names.mirrors[ada.name].claims["right"]
        names.mirrors[ada.name].claims["right"] = Claim("right", wrong, made.position, made.stamp)
    else:
        names.view["right"] = wrong
    await until(lambda: bob.counters["registry_divergence_total"] == 1)
    await until(lambda: names.mirrors[ada.name].sound and bob.names.whereis("right") == right.pid)
    assert await bob.call("right", "hi") == "hi"
    assert bob.counters["mirrors_synced"] == (2 if where == "mirror" else 1)
    assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0
