"""The codec: what goes in comes out, or the sender is told which part of it cannot."""

import asyncio
import contextlib
import enum
import functools
import math
import threading
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from msgspec.msgpack import Ext

from kinfolk.errors import CallFailed, KinfolkError, MessageTooLarge, NoProcess, NotSerializable, Refused
from kinfolk.ids import Pid
from kinfolk.messages import Request
from kinfolk.wire import codec as codec_module
from kinfolk.wire.codec import BadBody, Codec, Traced, Unknown, error_of, is_plain

ADA = Pid("ada@127.0.0.1:4370", 1_700_000_000_000_000_000, 7)
BOB = Pid("bob@127.0.0.1:4371", 5, 1)
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Item(Struct):
    name: str
    price: Decimal = Decimal(0)


class Order(Struct):
    """Closed: every field says what it is."""

    items: list[Item]
    owner: Pid
    color: Color = Color.RED
    sizes: tuple[int, ...] = ()
    seen: set[str] = msgspec.field(default_factory=set)
    note: str | None = None


class Parcel(Struct):
    """Open: only the values say what they are."""

    content: Any
    label: str = ""
    extras: dict[str, Any] = {}
    owner: Pid = ADA
    shelves: list[list[object]] = []


class Tree(Struct):
    value: Any
    kids: list["Tree"] = []


class Row(Struct, array_like=True, tag="row"):
    key: int
    value: Any


class Renamed(Struct, rename="camel", omit_defaults=True):
    first_value: Any
    second_value: int = 2


class Circle(Struct, tag="circle"):
    radius: float
    data: Any = None


class Square(Struct, tag="square"):
    side: float
    data: Any = None


class Picture(Struct):
    shapes: list[Circle | Square]
    main: Circle | Square | None = None


class Page(Struct, Generic[T]):
    items: list[T]


class Book(Struct):
    page: Page[Item]
    any_page: Page[Any]


class Point(NamedTuple):
    x: int
    y: Any


class Config(TypedDict, total=False):
    depth: int
    hook: Any


class Shaped(Struct):
    point: Point
    config: Config
    pair: tuple[int, Any]
    by_key: dict[Any, int]
    limited: Annotated[list[Any], Meta(max_length=3)] = []
    either: int | list[Any] | dict[str, Any] | None = None


@dataclass
class Job:
    task: str
    args: list[Any] = field(default_factory=list)
    retries: int = 3
    _mark: int = 0


@dataclass(frozen=True)
class Stamp:
    at: datetime
    by: Pid


class Add(Request[int], frozen=True):
    by: int


class Sum(Request[int], tag="add"):
    by: int


class Named(Request[str], tag="named-thing"):
    value: int = 0


class NamedChild(Named):
    pass


class Numbered(Struct, tag=3):
    value: int = 0


class Odd(Struct):
    bad: "int | threading.Thread"


class Strict(Struct):
    positive: Annotated[int, Meta(gt=0)]


class Grumpy(Struct):
    value: int

    def __post_init__(self):
        raise OSError("grumpy")


EVERYTHING = [
    Item, Order, Parcel, Tree, Row, Renamed, Circle, Square, Picture, Page, Book, Shaped, Job, Stamp, Add, Sum, Named,
    NamedChild, Numbered,
]  # fmt: skip


PROTOCOL = Path(__file__).parents[2].joinpath("docs", "protocol.md").read_text()
WRITER = Codec()
READER = Codec(EVERYTHING)


def sent(body: object) -> Any:
    """The body as it arrives at a node that knows all these types."""
    return READER.decode(WRITER.encode(body))


def refusal(body: object) -> str:
    with pytest.raises(NotSerializable) as caught:
        Codec().encode(body)
    return str(caught.value)


# --- what goes in comes out ---

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
# In whole seconds: Python itself misreads an offset of microseconds alone, time.fromisoformat("01:00+00:00:00.000007").
offsets = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds)))
typed = (
    st.builds(
        Pid,
        st.text(min_size=1, max_size=20),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
    )
    | st.datetimes()
    | st.datetimes(timezones=offsets)
    | st.dates()
    | st.times()
    | st.times(timezones=offsets)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.builds(Item, st.text(), st.decimals(allow_nan=False, allow_infinity=False))
    | st.builds(Add, st.integers(-(2**63), 2**63))
)
keys = (
    st.text() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.none() | st.booleans() | st.floats(allow_nan=False)
)


