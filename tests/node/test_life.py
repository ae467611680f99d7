"""The life of a node: made, started, joined, closed; and what each may do meanwhile."""

import asyncio
import errno
import gc
import inspect
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import kinfolk
from kinfolk import (
    AuthenticationFailed,
    NameTaken,
    Node,
    NodeClosed,
    NodeUnreachable,
    PeerDown,
    Process,
    new_cookie,
)
from kinfolk import effects as fx
from kinfolk.registry import Registration
from kinfolk.shell.machine import RealMachine
from tests.node.nodes import PATIENCE, Nodes, echo, ended, idle, until
from tests.node.relay import Relay


async def collect_nodes(me: Process, seen: list[object]) -> None:
    me.monitor_node()
    while True:
        seen.append(await me.receive())


def test_a_node_touches_no_loop_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path))
    node = Node("ada")
    pid = node.spawn(echo)
    node.names.register_nowait("early", pid)
    assert node.names.whereis("early") == pid
    assert node.name.startswith("ada@127.0.0.1:") and not node.name.endswith(":0")
    assert repr(node) == f"<node {node.name} (new)>"

    async def main() -> None:
        async with node:
            assert await node.call("early", "hi") == "hi"

    kinfolk.run(main)
    assert repr(node) == f"<node {node.name} (closed)>"
    with pytest.raises(NodeClosed):
        node.spawn(echo)


def test_a_node_that_never_starts_can_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path))
    node = Node("ada")
    node.spawn(echo)
    port = int(node.name.rpartition(":")[2])
    asyncio.run(node.close())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))


LOOP_CLOSED_BEFORE_NODE = """
import asyncio
from kinfolk import Node, NodeClosed, Process, new_cookie


async def waiting(me: Process) -> None:
    await me.receive(lambda message: False)


async def busy(me: Process) -> None:
    await asyncio.get_running_loop().create_future()


node = Node("ada@127.0.0.1:0", cookie=new_cookie(), join=[])
pids = [node.spawn(waiting), node.spawn(busy)]
sender = node.processes()[0]
loop = asyncio.new_event_loop()
loop.run_until_complete(node.start())
loop.run_until_complete(asyncio.sleep(0))
for pid in pids:
    node.send(pid, "between two runs of its loop")
loop.close()
for again in range(2):
    for pid in pids:
        for whose in (node, sender):
            for what in (lambda: whose.send(pid, "m"), lambda: asyncio.run(whose.call(pid, "r"))):
                try:
                    what()
                except NodeClosed as error:
                    print(error)
    node.tracer = None
"""


def test_who_closes_the_loop_before_the_node_is_told_so_by_each_message():
    # In a program of its own: what such a node leaves behind is complained of when it is collected.
    done = subprocess.run(
        [sys.executable, "-c", LOOP_CLOSED_BEFORE_NODE], capture_output=True, text=True, timeout=50, check=True
    )
    told = done.stdout.splitlines()
    assert len(told) == 16 and len(set(told)) == 1
    assert "the event loop of ada@" in told[0] and "await node.close() while its loop runs" in told[0]


@pytest.mark.parametrize("registry", ["mesh", "etcd://127.0.0.1:1"])
async def test_a_node_that_is_abandoned_before_its_start_runs_nothing_and_knows_no_name(nodes: Nodes, registry: str):
    node, begun = nodes.make("ada", registry=registry), list[Process]()

    async def body(me: Process) -> None:
        begun.append(me)

    node.names.register_nowait("early", node.spawn(body))
    assert node.names.whereis("early") is not None
    node.abandon()
    gc.collect()  # a coroutine that nobody has ended would complain
    assert node.names.whereis("early") is None and not node.names.snapshot() and not begun


async def test_a_node_may_start_and_close_in_different_tasks(nodes: Nodes):
    node = nodes.make("ada")
    await asyncio.create_task(node.__aenter__())
    pid = node.spawn(echo)
    assert await node.call(pid, 1) == 1
    await asyncio.create_task(node.__aexit__(None, None, None))
    with pytest.raises(NodeClosed):
        node.send(pid, 1)


