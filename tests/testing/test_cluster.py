"""Clusters for tests: on a simulated loop, in memory with real time, and over loopback."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kinfolk import Node, NodeClosed, NotSerializable, Process
from kinfolk.testing import Cluster, NotSettled, cluster, simulate

KINDS = ("simulated", "memory", "loopback")


def run(kind: str, test: Callable[..., Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test with three nodes of one kind."""

    async def main() -> None:
        async with cluster(3, loopback=kind == "loopback", **settings) as nodes:
            await test(nodes)
        if kind != "simulated":  # where those of crashed nodes are there to the end
            assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left over"

    if kind == "simulated":
        for seed in range(5):
            simulate(seed, main)
    else:
        asyncio.run(main())


async def echo(me: Process) -> None:
    async for call in me.calls():
        call.reply(call.body)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_are_connected_messages_strict_and_a_node_can_be_added(kind: str):
    async def test(nodes: Cluster) -> None:
        ada, bob, carl = nodes
        assert ada.peers() == sorted([bob.name, carl.name])
        await ada.names.register("echo", ada.spawn(echo))
        assert await carl.call("echo", 5) == 5
        with pytest.raises(NotSerializable):
            ada.send("echo", object())
        dora = await nodes.add()
        await nodes.settled()
        assert nodes[3] is dora and len(nodes) == 4 and len(bob.peers()) == 3
        assert await dora.call("echo", 5) == 5

    run(kind, test)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_ends_everything_at_once_and_a_restart_runs_the_program_again(kind: str):
    starts: list[str] = []
    ended: list[str] = []

    async def main(node: Node) -> None:
        starts.append(node.name)
        await asyncio.Event().wait()

    async def careful(me: Process) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async def test(nodes: Cluster) -> None:
        starts.clear()
        ended.clear()
        ada, bob, _ = nodes
        await asyncio.sleep(0.01)
        count = len(starts)
        pid = ada.spawn(careful)
        await ada.names.register("x", pid)
        waits = asyncio.ensure_future(ada.call(ada.spawn(careful), "nobody answers", timeout=None))
        await asyncio.sleep(0.01)
        await nodes.crash(ada)
        with pytest.raises(NodeClosed):
            await waits
        assert bool(ended) is (kind != "simulated"), "no code of a program that was killed runs"
        assert not nodes.is_up(ada)
        await nodes.settled()
        assert bob.names.whereis("x") is None and ada.name not in bob.peers()
        with pytest.raises(NodeClosed):
            ada.spawn(careful)
        born = await nodes.restart(ada)
        await nodes.settled()
        assert nodes[0] is born and born.name == ada.name and born.creation > ada.creation
        assert born.name in bob.peers()
        await asyncio.sleep(0.01)
        assert starts[count:] == [born.name]
        await nodes.restart(bob)
        await nodes.settled()
        assert len(nodes[1].peers()) == 2

    run(kind, test, main=main)


@pytest.mark.parametrize("kind", ["simulated", "memory"])
def test_a_node_that_crashes_while_it_starts_has_not_started_and_can_be_restarted(kind: str):
    async def test(nodes: Cluster) -> None:
        ada, bob, _ = nodes
        nodes.partition(ada)  # so that the start takes long
        starting = asyncio.ensure_future(nodes.restart(ada))
        while nodes[0] is ada:  # noqa: ASYNC110 - nobody tells when it is there
            await asyncio.sleep(0)
        await nodes.crash(nodes[0])
        with pytest.raises(NodeClosed, match="ada has crashed while it was starting"):
            await starting
        assert not nodes.is_up(nodes[0])
        nodes.heal()
        await nodes.restart(nodes[0])
        await nodes.settled()
        assert nodes[0].name in bob.peers()

    run(kind, test)