def nested(leaves):
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5), max_leaves=10
    )


def exactly(value: Any) -> Any:
    """A value together with the types in it: 1, True and 1.0 are equal, and not the same message."""
    match value:
        case list():
            return [exactly(item) for item in value]
        case dict():
            return [(exactly(key), exactly(item)) for key, item in value.items()]
        case datetime() | time():
            return type(value), value, value.utcoffset()
        case _:
            return type(value), repr(value)


@given(nested(scalars))
def test_every_plain_body_comes_back_equal_and_of_the_same_types(body):
    assert is_plain(body)
    assert exactly(sent(body)) == exactly(body)
    assert Codec().encode(body) == msgspec.msgpack.encode(body)


@given(nested(scalars | typed))
def test_every_body_of_pids_times_uuids_decimals_and_messages_comes_back_as_it_was(body):
    assert exactly(sent(body)) == exactly(body)


@given(nested(scalars | typed))
def test_an_open_field_carries_what_a_body_can(body):
    parcel = sent(Parcel(body, extras={"x": body}, shelves=[[body]]))
    assert type(parcel) is Parcel
    assert exactly(parcel.content) == exactly(body)
    assert exactly(parcel.extras) == exactly({"x": body})
    assert exactly(parcel.shelves) == exactly([[body]])
    assert parcel.owner == ADA


def read_or_refused(raw: bytes) -> None:
    """Nothing but BadBody may be raised."""
    with contextlib.suppress(BadBody):
        READER.decode(raw)


@example(b"\xc1")
@example(b"\xd4\x02\xc1")
@example(b"\xd4\x03\x00")
@given(st.binary(max_size=60))
def test_random_bytes_are_a_bad_body_or_a_body(raw):
    read_or_refused(raw)


@given(nested(scalars | typed | st.builds(Parcel, typed)), st.data())
def test_a_damaged_body_is_a_bad_body_or_another_body(body, data):
    raw = bytearray(Codec().encode(body))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(raw))
    read_or_refused(bytes(raw[:position]))


def test_nan_survives():
    assert math.isnan(sent(float("nan")))
    assert sent(Decimal("NaN")).is_nan()