async def test_a_node_starts_once(nodes: Nodes):
    node = await nodes.start("ada")
    with pytest.raises(RuntimeError, match="has been started already"):
        await node.start()
    await node.close()
    with pytest.raises(NodeClosed, match="make a new Node"):
        await node.start()


async def test_closing_twice_and_at_once_is_closing_once(nodes: Nodes):
    node = await nodes.start("ada")
    await asyncio.gather(node.close(), node.close(), node.close())
    await node.close()


async def test_a_process_may_close_its_own_node(nodes: Nodes):
    node = await nodes.start("ada")
    done = asyncio.Event()

    async def last(me: Process) -> None:
        await me.node.close()
        done.set()

    node.spawn(last)
    await asyncio.wait_for(done.wait(), 5)


async def test_everything_that_waits_raises_node_closed_when_the_node_closes(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    local, remote = ada.spawn(idle), bob.spawn(idle)
    watch = ada.names.watch()
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def follow() -> None:
            async for _ in watch:
                pass

        waiting = {
            "a local call": ada.call(local, 1),
            "a remote call": ada.call(remote, 1, timeout=None),
            "wait_for": ada.names.wait_for("nobody"),
            "watch": follow(),
            "connect": ada.connect(f"127.0.0.1:{silent.getsockname()[1]}"),
        }
        tasks = {what: asyncio.create_task(coroutine) for what, coroutine in waiting.items()}
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks.values())
        await ada.close()
        for what, task in tasks.items():
            assert isinstance(await ended(task), NodeClosed), what
    # And everything after that.
    for after in (
        ada.call(remote, 1),
        ada.connect("127.0.0.1:1"),
        ada.names.register("x", local),
        ada.names.unregister("x"),
        ada.names.wait_for("x"),
    ):
        assert isinstance(await ended(after), NodeClosed)
    for order in (
        lambda: ada.send(local, 1),
        lambda: ada.kill(local),
        lambda: ada.spawn(idle),
        lambda: ada.names.register_nowait("x", local),
        lambda: ada.names.watch(),
    ):
        with pytest.raises(NodeClosed):
            order()
    assert ada.names.whereis("x") is None
    await until(lambda: not bob.peers())


