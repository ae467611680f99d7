"""Processes that one node starts on another: who may, what comes back, and that nobody is left over."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from kinfolk import (
    CallTimeout,
    Crash,
    Down,
    Exit,
    MessageTooLarge,
    Node,
    NodeClosed,
    NodeLost,
    NoProcess,
    NotAllowed,
    NotSerializable,
    Pid,
    Process,
    Request,
    SpawnFailed,
)
from kinfolk.reasons import Reason
from kinfolk.wire import frames
from tests.node import jobs
from tests.node.nodes import Nodes, ended, idle, until
from tests.test_allowed import ESCAPES

JOBS = "tests.node.jobs"


async def pair(nodes: Nodes, **settings: Any) -> list[Node]:
    """Ada, and Bob who allows the jobs."""
    bob = await nodes.start("bob", allow_spawn=[f"{JOBS}.*"], **settings)
    ada = await nodes.start("ada", bob, **settings)
    await until(lambda: ada.name in bob.peers())
    return [ada, bob]


def jobs_of(node: Node) -> list[Pid]:
    """The processes of a node, but not its own service."""
    return [process.pid for process in node.processes() if process.body.__module__ == JOBS]


async def within(node: Node, do: Callable[[Process], Coroutine[Any, Any, Any]]) -> Any:
    """Do something as a process of the node; what it comes to."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def body(me: Process) -> None:
        try:
            future.set_result(await do(me))
        except Exception as error:
            future.set_exception(error)

    node.spawn(body)
    return await asyncio.wait_for(future, 10)


def end_of(node: Node, pid: Pid) -> "asyncio.Task[Reason]":
    """Why a process ends, to be awaited later."""
    return asyncio.ensure_future(node.wait_exit(pid, timeout=10))


def nothing_left(*nodes: Node) -> bool:
    return not any(len(node.signals.relations) or node._parts.spawns._waiting for node in nodes)


def holds_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """From now on answers to spawns do not arrive at the node before they are let through."""
    held: list[Callable[[], None]] = []
    spawns = node._parts.spawns
    receive = spawns.receive

    def hold(peer: Any, operation: frames.Operation) -> None:
        if isinstance(operation, frames.SpawnAnswered):
            held.append(lambda: receive(peer, operation))
        else:
            receive(peer, operation)

    monkeypatch.setattr(spawns, "receive", hold)
    return held


# --- what is started ---


@pytest.mark.parametrize("body", [jobs.echo, f"{JOBS}:echo"], ids=["by itself", "by its name"])
async def test_a_process_is_started_there_with_its_arguments(nodes: Nodes, body: Any):
    ada, bob = await pair(nodes)
    pid = await ada.spawn_on(bob.name, body, "a", [1, {"b": 2}])
    assert pid.node == bob.name and bob.is_alive(pid)
    assert await ada.call(pid, "hi") == ["a", [1, {"b": 2}], "hi"]


async def test_the_pid_can_be_used_in_whatever_is_said_next(nodes: Nodes):
    ada, bob = await pair(nodes)
    for number in range(50):
        pid = await ada.spawn_on(bob.name, jobs.echo, number)
        assert await ada.call(pid, "hi") == [number, "hi"]
    assert len(jobs_of(bob)) == 50


async def test_its_mailbox_is_bounded_as_it_is_told(nodes: Nodes):
    ada, bob = await pair(nodes)
    pid = await ada.spawn_on(bob.name, jobs.wait, max_mailbox=2)
    for number in range(3):
        ada.send(pid, number)
    await until(lambda: bob.counters["mailbox_overflows"] == 1)
    assert isinstance(await ended(ada.spawn_on(bob.name, jobs.wait, max_mailbox=0)), ValueError)


async def test_on_this_node_itself_it_is_as_spawn(nodes: Nodes):
    ada, bob = await pair(nodes)
    assert bob.is_alive(await bob.spawn_on(bob.name, jobs.wait))
    assert bob.is_alive(await bob.spawn_on(bob.name, f"{JOBS}:wait"))
    assert ada.is_alive(await ada.spawn_on(ada.name, jobs.wait))
    assert isinstance(await ended(ada.spawn_on(ada.name, f"{JOBS}:wait")), NotAllowed)

    async def linked(me: Process) -> Any:
        me.trap_exit = True
        pid, ref = await me.spawn_on(bob.name, jobs.crash, "at home", link=True, monitor=True)
        got = [await me.receive(), await me.receive()]
        return {type(message) for message in got} == {Exit, Down} and Down(ref, pid, got[0].reason) in got

    assert await within(bob, linked) is True


