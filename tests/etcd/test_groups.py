"""Groups in etcd: facts under the leases of their members' nodes, seen by all without a session between any two."""

import asyncio
from typing import Any

from kinfolk import MemberAdded, MemberRemoved, Node, Pid
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import collect, until


def agreed(nodes: list[Node], group: str, *members: Pid) -> bool:
    return all(set(node.groups.members(group)) == set(members) for node in nodes)


async def join(node: Node, group: str, into: list[Any] | None = None) -> Pid:
    pid = node.spawn(collect, [] if into is None else into)
    await node.groups.join(group, pid)
    return pid


async def test_members_are_seen_here_at_once_and_everywhere_soon_and_no_session_is_needed(nodes: EtcdNodes):
    mesh = ada, bob, eve = [await nodes.start(word) for word in ("ada", "bob", "eve")]
    one, two = await join(ada, "stores"), await join(bob, "stores")
    assert ada.groups.local_members("stores") == [one]
    await until(lambda: agreed(mesh, "stores", one, two))
    await ada.groups.leave("stores", one)
    await ada.groups.join("with/slashes", one)
    assert not ada.groups.local_members("stores")
    await until(lambda: agreed(mesh, "stores", two) and agreed(mesh, "with/slashes", one))
    late = await nodes.start("late")
    assert agreed([late], "stores", two) and agreed([late], "with/slashes", one), "all are known from the start on"
    bob.kill(two)
    assert not bob.groups.members("stores")
    await until(lambda: agreed([*mesh, late], "stores"))
    await ada.close()
    await until(lambda: not eve.groups.snapshot())
    assert not any(node.connected() for node in (bob, eve, late))


async def test_a_broadcast_reaches_all_members_and_opens_sessions_with_their_nodes_alone(nodes: EtcdNodes):
    ada, bob, eve = [await nodes.start(word) for word in ("ada", "bob", "eve")]
    heard: list[str] = []
    for node in (ada, bob):
        await join(node, "stores", heard)
    await until(lambda: len(ada.groups.members("stores")) == 2)
    for number in range(20):
        ada.groups.broadcast("stores", number)
    await until(lambda: len(heard) == 40)
    assert ada.connected() == [bob.name] and not eve.connected()


async def test_who_leaves_and_joins_at_once_is_a_member_everywhere_in_the_end(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    pid = await join(ada, "stores")
    for turns in range(12):
        await ada.groups.leave("stores", pid)
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        await ada.groups.join("stores", pid)
        await asyncio.sleep(0.002 * (turns % 3))
    gone = await join(ada, "stores")
    await ada.groups.leave("stores", gone)
    tenure = ada.kernel.tenure
    assert tenure is not None
    await until(lambda: list(tenure.rosters.keys()) == [f"groups/{pid}/stores"] == list(tenure.rosters._own))
    last = (await ada.names.register("last", pid)).pid  # so all before it has been told
    await until(lambda: bob.names.whereis("last") == last)
    assert agreed([ada, bob], "stores", pid)


async def test_members_of_a_node_without_a_lease_are_gone_elsewhere_and_come_back_with_the_next(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    pid, leaves = await join(ada, "stores"), await join(ada, "stores")
    await until(lambda: agreed([bob], "stores", pid, leaves))
    events = bob.groups.watch("stores")

    async def seen() -> set[Any]:
        return {await anext(events) for _ in range(2)}

    assert await seen() == {MemberAdded("stores", each) for each in (pid, leaves)}
    tenure, client = ada.kernel.tenure, bob._parts.client
    assert tenure is not None and client is not None
    await client._revoke(tenure._lease)
    await ada.groups.leave("stores", leaves)
    assert await seen() == {MemberRemoved("stores", each) for each in (pid, leaves)}
    assert agreed([ada], "stores", pid), "here it is one all the time"
    await until(lambda: agreed([ada, bob], "stores", pid))
    assert ada.counters["leases_lost"] == 1


async def test_whoever_looks_at_a_node_sees_its_groups(nodes: EtcdNodes):
    ada = await nodes.start("ada")
    member = await join(ada, "stores")
    listed = await ada.call(("kinfolk", ada.name), ["groups", "", "", "", 10])
    assert listed == {"groups": [["stores", str(member)]], "more": False}
    told = await ada.call(("kinfolk", ada.name), ["process", str(member)])
    assert told["groups"] == ["stores"]
    assert ada._repr_html_().partition("groups")[2].partition("</tr>")[0].endswith(">1</td>")