@pytest.mark.parametrize(
    "body",
    [
        Order([Item("pen", Decimal("1.10"))], BOB, Color.RED, (1, 2), {"a"}, None),
        Parcel({"who": [BOB, Item("pen")]}, "x", {"id": UUID(int=5)}, BOB, [[Item("a")], []]),
        Tree(BOB, [Tree(Item("x"), [Tree(datetime(2020, 1, 1, tzinfo=UTC))])]),
        Row(1, BOB),
        Renamed(BOB),
        Picture([Circle(1.0, BOB), Square(2.0, Item("x"))], Square(3.0)),
        Page([Item("x"), 5, BOB]),
        Book(Page([Item("x")]), Page([Item("y"), BOB])),
        Shaped(Point(1, BOB), {"hook": Item("h")}, (1, BOB), {"a": 1, 2: 2}, [BOB], [BOB]),
        Shaped(Point(1, 1), {}, (1, 2), {}, [], {"a": BOB}),
        Shaped(Point(1, 1), {}, (1, 2), {}, [], 7),
        Job("mail", [BOB, Item("x")]),
        Stamp(datetime(2020, 1, 1), BOB),  # noqa: DTZ001
        Add(5),
        Named(5),
        NamedChild(6),
        Numbered(7),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_message_type_comes_back_as_itself(body):
    assert sent(body) == body
    assert sent([body, {"x": body}]) == [body, {"x": body}]
    assert sent(Parcel(body)) == Parcel(body)


def test_a_tagged_type_travels_under_its_tag_and_others_under_module_and_name():
    assert b"named-thing" in Codec().encode(Named(1))
    assert b"test_codec:Add" in Codec().encode(Add(1))
    assert b"test_codec:NamedChild" in Codec().encode(NamedChild(1)), "an inherited tag is the parent's name"


def test_tuples_and_sets_become_lists_and_subclasses_their_base():
    assert sent((1, (2, {3}), frozenset({4}))) == [1, [2, [3]], [4]]
    assert sent(Point(1, (2,))) == [1, [2]]
    for body in (OrderedDict(a=(1,)), Counter(a=1)):
        assert type(sent(body)) is dict
    assert sent([bytearray(b"x"), memoryview(b"y")]) == [b"x", b"y"]
    assert type(sent(type("Names", (list,), {})([1]))) is list


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (Pid("ada@10.0.0.1:4370", 1, 7), "c715 01 93 b16164614031302e302e302e313a34333730 01 07"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "c719 03 323032362d30312d30325430333a30343a30352b30303a3030"),
        (timedelta(seconds=90), "c705 03 505439 3053"),
        (UUID(int=1), "d804 00000000000000000000000000000001"),
        (Decimal("1.10"), "d605 312e3130"),
        (Sum(5), "c713 02 92 a3616464 82 a474797065 a3616464 a26279 05"),
        (
            Traced({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, 7),
            (
                "c767 02 92 ae6b696e666f6c6b3a747261636564 93 ae6b696e666f6c6b3a747261636564 81"
                " ab7472616365706172656e74 d937 30302d3462663932663335373762333464613661336365393239643065306534373336"
                " 2d303066303637616130626139303262372d3031 07"
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bodies_have_the_bytes_that_the_protocol_document_shows(body, raw):
    assert Codec().encode(body) == bytes.fromhex(raw)
    assert READER.decode(bytes.fromhex(raw)) == body
    assert raw in " ".join(PROTOCOL.split())


# --- what cannot be sent ---


def any_type(value: object) -> Any:
    """Hide from type checkers what they would object to."""
    return value


class Service:
    def method(self):
        pass


class HasPid:
    pid = ADA


def a_function():
    pass


async def a_coroutine_function():
    pass


@pytest.mark.parametrize(
    ("body", "path", "because"),
    [
        (a_function, "body: ", "a function cannot be sent"),
        (lambda: 1, "body: ", "a function cannot be sent"),
        (print, "body: ", "a function cannot be sent"),
        (Service().method, "body: ", "a function cannot be sent"),
        (functools.partial(a_function), "body: ", "a function cannot be sent"),
        (Service, "body: ", "a class (Service) cannot be sent"),
        (Circle, "body: ", "a class (Circle) cannot be sent"),
        (Service(), "body: ", "make it a dataclass or a msgspec Struct"),
        (HasPid(), "body: ", "send its .pid"),
        (deque([1]), "body: ", "a deque cannot be sent"),
        (OSError("x"), "body: ", "send its text"),
        (Color.RED, "body: ", "send its .value"),
        (Level.LOW, "body: ", "send its .value"),
        (type("Age", (int,), {})(3), "body: ", "would arrive as a plain int: send int(...)"),
        (type("Path", (str,), {})("x"), "body: ", "would arrive as a plain str"),
        (2**64, "body: ", "beyond 64 bits"),
        ([1, [-(2**63) - 1]], "body[1][0]: ", "beyond 64 bits"),
        ("\ud800", "body: ", "lone surrogate"),
        ({"\ud800": 1}, "body['\\ud800'] (the key): ", "lone surrogate"),
        ({2**64: 1}, f"body[{2**64}] (the key): ", "beyond 64 bits"),
        ({(1, 2): 1}, "body: ", "a key is a tuple"),
        ([{ADA: 1}], "body[0]: ", "a key is a Pid"),
        ({"users": [1, 2, 3, Parcel(a_function)]}, "body['users'][3].content: ", "a function cannot be sent"),
        ([Order([Item(any_type(a_function))], ADA)], "body[0].items[0].name: ", "a function cannot be sent"),
        (Parcel(1, extras={"f": a_function}), "body.extras['f']: ", "a function"),
        (Parcel(1, label=any_type(2**70)), "body.label: ", "beyond 64 bits"),
        (Parcel(1, shelves=[[1], [2, a_function]]), "body.shelves[1][1]: ", "a function"),
        (Parcel(1, shelves=any_type(5)), "body.shelves: ", "found int where the message type says list"),
        (Parcel(Parcel(Parcel(a_function))), "body.content.content.content: ", "a function"),
        (Tree(1, [Tree(2, [Tree(a_function)])]), "body.kids[0].kids[0].value: ", "a function"),
        (Tree(1, [any_type(Item("x"))]), "body.kids[0]: ", "found Item where the message type says Tree"),
        (Shaped(Point(1, a_function), {}, (1, 2), {}), "body.point[1]: ", "a function"),
        (Shaped(Point(1, 1), {"hook": a_function}, (1, 2), {}), "body.config['hook']: ", "a function"),
        (Shaped(Point(1, 1), {}, (1, a_function), {}), "body.pair[1]: ", "a function"),
        (Shaped(Point(1, 1), {}, (1, 2), {ADA: 1}), "body.by_key: ", "a key is a Pid"),
        (Shaped(Point(1, 1), {}, any_type((1, 2, 3)), {}), "body.pair: ", "a tuple of 3 where the message type says 2"),
        (Job("x", [a_function]), "body.args[0]: ", "a function"),
        (Job(any_type(a_function)), "body.task: ", "a function"),
        (Odd(1), "body: ", "Odd cannot be a message type"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_named_with_its_path_and_a_remedy(body, path, because):
    text = refusal(body)
    assert text.startswith(path)
    assert because in text


async def test_what_is_still_running_cannot_be_sent():
    running = a_coroutine_function()
    assert "send its result" in refusal(running)
    await running
    future = asyncio.get_running_loop().create_future()
    assert "a Future cannot be sent" in refusal([future])


def test_a_type_that_another_node_could_not_find_is_refused_with_the_remedy():
    class Local(Struct):
        x: int = 1

    class Tagged(Struct, tag="local-but-tagged"):
        x: int = 1

    @dataclass
    class LocalData:
        x: int = 1

    assert 'Local is defined inside a function: give it a name (class Local(..., tag="local"))' in refusal([Local()])
    assert "move it into a module" in refusal(LocalData())
    assert Codec([Tagged]).copy(Tagged(2)) == Tagged(2)
    with pytest.raises(TypeError, match="give it a name"):
        Codec([Local])

    main = type("Thing", (Struct,), {"__module__": "__main__", "__qualname__": "Thing"})
    assert "Thing is defined in __main__, which is another module on every node" in refusal(main())


def test_nesting_is_bounded_at_the_sender_and_a_body_that_contains_itself_is_refused():
    body: list[Any] = []
    for _ in range(99):
        body = [body]
    assert sent(body) == body
    assert "nested too deeply" in refusal([body])

    cycle: list[Any] = []
    cycle.append(cycle)
    assert "contains itself" in refusal(cycle)
    entry: dict[str, Any] = {}
    entry["self"] = entry
    assert "contains itself" in refusal(entry)
    tree = Tree(1)
    tree.kids = [tree]
    assert "contains itself" in refusal(tree)
    parcel = Parcel(1)
    parcel.content = parcel
    assert "contains itself" in refusal(parcel)
    closed = Order([], ADA)
    closed.items.append(any_type(closed))
    assert "contains itself" in refusal(closed)


def test_a_trace_around_a_body_changes_nothing_that_can_be_sent_or_is_said_of_it():
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    messages: Any = None
    for _ in range(100):
        messages = Row(1, messages)
    for body in (deep, messages, b"x", bytearray(b"x"), [Row(1, Row(2, {"a": ADA}))], Unknown("a", b"\x01")):
        plain = sent(body)
        assert READER.decode(WRITER.encode(Traced({"a": "b"}, body))) == Traced({"a": "b"}, plain)
    for wrong in ([deep], Row(1, messages), {"a": [lambda: None]}, [1, 2**70], 2**70):
        assert refusal(Traced({"a": "b"}, wrong)) == refusal(wrong)


def test_a_body_that_is_too_large_with_its_trace_goes_without():
    writer = Codec(max_message=100)
    body = b"x" * 98
    assert writer.encode(Traced({"a": "b"}, body)) == writer.encode(body)
    with pytest.raises(MessageTooLarge, match="101 bytes on the wire"):
        writer.encode(Traced({"a": "b"}, b"x" * 99))


@pytest.mark.parametrize(
    "fields", [[], ["kinfolk:traced", {"a": 1}, 1], ["kinfolk:traced", {"a": "b"}], {"body": 1}, 5]
)
def test_a_trace_that_is_none_is_a_bad_body(fields):
    with pytest.raises(BadBody, match="kinfolk:traced"):
        READER.decode(msgspec.msgpack.encode(Ext(2, msgspec.msgpack.encode(["kinfolk:traced", fields]))))


def test_nesting_is_bounded_at_the_receiver():
    with pytest.raises(BadBody, match="nested too deeply"):
        READER.decode(b"\x91" * 1_000_000 + b"\x01")
    body = b"\x01"
    for level in range(1, 2_001):
        body = msgspec.msgpack.encode(Ext(2, b"\x92\xa3row\x93\xa3row\x01" + body))  # a Row in a Row
        if level == 100:
            READER.decode(body)
    with pytest.raises(BadBody, match="nested too deeply"):
        READER.decode(body)
    READER.decode(WRITER.encode(Row(1, Row(2, 3))))


def test_an_enormous_count_allocates_nothing():
    for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        with pytest.raises(BadBody):
            Codec().decode(head + b"\xff\xff\xff\xff\x02")


def test_a_message_above_the_bound_is_refused_at_the_sender():
    writer = Codec(max_message=100)
    assert len(writer.encode(b"x" * 98)) == 100
    with pytest.raises(MessageTooLarge, match="101 bytes on the wire, and max_message allows 100"):
        writer.encode(b"x" * 99)
    with pytest.raises(MessageTooLarge):
        writer.encode(Parcel(b"x" * 100))


# --- what is not known, and what does not fit ---


def test_a_type_that_is_not_known_arrives_as_unknown_and_imports_nothing():
    body = Codec().decode(msgspec.msgpack.encode([Ext(2, msgspec.msgpack.encode(["antigravity:Fly", {"high": True}]))]))
    assert body == [Unknown("antigravity:Fly", msgspec.msgpack.encode({"high": True}))]
    assert "antigravity" in repr(body)
    import sys

    assert "antigravity" not in sys.modules


def test_an_unknown_message_sent_on_arrives_as_what_it_was():
    relay = Codec()
    body = ["forward", Parcel(Item("pen"), owner=BOB)]
    assert Codec(EVERYTHING).decode(relay.encode(relay.decode(Codec().encode(body)))) == body


def test_an_unknown_message_becomes_an_object_once_its_type_is_learned():
    reader = Codec()
    unknown: Any = reader.decode(Codec().encode({"x": [Add(5)], "y": Item("pen")}))
    assert reader.resolve(unknown) == unknown
    reader.learn(Add)
    assert reader.resolve(unknown) == {"x": [Add(5)], "y": unknown["y"]}
    reader.learn(Item)
    assert reader.resolve(unknown) == {"x": [Add(5)], "y": Item("pen")}


@pytest.mark.parametrize("annotation", [list[Item], Item | None, dict[str, tuple[Item, ...]], Page[Item], Order, Book])
def test_learning_a_type_learns_the_message_types_in_it(annotation):
    reader = Codec()
    reader.learn(annotation)
    reader.learn(annotation)
    assert reader.decode(Codec().encode(Item("pen"))) == Item("pen")


def test_learning_what_is_no_message_type_changes_nothing():
    reader = Codec()
    for kind in (int, str, list, Service, Pid, Unknown, KinfolkError, object, type(None)):
        reader.learn(kind)
    assert reader.decode(Codec().encode(ADA)) == ADA
    with pytest.raises(TypeError, match="Odd cannot be a message type"):
        reader.learn(Odd)
    with pytest.raises(TypeError, match="is no message type"):
        Codec([int])


def test_a_type_is_learned_once_a_name_in_it_is_defined():
    kind = msgspec.defstruct("Early", [("later", "Later")], namespace={"__module__": __name__})
    with pytest.raises(TypeError, match="Early cannot be a message type: name 'Later' is not defined"):
        Codec().learn(kind)
    globals()["Later"] = int
    try:
        Codec().learn(kind)
    finally:
        del globals()["Later"]


def test_two_types_of_one_name_are_refused_and_one_made_anew_replaces_the_old():
    def make(name):
        return type(name, (Struct,), {"__module__": "somewhere"}, tag="thing")

    first, again, other = make("Thing"), make("Thing"), make("Other")
    reader = Codec([first])
    assert type(reader.decode(Codec().encode(first()))) is first
    reader.learn(again)
    assert type(reader.decode(Codec().encode(first()))) is again
    with pytest.raises(ValueError, match="both called 'thing' on the wire"):
        reader.learn(other)


def test_a_message_that_does_not_fit_its_type_is_a_bad_body():
    good = Codec().encode([Strict(5)])
    reader = Codec([Strict, Grumpy])
    assert reader.decode(good) == [Strict(5)]
    with pytest.raises(BadBody, match=r"Strict.*Expected `int` >= 1"):
        reader.decode(Codec().encode([Strict(-5)]))
    raw = msgspec.msgpack.encode(Ext(2, msgspec.msgpack.encode([f"{__name__}:Grumpy", {"value": 1}])))
    with pytest.raises(BadBody, match="grumpy"):
        reader.decode(raw)
    with pytest.raises(BadBody, match="extension 77"):
        reader.decode(msgspec.msgpack.encode(Ext(77, b"x")))
    assert reader.decode(good) == [Strict(5)]


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (1, msgspec.msgpack.encode(["", 1, 1])),
        (1, msgspec.msgpack.encode(["ada@h:1", -1, 1])),
        (1, msgspec.msgpack.encode(["ada@h:1", 1, 2**63])),
        (1, b""),
        (2, msgspec.msgpack.encode(["", {}])),
        (2, msgspec.msgpack.encode(["x" * 1025, {}])),
        (2, msgspec.msgpack.encode(["x"])),
        (3, b"yesterday"),
        (3, b"2020-01-01T99:00"),
        (3, b"P"),
        (3, "2020\u00e9".encode()),
        (4, b"short"),
        (5, b"1,5"),
        (5, b""),
    ],
)
def test_a_malformed_extension_is_a_bad_body(code, payload):
    with pytest.raises(BadBody, match=r"."):
        Codec(EVERYTHING).decode(msgspec.msgpack.encode([Ext(code, payload)]))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (5, int),
        (None, type(None)),
        (None, None),
        ("x", str | None),
        ((1, "x"), tuple[int, str]),
        ({1, 2}, set[int]),
        ([Item("a")], list[Item]),
        ({"a": (1, 2)}, dict[str, tuple[int, int]]),
        (ADA, Pid),
        (UUID(int=1), UUID),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime),
        (timedelta(1), timedelta),
        (Item("a"), Item),
        (Job("a"), Job),
        (Parcel(ADA), Parcel),
        ([ADA, 1], Any),
        ([ADA, 1], list[Any]),
        (Circle(1.0), Circle | Square),
        (Page([Item("x")]), Page[Item]),
        (Point(1, ADA), Point),
        (b"x", bytes),
        (1, float),
    ],
    ids=str,
)
def test_a_reply_becomes_the_type_that_was_asked_for_also_if_it_was_unknown_so_far(value, annotation):
    reader = Codec()
    converted = reader.convert(reader.decode(Codec().encode(value)), annotation)
    assert converted == value or annotation is float
    if annotation is not Any and isinstance(annotation, type):
        assert type(converted) is annotation


def test_a_reply_that_does_not_fit_is_a_bad_body():
    reader = Codec()
    with pytest.raises(BadBody, match="Expected `int`, got `str`"):
        reader.convert("five", int)
    with pytest.raises(BadBody):
        reader.convert([Unknown("gone:Type", b"\x80")], list[Item])


def test_a_copy_is_what_would_arrive():
    reader = Codec([Item])
    item = Item("pen")
    copied: Any = reader.copy((item, {1}))
    assert copied == [item, [1]]
    assert copied[0] is not item
    with pytest.raises(NotSerializable):
        reader.copy(a_function)


# --- plain bodies ---


@pytest.mark.parametrize("body", [1, "x", None, (), [], {}, [1, [2, (3, {"a": None})]], {"a": [1, {}], 2: b"x"}])
def test_builtins_through_and_through_are_plain(body):
    assert is_plain(body)


@pytest.mark.parametrize(
    "body", [ADA, [ADA], {"a": [ADA]}, {ADA: 1}, {1}, [Level.LOW], Item("x"), [OrderedDict()], [[{(): 1}]]]
)
def test_everything_else_is_not_plain(body):
    assert not is_plain(body)


# --- outcomes of calls ---


@pytest.mark.parametrize(
    ("outcome", "text", "error"),
    [("refused", "no", Refused), ("noproc", "gone", NoProcess), ("failed", "broke", CallFailed)],
)
def test_what_became_of_a_call_is_told_by_the_class_of_the_error(outcome, text, error):
    again = error_of(outcome, text)
    assert type(again) is error
    assert str(again) == text


def test_an_outcome_that_is_not_known_here_is_a_failure():
    assert type(error_of("outcome of a later version", "x")) is CallFailed
    assert {codec_module.OK, codec_module.REFUSED, codec_module.FAILED, codec_module.NO_PROCESS} == {
        "ok",
        "refused",
        "failed",
        "noproc",
    }


def test_uuid_and_dates_in_closed_fields_arrive_as_declared():
    stamp = sent(Stamp(datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=3))), ADA))
    assert stamp.at == datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=3)))
    assert sent([date(2020, 1, 1), uuid4().version]) == [date(2020, 1, 1), 4]