class Note(Request[None], tag="a note for a new process"):
    text: str


async def test_typed_arguments_arrive_as_such_where_they_are_known(nodes: Nodes):
    ada, bob = await pair(nodes, messages=[Note])
    pid = await ada.spawn_on(bob.name, jobs.echo, Note("hi"), ada.spawn(idle))
    note, who, _ = await ada.call(pid, None)
    assert (note, who.node) == (Note("hi"), ada.name)
    carl = await nodes.start("carl", ada, allow_spawn=[jobs.echo])
    await until(lambda: carl.name in ada.peers())
    error = await ended(ada.spawn_on(carl.name, jobs.echo, Note("hi")))
    assert isinstance(error, SpawnFailed) and "a note for a new process" in str(error) and "messages=" in str(error)
    assert jobs_of(carl) == []


# --- what is not ---


async def test_by_default_nothing_may_be_started(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    error = await ended(ada.spawn_on(bob.name, jobs.wait))
    assert isinstance(error, NotAllowed) and isinstance(error, PermissionError)
    assert bob.name in str(error) and "allow_spawn" in str(error)
    assert jobs_of(bob) == [] and bob.counters["spawns_refused"] == 1


async def test_names_that_try_to_get_out_of_the_list_are_refused_and_start_nothing(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await pair(nodes)
    monkeypatch.setattr("kinfolk.shell.spawns.check_function_name", str)  # a hostile peer checks nothing
    for name in ESCAPES:
        if name:
            error = await ended(ada.spawn_on(bob.name, name))
            assert isinstance(error, NotAllowed), f"{name!r}: {error!r}"
    assert jobs_of(bob) == [] and bob.counters["spawns_refused"] == len(ESCAPES) - 1


@pytest.mark.parametrize(
    ("body", "args", "words"),
    [
        (jobs.crash, (), "missing 1 required positional argument: 'text'"),
        (jobs.done, (1,), "takes 1 positional argument but 2 were given"),
        (jobs.Shop, (), "missing a required argument: 'start'"),
        (jobs.Shop, (1, 2), "too many positional arguments"),
    ],
)
async def test_wrong_arguments_come_back_as_an_error_with_the_text_from_there(
    nodes: Nodes, body: Any, args: tuple[Any, ...], words: str
):
    ada, bob = await pair(nodes)
    error = await ended(ada.spawn_on(bob.name, body, *args))
    assert isinstance(error, SpawnFailed)
    assert "TypeError" in str(error) and words in str(error) and bob.name in str(error)
    assert jobs_of(bob) == [] and nothing_left(ada, bob)


async def test_a_function_that_is_not_async_is_not_even_called_unless_it_is_listed_by_name(nodes: Nodes):
    ada, bob = await pair(nodes)
    assert isinstance(await ended(ada.spawn_on(bob.name, f"{JOBS}:plain")), NotAllowed)
    carl = await nodes.start("carl", ada, allow_spawn=[jobs.plain])
    error = await ended(ada.spawn_on(carl.name, f"{JOBS}:plain"))
    assert isinstance(error, SpawnFailed) and "AssertionError" in str(error)


async def test_what_cannot_be_sent_is_found_here(nodes: Nodes):
    ada, bob = await pair(nodes, max_message=1000)
    spawn: Any = ada.spawn_on
    for body, args, kind in (
        (jobs.echo, (idle,), NotSerializable),
        (lambda me: idle(me), (), NotSerializable),
        (jobs.echo, (bytes(1000),), MessageTooLarge),
        ("no name", (), ValueError),
    ):
        assert isinstance(await ended(spawn(bob.name, body, *args)), kind)
    assert isinstance(await ended(ada.spawn_on("bob", jobs.wait)), ValueError)
    assert isinstance(await ended(ada.spawn_on("eve@127.0.0.1:1", jobs.wait)), NodeLost)
    assert bob.counters["spawns_refused"] == 0 and nothing_left(ada, bob)


async def test_a_node_that_cannot_resolve_its_list_does_not_start(nodes: Nodes):
    node = nodes.make("ada", allow_spawn=[f"{JOBS}:nothing"])
    error = await ended(node.start())
    assert isinstance(error, ValueError) and f"{JOBS}:nothing" in str(error)
    with pytest.raises(ValueError, match="module:function"):
        nodes.make("bob", allow_spawn=["jobs"])


# --- links and monitors ---


async def test_a_linked_process_ends_with_its_caller_and_the_caller_with_it(nodes: Nodes):
    ada, bob = await pair(nodes)
    started: list[Pid] = []

    async def caller(me: Process) -> None:
        started.append(await me.spawn_on(bob.name, jobs.wait, link=True))
        await idle(me)

    pid = ada.spawn(caller)
    await until(lambda: started)
    end = end_of(bob, started[0])
    await asyncio.sleep(0)
    ada.kill(pid)
    assert await end == "killed"
    pid = ada.spawn(caller)
    await until(lambda: len(started) == 2)
    end = end_of(ada, pid)
    await asyncio.sleep(0)
    bob.kill(started[1])
    assert await end == "killed"
    await until(lambda: nothing_left(ada, bob))


async def test_the_end_of_one_that_dies_in_its_first_step_is_told_with_its_reason(nodes: Nodes):
    ada, bob = await pair(nodes)

    async def caller(me: Process) -> Any:
        me.trap_exit = True
        pid, ref = await me.spawn_on(bob.name, jobs.crash, "boom", link=True, monitor=True)
        return pid, ref, sorted([await me.receive(), await me.receive()], key=lambda message: type(message).__name__)

    for _ in range(20):
        pid, ref, (down, exit_) = await within(ada, caller)
        assert isinstance(down, Down) and isinstance(exit_, Exit)
        assert (down.pid, down.ref, exit_.pid) == (pid, ref, pid)
        assert down.reason == exit_.reason and isinstance(down.reason, Crash) and down.reason.message == "boom"
    await until(lambda: nothing_left(ada, bob))


async def test_a_monitor_alone_reports_the_end_and_no_more(nodes: Nodes):
    ada, bob = await pair(nodes)

    async def caller(me: Process) -> Any:
        pid, ref = await me.spawn_on(bob.name, f"{JOBS}:done", monitor=True)
        return await me.receive() == Down(ref, pid, "normal")

    assert await within(ada, caller) is True
    await until(lambda: nothing_left(ada, bob))


async def test_a_demonitored_process_is_not_reported(nodes: Nodes):
    ada, bob = await pair(nodes)

    async def caller(me: Process) -> Any:
        pid, ref = await me.spawn_on(bob.name, jobs.wait, monitor=True)
        me.demonitor(ref)
        bob.kill(pid)
        await bob.wait_exit(pid)
        await me.node.call(("kinfolk", bob.name), ["info"])
        return list(me.mailbox.messages)

    assert await within(ada, caller) == []
    await until(lambda: nothing_left(ada, bob))


async def test_after_a_refusal_nothing_is_linked_or_watched(nodes: Nodes):
    ada, bob = await pair(nodes)

    async def caller(me: Process) -> Any:
        me.trap_exit = True
        spawn: Any = me.spawn_on
        errors = [
            await ended(spawn(bob.name, body, *args, link=True, monitor=True))
            for body, args in ((f"{JOBS}:nothing", ()), (jobs.done, (1,)), (idle, ()))
        ]
        await me.node.call(("kinfolk", bob.name), ["info"])
        return [type(error) for error in errors], list(me.mailbox.messages)

    assert await within(ada, caller) == ([NotAllowed, SpawnFailed, NotAllowed], [])
    await until(lambda: nothing_left(ada, bob))


# --- callers that go ---


async def test_a_caller_that_dies_before_the_answer_leaves_no_orphan(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)

    async def caller(me: Process) -> None:
        await me.spawn_on(bob.name, jobs.wait, link=True, monitor=True)

    pid = ada.spawn(caller)
    await until(lambda: held)
    end = end_of(bob, *jobs_of(bob))
    ada.kill(pid)
    await until(lambda: not ada._parts.processes._dying)
    held[0]()
    assert await end == "killed"
    await until(lambda: nothing_left(ada, bob))
    assert ada.counters["unwanted_spawns"] == 1


async def test_callers_that_are_killed_at_any_moment_leave_no_orphan_and_no_entry(nodes: Nodes):
    ada, bob = await pair(nodes)
    chance = random.Random(5)

    async def caller(me: Process) -> None:
        await me.spawn_on(bob.name, jobs.wait, link=True, monitor=chance.random() < 0.5)
        await asyncio.Event().wait()

    for _ in range(30):
        callers = [ada.spawn(caller) for _ in range(10)]
        for pid in callers:
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            (bob if chance.random() < 0.2 else ada).kill(pid)
    assert bob.counters["spawns_refused"] == 0
    await until(lambda: not jobs_of(bob) and not ada._parts.spawns._waiting)
    await until(lambda: nothing_left(ada, bob))
    assert (await ada.spawn_on(bob.name, jobs.wait)).local > 100, "many were started"


async def test_a_caller_whose_other_task_waits_and_who_is_dead_gets_no_link(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)
    tasks: list[asyncio.Task[Any]] = []

    async def caller(me: Process) -> None:
        tasks.append(asyncio.create_task(me.spawn_on(bob.name, jobs.trap, "trap", link=True)))
        await idle(me)

    pid = ada.spawn(caller)
    await until(lambda: held)
    ada.kill(pid)
    held[0]()
    started = await tasks[0]
    # As in Erlang: the link finds nobody at its other end.
    assert await ada.call(("trap", bob.name), None) == [[pid, "noproc"]]
    bob.kill(started)
    await until(lambda: nothing_left(ada, bob))


@pytest.mark.parametrize("link", [False, True], ids=["alone", "linked"])
async def test_who_is_cancelled_leaves_nothing_behind_and_lives_on(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, link: bool
):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)

    async def caller(me: Process) -> Any:
        spawning = asyncio.ensure_future(me.spawn_on(bob.name, jobs.wait, link=link, monitor=True))
        await until(lambda: held)
        (started,) = jobs_of(bob)
        end = end_of(bob, started)
        spawning.cancel()
        assert isinstance(await ended(spawning), asyncio.CancelledError)
        held[0]()
        reason = await end
        await me.node.call(("kinfolk", bob.name), ["info"])
        return reason, list(me.mailbox.messages)

    assert await within(ada, caller) == ("killed", [])
    await until(lambda: nothing_left(ada, bob))


@pytest.mark.parametrize("link", [False, True], ids=["alone", "linked"])
async def test_who_is_cancelled_in_the_moment_of_the_answer_leaves_nothing_behind_either(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, link: bool
):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)

    async def caller(me: Process) -> Any:
        spawning = asyncio.ensure_future(me.spawn_on(bob.name, jobs.wait, link=link, monitor=True))
        await until(lambda: held)
        (started,) = jobs_of(bob)
        end = end_of(bob, started)
        held[0]()
        spawning.cancel()
        assert isinstance(await ended(spawning), asyncio.CancelledError)
        reason = await end
        await me.node.call(("kinfolk", bob.name), ["info"])
        return reason, list(me.mailbox.messages)

    assert await within(ada, caller) == ("killed", [])
    await until(lambda: nothing_left(ada, bob))


