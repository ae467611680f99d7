"""Supervisors at work: what they start, stop and start again, and that nothing is left behind."""

import asyncio
import gc
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kinfolk import (
    Child,
    ChildFailed,
    ChildInfo,
    Crash,
    Exit,
    NameLost,
    NameTaken,
    Node,
    NoProcess,
    Pid,
    Process,
    Reason,
    Request,
    Server,
    Stop,
    Supervision,
    Supervisor,
)
from kinfolk.looking import trees
from tests.node.nodes import Nodes, echo, ended, until

Log = list[str]


class Ask(Request[str], tag="ask"):
    pass


class Logged(Server):
    """Writes down its start and its end."""

    async def init(self, word: str, log: Log, trouble: list[str] | None = None) -> None:
        self.word, self.log = word, log
        await asyncio.sleep(0.01)
        if trouble:
            raise OSError(trouble.pop())
        log.append(f"+{word}")

    async def ask(self, message: Ask) -> str:
        return self.word

    async def terminate(self, reason: Reason) -> None:
        await asyncio.sleep(0.01)
        self.log.append(f"-{self.word} {reason}")


async def worker(me: Process, log: Log) -> None:
    log.append("+worker")
    try:
        match await me.receive():
            case "crash":
                raise ValueError("told to")
            case "stop":
                raise Stop("shutdown")
            case _:
                return
    finally:
        log.append("-worker")


async def stubborn(me: Process, log: Log) -> None:
    me.trap_exit = True
    while True:
        log.append(str(await me.receive()))


@pytest.fixture
async def ada(nodes: Nodes) -> Node:
    return await nodes.start("ada")


def pid_of(tree: Supervision, child: str) -> Pid:
    pid = {info.id: info.pid for info in tree.children()}[child]
    assert pid is not None, f"{child} does not run"
    return pid


def states(tree: Supervision) -> dict[str, str]:
    return {info.id: info.state for info in tree.children()}


async def renewed(tree: Supervision, child: str, old: Pid) -> Pid:
    """Wait until a child has been started again."""
    new: Pid = await until(
        lambda: next((info.pid for info in tree.children() if info.id == child and info.pid not in (None, old)), None)
    )
    return new


def nothing_left(node: Node) -> None:
    assert [process.function for process in node.processes()] == ["service"]
    assert len(node.signals.relations) == 0
    assert len(node.alarms) == 0
    assert node.supervisors == {}


async def test_starts_in_order_each_complete_and_stops_in_the_opposite_order(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(Logged, word, log, id=word) for word in "abc"])
    assert log == ["+a", "+b", "+c"]
    assert [info.state for info in tree.children()] == ["running"] * 3
    assert await ada.call(pid_of(tree, "b"), Ask()) == "b"
    await tree.stop()
    assert log[3:] == ["-c shutdown", "-b shutdown", "-a shutdown"]
    nothing_left(ada)
    await tree.stop()  # once more does nothing
    with pytest.raises(NoProcess):
        await tree.start_child(Child(echo))


async def test_closing_the_node_stops_in_good_order(nodes: Nodes):
    log: Log = []
    node = await nodes.start("ada")
    await node.supervise([Child(Logged, word, log) for word in "ab"])
    node.spawn(Logged, "lone", log)
    await until(lambda: "+lone" in log)
    await asyncio.gather(node.close(), node.close())
    assert log[3:] == ["-b shutdown", "-a shutdown", "-lone shutdown"]


async def test_closing_the_node_ends_servers_that_handle_exits_in_good_order_too(nodes: Nodes):
    class Deaf(Logged):
        async def left(self, message: Exit) -> None: ...

    log: Log = []
    node = await nodes.start("ada")
    node.spawn(Deaf, "a", log)
    await until(lambda: log)
    await node.close()
    assert log == ["+a", "-a shutdown"]


@pytest.mark.parametrize(
    ("strategy", "again"),
    [("one_for_one", "b"), ("one_for_all", "abc"), ("rest_for_one", "bc")],
)
async def test_who_starts_again_with_a_child_that_crashes(ada: Node, strategy: Any, again: str):
    log: Log = []
    tree = await ada.supervise([Child(worker, log, id=word) for word in "abc"], strategy=strategy)
    before = {info.id: info.pid for info in tree.children()}
    ada.send(pid_of(tree, "b"), "crash")
    await until(lambda: all(info.restarts == (info.id in again) for info in tree.children()))
    after = {info.id: info.pid for info in tree.children()}
    assert {word for word in "abc" if before[word] != after[word]} == set(again)
    await tree.stop()
    assert log.count("+worker") == log.count("-worker") == 3 + len(again)
    nothing_left(ada)


