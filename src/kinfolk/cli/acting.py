"""`kinfolk send`, `kinfolk call` and `kinfolk kill`: what the commands do that change something."""

import sys
from typing import Annotated, Any, cast

import msgspec
from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.errors import CallFailed, KinfolkError
from kinfolk.ids import Pid, check_name, check_node_name
from kinfolk.messages import Unknown
from kinfolk.wire.codec import Codec

_MESSAGE = """JSON; - reads it from standard input. What is no JSON is a usage error: a text is '"in quotes"'."""
_TYPE = "The message type, as in module:Class or its tag; the JSON is then the object of its fields."
Message = Annotated[str, Parameter(help=_MESSAGE, allow_leading_hyphen=True)]
Type = Annotated[str | None, Parameter(name="--type", help=_TYPE)]
On = Annotated[str | None, Parameter(name="--on", help="The node on which the target is a name of that node alone.")]


def send(
    target: str,
    message: Message = "null",
    /,
    *,
    kind: Type = None,
    on: On = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Send a message to a process, without waiting for anything. Exit code 1 if nobody has the name.

    Parameters
    ----------
    target
        A pid, or a name of the cluster.
    """
    request = ["send", _target(target, on), _message(message, kind)]
    _act(asking, request, None)
    if asking.json:
        output.show_json({"target": target, "sent": True})
    return exits.YES


def call(
    target: str,
    request: Message = "null",
    /,
    *,
    kind: Type = None,
    on: On = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Send a request to a process and print its answer as JSON. Exit code 1 if it refused or is not there.

    Parameters
    ----------
    target
        A pid, or a name of the cluster.
    """
    asked = ["call", _target(target, on), _message(request, kind), asking.timeout]
    output.show_json(_plain(_act(asking, asked, asking.patience)))
    return exits.YES


def kill(target: str, /, *, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """End a process at once, and wait until it has ended. It cannot refuse; its supervisor may start it anew.

    Parameters
    ----------
    target
        A pid, or a name of the cluster.
    """
    asked = ["kill", _target(target, None), asking.timeout]
    pid, reason = ask(asking, lambda node: node.act(asked, timeout=asking.patience))
    if asking.json:
        output.show_json({"pid": pid, "reason": reason})
    else:
        print(f"{pid} was dead already" if reason == "noproc" else f"{pid} has ended: {reason}")
    return exits.NO if reason == "noproc" else exits.YES


def _act(asking: Asking, request: list[object], timeout: float | None) -> Any:
    try:
        return ask(asking, lambda node: node.act(request, timeout=timeout))
    except CallFailed as error:
        raise KinfolkError(str(error)) from None  # the message was not taken: the node can be reached


def _target(text: str, on: str | None) -> Pid | str | list[str]:
    try:
        if on is not None:
            return [check_name(text), check_node_name(on)]
        try:
            return Pid.parse(text)
        except ValueError:
            return check_name(text)
    except ValueError as error:
        raise exits.Usage(str(error)) from None


def _plain(answer: object) -> object:
    """An answer as JSON can show it: pids as text, messages of named types as objects with the name in "type"."""
    if isinstance(answer, Pid):
        return str(answer)
    if isinstance(answer, Unknown):
        fields = _plain(Codec().decode(answer.raw))
        return {"type": answer.name, **(fields if isinstance(fields, dict) else {"fields": fields})}
    if isinstance(answer, dict):
        return {str(key): _plain(value) for key, value in cast("dict[object, object]", answer).items()}
    if isinstance(answer, list):
        return [_plain(value) for value in cast("list[object]", answer)]
    return answer


def _message(text: str, kind: str | None) -> object:
    if text == "-":
        text = sys.stdin.read()
    try:
        body: Any = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        hint = """: a text is written '"in quotes"'""" if kind is None else ""
        raise exits.Usage(f"{text[:60]!r} is no JSON ({error}){hint}") from None
    if kind is None:
        return body
    if not isinstance(body, dict):
        raise exits.Usage(f"""the fields of a {kind} are a JSON object, as in '{{"by": 5}}', not {text[:60]!r}""")
    return Unknown(kind, msgspec.msgpack.encode(body))
