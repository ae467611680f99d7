"""Typed requests know the type of their reply; a call is answered once."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from kinfolk.ids import Pid
from kinfolk.messages import Call, Replies, Request, reply_type

T = TypeVar("T")
U = TypeVar("U")


class Add(Request[int]):
    by: int = 1


class AddTwice(Add):
    times: int = 2


class Reset(Request[None], tag="reset"):
    pass


class Fetch(Request["Later"]):
    pass


class FetchAll(Request[list["Later"]]):
    pass


class Get(Request[T]):
    key: str = ""


class GetText(Get[str]):
    pass


class GetMany(Request[dict[U, list[T]]], Generic[T, U]):
    pass


class GetManyOf(GetMany[int, U]):
    pass


class GetThese(GetManyOf[str]):
    pass


class Maybe(Request[T | None]):
    pass


class MaybeInt(Maybe[int]):
    pass


@dataclass
class Plain(Replies[float]):
    x: int = 0


class Untyped(Replies):  # type: ignore[type-arg]
    pass


class Later(msgspec.Struct):
    pass


@pytest.mark.parametrize(
    ("request_type", "expected"),
    [
        (Add, int),
        (AddTwice, int),
        (Reset, type(None)),
        (Fetch, Later),
        (FetchAll, list[Later]),
        (Get, None),
        (GetText, str),
        (GetThese, dict[str, list[int]]),
        (MaybeInt, int | None),
        (Plain, float),
        (Untyped, None),
        (str, None),
        (Later, None),
    ],
)
def test_the_reply_type_of_a_request_is_what_its_class_says_generic_bases_included(request_type, expected):
    assert reply_type(request_type) == expected


def test_a_request_is_frozen_hashable_and_compared_by_value():
    assert Add(5) == Add(by=5)
    assert hash(Add(5)) == hash(Add(5))
    with pytest.raises(AttributeError):
        Add(5).by = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert repr(AddTwice(5)) == "AddTwice(by=5, times=2)"
    assert not hasattr(Add(5), "__dict__")


class Answers:
    """A caller that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def __call__(self, outcome: str, value: object) -> None:
        self.heard.append((outcome, value))


def test_a_reply_carries_the_value():
    caller = Answers()
    call = Call(["get", "k"], Pid("ada@h:1", 1, 1), caller)
    assert not call.answered
    assert repr(call) == "<call ['get', 'k']>"
    call.reply(7)
    assert call.answered
    assert caller.heard == [("ok", 7)]
    assert repr(call) == "<call ['get', 'k'], answered>"


def test_a_reply_without_a_value_is_none():
    caller = Answers()
    Call("reset", None, caller).reply()
    assert caller.heard == [("ok", None)]


def test_fail_carries_the_reason():
    caller = Answers()
    Call("x", None, caller).fail("unknown request")
    assert caller.heard == [("refused", "unknown request")]


@pytest.mark.parametrize("again", [lambda call: call.reply(2), lambda call: call.fail("no")])
def test_a_second_answer_raises_and_is_not_heard(again):
    caller = Answers()
    call = Call("x", None, caller)
    call.reply(1)
    with pytest.raises(RuntimeError, match="the call 'x' has been answered already"):
        again(call)
    assert caller.heard == [("ok", 1)]


def test_a_call_matches_by_its_body():
    match Call(Add(5), None, Answers()):
        case Call(Add(by=by)):
            assert by == 5
        case _:
            pytest.fail("a Call of an Add was expected")


async def test_a_call_is_expired_once_its_caller_has_given_up():
    import asyncio

    now = asyncio.get_running_loop().time()
    kept: dict[Any, None] = {}
    for deadline, expired in ((None, False), (now + 1000, False), (now, True)):
        call = Call("x", None, Answers())
        assert not call.expired
        kept[call] = None
        call.opened(deadline, kept)
        assert call.expired is expired
    call.reply()
    assert len(kept) == 2 and call not in kept