async def test_an_answer_that_does_not_come_ends_in_a_timeout_and_the_process_is_not_kept(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)
    error = await ended(ada.spawn_on(bob.name, jobs.wait, timeout=0.05))
    assert isinstance(error, CallTimeout) and "0.05 s" in str(error) and bob.name in str(error)
    await until(lambda: held)
    end = end_of(bob, *jobs_of(bob))
    held[0]()
    assert await end == "killed"
    await until(lambda: nothing_left(ada, bob))


async def test_a_node_that_is_lost_before_the_answer_raises_and_its_linked_process_ends(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)

    async def caller(me: Process) -> Any:
        me.trap_exit = True
        tries = [
            asyncio.ensure_future(ended(me.spawn_on(bob.name, jobs.wait, name, link=link, monitor=True)))
            for name, link in (("linked", True), ("alone", False))
        ]
        await until(lambda: len(held) == 2)
        linked, alone = (bob.names.local.whereis(name) for name in ("linked", "alone"))
        assert linked is not None and alone is not None
        end = end_of(bob, linked)
        ada._parts.transport.link(ada.kernel.session_of(bob.name) or 0).abort()
        errors = [await one for one in tries]
        assert await end == "noconnection"
        await until(lambda: bob.name in ada.peers())
        held[0]()  # comes too late, and on another session
        return [type(error) for error in errors], bob.is_alive(alone), list(me.mailbox.messages)

    assert await within(ada, caller) == ([NodeLost, NodeLost], True, [])
    await until(lambda: nothing_left(ada, bob))


