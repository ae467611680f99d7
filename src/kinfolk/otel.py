"""`instrument`: traces of OpenTelemetry that go through processes and from node to node. Needs the extra `otel`.

A node that is instrumented continues traces, and begins none: what is sent outside of a span travels as ever, and
nothing is recorded. What travels with a message is what the propagators of OpenTelemetry say, by default W3C Trace
Context and Baggage.
"""

from contextvars import Token
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from kinfolk.ids import Pid
from kinfolk.wire.codec import Traced, Unknown
from kinfolk.wire.message_types import Unsendable, is_message_type, wire_name

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("kinfolk.otel needs OpenTelemetry: pip install 'kinfolk[otel]'") from error

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.process import Process
    from kinfolk.shell.dataplane import Target
    from kinfolk.tracing import Handling, Outgoing

__all__ = ["instrument"]

_KINDS = {"send": (SpanKind.PRODUCER, SpanKind.CONSUMER), "call": (SpanKind.CLIENT, SpanKind.SERVER)}
"""The kind of the span where something is sent, and where it arrives."""


def instrument(node: "Node", tracer_provider: TracerProvider | None = None) -> None:
    """Let traces go through a node.

    Inside of a span, each `send`, `call` and `broadcast` of the node and its processes gets a span of its own, and
    takes the context along. A process that takes such a message is in that context until it takes the next, and in a
    span that ends with the answer to a call, or when the process asks for its next message.

    Processes that were spawned before take messages without their context: instrument a node before it starts.

    Args:
        node: the node. Others of the cluster need not be instrumented: they drop the context, and deliver the message.
        tracer_provider: where the spans go. Default: OpenTelemetry's global one.
    """
    node.tracer = _Tracer(node, trace.get_tracer("kinfolk", version("kinfolk"), tracer_provider))


class _Tracer:
    """See `kinfolk.tracing.Tracer`."""

    def __init__(self, node: "Node", tracer: trace.Tracer) -> None:
        self._node = node
        self._tracer = tracer

    def outgoing(self, verb: Literal["send", "call", "broadcast"], target: "Target", body: object) -> "Outgoing | None":
        if type(body) is Traced or not trace.get_current_span().get_span_context().is_valid:
            return None
        what, (name, text, peer) = _type_name(body), self._address(target)
        attributes = {"kinfolk.node": self._node.name, "kinfolk.target": text}
        if peer is not None and verb != "broadcast":
            attributes["kinfolk.peer"] = peer
        kind, _ = _KINDS["call" if verb == "call" else "send"]
        span = self._tracer.start_span(
            _span_name(verb, what or name), kind=kind, attributes=attributes | _convention(verb, what, name)
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        return _Outgoing(span, carrier)

    def incoming(self, verb: Literal["send", "call"], carrier: dict[str, str]) -> "Handling":
        return _Handling(self._tracer, verb, carrier)

    def started(self, process: "Process") -> "Handling | None":
        parent = trace.get_current_span().get_span_context()
        if not parent.is_valid:
            return None
        # It may live for long after the span in which it was spawned: it is in no trace, or in one of its own.
        outside = trace.set_span_in_context(INVALID_SPAN)
        contexts.attach(outside)
        if not parent.trace_flags.sampled:
            return None
        span = self._tracer.start_span(
            _span_name("run", _function(process)),
            outside,
            attributes=_of_process(process),
            links=[Link(parent)],
        )
        handling = _Handling(self._tracer, "send", {})
        handling.enter(span, outside)
        return handling

    def _address(self, target: object) -> tuple[str | None, str, str | None]:
        """The name in it, its text, and the node that it is known to be on. What is no target is found out later."""
        match target:
            case Pid():
                return None, str(target), target.node
            case str():
                holder = self._node.names.whereis(target)
                return target, target, None if holder is None else holder.node
            case (str() as name, str() as node):
                return name, f"{name} of {node}", node
            case _:
                return None, repr(target), None


class _Outgoing:
    """See `kinfolk.tracing.Outgoing`."""

    def __init__(self, span: Span, carrier: dict[str, str]) -> None:
        self.carrier = carrier
        self._span = span

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._span.record_exception(error)
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR, str(error) or type(error).__name__))
        self._span.end()


class _Handling:
    """See `kinfolk.tracing.Handling`."""

    def __init__(self, tracer: trace.Tracer, verb: Literal["send", "call"], carrier: dict[str, str]) -> None:
        self._tracer = tracer
        self._verb: Literal["send", "call"] = verb
        self._carrier = carrier
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def begin(self, process: "Process", body: object) -> None:
        context = propagate.extract(self._carrier, Context())
        if not trace.get_current_span(context).get_span_context().is_valid:
            self._token = contexts.attach(context)
            return
        what = _type_name(body)
        verb, (_, kind) = "handle" if self._verb == "call" else "process", _KINDS[self._verb]
        span = self._tracer.start_span(
            _span_name(verb, what or _function(process)),
            context,
            kind,
            _of_process(process) | _convention(verb, what, None),
        )
        self.enter(span, context)

    def enter(self, span: Span, context: Context) -> None:
        """Make a span the current one."""
        self._span = span
        self._token = contexts.attach(trace.set_span_in_context(span, context))

    def end(self, error: str | None) -> None:
        span, self._span = self._span, None
        if span is not None:
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
            span.end()

    def leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            contexts.detach(token)


def _span_name(verb: str, what: str | None) -> str:
    return verb if what is None else f"{verb} {what}"


def _type_name(body: object) -> str | None:
    """What a message type is called, without its module: of these there are few, as the names of spans should be."""
    if isinstance(body, Unknown):
        name = body.name
    elif is_message_type(type(body)):
        try:
            name = wire_name(type(body))
        except Unsendable:  # of this node alone
            name = type(body).__name__
    else:
        return None
    return name.rpartition(":")[2]


def _function(process: "Process") -> str:
    return process.function.rpartition("<locals>.")[2]


def _of_process(process: "Process") -> dict[str, str]:
    return {
        "kinfolk.node": process.pid.node,
        "kinfolk.pid": str(process.pid),
        "kinfolk.function": process.function,
    }


def _convention(verb: str, what: str | None, name: str | None) -> dict[str, str]:
    """Attributes that OpenTelemetry has settled for all systems: those of remote calls, or of messages."""
    if verb in ("call", "handle"):
        return {"rpc.system.name": "kinfolk"} | ({} if what is None else {"rpc.method": what})
    attributes = {
        "messaging.system": "kinfolk",
        "messaging.operation.name": verb,
        "messaging.operation.type": "process" if verb == "process" else "send",
    }
    return attributes if name is None else attributes | {"messaging.destination.name": name}
