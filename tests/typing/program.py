"""What type checkers must infer, and what they must object to.

Each objection that is expected carries the ignores of both checkers, mypy's and pyright's. Both report an ignore that
was not needed, so that an objection that is missing is an error like one too many.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, assert_type

import msgspec

from kinfolk.ids import Pid
from kinfolk.messages import Call, Ref, Replies, Request
from kinfolk.node import Node
from kinfolk.process import Process, current_process
from kinfolk.server import Server
from kinfolk.shell.alarms import Alarm
from kinfolk.supervisor import Child, Supervision, Supervisor

T = TypeVar("T")


class Add(Request[int]):
    by: int
    times: int = 1
    marks: list[str] = msgspec.field(default_factory=list[str])


class Reset(Request[None], tag="reset"):
    pass


class Fetch(Request[T], Generic[T]):
    kind: type[T]


@dataclass
class Names(Replies[list[str]]):
    prefix: str = ""


class Note(msgspec.Struct):
    text: str


async def worker(me: Process, number: int, word: str = "") -> None:
    assert_type(me.pid, Pid)


async def lone(me: Process) -> int:
    return 1


def plain(me: Process) -> int:
    return 1


class Counter(Server):
    async def init(self, start: int, word: str = "") -> None:
        assert_type(self.me, Process)
        assert_type(self.node, Node)
        assert_type(self.send_after(1, "x"), Alarm)

    async def add(self, message: Add) -> int:
        return message.by

    async def later(self, call: Call[Reset]) -> None:
        assert_type(call.body, Reset)


class Bare(Server):
    pass


async def calls(node: Node, me: Process, target: Pid) -> None:
    assert_type(await node.call(target, Add(by=5)), int)
    assert_type(await node.call("counter", Add(5, times=2), timeout=1.0), int)
    assert_type(await node.call(("counter", "bob@10.0.0.2:4370"), Reset()), None)
    assert_type(await node.call(target, Names("a")), list[str])
    assert_type(await node.call(target, Fetch(str)), str)
    assert_type(await node.call(target, ["get", "k"]), Any)
    assert_type(await node.call(target, Note("x")), Any)
    assert_type(await me.call(target, Add(by=5)), int)
    assert_type(await me.call(target, "get"), Any)

    word: str = await node.call(target, Add(by=5))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    word = await me.call(target, Add(by=5))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await node.call(target, Add(by=5), 1.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await node.call(5, Add(by=5))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    del word


def requests() -> None:
    assert_type(Add(5).by, int)
    Add()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Add("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Add(5).by = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def receiving(me: Process) -> None:
    assert_type(await me.receive(), Any)
    assert_type(await me.receive(timeout=1.0), Any)
    assert_type(await me.receive(Note), Note)
    assert_type(await me.receive(Add, timeout=1.0), Add)
    assert_type(await me.receive(lambda message: message == 5), Any)
    await me.receive(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def answering(me: Process) -> None:
    async for call in me.calls(Add):
        assert_type(call, Call[Add])
        assert_type(call.body.by, int)
        assert_type(call.sender, Pid | None)
        call.reply(call.body.by)
        call.fail(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async for anything in me.calls():
        assert_type(anything, Call[Any])
        keep(anything)


def keep(call: Call) -> None:
    assert_type(call.body, Any)


async def spawning(node: Node, me: Process) -> None:
    assert_type(node.spawn(worker, 1, "x"), Pid)
    assert_type(node.spawn(lone, max_mailbox=10), Pid)
    assert_type(me.spawn(worker, 1, "x"), Pid)
    assert_type(current_process(), Process)

    assert_type(await node.spawn_on("bob@10.0.0.2:4370", worker, 1, "x", timeout=None), Pid)
    assert_type(await node.spawn_on("bob@10.0.0.2:4370", "jobs:worker", 1, "x", max_mailbox=5), Pid)
    assert_type(await me.spawn_on("bob@10.0.0.2:4370", worker, 1, "x", link=True), Pid)
    assert_type(await me.spawn_on("bob@10.0.0.2:4370", worker, 1, "x", monitor=True), tuple[Pid, Ref])
    assert_type(await me.spawn_on("bob@10.0.0.2:4370", "jobs:worker", 1, monitor=True), tuple[Pid, Ref])

    node.spawn(worker, "x", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(worker)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(lone, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    me.spawn(worker, "x", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await node.spawn_on("bob", worker, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await node.spawn_on("bob", plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await me.spawn_on("bob", lone, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def spawning_servers(node: Node, me: Process) -> None:
    assert_type(node.spawn(Counter, 1, "x"), Pid)
    assert_type(node.spawn(Counter, 1, max_mailbox=10), Pid)
    assert_type(node.spawn(Bare), Pid)
    assert_type(me.spawn(Counter, 1, link=True), Pid)
    assert_type(await node.spawn_on("bob@10.0.0.2:4370", Counter, 1, "x"), Pid)
    assert_type(await me.spawn_on("bob@10.0.0.2:4370", Counter, 1, monitor=True), tuple[Pid, Ref])

    node.spawn(Counter, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(Counter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(Counter, 1, "x", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.spawn(int)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    me.spawn(Counter, "x", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await node.spawn_on("bob", Counter, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def supervising(node: Node) -> None:
    children = [
        Child(worker, 1, "x", name="db", restart="transient"),
        Child(lone, shutdown=None),
        Child(Counter, 1, name="counter", singleton=True),
        Child(Supervisor([Child(Bare)], strategy="rest_for_one")),
    ]
    tree = await node.supervise(children, strategy="one_for_all", intensity=1, period=2.0)
    assert_type(tree, Supervision)
    assert_type(await tree.start_child(Child(Counter, 1, "x")), Pid | None)

    Child(worker, "x", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Child(Counter, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Child(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Child(lone, restart="often")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
