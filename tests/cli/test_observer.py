"""An observer asks a node's own service, and is no part of the mesh."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

import kinfolk.observer
from kinfolk import (
    CallFailed,
    CallTimeout,
    Child,
    Cookie,
    MessageTooLarge,
    Node,
    NodeLost,
    Pid,
    Refused,
    Supervisor,
    looking,
    new_cookie,
)
from kinfolk import effects as fx
from kinfolk.errors import KinfolkError
from kinfolk.observer import Observer
from kinfolk.service import SERVICE_NAME
from kinfolk.shell import transport
from kinfolk.wire import frames
from tests.node.nodes import until

COOKIE = Cookie(new_cookie())


@pytest.fixture
async def node():
    async with Node("ada", cookie=COOKIE, join=[]) as node:
        yield node


def observer(node: Node) -> Observer:
    return Observer(node.name, cookies=[COOKIE], cluster=node.cluster)


async def idle(me):
    await me.receive()


async def test_the_service_tells_what_the_node_is(node):
    await node.names.register("db", node.spawn(idle))
    async with observer(node) as seen, Node("bob", cookie=COOKIE, join=[node.name]) as bob:
        assert seen.name == node.name
        info = await seen.call(["info"])
        assert (info["name"], info["creation"], info["cluster"]) == (node.name, node.creation, node.cluster)
        assert (info["peers"], info["names"], info["processes"]) == ([bob.name], 1, 2)
        assert await seen.call(["nodes"]) == {node.name: node.creation, bob.name: bob.creation}
        assert await seen.call(["whereis", "db"]) == str(node.names.whereis("db"))
        assert await seen.call(["whereis", "nobody"]) is None


async def test_the_service_tells_whose_loop_stands_still(node):
    async with observer(node) as seen, Node("bob", cookie=COOKIE, join=[node.name]) as bob:
        assert await seen.call(["stalled"]) == {}
        node.submit(fx.StallHeard(node.kernel.session_of(bob.name), 1.5))
        for stalled in (await seen.call(["stalled"]), (await seen.call(["info"]))["stalled"]):
            assert stalled.keys() == {bob.name} and 1.5 <= stalled[bob.name] < 5


async def test_a_process_may_ask_the_service_as_well(node):
    async with Node("bob", cookie=COOKIE, join=[node.name]) as bob:
        assert (await bob.call((SERVICE_NAME, node.name), ["info"]))["name"] == node.name


def gone(node: Node, pid: Pid) -> bool:
    return not node.is_alive(pid)


async def test_a_service_that_is_killed_is_there_again_at_once(node):
    async with observer(node) as seen, Node("bob", cookie=COOKIE, join=[node.name]) as bob:
        for killer in (node, node, bob):
            first = node.names.local.whereis(SERVICE_NAME)
            killer.kill(first)
            await until(partial(gone, node, first))
            assert (await seen.call(["info"]))["name"] == node.name
            assert (await bob.call((SERVICE_NAME, node.name), ["info"]))["processes"] == 1
    await node.close()
    assert node.processes() == []


async def test_a_service_whose_task_is_cancelled_is_not_started_again_for_its_loop_ends():
    async with Node("ada", cookie=COOKIE, join=[]) as node:
        (service,) = node.processes()
        assert service.task is not None
        service.task.cancel()
        await asyncio.wait([service.task])
        assert node.processes() == []


@pytest.mark.parametrize(
    "request_",
    [
        "info",
        ["info", 1],
        ["names"],
        ["names", "", "", 0],
        ["groups", ""],
        ["groups", "", "", "", 0],
        ["shutdown"],
        None,
        {},
    ],
)
async def test_the_service_refuses_what_it_does_not_know_and_lives_on(node, request_):
    async with observer(node) as seen:
        with pytest.raises(Refused, match="unknown request"):
            await seen.call(request_)
        assert await seen.call(["whereis", "nobody"]) is None


@pytest.mark.parametrize(
    "request_",
    [["ps", 0, 10], ["top", "age", "", 10], ["process", "PID"], ["why", "db"], ["find names", "", "", "", 9]],
)
async def test_the_service_survives_an_answer_that_cannot_be_sent(node, monkeypatch, request_):
    pid = node.spawn(idle)
    await node.names.register("db", pid)
    service = node.names.local.whereis(SERVICE_NAME)
    asked = [str(pid) if each == "PID" else each for each in request_]
    async with observer(node) as seen:
        watch = await seen.call(["watch", "none"])
        lowered: Callable[[Any], object] = node._codec.lowered

        def strict(value: Any) -> object:
            if isinstance(value, dict):
                raise MessageTooLarge("it is too large")
            return lowered(value)

        with monkeypatch.context() as patch:
            patch.setattr(node._codec, "lowered", strict)
            with pytest.raises(CallFailed, match="could not be sent: it is too large"):
                await seen.call(asked)
        assert await seen.call(["events", watch, 0]) == [], "the watch is still there"
    assert node.names.local.whereis(SERVICE_NAME) == service


async def test_the_service_survives_a_refusal_that_cannot_be_sent():
    async with Node("ada", cookie=COOKIE, join=[], max_message=10_000) as node:
        service = node.names.local.whereis(SERVICE_NAME)
        async with observer(node) as seen:
            with pytest.raises(CallFailed, match="could not be sent"):
                await seen.call(["top", "\n" * 9_000, "", 1])
            assert await seen.call(["whereis", "nobody"]) is None
        assert node.names.local.whereis(SERVICE_NAME) == service


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf"), -1, True])
async def test_the_service_refuses_what_is_no_number_of_seconds_and_does_nothing(node, wrong):
    pid = node.spawn(idle)
    service = node.names.local.whereis(SERVICE_NAME)
    async with observer(node) as seen:
        watch = await seen.call(["watch", "none"])
        for request in (["events", watch, wrong], ["drain", wrong]):
            if request[0] == "events" and wrong < 0:
                continue  # it waits for nothing
            with pytest.raises(Refused, match=r"give 0 or more"):
                await seen.call(request)
        for request in (["kill", pid, wrong], ["call", pid, 1, wrong]):
            with pytest.raises(KinfolkError, match=r"give 0 or more"):
                await seen.act(request)
        assert await seen.call(["events", watch, 0]) == []
        for ask in seen.call, seen.act:
            with pytest.raises((TypeError, ValueError), match="give 0 or more"):
                await ask(["info"], timeout=wrong)
        with pytest.raises((TypeError, ValueError), match="give 0 or more"):
            await seen.wait_end(wrong)
    assert node.is_alive(pid) and node.draining is None
    assert node.names.local.whereis(SERVICE_NAME) == service
    with pytest.raises((TypeError, ValueError), match="give 0 or more"):
        Observer(node.name, cookies=[COOKIE], cluster=node.cluster, timeout=wrong)


async def test_very_much_that_is_supervised_is_told_in_pages(node, monkeypatch):
    monkeypatch.setattr(looking, "PROCESSES", 5)
    for count in (0, 12, 1, 5):
        await node.supervise([*(Child(idle) for _ in range(count)), Child(Supervisor([Child(idle), Child(idle)]))])
    async with observer(node) as seen:
        pages: list[dict[str, Any]] = []

        async def ask(request: list[Any]) -> dict[str, Any]:
            pages.append(await seen.call(request))
            return pages[-1]

        roots = await looking.trees(ask)
        assert [len(root["children"]) for root in roots] == [1, 13, 2, 6]
        for root in roots:
            pids = [child["pid"] for child in root["children"]]
            assert len(set(pids)) == len(pids), "none is told twice"
            assert [child["id"] for child in root["children"][-1]["children"]] == ["idle", "idle-2"]
        sizes = [sum(1 + len(each["children"]) for each in page["supervisors"]) for page in pages]
        assert max(sizes) <= 6 and len(sizes) > 5

        first = await seen.call(["tree", 0, 0, 2, 100])
        assert [(len(each["children"]), each["left_out"]) for each in first["supervisors"]][:2] == [(1, 0), (2, 0)]
        whole = await looking.trees(lambda request: seen.call([*request[:3], 2, 1]))
        assert [(len(each["children"]), each.get("left_out", 0)) for each in whole] == [(1, 0), (2, 11), (2, 0), (2, 4)]
        for nonsense in (["tree"], ["tree", 0, -1, 1, 1], ["tree", 0, 0, 0, 1], ["tree", 0, 0, 1, 0]):
            with pytest.raises(Refused, match="unknown request"):
                await seen.call(nonsense)


@pytest.mark.parametrize(
    "request_",
    [["names", "", "", 9], ["groups", "", "", "", 9], ["ps", 0, 9], ["top", "age", "", 9], ["tree", 0, 0, 9, 9]],
)
async def test_others_are_answered_while_somebody_looks_through_a_table(node, monkeypatch, request_):
    pid = node.spawn(idle)
    await node.names.register("db", pid)
    await node.groups.join("room", pid)
    if request_[0] == "tree":
        pid = (await node.supervise([Child(idle)])).children()[0].pid
    over, begun, go = looking.Turns.over, asyncio.Event(), asyncio.Event()

    async def held(turns: looking.Turns, rows: Any, cost: int = 1) -> Any:
        begun.set()
        await go.wait()
        async for some in over(turns, rows, cost):
            yield some

    monkeypatch.setattr(looking.Turns, "over", held)
    service = (SERVICE_NAME, node.name)
    asked = asyncio.create_task(node.call(service, request_, timeout=60))
    await begun.wait()
    assert (await node.call(service, ["pulse"]))["names"] == 1
    assert not asked.done()
    go.set()
    assert str(pid) in str(await asked)


async def test_not_too_many_look_at_a_time_and_none_for_a_caller_who_is_gone(node, monkeypatch):
    running, most, begun, go = 0, 0, 0, asyncio.Event()

    async def held(*_: object) -> int:
        nonlocal running, most, begun
        running, begun = running + 1, begun + 1
        most = max(most, running)
        try:
            await go.wait()
        finally:
            running -= 1
        return 1

    monkeypatch.setattr("kinfolk.finding.groups", held)
    service, request = (SERVICE_NAME, node.name), ["find groups", "", "", 1]

    def ask(count: int, timeout: float) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(node.call(service, request, timeout=timeout)) for _ in range(count)]

    async def given_up(asked: list[asyncio.Task[Any]]) -> None:
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CallTimeout] * len(asked)

    await given_up(ask(3, 0.5))
    await until(lambda: begun > 0 and running == 0)
    patient, before = ask(4, 60), begun
    await until(lambda: running == 4)
    await given_up(ask(5, 0.2))
    more = ask(3, 60)
    assert (await node.call(service, ["pulse"]))["ready"]
    assert begun == before + 4, "the others wait, and nobody looks for those who went"
    go.set()
    assert await asyncio.gather(*patient, *more) == [1] * 7
    assert (most, begun) == (4, before + 7)


async def test_names_come_in_pages_each_in_order_and_of_the_prefix(node, monkeypatch):
    monkeypatch.setattr(looking, "PAGE", 3)
    monkeypatch.setattr(looking, "_SLICE", 4)
    names = [f"{kind}/{number}" for number in (3, 1, 4, 5, 9, 2, 6) for kind in ("b", "a", "ä")]
    for name in names:
        await node.names.register(name, node.spawn(idle))
    async with observer(node) as seen:
        for prefix in ("", "a/", "ä", "b/3", "c"):
            found: list[str] = []
            more = True
            while more:
                page = await seen.call(["names", prefix, found[-1] if found else "", 1000])
                more = page["more"]
                assert len(page["names"]) <= 3
                assert all(pid == str(node.names.whereis(name)) for name, pid in page["names"])
                found += [name for name, _ in page["names"]]
            assert found == sorted(name for name in names if name.startswith(prefix))
        assert len((await seen.call(["names", "", "", 2]))["names"]) == 2


async def test_members_of_groups_come_in_pages_each_in_order_and_of_the_prefix(node, monkeypatch):
    monkeypatch.setattr(looking, "PAGE", 3)
    monkeypatch.setattr(looking, "_SLICE", 4)
    members = []
    for group in ("b", "a/2", "a/1", "ä"):
        for _ in range(5):
            pid = node.spawn(idle)
            await node.groups.join(group, pid)
            members.append([group, str(pid)])
    async with observer(node) as seen:
        for prefix in ("", "a/", "ä", "c"):
            found: list[list[str]] = []
            more = True
            while more:
                page = await seen.call(["groups", prefix, *(found[-1] if found else ("", "")), 1000])
                more = page["more"]
                assert len(page["groups"]) <= 3
                found += page["groups"]
            assert found == sorted(
                (member for member in members if member[0].startswith(prefix)),
                key=lambda member: (member[0], Pid.parse(member[1])),
            )
        with pytest.raises(Refused, match="no pid"):
            await seen.call(["groups", "", "a", "nonsense", 1])


async def test_an_observer_is_no_peer_and_nobody_waits_for_its_word(node):
    async with observer(node) as seen:
        await seen.call(["info"])
        assert node.peers() == []
        async with Node("bob", cookie=COOKIE, join=[node.name]) as bob:
            assert bob.peers() == [node.name]
            await bob.names.register("db", bob.spawn(idle))
    assert node.counters["peers_lost"] == 1, "bob alone"


async def test_an_observer_whose_machine_has_vanished_keeps_no_connection(monkeypatch):
    monkeypatch.setattr(transport, "OBSERVER_SILENCE", 0.5)
    async with Node("ada", cookie=COOKIE, join=[], heartbeat=0.1) as node:
        links = node._parts.transport._links
        async with observer(node) as gone, observer(node) as talking:
            sockets = {link.conn: link._tls.get_extra_info("socket") for link in links.values() if link._tls}
            first = min(sockets)
            assert gone._streams is not None
            reads: Any = gone._streams[1].transport
            reads.pause_reading()  # not even the end of TLS is answered
            while first in links or sockets[first].fileno() >= 0:
                assert (await talking.call(["info"]))["name"] == node.name
                await asyncio.sleep(0.05)
            assert len(links) == 1, "the other has never been silent for so long"
            reads.resume_reading()
            with pytest.raises(NodeLost):
                await gone.call(["info"])
        await until(lambda: not links)
    assert node.counters["protocol_errors"] == 0


async def test_an_observer_may_take_its_time(node, monkeypatch):
    monkeypatch.setattr(transport, "HANDSHAKE_TIMEOUT", 0.2)
    async with observer(node) as seen:
        await asyncio.sleep(0.3)  # past the time in which a connection must have become a session
        assert await seen.call(["whereis", "nobody"]) is None


@pytest.mark.parametrize(
    "more",
    [
        frames.Peers([]),
        frames.Sent(1, None, msgspec.Raw(b"\x01")),
        frames.Called("db", None, 1, 99, msgspec.Raw(b"\x01")),
    ],
)
async def test_an_observer_that_wants_more_than_to_ask_the_service_is_cut_off(node, more):
    async with observer(node) as seen:
        assert seen._session is not None
        seen._session.outbox.encode(more)
        with pytest.raises(NodeLost, match="observer"):
            await seen.call(["info"])
    async with observer(node) as seen:
        assert (await seen.call(["info"]))["name"] == node.name


async def test_a_call_that_is_not_answered_times_out_and_its_late_answer_is_dropped(node):
    async with observer(node) as seen:
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def slow(me):
            async for call in me.calls():
                if call.body == "slow":
                    await held
                call.reply(call.body)

        node.names.local.unregister(SERVICE_NAME)
        node.names.local.register(SERVICE_NAME, node.spawn(slow))
        with pytest.raises(CallTimeout, match=r"0\.05 s"):
            await seen.call("slow", timeout=0.05)
        held.set_result(None)
        assert await seen.call("quick") == "quick"


async def test_an_answer_that_came_while_this_program_was_stopped_is_not_too_late(node, monkeypatch):
    monkeypatch.setattr(kinfolk.observer, "_STOPPED", 0.05)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        until = loop.time() + 0.3
        while loop.time() < until:  # as good as SIGSTOP: nothing is read, no timer fires
            pass

    async def answering(me):
        async for call in me.calls():
            call.reply(call.body)
            loop.call_soon(stop)  # after the answer has left for the socket, before it is read

    node.names.local.unregister(SERVICE_NAME)
    node.names.local.register(SERVICE_NAME, node.spawn(answering))
    async with observer(node) as seen:
        assert await seen.call("late", timeout=0.1) == "late"


async def test_calls_made_at_once_each_get_their_own_answer(node):
    async with observer(node) as seen:
        answers = await asyncio.gather(*(seen.call(["names", "", "", number]) for number in range(1, 20)))
    assert answers == [{"names": [], "more": False}] * 19


async def test_a_node_that_closes_ends_the_session(node):
    async with observer(node) as seen:
        await node.close()
        with pytest.raises(NodeLost, match=node.name):
            await seen.call(["info"])
        with pytest.raises(NodeLost):
            await seen.call(["info"])


async def test_a_closed_observer_says_so(node):
    seen = await observer(node).open()
    await seen.close()
    await seen.close()
    with pytest.raises(NodeLost, match="is not open"):
        await seen.call(["info"])
