"""Groups between nodes in one loop: who is a member where, and what a broadcast reaches."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from kinfolk import (
    GroupResync,
    MemberAdded,
    MemberRemoved,
    MessageTooLarge,
    Node,
    NodeClosed,
    NoProcess,
    NotSerializable,
    Pid,
    Process,
    Request,
    Unknown,
)
from kinfolk.shell.dataplane import Peer
from kinfolk.wire import frames
from tests.node.nodes import Nodes, collect, ended, idle, until


def agreed(nodes: list[Node], group: str, members: list[Pid]) -> bool:
    return all(set(node.groups.members(group)) == set(members) for node in nodes)


async def member(me: Process, group: str, into: list[Any]) -> None:
    """Joins by itself, and remembers what it gets."""
    await me.groups.join(group)
    await collect(me, into)


async def join(node: Node, group: str, into: list[Any] | None = None) -> Pid:
    pid = node.spawn(collect, [] if into is None else into)
    await node.groups.join(group, pid)
    return pid


async def test_a_membership_is_seen_here_at_once_and_elsewhere_soon(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    one, two = await join(ada, "stores"), await join(bob, "stores")
    assert ada.groups.local_members("stores") == [one] and one in ada.groups.members("stores")
    await until(lambda: agreed([ada, bob], "stores", [one, two]))
    assert bob.groups.local_members("stores") == [two]
    assert ada.groups.snapshot() == {"stores": [one, two]}
    await ada.groups.leave("stores", one)
    assert ada.groups.local_members("stores") == []
    await until(lambda: agreed([ada, bob], "stores", [two]))
    await bob.groups.leave("stores", two)
    await until(lambda: not ada.groups.snapshot())


async def test_a_process_joins_and_leaves_from_within(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")

    async def visitor(me: Process) -> None:
        await me.groups.join("stores")
        await me.groups.join("stores")
        assert me.groups.local_members("stores") == [me.pid]
        await me.receive()
        await me.groups.leave("stores")
        await me.groups.leave("stores")
        await me.receive()

    pid = ada.spawn(visitor)
    await until(lambda: agreed([ada, bob], "stores", [pid]))
    ada.send(pid, "leave")
    await until(lambda: agreed([ada, bob], "stores", []))
    assert ada.is_alive(pid)


async def test_joining_before_the_start_is_told_when_the_node_has_met_others(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = nodes.make("bob", ada)
    pid = await join(bob, "stores")
    await bob.start()
    await until(lambda: ada.groups.members("stores") == [pid])


async def test_who_exits_is_a_member_no_longer_before_anybody_hears_of_its_end(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = await join(bob, "stores")
    await bob.groups.join("shops", pid)
    await until(lambda: ada.groups.members("stores") == ada.groups.members("shops") == [pid])
    seen: list[Any] = []

    async def watcher(me: Process) -> None:
        ref = me.monitor(pid)
        down = await me.receive()
        seen.append((down.ref == ref, ada.groups.snapshot()))

    watching = ada.spawn(watcher)
    await until(lambda: len(ada.signals.relations))
    bob.kill(pid)
    assert bob.groups.members("stores") == [] == bob.groups.local_members("shops")
    await until(lambda: not ada.is_alive(watching))
    assert seen == [(True, {})]


async def test_a_lost_node_takes_its_members_along_and_they_return_with_it(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    here, there = await join(ada, "stores"), await join(bob, "stores")
    await until(lambda: agreed([ada, bob], "stores", [here, there]))
    events = ada.groups.watch("stores")
    assert [await anext(events), await anext(events)] == [MemberAdded("stores", pid) for pid in (here, there)]
    ada._parts.transport.link(ada.kernel.session_of(bob.name) or 0).abort()
    assert await asyncio.wait_for(anext(events), 10) == MemberRemoved("stores", there)
    assert await asyncio.wait_for(anext(events), 10) == MemberAdded("stores", there)
    await until(lambda: agreed([ada, bob], "stores", [here, there]))
    await bob.close()
    await until(lambda: agreed([ada], "stores", [here]))
    assert await anext(events) == MemberRemoved("stores", there)


async def test_a_broadcast_reaches_every_member_and_crosses_each_link_once(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    got: dict[str, list[Any]] = {}
    members = [await join(node, "stores", got.setdefault(f"{node.name} {n}", [])) for node in (ada, bob) for n in "123"]
    await until(lambda: agreed([ada, bob, carl], "stores", members))
    encoded: list[frames.Operation] = []
    encode = frames.encode_operation

    def encode_and_count(operation: frames.Operation) -> bytes:
        encoded.append(operation)
        return encode(operation)

    monkeypatch.setattr(frames, "encode_operation", encode_and_count)
    received: list[tuple[str, int]] = []

    def count(node: Node) -> None:
        receive = node.dataplane.receive

        def receive_and_count(link: Peer, operations: Sequence[frames.Operation]) -> None:
            received.append((node.name, len(operations)))
            receive(link, operations)

        monkeypatch.setattr(node.dataplane, "receive", receive_and_count)

    for node in (ada, bob, carl):
        count(node)
    carl.groups.broadcast("stores", ["hello", 1])
    await until(lambda: all(got.values()))
    assert list(got.values()) == [[["hello", 1]]] * 6
    assert sorted(received) == [(ada.name, 1), (bob.name, 1)]
    assert [type(operation) for operation in encoded].count(frames.Broadcast) == 1
    carl.groups.broadcast("nobody", "hello")
    ada.groups.broadcast("stores", "from a member's node")
    await until(lambda: all(len(messages) == 2 for messages in got.values()))
    assert sorted(received) == [(ada.name, 1), (bob.name, 1), (bob.name, 1)], "nothing goes to who has no members"


async def test_a_broadcast_leaves_its_sender_out_unless_told_otherwise(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    mine: list[Any] = []
    other: list[Any] = []
    there: list[Any] = []

    async def sender(me: Process) -> None:
        await me.groups.join("stores")
        await me.receive()
        me.groups.broadcast("stores", "without me")
        me.groups.broadcast("stores", "with me", include_self=True)
        await collect(me, mine)

    pid = ada.spawn(sender)
    ada.spawn(member, "stores", other)
    bob.spawn(member, "stores", there)
    await until(lambda: len(ada.groups.members("stores")) == 3)
    ada.send(pid, "go")
    await until(lambda: len(other) == len(there) == 2 and mine)
    assert other == there == ["without me", "with me"] and mine == ["with me"]
    ada.groups.broadcast("stores", "by nobody")
    await until(lambda: mine == ["with me", "by nobody"])


async def test_what_one_process_says_arrives_in_its_order_sent_or_broadcast(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    got: list[Any] = []
    pid = bob.spawn(member, "stores", got)
    await until(lambda: ada.groups.members("stores") == [pid])

    async def speaker(me: Process) -> None:
        for number in range(0, 300, 3):
            me.send(pid, number)
            me.groups.broadcast("stores", number + 1)
            me.send(pid, number + 2)

    ada.spawn(speaker)
    await until(lambda: len(got) == 300)
    assert got == list(range(300))


async def test_who_gets_a_message_from_a_new_member_finds_it_in_the_group(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    found: list[Any] = []

    async def listener(me: Process) -> None:
        while True:
            sender = await me.receive()
            found.append(sender in me.groups.members("stores"))

    listening = bob.spawn(listener)

    async def newcomer(me: Process) -> None:
        await me.groups.join("stores")
        me.send(listening, me.pid)
        await idle(me)

    for _ in range(50):
        ada.spawn(newcomer)
    await until(lambda: len(found) == 50)
    assert all(found)


async def test_a_full_mailbox_costs_its_owner_alone_the_message(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    got: list[Any] = []
    for node in (ada, bob):
        full = node.spawn(idle, max_mailbox=1)
        node.send(full, "takes all the room")
        await node.groups.join("stores", full)
    pid = await join(bob, "stores", got)
    await until(lambda: pid in ada.groups.members("stores"))
    ada.groups.broadcast("stores", "hello")
    await until(lambda: got == ["hello"])
    assert ada.counters["mailbox_overflows"] == bob.counters["mailbox_overflows"] == 1


async def test_what_cannot_be_sent_is_sent_to_nobody(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", max_message=1000)
    here: list[Any] = []
    await join(ada, "stores", here)
    ada.groups.broadcast("stores", idle)
    await until(lambda: here == [idle])  # among processes of one node anything goes
    pid = await join(bob, "stores")
    await until(lambda: pid in ada.groups.members("stores"))
    with pytest.raises(NotSerializable):
        ada.groups.broadcast("stores", idle)
    with pytest.raises(MessageTooLarge):
        ada.groups.broadcast("stores", bytes(1000))
    ada.groups.broadcast("stores", "last")
    await until(lambda: here[-1] == "last")
    assert here == [idle, "last"]


class Note(Request[None], tag="a note to a group"):
    text: str


async def test_typed_messages_are_told_to_groups_too(nodes: Nodes):
    ada = await nodes.start("ada", messages=[Note])
    bob, carl = await nodes.start("bob", ada, messages=[Note]), await nodes.start("carl", ada)
    got: dict[str, list[Any]] = {"ada": [], "bob": [], "carl": []}
    for node in (ada, bob, carl):
        await join(node, "stores", got[node.name.partition("@")[0]])
    await until(lambda: len(ada.groups.members("stores")) == 3)
    ada.groups.broadcast("stores", Note("hi"))
    await until(lambda: all(got.values()))
    assert got["ada"] == got["bob"] == [Note("hi")]
    assert isinstance(got["carl"][0], Unknown)


async def test_a_broadcast_that_cannot_be_read_costs_only_itself(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    got: list[Any] = []
    pid = await join(bob, "stores", got)
    await until(lambda: ada.groups.members("stores") == [pid])
    link = ada.dataplane.links[bob.name]
    link.post(frames.Broadcast("stores", None, Raw(b"\x91\xc7\x01\x03x")))
    link.post(frames.Broadcast("nobody", 99, Raw(b"\x01")))
    ada.groups.broadcast("stores", "next")
    await until(lambda: got == ["next"])
    assert bob.counters["unreadable_messages"] == 1


async def test_strict_nodes_find_what_the_wire_would_not_carry(nodes: Nodes):
    ada = await nodes.start("ada", strict_messages=True)
    got: list[Any] = []
    await join(ada, "stores", got)
    with pytest.raises(NotSerializable):
        ada.groups.broadcast("stores", idle)
    ada.groups.broadcast("stores", (1, 2))
    await until(lambda: got == [[1, 2]])


async def test_a_watch_tells_of_the_members_that_are_there_and_then_of_every_change_in_order(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    first = await join(bob, "room/1")
    await join(bob, "hall")
    await until(lambda: len(ada.groups.snapshot()) == 2)
    events, one = ada.groups.watch("room/*"), ada.groups.watch("room/2")
    second = await join(bob, "room/2")
    await until(lambda: ada.groups.members("room/2"))
    await bob.groups.leave("room/1", first)
    bob.kill(second)
    expected = [
        MemberAdded("room/1", first),
        MemberAdded("room/2", second),
        MemberRemoved("room/1", first),
        MemberRemoved("room/2", second),
    ]
    assert [await asyncio.wait_for(anext(events), 10) for _ in expected] == expected
    assert [await anext(one) for _ in range(2)] == [MemberAdded("room/2", second), MemberRemoved("room/2", second)]
    one.close()
    with pytest.raises(StopAsyncIteration):
        await anext(one)
    await ada.close()
    with pytest.raises(NodeClosed):
        await anext(events)


async def test_a_watcher_that_lags_gets_the_table_and_the_changes_after_it(nodes: Nodes):
    ada = await nodes.start("ada")
    events = ada.groups.watch("room/*", max_events=3)
    pids = [await join(ada, "room/1") for _ in range(5)]
    hall = await join(ada, "hall")
    assert await anext(events) == GroupResync({"room/1": pids})
    await ada.groups.leave("room/1", pids[0])
    await ada.groups.leave("hall", hall)
    assert await anext(events) == MemberRemoved("room/1", pids[0])


async def test_other_threads_may_look_and_nothing_else(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = await join(ada, "stores")
    found: list[Any] = []

    def look() -> None:
        found.append((ada.groups.members("stores"), ada.groups.local_members("stores"), ada.groups.snapshot()))
        for wrong in (lambda: ada.groups.broadcast("stores", 1), lambda: ada.groups.watch()):
            try:
                wrong()
            except RuntimeError as error:
                found.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[0] == ([pid], [pid], {"stores": [pid]})
    assert len(found) == 3 and all("thread" in text for text in found[1:])


async def test_looking_from_another_thread_while_groups_change_raises_nothing(nodes: Nodes):
    ada = await nodes.start("ada")
    pids = [ada.spawn(idle) for _ in range(50)]
    errors: list[BaseException] = []
    over = threading.Event()

    def look() -> None:
        try:
            while not over.is_set():
                ada.groups.members("stores")
                ada.groups.snapshot()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(100):
        for pid in pids:
            await ada.groups.join("stores", pid)
            await ada.groups.join(f"group {pid.local}", pid)
        for pid in pids:
            await ada.groups.leave("stores", pid)
            await ada.groups.leave(f"group {pid.local}", pid)
    over.set()
    thread.join()
    assert not errors


async def test_wrong_arguments_say_what_is_wrong(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    mine, other = ada.spawn(idle), bob.spawn(idle)
    for group in ("", "x" * 256, "é" * 128):
        assert isinstance(await ended(ada.groups.join(group, mine)), ValueError)
        with pytest.raises(ValueError, match="name"):
            ada.groups.broadcast(group, 1)
    assert isinstance(await ended(ada.groups.join("é" * 127, mine)), type(None))
    assert "expected a Pid" in str(await ended(ada.groups.join("stores")))
    assert "another node" in str(await ended(ada.groups.join("stores", other)))
    ada.kill(mine)
    assert isinstance(await ended(ada.groups.join("stores", mine)), NoProcess)
    with pytest.raises(ValueError, match="wildcard"):
        ada.groups.watch("a*b")


async def test_a_pid_of_an_earlier_start_joins_and_leaves_nothing(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = await join(ada, "stores")
    old = Pid(pid.node, pid.creation - 1, pid.local)
    await ada.groups.leave("stores", old)
    assert isinstance(await ended(ada.groups.join("shops", old)), NoProcess)
    assert ada.groups.snapshot() == {"stores": [pid]}


async def test_the_dead_neither_join_nor_speak(nodes: Nodes):
    ada = await nodes.start("ada")
    kept: list[Any] = []

    async def ghost(me: Process) -> None:
        kept.append(me.groups)

    pid = ada.spawn(ghost)
    await until(lambda: not ada.is_alive(pid))
    assert isinstance(await ended(kept[0].join("stores")), NoProcess)
    with pytest.raises(NoProcess):
        kept[0].broadcast("stores", "boo")


async def test_a_closed_node_has_no_groups(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid, other = await join(ada, "stores"), await join(bob, "stores")
    await until(lambda: agreed([ada, bob], "stores", [pid, other]))
    await ada.close()
    assert ada.groups.members("stores") == [] and ada.groups.snapshot() == {}
    assert isinstance(await ended(ada.groups.join("stores", pid)), NodeClosed)