@pytest.mark.parametrize(
    ("restart", "word", "state"),
    [
        ("permanent", "return", "running"),
        ("permanent", "crash", "running"),
        ("transient", "return", "done"),
        ("transient", "stop", "done"),
        ("transient", "crash", "running"),
        ("temporary", "return", None),
        ("temporary", "crash", None),
    ],
)
async def test_whether_a_child_runs_again(ada: Node, restart: Any, word: str, state: str | None):
    log: Log = []
    tree = await ada.supervise([Child(worker, log, restart=restart, id="w")])
    old = pid_of(tree, "w")
    ada.send(old, word)
    if state == "running":
        assert await renewed(tree, "w", old) != old
    await until(lambda: states(tree).get("w") == state)
    await tree.stop()
    nothing_left(ada)


async def test_gives_up_after_too_many_restarts(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(worker, log, id="w"), Child(Logged, "a", log)], intensity=2, period=60)
    end = asyncio.create_task(ada.wait_exit(tree.pid))
    await asyncio.sleep(0)
    for _ in range(2):
        old = pid_of(tree, "w")
        ada.send(old, "crash")
        await renewed(tree, "w", old)
    ada.send(pid_of(tree, "w"), "crash")
    reason = await end
    assert isinstance(reason, Crash)
    assert reason.type == "ChildFailed"
    assert "'w' ended again after more restarts than 2 in 60 s: ValueError: told to" in reason.message
    assert log[-1] == "-a shutdown"
    nothing_left(ada)


async def test_restarts_that_are_long_ago_do_not_count(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(worker, log, id="w")], intensity=1, period=0.05)
    for _ in range(4):
        old = pid_of(tree, "w")
        ada.send(old, "crash")
        await renewed(tree, "w", old)
        await asyncio.sleep(0.06)  # longer than the period
    assert states(tree) == {"w": "running"}


async def test_an_init_that_fails_at_the_start_fails_supervise(ada: Node):
    log: Log = []
    children = [Child(Logged, "a", log), Child(Logged, "b", log, ["no disk"], id="b"), Child(Logged, "c", log)]
    with pytest.raises(ChildFailed, match="the child 'b' did not start: OSError: no disk") as caught:
        await ada.supervise(children)
    assert caught.value.child == "b"
    assert isinstance(caught.value.__cause__, OSError)
    assert log == ["+a", "-a shutdown"]
    nothing_left(ada)


async def test_arguments_that_do_not_fit_fail_it_as_well(ada: Node):
    child = Child(worker, [], id="w")
    child.args = (1, 2, 3)
    with pytest.raises(ChildFailed, match=r"'w' did not start: .*positional arguments"):
        await ada.supervise([child])
    nothing_left(ada)


async def test_an_init_that_fails_later_counts_and_is_tried_again(ada: Node):
    log: Log = []
    trouble: list[str] = []
    tree = await ada.supervise([Child(Logged, "a", log, trouble, id="a")], intensity=3, period=60)
    trouble += ["once", "twice"]
    ada.kill(pid_of(tree, "a"))
    await until(lambda: log == ["+a", "+a"])
    await tree.stop()


async def test_a_child_that_does_not_end_in_time_is_killed(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(stubborn, log, shutdown=0.05)])
    await tree.stop()
    assert log == [str(Exit(tree.pid, "shutdown"))]
    nothing_left(ada)


async def test_a_shutdown_of_none_waits_and_of_zero_kills_at_once(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(Logged, "a", log, shutdown=0), Child(Logged, "b", log, shutdown=None)])
    await tree.stop()
    assert log == ["+a", "+b", "-b shutdown"]


async def test_the_next_start_waits_until_the_code_of_the_last_has_ended(ada: Node):
    log: Log = []

    async def holder(me: Process) -> None:
        log.append("open")
        try:
            await me.receive()
        finally:
            await asyncio.sleep(0.05)
            log.append("close")

    tree = await ada.supervise([Child(holder, id="h")])
    old = pid_of(tree, "h")
    await until(lambda: log)
    ada.kill(old)
    await renewed(tree, "h", old)
    await until(lambda: len(log) == 3)
    assert log == ["open", "close", "open"]


