"""Singletons: of all nodes that supervise one, one runs it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from kinfolk import Child, Node, NoProcess, Pid, Process, Reason, Request, Server, Supervision
from tests.node.nodes import HEARTBEAT, Nodes, echo, ended, holders, until
from tests.node.relay import between

History = list[tuple[str, str]]


class Who(Request[str], tag="who"):
    pass


class Chief(Server):
    """Writes down where it runs from when to when."""

    async def init(self, history: History) -> None:
        self.history = history
        self.word = self.node.name.partition("@")[0]
        history.append(("+", self.word))

    async def who(self, message: Who) -> str:
        return self.word

    async def terminate(self, reason: Reason) -> None:
        self.history.append(("-", self.word))


async def chief(me: Process, history: History) -> None:
    word = me.node.name.partition("@")[0]
    history.append(("+", word))
    try:
        match await me.receive():
            case "crash":
                raise ValueError("told to")
            case _:
                return
    finally:
        history.append(("-", word))


def alternate(history: History) -> bool:
    """Whether there never were two: each start is followed by its own stop."""
    return all(
        sign == "+-"[place % 2] and (sign == "+" or word == history[place - 1][1])
        for place, (sign, word) in enumerate(history)
    )


async def supervise(nodes: Sequence[Node], body: Any, history: History, **options: Any) -> list[Supervision]:
    return [await node.supervise([Child(body, history, name="chief", singleton=True)], **options) for node in nodes]


def states(trees: Sequence[Supervision]) -> list[str]:
    return [info.state for tree in trees for info in tree.children()]


async def one_runs(nodes: Sequence[Node], trees: Sequence[Supervision], *not_as: Pid | None) -> Pid:
    """Wait until one runs and the others stand by, and every node knows it; its pid."""
    await until(lambda: sorted(states(trees)) == ["running", *["standby"] * (len(trees) - 1)])
    found: Pid = await until(
        lambda: len(who := holders(list(nodes), "chief")) == 1 and (pid := who.pop()) not in (None, *not_as) and pid
    )
    # It has its name a moment before its supervisor knows that it has started.
    await until(lambda: [info.pid for tree in trees for info in tree.children() if info.pid is not None] == [found])
    return found


async def test_one_runs_and_the_others_stand_by_and_do_not_hold_up_those_after_them(nodes: Nodes):
    mesh = ada, *_ = await nodes.mesh("ada", "bob", "carl")
    history: History = []
    trees = await asyncio.gather(
        *(
            node.supervise([Child(Chief, history, name="chief", singleton=True), Child(echo)], strategy="rest_for_one")
            for node in mesh
        )
    )
    infos = [tree.children() for tree in trees]
    assert [after.state for _, after in infos] == ["running"] * 3
    await until(lambda: sorted(tree.children()[0].state for tree in trees) == ["running", "standby", "standby"])
    assert await ada.call("chief", Who()) == history[0][1]
    await asyncio.gather(*(tree.stop() for tree in trees))
    assert alternate(history)
    for node in mesh:
        assert [process.function for process in node.processes()] == ["service"]
        assert len(node.signals.relations) == 0
        assert len(node.alarms) == 0


async def test_when_the_holder_goes_the_next_one_starts(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl")
    history: History = []
    trees = await supervise(mesh, chief, history, intensity=100)
    pid = await one_runs(mesh, trees)
    for way in ("return", "crash", "kill", "return", "crash", "kill"):
        await until(lambda: history[-1][0] == "+")  # its first step is taken
        if way == "kill":
            mesh[0].kill(pid)
        else:
            mesh[0].send(pid, way)
        pid = await one_runs(mesh, trees, pid)
    await until(lambda: len(history) == 13)
    assert alternate(history)


async def test_stopping_the_supervisor_or_closing_the_node_hands_it_on(nodes: Nodes):
    mesh = ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    history: History = []
    trees = await supervise(mesh, Chief, history)
    assert (await one_runs(mesh, trees)).node == ada.name
    await trees[0].stop()
    held = await one_runs(mesh, trees[1:])
    first, second = (bob, carl) if held.node == bob.name else (carl, bob)
    await first.close()
    await until(lambda: holders([ada, second], "chief") != {held})
    found = await second.names.wait_for("chief", timeout=5)
    assert found.node == second.name
    await until(lambda: len(history) == 5)
    assert alternate(history)


async def test_its_code_starts_only_after_its_name_is_confirmed(nodes: Nodes):
    seen: list[set[Pid | None]] = []

    async def first_look(me: Process) -> None:
        seen.append(holders(mesh, "chief") | {me.pid})
        await me.receive()

    mesh = await nodes.mesh("ada", "bob", "carl")
    for node in mesh:
        await node.supervise([Child(first_look, name="chief", singleton=True)])
    await until(lambda: seen)
    assert len(seen[0]) == 1, "every node knew it"


async def test_a_name_that_somebody_else_holds_is_waited_for(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    history: History = []
    other = bob.spawn(echo)
    await bob.names.register("chief", other)
    trees = await supervise([ada], Chief, history)
    assert states(trees) == ["standby"]
    bob.kill(other)
    await one_runs([ada, bob], trees)
    assert history == [("+", "ada")]


async def test_an_init_that_fails_on_one_node_leaves_it_to_another(nodes: Nodes):
    class Unlucky(Server):
        async def init(self, history: History) -> None:
            history.append(("+", self.node.name.partition("@")[0]))
            if self.node is ada:
                raise OSError("no disk here")

    mesh = ada, _ = await nodes.mesh("ada", "bob")
    history: History = []
    other = ada.spawn(echo)
    await ada.names.register("chief", other)
    trees = await supervise(mesh, Unlucky, history, intensity=2, period=60)
    ada.kill(other)
    await until(lambda: states(trees[1:]) == ["running"])
    (running,) = trees[1].children()
    assert holders(mesh, "chief") == {running.pid}
    assert history.count(("+", "bob")) == 1
    assert history.count(("+", "ada")) <= 3, "then its supervisor has given up"


async def test_after_a_partition_the_loser_stops_and_stands_by(nodes: Nodes):
    async with between(nodes, "ada", "bob") as way:
        ada, bob = way.nodes
        history: History = []
        trees = await supervise([ada, bob], Chief, history, intensity=0)
        first = await one_runs([ada, bob], trees)
        assert first.node == ada.name
        way.stall()
        await until(lambda: states(trees) == ["running", "running"])  # as it must be: nobody knows of the other
        assert history == [("+", "ada"), ("+", "bob")]
        way.heal()
        assert await one_runs([ada, bob], trees) == first
        assert history == [("+", "ada"), ("+", "bob"), ("-", "bob")], "the loser's code has stopped"
        ada.kill(first)
        assert (await one_runs([ada, bob], trees, first)).node == bob.name


async def test_a_loser_that_does_not_end_by_itself_is_killed(nodes: Nodes):
    async def deaf(me: Process, history: History) -> None:
        me.trap_exit = True
        history.append(("+", me.node.name.partition("@")[0]))
        try:
            while True:
                await me.receive()
        finally:
            history.append(("-", me.node.name.partition("@")[0]))

    async with between(nodes, "ada", "bob") as way:
        ada, bob = way.nodes
        history: History = []
        trees = [
            await node.supervise([Child(deaf, history, name="chief", singleton=True, shutdown=2 * HEARTBEAT)])
            for node in (ada, bob)
        ]
        first = await one_runs([ada, bob], trees)
        way.stall()
        await until(lambda: states(trees) == ["running", "running"])
        way.heal()
        assert await one_runs([ada, bob], trees) == first
        assert history[-1] == ("-", "bob")


async def test_whoever_calls_one_that_does_not_get_its_name_is_told(nodes: Nodes):
    async with between(nodes, "ada", "abe", down_after=5) as way:
        ada, abe = way.nodes  # of two claims of one moment, that of the smaller name wins
        way.stall()
        abe.names.register_nowait("chief", abe.spawn(echo))  # first, but ada does not know
        history: History = []
        start = asyncio.create_task(ada.supervise([Child(Chief, history, name="chief", singleton=True)]))
        claimed = await ada.names.wait_for("chief", timeout=5)
        call = asyncio.create_task(ada.call("chief", Who()))
        await asyncio.sleep(0)
        way.heal()
        assert isinstance(await ended(call), NoProcess)
        tree = await start
        assert states([tree]) == ["standby"]
        assert not ada.is_alive(claimed)
        assert history == []
