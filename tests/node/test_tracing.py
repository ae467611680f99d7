"""Traces of OpenTelemetry through processes and nodes: who is in which trace, whose child, and how it ended."""

import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import kinfolk
from kinfolk import Call, CallTimeout, Child, Node, NotSerializable, Pid, Process, Refused, Request, Server
from kinfolk.handover import HandOver
from kinfolk.otel import instrument
from kinfolk.wire import codec
from kinfolk.wire.codec import Traced
from tests.node.nodes import Nodes, collect, echo, ended, idle, until


class Order(Request[str]):
    item: str


class Price(Request[int]):
    item: str


class Halves(Request[tuple[int, int]]):
    number: int


class Note(Request[None]):
    text: str


class Shop(Server):
    """Asks the one who knows the prices."""

    async def order(self, message: Order) -> str:
        return f"{message.item} for {await self.me.call('prices', Price(item=message.item))}"


class Prices(Server):
    """Knows the prices."""

    async def price(self, message: Price) -> int:
        if message.item == "moon":
            raise Refused("not for sale")
        return len(message.item)

    async def halves(self, message: Halves) -> tuple[int, int]:
        return message.number // 2, message.number - message.number // 2


class Traces:
    """The spans of a test, and the tracer of the program that it plays."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("a test")

    def span(self, name: str = "GET /") -> Any:
        """A span of the program itself, as an HTTP handler has one."""
        return self.tracer.start_as_current_span(name)

    def on(self, node: Node) -> Node:
        """The node, instrumented."""
        instrument(node, self.provider)
        return node

    async def mesh(self, nodes: Nodes, *words: str, **settings: Any) -> list[Node]:
        """Instrumented nodes, all connected."""
        mesh: list[Node] = []
        for word in words:
            mesh.append(self.on(nodes.make(word, *mesh[:1], **settings)))
            await mesh[-1].start()
        await until(lambda: all(len(node.peers()) == len(mesh) - 1 for node in mesh))
        return mesh

    def names(self) -> list[str]:
        """What the spans that have ended are called, in the order of their ends."""
        return [span.name for span in self.exporter.get_finished_spans()]

    async def path(self, root: str, *names: str) -> list[ReadableSpan]:
        """The span of this name that is nobody's child; its only child of the next name; and so on."""
        spans: list[ReadableSpan] = []
        for name in (root, *names):
            found = await until(partial(self._children, name, spans[-1] if spans else None))
            assert len(found) == 1, f"{len(found)} of {name}"
            spans += found
        return spans

    def _children(self, name: str, parent: ReadableSpan | None) -> list[ReadableSpan]:
        spans = [span for span in self.exporter.get_finished_spans() if span.name == name]
        if parent is None:
            return [span for span in spans if span.parent is None]
        above = ids_of(parent)
        return [span for span in spans if span.parent and (span.parent.trace_id, span.parent.span_id) == above]