@pytest.mark.parametrize("kind", ["simulated", "memory"])
def test_a_partition_parts_and_healing_ends_it(kind: str):
    async def test(nodes: Cluster) -> None:
        ada, bob, carl = nodes
        await ada.names.register("x", ada.spawn(echo))
        nodes.partition(ada, [bob, carl])
        assert not nodes.connected(ada, carl) and nodes.connected(bob, carl)
        await nodes.settled()
        assert ada.peers() == [] and bob.peers() == [carl.name] and carl.names.whereis("x") is None
        nodes.heal()
        await nodes.settled()
        assert carl.names.whereis("x") == ada.names.whereis("x")
        nodes.partition(bob)
        assert nodes.connected(ada, carl) and not nodes.connected(ada, bob) and not nodes.connected(bob, carl)
        nodes.heal()
        nodes.stall(ada, bob)
        await nodes.settled()
        assert bob.name not in ada.peers() and ada.name not in bob.peers()
        nodes.heal()
        await nodes.settled()
        nodes.cut(ada, bob)
        await nodes.settled()
        assert ada.counters["peers_lost"] >= 3 and bob.name in ada.peers()

    run(kind, test)


@pytest.mark.parametrize("kind", ["simulated", "memory"])
def test_a_node_without_power_is_missed_after_a_while(kind: str):
    async def test(nodes: Cluster) -> None:
        ada, bob, carl = nodes
        await nodes.crash(ada, power=True)
        assert ada.name in bob.peers()
        await asyncio.sleep(0.05)
        assert ada.name in bob.peers(), "nobody has told"
        await nodes.settled()
        assert bob.peers() == [carl.name]
        await nodes.restart(ada)
        await nodes.settled()

    run(kind, test)


def test_a_wrong_setting_is_told_as_by_a_node_alone():
    async def main() -> None:
        async with cluster(2, cluster="no good"):
            pass

    with pytest.raises(ValueError, match="no good"):
        simulate(0, main)


def test_who_never_settles_is_told_what_is_missing():
    async def main() -> None:
        async with cluster(2) as nodes:
            nodes.partition(nodes[0])
            with pytest.raises(NotSettled, match=r"after 1 s ada@ada:4370 holds the other for connected"):
                await nodes.settled(timeout=1)

    simulate(0, main)


def test_what_cannot_be_is_refused_with_the_remedy():
    async def test(nodes: Cluster) -> None:
        with pytest.raises(RuntimeError, match="leave out loopback=True"):
            nodes.partition(nodes[0])
        with pytest.raises(RuntimeError, match="power"):
            await nodes.crash(nodes[0], power=True)
        with pytest.raises(ValueError, match="no node of this cluster"):
            await nodes.crash(Node("x@127.0.0.1:0", cookie="x", allow_weak_cookie=True))

    run("loopback", test)

    async def main() -> None:
        async with cluster(1, loopback=True):
            pass

    with pytest.raises(RuntimeError, match="a simulation has no loopback"):
        simulate(0, main)


def test_what_the_program_of_a_node_raises_is_raised_in_the_end():
    async def fails(node: Node) -> None:
        raise LookupError("something is missing")

    async def test(nodes: Cluster) -> None:
        await asyncio.sleep(0.01)

    with pytest.raises(LookupError, match="something is missing"):
        run("simulated", test, main=fails)


def test_a_clock_can_be_wrong_and_a_minute_of_a_cluster_takes_a_moment():
    async def test(nodes: Cluster) -> None:
        ada, bob, carl = nodes
        nodes.set_clock(ada, 3600.0)
        assert ada.machine.wall_clock() - bob.machine.wall_clock() == 3600 * 10**9
        await asyncio.sleep(60)
        assert len(carl.peers()) == 2

    began = time.monotonic()
    run("simulated", test)
    assert time.monotonic() - began < 60


def test_a_node_in_memory_reads_no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def test(nodes: Cluster) -> None:
        assert nodes[0].cluster == "kinfolk"

    (tmp_path / "kinfolk.toml").write_text('cluster = "here"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINFOLK_CLUSTER", "everywhere")
    run("simulated", test)


def test_the_same_seed_is_the_same_run_and_another_is_another():
    def run_of(seed: int) -> list[str]:
        lines: list[str] = []

        async def main() -> None:
            async with cluster(3) as nodes:
                await nodes[0].names.register("x", nodes[0].spawn(echo))
                await nodes.crash(nodes[0])
                await nodes.settled()

        simulate(seed, main, log=lines.append)
        return lines

    assert run_of(1) == run_of(1)
    assert run_of(1) != run_of(2)
    assert any(" bytes ada bob " in line for line in run_of(1))
    assert any(" log INFO " in line for line in run_of(1))