async def test_closing_ends_the_processes_and_frees_the_port_for_the_next_start(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    ends: list[str] = []

    async def tidy(me: Process) -> None:
        try:
            await me.receive()
        finally:
            ends.append("tidied up")

    pid = ada.spawn(tidy)
    await ada.names.register("db", pid)
    await asyncio.sleep(0)
    await ada.close()
    assert ends == ["tidied up"]
    await until(lambda: bob.names.whereis("db") is None)
    again = await nodes.start(ada.name, bob)
    assert again.name == ada.name and again.creation > ada.creation
    assert not again.is_alive(pid)


async def test_a_node_that_takes_a_higher_creation_after_it_has_started_alone_still_answers_for_itself(nodes: Nodes):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    ada = await nodes.start("ada", join=[f"127.0.0.1:{port}"], join_timeout=0.1)
    first = ada.creation
    bob = nodes.make(f"bob@127.0.0.1:{port}")
    bob.kernel.members.creations[ada.name] = first + 10  # ada's clock went back since bob saw it
    await bob.start()
    await until(lambda: bob.peers() == [ada.name] and ada.peers() == [bob.name])
    assert ada.creation == first + 11
    for node in (ada, bob):
        assert (await node.call(("kinfolk", ada.name), ["info"]))["creation"] == ada.creation
    pid = ada.spawn(echo)
    assert pid.creation == ada.creation and await bob.call(pid, 1) == 1


async def test_closing_is_bounded_although_a_process_will_not_end(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("kinfolk.node.CLOSE_TIMEOUT", 0.1)
    node = await nodes.start("ada")
    release = asyncio.Event()

    async def stubborn(me: Process) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    node.spawn(stubborn)
    await asyncio.sleep(0)
    await asyncio.wait_for(node.close(), 2)
    assert "stubborn" in caplog.text
    release.set()
    await asyncio.sleep(0.01)


async def test_closing_is_bounded_although_a_peer_does_not_read(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.node.CLOSE_TIMEOUT", 0.2)
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target)
        ada = await nodes.start("ada", bob, down_after=60.0)
        pid = bob.spawn(idle)
        relay.stall()
        for _ in range(40):
            ada.send(pid, bytes(500_000))
        await asyncio.wait_for(ada.close(), 3)


async def test_another_thread_may_look_names_up_and_nothing_else(nodes: Nodes):
    node = await nodes.start("ada")
    pid = node.spawn(echo)
    await node.names.register("db", pid)
    found: dict[str, object] = {}

    def elsewhere() -> None:
        found["whereis"] = node.names.whereis("db")
        for what, order in {
            "send": lambda: node.send(pid, 1),
            "spawn": lambda: node.spawn(echo),
            "register_nowait": lambda: node.names.register_nowait("x", pid),
            "kill": lambda: node.kill(pid),
        }.items():
            try:
                order()
            except RuntimeError as error:
                found[what] = str(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert found.pop("whereis") == pid
    assert set(found) == {"send", "spawn", "register_nowait", "kill"}
    assert all("thread" in str(text) for text in found.values())


async def test_a_node_is_not_closed_from_another_thread(nodes: Nodes):
    ada = await nodes.start("ada")
    with pytest.raises(RuntimeError, match="run_coroutine_threadsafe"):
        await asyncio.to_thread(lambda: asyncio.run(ada.close()))
    assert ada.ready
    assert await ada.call(ada.spawn(echo), 1) == 1
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(ada.close(), loop).result())
    assert not ada.ready


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12 and later: any fork with threads
async def test_a_fork_that_outlives_its_parent_keeps_neither_port_nor_connections(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    seen: list[object] = []
    bob.spawn(collect_nodes, seen)
    await until(lambda: seen)
    end, kept = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(kept)
            os.read(end, 1)  # until the parent has seen enough
        finally:
            os._exit(0)
    os.close(end)
    try:
        ada.abandon()
        await until(lambda: len(seen) == 2)
        assert isinstance(seen[1], PeerDown)
        assert "heard nothing" not in seen[1].reason
        again = await nodes.start(ada.name)
        await again.close()
    finally:
        os.close(kept)
        await asyncio.to_thread(os.waitpid, child, 0)


async def test_nodes_of_different_cookies_in_one_program_keep_apart(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    eve = await nodes.start("eve", cookie=new_cookie())
    with pytest.raises(AuthenticationFailed, match="cookie"):
        await ada.connect(eve.name)
    with pytest.raises(AuthenticationFailed, match="cookie"):
        await eve.connect(bob.name)
    assert eve.peers() == [] and ada.peers() == [bob.name]


async def test_a_start_that_is_refused_or_cannot_bind_leaves_nothing_behind(nodes: Nodes):
    ada = await nodes.start("ada")
    with pytest.raises(AuthenticationFailed, match="cookie") as refused:
        await nodes.start("eve", ada, cookie=new_cookie())
    assert refused.value.reason == "cookie"
    with pytest.raises(AuthenticationFailed, match="cluster") as refused:
        await nodes.start("eve", ada, cluster="elsewhere")
    assert refused.value.reason == "cluster"
    with pytest.raises(OSError, match=r"is another node running there\? End it, or take another port"):
        await nodes.start(ada.name)
    with pytest.raises(OSError, match="is no address of this machine: name one that is, or say which to bind with"):
        await nodes.start("eve@192.0.2.1:0", cookie=new_cookie())
    with pytest.raises(NodeUnreachable, match="min_peers"):
        await nodes.start("bob", join=["127.0.0.1:1"], min_peers=1, join_timeout=0.05)
    assert ada.peers() == []


async def test_a_cancelled_start_leaves_nothing_behind(nodes: Nodes):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = nodes.make("ada", join=[f"127.0.0.1:{silent.getsockname()[1]}"])
        starting = asyncio.create_task(node.start())
        await asyncio.sleep(0.05)
        starting.cancel()
        assert isinstance(await ended(starting), asyncio.CancelledError)
        with pytest.raises(NodeClosed):
            await node.start()


async def test_connect_says_what_is_wrong(nodes: Nodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    with pytest.raises(ValueError, match="this node itself"):
        await ada.connect(ada.name)
    with pytest.raises(AuthenticationFailed, match="itself"):
        await ada.connect(ada.name.partition("@")[2])
    with pytest.raises(ValueError, match="host and a port"):
        await ada.connect("bob")
    with pytest.raises(NodeUnreachable, match="is it running there"):
        await ada.connect("bob@127.0.0.1:1", timeout=1.0)
    with pytest.raises(AuthenticationFailed, match="expected") as refused:
        await ada.connect(bob.name.replace("bob", "carl"))
    assert refused.value.reason == "name"
    await ada.connect(bob.name.partition("@")[2])
    assert ada.peers() == [bob.name]
    await ada.connect(bob.name)  # once more is no error
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NodeUnreachable, match=r"0\.1 s"):
        await ada.connect(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)


async def test_who_cannot_connect_for_want_of_descriptors_does_not_blame_the_other_end(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")

    async def dial(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(RealMachine, "dial", dial)
    with pytest.raises(NodeUnreachable, match=r"Too many open files, here at this node: .*ulimit -n"):
        await ada.connect(bob.name, timeout=0.2)


async def test_after_connect_this_node_holds_the_names_of_everybody_in_both_meshes(nodes: Nodes):
    left = await nodes.mesh("ada", "bob")
    right = await nodes.mesh("carl", "dora", "eve")
    pids = {}
    for node in (*left, *right):
        pids[f"name of {node.name}"] = (await node.names.register(f"name of {node.name}", node.spawn(idle))).pid
    await left[0].connect(right[0].name)
    assert left[0].names.snapshot() == pids
    assert len(left[0].peers()) == 4
    everybody = [*left, *right]
    await until(lambda: all(len(node.peers()) == 4 and node.names.snapshot() == pids for node in everybody))


async def test_a_peer_whose_address_resets_connections_for_a_while_is_soon_back(nodes: Nodes):
    # As a forwarder does whose target is being restarted. It is no refusal: nobody said that the cookie is wrong.
    async with Relay() as to_ada, Relay() as to_bob:
        bob = await nodes.start(to_bob.name("bob"), listen=to_bob.target)
        ada = await nodes.start(to_ada.name("ada"), bob, listen=to_ada.target)
        await asyncio.gather(to_ada.cut(accept=True), to_bob.cut(accept=True))
        tried = to_ada.accepted, to_bob.accepted
        await until(lambda: to_ada.accepted > tried[0] + 1 and to_bob.accepted > tried[1] + 1)
        assert ada.peers() == bob.peers() == []
        to_ada.heal()
        to_bob.heal()
        await until(lambda: ada.peers() == [bob.name] and bob.peers() == [ada.name], 3.0)


async def test_a_seed_that_resets_connections_at_first_is_joined_before_the_join_times_out(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target)
        await relay.cut(accept=True)
        starting = asyncio.create_task(nodes.start("ada", bob))
        await until(lambda: relay.accepted > 1)
        relay.heal()
        ada = await asyncio.wait_for(starting, 4)
        assert ada.peers() == [bob.name]
        # If it goes on, the likely cause is told in the end.
        await relay.cut(accept=True)
        with pytest.raises(AuthenticationFailed, match="probably the cookies differ"):
            await nodes.start("carl", bob, join_timeout=0.3)


async def test_a_loop_that_was_busy_declares_nobody_dead(nodes: Nodes):
    import time

    ada, bob = await nodes.mesh("ada", "bob", heartbeat=0.05)
    time.sleep(0.5)  # noqa: ASYNC251 - it is the loop that must stand still, for longer than down_after
    await asyncio.sleep(0.2)
    for node in (ada, bob):
        assert node.counters["peers_lost"] == 0
        assert len(node.peers()) == 1


async def test_start_and_run_serve_notebooks_and_programs(nodes: Nodes):
    node = await kinfolk.start("ada", cookie=nodes.cookie, join=[])
    nodes.all.append(node)
    assert await node.call(node.spawn(echo), [1]) == [1]
    assert [process.pid.local for process in node.processes()] == [1, 2]


async def test_nodes_on_ipv6_loopback_find_each_other(nodes: Nodes):
    try:
        ada = await nodes.start("ada@[::1]:0")
    except OSError:
        pytest.skip("this machine has no IPv6")
    bob = await nodes.start("bob@[::1]:0", ada)
    await until(lambda: ada.peers() == [bob.name])
    pid = (await bob.names.register("six", bob.spawn(echo))).pid
    assert ada.names.whereis("six") == pid and await ada.call("six", 6) == 6


class _Half:
    """A kernel that fails in the middle of taking a name, as a bug would make it, or the end of the stack."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.next_deadline, self.name = kernel.next_deadline, kernel.name

    def handle(self, happened: fx.Input, now: fx.Now) -> list[fx.Effect]:
        effects: list[fx.Effect] = self._kernel.handle(happened, now)
        if isinstance(happened, fx.Register):
            raise RecursionError("half of it is done")
        return effects


async def test_a_node_whose_kernel_fails_halfway_ends_at_once_and_the_others_know(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ada, bob = await nodes.mesh("ada", "bob", heartbeat=600.0)  # so nobody notices its silence
    pid = ada.spawn(idle)
    await ada.names.register("before", pid)
    await until(lambda: bob.names.whereis("before") == pid)
    driver = ada._parts.driver
    monkeypatch.setattr(driver, "_kernel", _Half(ada._parts.kernel))
    with pytest.raises(RecursionError):
        ada.names.register_nowait("half", pid)
    await asyncio.wait_for(ada.wait_closed(), PATIENCE)
    assert ada.has_failed and "ends at once" in caplog.text
    await until(lambda: not bob.peers() and bob.names.whereis("before") is None and bob.names.whereis("half") is None)
    with pytest.raises(NodeClosed):
        ada.send(pid, "anybody there?")
    with pytest.raises(NodeClosed):
        await ada.names.register("again", pid)
    await ada.close()
    again = await nodes.start(ada.name, bob)
    assert again.peers() == [bob.name]


async def test_a_node_whose_stack_ends_while_it_carries_out_what_was_decided_ends_as_well(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada = await nodes.start("ada", heartbeat=600.0)

    def at_the_end(effect: fx.NameAdded) -> None:
        raise RecursionError

    performers: Any = ada._parts.driver._performers
    monkeypatch.setitem(performers, fx.NameAdded, at_the_end)
    with pytest.raises(RecursionError):
        ada.names.register_nowait("shown to nobody", ada.spawn(idle))
    await asyncio.wait_for(ada.wait_closed(), PATIENCE)
    assert ada.has_failed


async def test_deadlines_are_kept_by_the_loop_on_which_a_node_was_started_last(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    driver, loops = nodes.make("ada")._parts.driver, [asyncio.new_event_loop() for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_kernel", SimpleNamespace(next_deadline=lambda: 5.0))
        for loop in loops:
            driver.start(loop)
    cancelled = [[timer.cancelled() for timer in loop._scheduled] for loop in cast("list[Any]", loops)]
    driver.stop()
    for loop in loops:
        loop.close()
    assert cancelled == [[True], [False]]


def _deep(frames: int, do: Callable[[], object]) -> object:
    return do() if frames == 0 else _deep(frames - 1, do)


async def test_names_taken_at_the_end_of_the_stack_are_taken_or_not_or_the_node_has_ended(nodes: Nodes):
    room = sys.getrecursionlimit() - len(inspect.stack(0))
    failed = 0
    for left in range(2, 60, 3):
        ada = await nodes.start("ada", heartbeat=600.0)
        pid, name = ada.spawn(idle), f"with {left} frames left"
        with suppress(RecursionError):
            _deep(room - left, lambda: ada.names.register_nowait(name, pid))  # noqa: B023 - it is called here
        held = await ended(ada.names.register(name, pid))
        if ada.has_failed:
            failed += 1
            assert isinstance(held, NodeClosed), held
            continue
        assert isinstance(held, Registration | NameTaken), held
        await ada.names.unregister(name)
        assert ada.names.whereis(name) is None
    assert failed, "in none of them it was the kernel that came to the end"