async def test_stopping_the_supervisor_while_a_child_starts(ada: Node):
    async def slow_init(me: Process) -> None: ...

    class Slow(Server):
        async def init(self, log: Log) -> None:
            log.append("begins")
            await asyncio.Event().wait()

    log: Log = []
    start = asyncio.create_task(ada.supervise([Child(slow_init, restart="temporary"), Child(Slow, log, shutdown=0.05)]))
    await until(lambda: log)
    start.cancel()
    assert isinstance(await ended(start), asyncio.CancelledError)
    await until(lambda: not ada.supervisors)
    nothing_left(ada)


async def test_killing_a_supervisor_takes_its_children_along(ada: Node):
    log: Log = []
    tree = await ada.supervise([Child(Supervisor([Child(worker, log), Child(Logged, "a", log)])), Child(worker, log)])
    await until(lambda: len(log) == 3)
    ada.kill(tree.pid)
    await until(lambda: len(ada.processes()) == 1)
    assert log.count("-worker") == 2
    assert "-a shutdown" in log, "the inner supervisor ends in good order"
    nothing_left(ada)


# --- nested ---


async def test_supervisors_below_supervisors(ada: Node):
    log: Log = []
    inner = Supervisor([Child(Logged, "a", log, id="a"), Child(worker, log, id="w")], intensity=0)
    tree = await ada.supervise([Child(inner, id="inner"), Child(Logged, "z", log, id="z")], strategy="rest_for_one")
    assert log.index("+a") < log.index("+z"), "the inner one is complete first"
    below = ada.supervision(pid_of(tree, "inner"))
    ada.send(pid_of(below, "w"), "crash")  # the inner gives up at once; the outer starts it and all after it again
    await until(lambda: log.count("+z") == 2)
    assert [line for line in log if "worker" not in line] == [
        "+a",
        "+z",
        "-a shutdown",
        "-z shutdown",
        "+a",
        "+z",
    ]
    await tree.stop()
    nothing_left(ada)


async def test_a_supervisor_is_a_process_like_any_other(ada: Node):
    log: Log = []
    pid = ada.spawn(Supervisor([Child(Logged, "a", log)]))
    await until(lambda: log)

    async def ender(me: Process) -> None:
        me.exit(pid, "enough")

    end = asyncio.create_task(ada.wait_exit(pid))
    ada.spawn(ender)
    assert await end == "enough"
    assert log == ["+a", "-a shutdown"]
    nothing_left(ada)


# --- children at run time ---


async def test_children_come_and_go_at_run_time(ada: Node):
    log: Log = []
    tree = await ada.supervise([])
    pid = await tree.start_child(Child(Logged, "a", log, id="a"))
    assert pid == pid_of(tree, "a")
    with pytest.raises(ValueError, match="two children called 'a'"):
        await tree.start_child(Child(echo, id="a"))
    with pytest.raises(ChildFailed, match="'b' did not start: OSError: no luck"):
        await tree.start_child(Child(Logged, "b", log, ["no luck"], id="b"))
    await tree.stop_child("a")
    assert log == ["+a", "-a shutdown"]
    with pytest.raises(KeyError):
        await tree.stop_child("a")
    assert tree.children() == []
    await tree.stop()
    nothing_left(ada)


async def test_a_stopped_supervisor_leaves_nobody_waiting(ada: Node):
    class Slow(Server):
        async def init(self) -> None:
            await asyncio.Event().wait()

    tree = await ada.supervise([])
    start = asyncio.create_task(tree.start_child(Child(Slow, shutdown=0, id="s")))
    await until(lambda: states(tree) == {"s": "starting"})
    stop = asyncio.create_task(tree.stop_child("s"))
    await tree.stop()
    assert isinstance(await ended(start), ChildFailed | NoProcess)
    await stop


@pytest.mark.parametrize("options", [{}, {"name": "x"}, {"name": "x", "singleton": True}], ids=str)
async def test_stopped_in_the_very_turn_in_which_a_child_is_to_start(ada: Node, options: dict[str, Any]):
    log: Log = []
    tree = await ada.supervise([])
    start = asyncio.create_task(tree.start_child(Child(Logged, "a", log, **options)))
    await asyncio.create_task(tree.stop())
    assert isinstance(await ended(start), ChildFailed | NoProcess)
    assert log in ([], ["+a", "-a shutdown"])
    gc.collect()  # a coroutine that never ran would be told now
    nothing_left(ada)


# --- names ---


