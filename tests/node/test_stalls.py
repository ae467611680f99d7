"""Stalls as users meet them. That a loop which stands still is reported at all is shown in `tests/system`."""

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from kinfolk import Node, NodeClosed, PeerResumed, PeerStalled, PeerUp, Process, Server
from tests.node.nodes import HEARTBEAT, Nodes, idle, until


async def report(stalled: Node, seconds: float) -> None:
    """What the thread of this node would send if its loop had stood still for so long."""
    stalls: Any = stalled._parts.stalls
    await until(lambda: stalls._recipients)
    stalls._sentry._report(10**6, seconds)


def rest(seconds: float) -> None:
    """Hold the loop of all nodes here."""
    time.sleep(seconds)


async def watch(me: Process, node: str, seen: list[object]) -> None:
    me.monitor_node(node, stalls=True)
    while True:
        seen.append(await me.receive())


class Watcher(Server):
    """A server that looks after another node."""

    async def init(self, node: str, seen: list[object]) -> None:
        self.seen = seen
        self.me.monitor_node(node, stalls=True)

    async def stalled(self, event: PeerStalled | PeerResumed | PeerUp) -> None:
        self.seen.append(event)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("body", [watch, Watcher])
async def test_a_stall_and_its_end_are_told_to_those_who_watch_them(nodes: Nodes, host: str, body: Any):
    ada = await nodes.start(f"ada@{host}:0")
    bob = await nodes.start(f"bob@{host}:0", ada)
    seen: list[object] = []
    ada.spawn(body, bob.name, seen)
    unaware: list[object] = []

    async def looks_at_the_node_alone(me: Process) -> None:
        me.monitor_node()
        while True:
            unaware.append(await me.receive())

    ada.spawn(looks_at_the_node_alone)
    await until(lambda: seen and unaware)
    await report(bob, 1.5)
    await until(lambda: len(seen) == 2)
    assert ada.stalled().keys() == {bob.name} and ada.stalled()[bob.name] >= 1.5
    assert bob.stalled() == {}
    await until(lambda: len(seen) == 3)
    assert seen[:2] == [PeerUp(bob.name), PeerStalled(bob.name, 1.5)]
    assert isinstance(seen[2], PeerResumed) and seen[2].node == bob.name and round(seen[2].seconds, 3) == 1.5
    assert unaware == [PeerUp(bob.name)]
    assert ada.stalled() == {} and ada.peers() == [bob.name]


@pytest.mark.slow
async def test_nodes_that_share_a_loop_which_stands_still_take_each_other_for_alive(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl")
    rest(10 * HEARTBEAT)
    await until(lambda: all(node.counters["own_stalls"] for node in mesh))
    assert [node.counters["peer_stalls"] for node in mesh] == [0, 0, 0], "what they said meanwhile is old"
    await asyncio.sleep(2 * HEARTBEAT)
    assert [node.counters["peers_lost"] for node in mesh] == [0, 0, 0]


async def test_a_node_has_one_thread_for_stalls_and_takes_it_along(nodes: Nodes):
    before = threading.active_count()
    ada, bob = await nodes.mesh("ada", "bob")
    off = await nodes.start("carl", ada, stall_reports=False)
    assert threading.active_count() == before + 2
    stalls: Any = ada._parts.stalls
    await until(lambda: stalls._recipients)
    assert list(stalls._recipients) == [ada.kernel.session_of(bob.name)], "carl wants no reports"
    await off.close()
    await nodes.close()
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12 and later: any fork with threads
async def test_a_forked_program_reports_nothing_for_the_node_of_its_parent(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = ada.spawn(idle)
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(NodeClosed, match="forked"):
                ada.check_open()
            with pytest.raises(NodeClosed, match="forked"):
                ada.send(pid, "in vain")
            os._exit(0 if threading.active_count() == 1 else 1)
        finally:
            os._exit(2)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await report(ada, 1.5)
    await until(lambda: bob.stalled())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stall_after": 0}, "stall_after must be positive, and shorter than down_after"),
        ({"stall_after": 5.0}, "stall_after must be positive, and shorter than down_after"),
        ({"stalled_limit": 4.9}, "stalled_limit must not be shorter than down_after"),
        ({"stall_after": -1}, "stall_after cannot be -1 seconds"),
        ({"stalled_limit": float("nan")}, "stalled_limit cannot be nan seconds"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        Node("ada", join=[], cookie="a test", **settings)


@pytest.mark.parametrize(
    ("settings", "stall_after", "stalled_limit"),
    [({}, 1.0, 15.0), ({"heartbeat": 0.2}, 0.2, 3.0), ({"down_after": 20.0}, 1.0, 60.0)],
    ids=str,
)
def test_times_that_are_not_given_follow_from_the_heartbeat(settings: Any, stall_after: float, stalled_limit: float):
    node = Node("ada", join=[], cookie="a test", **settings)
    assert node._stall_after == stall_after
    assert node._times.stalled_limit == pytest.approx(stalled_limit)