def ids_of(span: ReadableSpan) -> tuple[int, int]:
    """The number of its trace, and its own."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def spy(monkeypatch: pytest.MonkeyPatch, of: Any, method: str, seen: list[Any]) -> None:
    """Remember what a method gets: its first argument that is no tag."""
    called = getattr(of, method)

    def remember(*arguments: Any) -> Any:
        seen.append(next(argument for argument in arguments if not isinstance(argument, int)))
        return called(*arguments)

    monkeypatch.setattr(of, method, remember)


def attribute(span: ReadableSpan, key: str) -> Any:
    return (span.attributes or {}).get(key)


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


@pytest.mark.parametrize("strict", [False, True])
async def test_a_trace_goes_from_a_handler_to_a_name_on_another_node_and_on_to_one_on_a_third(
    nodes: Nodes, traces: Traces, strict: bool
):
    ada, bob, carl = await traces.mesh(nodes, "ada", "bob", "carl", strict_messages=strict)
    await bob.names.register("shop", bob.spawn(Shop))
    await carl.names.register("prices", carl.spawn(Prices))
    with traces.span():
        assert await ada.call("shop", Order(item="tea")) == "tea for 3"
    spans = await traces.path("GET /", "call Order", "handle Order", "call Price", "handle Price")
    assert len({ids_of(span)[0] for span in traces.exporter.get_finished_spans()}) == 1
    assert [span.kind for span in spans[1:]] == [SpanKind.CLIENT, SpanKind.SERVER] * 2
    assert [attribute(span, "kinfolk.node") for span in spans[1:]] == [ada.name, bob.name, bob.name, carl.name]
    assert [attribute(span, "kinfolk.target") for span in spans[1::2]] == ["shop", "prices"]
    assert [attribute(span, "kinfolk.peer") for span in spans[1::2]] == [bob.name, carl.name]
    assert [attribute(span, "kinfolk.function") for span in spans[2::2]] == ["Shop", "Prices"]
    assert all(span.status.status_code is StatusCode.UNSET for span in spans)
    with traces.span("typed"):
        assert await ada.call("prices", Halves(number=3)) == (1, 2)  # no list


@pytest.mark.parametrize("strict", [False, True])
async def test_on_one_node_a_trace_goes_the_same_way(nodes: Nodes, traces: Traces, strict: bool):
    ada = traces.on(await nodes.start("ada", strict_messages=strict))
    await ada.names.register("shop", ada.spawn(Shop))
    await ada.names.register("prices", ada.spawn(Prices))
    with traces.span():
        assert await ada.call("shop", Order(item="tea")) == "tea for 3"
        assert await asyncio.to_thread(ada.blocking.call, ada.spawn(echo), "from a thread") == "from a thread"
    await traces.path("GET /", "call Order", "handle Order", "call Price", "handle Price")
    await traces.path("GET /", "call", "handle echo")


async def test_a_node_without_a_tracer_delivers_what_comes_with_a_trace_and_drops_the_trace(
    nodes: Nodes, traces: Traces
):
    ada, carl = await traces.mesh(nodes, "ada", "carl")
    bob = await nodes.start("bob", ada)
    await until(lambda: len(carl.peers()) == 2)
    into: list[Any] = []
    await bob.names.register("shop", bob.spawn(Shop))
    await carl.names.register("prices", carl.spawn(Prices))
    await bob.names.register("ear", bob.spawn(collect, into))
    await bob.groups.join("ears", bob.spawn(collect, into))
    with traces.span():
        assert await ada.call("shop", Order(item="tea")) == "tea for 3"
        ada.send("ear", "hello")
        ada.send(("kinfolk", bob.name), "nobody's")
        ada.groups.broadcast("ears", ["hi"])
    await until(lambda: len(into) == 2)
    assert sorted(into, key=str) == [["hi"], "hello"]
    await traces.path("GET /", "call Order")
    assert sorted(traces.names()) == sorted(["call Order", "send ear", "send kinfolk", "broadcast ears", "GET /"])
    assert bob.counters["unreadable_messages"] == 0


async def test_a_message_has_a_span_until_its_process_asks_for_the_next_and_a_context_until_it_takes_it(
    nodes: Nodes, traces: Traces
):
    current: list[int] = []

    def look() -> None:
        current.append(trace.get_current_span().get_span_context().trace_id)

    async def hear(me: Process, through: asyncio.Event) -> None:
        look()
        for _ in range(4):
            await me.receive()
            look()
        with pytest.raises(TimeoutError):
            await me.receive(timeout=0)
        look()
        through.set()
        await me.receive()

    ada, bob = await traces.mesh(nodes, "ada", "bob")
    through = asyncio.Event()
    ear = bob.spawn(hear, through)
    ada.send(ear, "outside of any trace")
    with traces.span("first"):
        ada.send(ear, "one" * 100_000)  # in fragments
    ada.send(ear, "outside again")
    with traces.span("second"):
        ada.send(ear, Note(text="two"))
    await asyncio.wait_for(through.wait(), 10)
    _, sent, taken = await traces.path("first", "send", "process hear")
    assert (sent.kind, taken.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert attribute(taken, "kinfolk.pid") == str(ear)
    second, *_ = await traces.path("second", "send Note", "process Note")  # it has ended, for the next is asked for
    assert current == [0, 0, ids_of(taken)[0], 0, ids_of(second)[0], ids_of(second)[0]]
    assert bob.is_alive(ear)


async def test_predicates_and_types_see_the_message_and_not_what_it_came_in(nodes: Nodes, traces: Traces):
    seen: list[object] = []
    got: list[object] = []

    def is_c(message: object) -> bool:
        seen.append(message)
        return message == "c"

    async def choose(me: Process) -> None:
        got.append(await me.receive(is_c))
        got.append(await me.receive(Note))  # only now this node knows the type
        async for call in me.calls(Price):
            call.reply(len(call.body.item))
            break
        got.extend([await me.receive(), await me.receive()])

    ada, bob = await traces.mesh(nodes, "ada", "bob")
    await bob.names.register("chooser", bob.spawn(choose))
    with traces.span():
        asking = asyncio.create_task(ada.call("chooser", Price(item="tea")))
        await asyncio.sleep(0)
        ada.send("chooser", {"a": 1})
        ada.send("chooser", Note(text="b"))
        bob.send("chooser", "local")
        ada.send("chooser", "c")
    assert await asking == 3
    await traces.path("GET /", "send Note", "process Note")
    await traces.path("GET /", "call Price", "handle Price")
    await until(lambda: len(got) == 4)
    assert got[:2] == ["c", Note(text="b")]
    assert sorted(got[2:], key=str) == ["local", {"a": 1}]
    assert not any(isinstance(message, Traced) for message in seen)


async def test_an_error_is_in_the_status_of_both_ends(nodes: Nodes, traces: Traces):
    async def crash(me: Process) -> None:
        await me.receive()
        raise ValueError("a bad day")

    async def mute(me: Process) -> None:
        async for call in me.calls():
            with pytest.raises(NotSerializable):
                call.reply(lambda: None)

    ada, bob = await traces.mesh(nodes, "ada", "bob")
    gone = bob.spawn(idle)
    bob.kill(gone)
    tries: list[tuple[str, Pid, object, str, str | None]] = [
        ("refused", bob.spawn(Prices), Price(item="moon"), "handle Price", "not for sale"),
        ("crashed", bob.spawn(crash), Price(item="moon"), "handle Price", "a bad day"),
        ("mute", bob.spawn(mute), Price(item="moon"), "handle Price", "a function cannot be sent"),
        ("dead", gone, Price(item="moon"), "", None),
        ("unsendable", gone, lambda: None, "", None),
    ]
    for root, target, request, handled, text in tries:
        with traces.span(root):
            error = await ended(ada.call(target, request))
        assert isinstance(error, Exception)
        _, called, *below = await traces.path(
            root, f"call{' Price' if isinstance(request, Price) else ''}", *([handled] if handled else [])
        )
        assert called.status.status_code is StatusCode.ERROR
        assert called.status.description == str(error)
        assert attribute(called, "error.type") == type(error).__name__
        assert called.events[0].name == "exception"
        for span in below:
            assert span.status.status_code is StatusCode.ERROR
            assert text is not None and text in str(span.status.description)
    with traces.span("sent"), pytest.raises(NotSerializable) as traced:
        ada.send(gone, {"a": [1, 2**70]})
    with pytest.raises(NotSerializable) as plain:
        ada.send(gone, {"a": [1, 2**70]})
    assert str(traced.value) == str(plain.value)
    nobodies: list[Any] = [5, ("one",), ("a", "b", "c"), ("a", 5), [gone], "nobody", "", ("", bob.name)]
    for nobody in nobodies:
        with traces.span("to nobody"):
            errors = [await ended(ada.call(nobody, 1))]
        errors.append(await ended(ada.call(nobody, 1)))
        assert type(errors[0]) is type(errors[1]) and str(errors[0]) == str(errors[1])
    with traces.span("crashed by a message"):
        bob.send(bob.spawn(crash), Note(text="x"))
    *_, taken = await traces.path("crashed by a message", "send Note", "process Note")
    assert "a bad day" in str(taken.status.description)


async def test_a_call_that_is_answered_later_has_its_span_until_then(nodes: Nodes, traces: Traces):
    ada = traces.on(await nodes.start("ada"))

    async def late(me: Process) -> None:
        kept: Call[Any] = await me.receive(Call)
        await me.receive("now".__eq__)
        assert "handle late" not in traces.names()
        asyncio.get_running_loop().call_soon(kept.reply, "at last")
        await me.receive()

    pid = ada.spawn(late)
    with traces.span():
        asking = asyncio.create_task(ada.call(pid, "when?"))
        await asyncio.sleep(0)
    ada.send(pid, "now")
    assert await asking == "at last"
    await traces.path("GET /", "call", "handle late")


async def test_a_call_that_was_given_up_before_it_was_taken_has_no_span_there(nodes: Nodes, traces: Traces):
    ada = traces.on(await nodes.start("ada"))
    begin = asyncio.Event()

    async def late(me: Process) -> None:
        await begin.wait()
        async for call in me.calls():
            call.reply(call.body)

    pid = ada.spawn(late)
    with traces.span():
        assert isinstance(await ended(ada.call(pid, "too late", timeout=0.01)), CallTimeout)
        begin.set()
        assert await ada.call(pid, "in time") == "in time"
    assert ada.counters["expired_calls"] == 1
    assert sorted(traces.names()) == ["GET /", "call", "call", "handle late"]


async def test_a_broadcast_carries_its_trace_once_and_all_members_are_in_it(
    nodes: Nodes, traces: Traces, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await traces.mesh(nodes, "ada", "bob")
    into: list[Any] = []

    async def member(me: Process) -> None:
        into.append(await me.receive())

    for node in (ada, bob, bob):
        await node.groups.join("all", node.spawn(member))
    await until(lambda: len(ada.groups.members("all")) == 3)
    encoded: list[object] = []
    spy(monkeypatch, ada.codec, "encode", encoded)
    with traces.span():
        ada.groups.broadcast("all", ["news"])
    await until(lambda: traces.names().count("process member") == 3)
    assert into == [["news"]] * 3
    assert [type(body) for body in encoded] == [Traced]
    await traces.path("GET /", "broadcast all")


async def test_a_process_is_in_a_trace_of_its_own_that_is_linked_to_where_it_was_spawned(nodes: Nodes, traces: Traces):
    ada = traces.on(await nodes.start("ada"))
    current: list[int] = []

    async def work(me: Process) -> None:
        current.append(trace.get_current_span().get_span_context().trace_id)
        await me.receive()
        current.append(trace.get_current_span().get_span_context().trace_id)

    with traces.span() as outer:
        pid = ada.spawn(work)
    await until(lambda: current)
    ada.send(pid, "outside of any trace")
    await ada.wait_exit(pid)
    (ran,) = [span for span in traces.exporter.get_finished_spans() if span.name.startswith("run ")]
    assert ran.parent is None
    assert [link.context for link in ran.links] == [outer.get_span_context()]
    assert current == [ids_of(ran)[0], 0]


async def test_what_is_forwarded_at_a_hand_over_keeps_its_trace(nodes: Nodes, traces: Traces):
    ada, bob, carl = await traces.mesh(nodes, "ada", "bob", "carl")
    holding = asyncio.Event()

    class Desk(Server):
        async def note(self, message: Note) -> None:
            if self.node is ada:
                await holding.wait()

        async def hand_over(self) -> None:
            return None

        async def take_over(self, state: None) -> None:
            pass

    for node in (ada, bob):
        await node.supervise([Child(Desk, name="desk", singleton=True)])
    await until(lambda: carl.names.whereis("desk"))
    old = carl.names.whereis("desk")
    assert old is not None and old.node == ada.name
    carl.send("desk", Note(text="holds it up"))
    (process,) = [process for process in ada.processes() if process.pid == old]
    await until(lambda: process.mailbox.taken == 2)  # it has been asked whether it has started
    with traces.span("waits"):
        carl.send("desk", Note(text="waits in the mailbox"))
        await carl.call(("kinfolk", ada.name), ["nodes"])  # so that it has come
    leaving = asyncio.create_task(ada.drain())
    await until(lambda: type(process.mailbox.messages[0]) is HandOver)
    holding.set()
    assert await leaving is True
    *_, taken = await traces.path("waits", "send Note", "process Note")
    assert attribute(taken, "kinfolk.node") == bob.name


async def test_what_comes_for_one_that_has_handed_over_goes_on_with_its_trace(nodes: Nodes, traces: Traces):
    ada, bob, carl = await traces.mesh(nodes, "ada", "bob", "carl")
    into: list[Any] = []
    old, heir = bob.spawn(idle), carl.spawn(collect, into)
    (process,) = [process for process in bob.processes() if process.pid == old]
    bob.dataplane.hand_over(process, heir)
    with traces.span("from afar"):
        ada.send(old, 1)
    with traces.span("from here"):
        bob.send(old, 2)
    await until(lambda: len(into) == 2)
    carl.send(heir, "ends the span of the last")
    for root in ("from afar", "from here"):
        *_, taken = await traces.path(root, "send", "process collect")
        assert attribute(taken, "kinfolk.pid") == str(heir)


async def test_a_process_from_before_the_tracer_gets_its_messages_without_their_traces(nodes: Nodes, traces: Traces):
    ada = await nodes.start("ada")
    into: list[Any] = []
    early = ada.spawn(collect, into)
    traces.on(ada)
    await ada.groups.join("all", early)
    with traces.span():
        ada.send(early, "one")
        ada.groups.broadcast("all", "two")
        assert await ended(ada.call(early, "return")) is not None
    assert into == ["one", "two"]
    assert sorted(traces.names()) == ["GET /", "broadcast all", "call", "send"]


async def test_a_message_that_has_no_room_for_its_trace_goes_without(nodes: Nodes, traces: Traces):
    ada, bob = await traces.mesh(nodes, "ada", "bob", max_message=200)
    into: list[Any] = []
    ear = bob.spawn(collect, into)
    with traces.span():
        ada.send(ear, b"x" * 198)
    await until(lambda: into)
    assert into == [b"x" * 198]
    await traces.path("GET /", "send")
    assert len(traces.names()) == 2


async def test_a_trace_that_is_not_recorded_is_not_recorded_elsewhere_either(nodes: Nodes):
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ada = await nodes.start("ada")
    instrument(ada, provider)
    seen: list[trace.SpanContext] = []

    async def look(me: Process) -> None:
        seen.append(trace.get_current_span().get_span_context())
        call: Call[Any] = await me.receive()
        seen.append(trace.get_current_span().get_span_context())
        call.reply()

    with provider.get_tracer("a test").start_as_current_span("GET /") as outer:
        await ada.call(ada.spawn(look), "hi")
    first, handling = seen
    assert not first.is_valid
    assert handling.trace_id == outer.get_span_context().trace_id
    assert not handling.trace_flags.sampled
    assert exporter.get_finished_spans() == ()


async def test_what_is_no_context_costs_nobody_the_message(nodes: Nodes, traces: Traces):
    ada = traces.on(await nodes.start("ada"))
    into: list[Any] = []
    ear = ada.spawn(collect, into)
    carriers = [{}, {"traceparent": "rubbish", "tracestate": "=", "baggage": "a=b"}, {"a": "b"}]
    for number, carrier in enumerate(carriers):
        ada.send(ear, Traced(carrier, number))  # as another node would
    await until(lambda: len(into) == 3)
    assert into == [0, 1, 2]
    assert traces.names() == []


# --- it costs nothing when it is absent ---


async def test_without_a_tracer_or_outside_of_a_span_the_same_goes_over_the_wire(
    nodes: Nodes, traces: Traces, monkeypatch: pytest.MonkeyPatch
):
    ada, bob = await nodes.mesh("ada", "bob")
    await bob.groups.join("all", bob.spawn(idle))
    await until(lambda: ada.groups.members("all"))
    pid = bob.spawn(echo)
    posted: list[Any] = []
    link: Any = ada.dataplane.links[bob.name]
    encode = msgspec.msgpack.encode
    spy(monkeypatch, link, "post_fields", posted)
    spy(monkeypatch, link, "post_from", posted)
    spy(monkeypatch, link, "post_encoded_from", posted)

    async def say() -> None:
        posted.clear()
        ada.send(pid, Note(text="a"))
        await ada.send_when_clear(("echo", bob.name), ["b"])
        ada.groups.broadcast("all", {"c": 1})
        assert await ada.call(pid, "d") == "d"

    def bodies() -> list[bytes]:
        return [body_of(operation) for operation in posted]

    def body_of(operation: Any) -> bytes:
        if isinstance(operation, bytes):
            return operation
        return encode(operation[-1]) if isinstance(operation, tuple) else bytes(operation.body)

    await say()
    plain = bodies()
    as_sent = codec.Codec().encode
    assert plain[:2] == [as_sent(Note(text="a")), as_sent(["b"])]
    assert plain[3:] == [as_sent("d")]
    with traces.span():
        await say()
        assert bodies() == plain  # without a tracer
    traces.on(ada)
    await say()
    assert bodies() == plain  # outside of a span
    assert traces.names() == ["GET /"]
    with traces.span():
        await say()
    assert all(b"traceparent" in body for body in bodies())


async def test_without_a_tracer_a_local_message_allocates_nothing(nodes: Nodes, traces: Traces):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    (process,) = [process for process in ada.processes() if process.pid == pid]
    message, many = ["the same"], 6400
    with traces.span():
        before = sys.getallocatedblocks()
        for _ in range(many):
            ada.send(pid, message)
        allocated = sys.getallocatedblocks() - before
    assert all(each is message for each in process.mailbox.messages)
    assert allocated < many / 64 + 50, "a deque has a block for 64 entries"
    call = Call("a call", None, lambda outcome, value: None)
    assert sys.getsizeof(call) <= 80, "the trace of a call fits into what it took before"


def test_whoever_instruments_without_opentelemetry_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "kinfolk.otel")
    with pytest.raises(ImportError, match=r"pip install 'kinfolk\[otel\]'"):
        importlib.import_module("kinfolk.otel")


def test_nothing_of_opentelemetry_is_imported_but_by_kinfolk_otel():
    for path in Path(str(kinfolk.__file__)).parent.rglob("*.py"):
        text = path.read_text()
        assert path.name == "otel.py" or not re.search(r"(import|from) (opentelemetry|kinfolk\.otel)", text), path