async def test_a_named_child_has_its_name_before_its_code_starts(nodes: Nodes):
    seen: list[bool] = []

    async def named(me: Process) -> None:
        seen.extend(node.names.whereis("db") == me.pid for node in nodes.all)
        await me.receive()

    ada, _ = await nodes.mesh("ada", "bob")
    tree = await ada.supervise([Child(named, name="db")], intensity=10)
    await until(lambda: seen)
    assert seen == [True, True]
    for _ in range(5):
        old = pid_of(tree, "db")
        ada.kill(old)
        new = await renewed(tree, "db", old)
        await until(lambda: states(tree) == {"db": "running"})
        assert nodes.all[1].names.whereis("db") == new
        await asyncio.sleep(0)


async def test_a_name_that_is_taken_fails_the_start(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    log: Log = []
    await bob.names.register("db", bob.spawn(echo))
    with pytest.raises(NameTaken) as caught:
        await ada.supervise([Child(Logged, "a", log), Child(Logged, "b", log, name="db")])
    assert caught.value.holder == bob.names.whereis("db")
    assert log == ["+a", "-a shutdown"], "not a line of the second ran"
    nothing_left(ada)


async def test_a_name_that_is_taken_meanwhile_is_waited_for_and_never_counts(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    tree = await ada.supervise([Child(echo, name="db")], intensity=0)
    await ada.names.unregister("db")
    thief = bob.spawn(echo)
    await bob.names.register("db", thief)
    # It ends through no fault of its own, as after a lost name.
    ada.signals.exit(0, pid_of(tree, "db"), NameLost("db", thief))
    await until(lambda: states(tree) == {"db": "waiting"})
    await asyncio.sleep(0.5)  # several attempts
    assert states(tree)["db"] in ("waiting", "starting")
    bob.kill(thief)
    await until(lambda: states(tree) == {"db": "running"})
    assert bob.names.whereis("db") == pid_of(tree, "db")
    await tree.stop()
    nothing_left(ada)


# --- what it is told ---

child: Any = Child  # as callers without a type checker see them
supervisor: Any = Supervisor


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Child(echo, shutdown=-1), "shutdown cannot be -1"),
        (lambda: Child(echo, shutdown=math.nan), "shutdown cannot be nan"),
        (lambda: Child(echo, shutdown=float("nan")), "shutdown cannot be nan"),
        (lambda: child(5), "give an async function"),
        (lambda: child(echo, restart="often"), "restart='often': it is one of permanent, transient, temporary"),
        (lambda: Child(echo, singleton=True), "a singleton needs a name="),
        (lambda: Child(echo, name="x", singleton=True, on="bob@10.0.0.2:4370"), "a singleton needs a name="),
        (lambda: Child(echo, name=""), "name"),
        (lambda: Child(echo, on="bob"), "bob"),
        (lambda: Child(Supervisor([]), on="bob@10.0.0.2:4370"), "a Supervisor stays on its node"),
        (lambda: supervisor([echo]), "is no Child: write Child"),
        (lambda: Supervisor([Child(echo, id="a"), Child(echo, name="a")]), "two children called 'a'"),
        (lambda: supervisor([], strategy="none"), "strategy='none': it is one of one_for_one"),
        (lambda: Supervisor([], intensity=-1), "intensity must be 0 or more"),
        (lambda: Supervisor([], period=0), "period a positive number"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], text: str):
    with pytest.raises((TypeError, ValueError), match=text):
        make()


async def test_supervise_before_the_start_is_refused(nodes: Nodes):
    with pytest.raises(RuntimeError, match="start the node first"):
        await nodes.make("ada").supervise([])


async def test_what_it_shows_of_its_children(ada: Node):
    tree = await ada.supervise([Child(echo), Child(echo), Child(Supervisor([Child(echo)], strategy="one_for_all"))])
    first, second, third = tree.children()
    assert first == ChildInfo("echo", None, first.pid, "echo", "running", 0, ada.name)
    assert (second.id, third.id, third.runs) == ("echo-2", "Supervisor", "Supervisor")
    (root,) = await trees(partial(ada.call, ("kinfolk", ada.name)))
    assert root["pid"] == str(tree.pid)
    assert [child["id"] for child in root["children"]] == ["echo", "echo-2", "Supervisor"]
    assert root["children"][2]["strategy"] == "one_for_all"
    assert [child["runs"] for child in root["children"][2]["children"]] == ["echo"]


async def test_a_node_with_strict_messages_supervises_from_its_first_moment(nodes: Nodes):
    ada = await nodes.start("ada", strict_messages=True)
    supervision = await ada.supervise([Child(echo, name="echo"), Child(Supervisor([Child(echo)]))])
    assert [child.state for child in supervision.children()] == ["running", "running"]