async def test_a_closing_node_lets_go_of_who_waits(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    ada, bob = await pair(nodes)
    held = holds_back(ada, monkeypatch)
    waiting = asyncio.ensure_future(ended(ada.spawn_on(bob.name, jobs.wait, timeout=None)))
    await until(lambda: held)
    await ada.close()
    assert isinstance(await waiting, NodeClosed)
    assert isinstance(await ended(ada.spawn_on(bob.name, jobs.wait)), NodeClosed)


async def test_the_dead_start_nothing(nodes: Nodes):
    ada, bob = await pair(nodes)
    kept: list[Process] = []

    async def ghost(me: Process) -> None:
        kept.append(me)

    pid = ada.spawn(ghost)
    await until(lambda: not ada.is_alive(pid))
    assert isinstance(await ended(kept[0].spawn_on(bob.name, jobs.wait)), NoProcess)


# --- peers that do not behave ---


async def test_odd_orders_harm_nobody(nodes: Nodes):
    ada, bob = await pair(nodes)
    link = ada.dataplane.links[bob.name]
    empty, name = msgspec.Raw(b"\x90"), f"{JOBS}:wait"
    for operation in (
        frames.SpawnAsked(1, name, None, True, None, None, empty),  # linked to nobody
        frames.SpawnAsked(2, name, 0, True, None, None, empty),
        frames.SpawnAsked(3, name, 999, True, None, None, empty),  # to one that does not live: whose end we would hear
        frames.SpawnAsked(4, name, None, False, 5, None, empty),
        frames.SpawnAsked(5, name, None, False, 5, None, empty),  # the same monitor twice
        frames.SpawnAsked(6, name, None, False, None, 0, empty),  # no mailbox has no room
        frames.SpawnAsked(7, name, None, False, None, None, msgspec.Raw(b"\xa2hi")),  # no list
        frames.SpawnAsked(8, name, None, False, None, None, msgspec.Raw(b"\x91\xc7\x01\x03x")),  # not readable
        frames.SpawnAsked(9, f"{JOBS}:" + 1000 * "x", None, False, None, None, empty),
        frames.SpawnAnswered(1, "ok", 1),  # to what was never asked
        frames.SpawnAnswered(1, "what?", 1),
    ):
        link.post(operation)
    await ada.call(("kinfolk", bob.name), ["info"])
    assert len(jobs_of(bob)) == 5 and bob.counters["spawns_refused"] == 4
    assert len(bob.signals.relations) == 2, "one link, and one monitor"
    assert ada.name in bob.peers()
    for pid in jobs_of(bob):
        bob.kill(pid)
    await until(lambda: nothing_left(ada, bob))


async def test_an_order_of_a_session_that_is_over_is_not_carried_out(nodes: Nodes):
    ada, bob = await pair(nodes)
    old = bob.dataplane.links[ada.name]
    ada._parts.transport.link(ada.kernel.session_of(bob.name) or 0).abort()
    await until(lambda: bob.dataplane.links.get(ada.name, old) is not old)
    bob._parts.spawns.receive(old, frames.SpawnAsked(1, f"{JOBS}:wait", 5, True, 1, None, msgspec.Raw(b"\x90")))
    assert jobs_of(bob) == [] and nothing_left(bob)


async def test_an_order_that_does_not_fit_into_a_frame_leaves_nothing_behind(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await pair(nodes)

    def post_from(operation: frames.Operation, *_: Any) -> None:
        if isinstance(operation, frames.SpawnAsked):
            raise MessageTooLarge("no frame can hold it")

    monkeypatch.setattr(ada.dataplane.links[bob.name], "post_from", post_from)

    async def caller(me: Process) -> Any:
        return await ended(me.spawn_on(bob.name, jobs.wait, link=True, monitor=True))

    assert isinstance(await within(ada, caller), MessageTooLarge)
    assert nothing_left(ada, bob)


async def test_an_answer_of_another_node_counts_nothing(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    ada, bob = await pair(nodes)
    eve = await nodes.start("eve", ada, bob)
    held = holds_back(ada, monkeypatch)
    waiting = asyncio.ensure_future(ada.spawn_on(bob.name, jobs.wait))
    await until(lambda: held)
    (reference,) = ada._parts.spawns._waiting
    eve.dataplane.links[ada.name].post(frames.SpawnAnswered(reference, "ok", 1))
    await until(lambda: len(held) == 2)
    held[1]()
    assert not waiting.done()
    held[0]()
    assert [await waiting] == jobs_of(bob)
