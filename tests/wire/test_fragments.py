"""Large messages are cut and put together again; nobody else waits, and no pair's order changes."""

import itertools
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.errors import MessageTooLarge, RemoteProtocolError
from kinfolk.wire.fragments import ANYBODY, MAX_OPEN, MAX_OPEN_BYTES, Assemblies, Backlog
from kinfolk.wire.frames import (
    FRAGMENT_BYTES,
    MAX_FRAME,
    Answered,
    Fragment,
    Operation,
    Ping,
    Sent,
    SentToName,
    encode_fields,
    encode_head,
    encode_operation,
)
from kinfolk.wire.outbox import MAX_OPERATION, Outbox
from kinfolk.wire.reader import FrameReader, read_operations

PIECE = 40
"""Bytes in a fragment, in the tests that make many."""


class Said(NamedTuple):
    """Who says something to whom, and how much; its number is its place in the order."""

    sender: int
    target: int | None
    size: int


class Wire:
    """One end says things, as a link does; the other hears them."""

    def __init__(self, fragment: int = PIECE, max_open: int = 3, max_open_bytes: int = 600) -> None:
        self.outbox = Outbox()
        self.backlog = Backlog(fragment, max_open, max_open_bytes)
        self.fragment = fragment
        self.reader = FrameReader(MAX_FRAME)
        self.assemblies = Assemblies(max_open, max_open_bytes)
        self.heard: list[int] = []
        """The numbers of what has arrived."""
        self.kinds: list[str] = []
        """The kind of each operation that went over the wire."""

    def say(self, number: int, said: Said) -> None:
        """As `Link.post_from`."""
        body = msgspec.Raw(msgspec.msgpack.encode([number, bytes(said.size)]))
        operation: Operation
        if said.target is None:
            operation = SentToName("somebody", said.sender, body)
        else:
            operation = Sent(said.target, said.sender, body)
        encoded = encode_operation(operation)
        if len(encoded) > self.fragment or self.backlog.holds(said.sender, said.target):
            # In one piece, or with the body apart: where it begins makes no difference.
            begins = (number * 37) % (len(encoded) + 1) or len(encoded)
            self.backlog.add(operation.TAG, encoded[:begins], said.sender, said.target, encoded[begins:])
        else:
            self.outbox.append(operation.TAG, encoded)

    def turn(self) -> None:
        """What the outbox has goes over the wire, and behind it the next fragment."""
        if self.backlog:
            self.backlog.feed(self.outbox)
        for tag, payload in self.reader.feed(self.outbox.take()):
            operations = read_operations(tag, payload)
            assert operations is not None
            for operation in operations:
                self.kinds.append(type(operation).__name__)
                whole = self.assemblies.take(operation) if isinstance(operation, Fragment) else (tag, [operation])
                if whole is not None:
                    assert whole[1] is not None
                    self.hear(whole[1])

    def hear(self, operations: Any) -> None:
        for operation in operations:
            if isinstance(operation, Sent | SentToName):
                number, content = msgspec.msgpack.decode(operation.body)
                assert not any(content)
                self.heard.append(number)

    def run(self) -> None:
        while self.outbox or self.backlog:
            self.turn()


def must_keep_order(first: Said, second: Said) -> bool:
    """Whether the second may not overtake the first: it may be for the same process."""
    return first.sender == second.sender and (first.target == second.target or ANYBODY in (first.target, second.target))


SAID = st.builds(Said, st.integers(0, 2), st.sampled_from([1, 2, 3, ANYBODY]), st.sampled_from([1, 2, 100, 250, 500]))
TURNS = st.integers(0, 4)


@given(st.lists(st.tuples(SAID, TURNS), max_size=40))
def test_all_arrives_once_and_what_may_be_for_the_same_process_in_its_order(script: list[tuple[Said, int]]):
    wire = Wire()
    for number, (said, turns) in enumerate(script):
        wire.say(number, said)
        for _ in range(turns):
            wire.turn()
    wire.run()
    assert sorted(wire.heard) == list(range(len(script)))
    place = {number: place for place, number in enumerate(wire.heard)}
    for first, second in itertools.combinations(range(len(script)), 2):
        if must_keep_order(script[first][0], script[second][0]):
            assert place[first] < place[second], (first, second)
    assert not wire.backlog and len(wire.backlog) == 0 and len(wire.assemblies) == 0
    assert wire.backlog._open_bytes == wire.assemblies._open_bytes == 0


@given(st.lists(SAID, max_size=20), SAID)
def test_what_need_not_wait_does_not(before: list[Said], said: Said):
    wire = Wire()
    for number, other in enumerate(before):
        wire.say(number, other)
    waits = any(must_keep_order(other, said) and not _is_out(wire, n) for n, other in enumerate(before))
    assert wire.backlog.holds(said.sender, said.target) == waits


def _is_out(wire: Wire, number: int) -> bool:
    """Whether this went straight into the outbox."""
    return number not in {
        _number(item.head + item.body)
        for stages in wire.backlog._stages.values()
        for stage in stages
        for lane in stage.values()
        for item in lane.items
    }


def _number(operation: bytes) -> int:
    return int(msgspec.msgpack.decode(operation)[2][0])


@pytest.mark.parametrize("size", [FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 1_000_000])
@pytest.mark.parametrize("fields", [(1, None), (2**63 - 1, 2**40), (7, "ok"), ("somebody", 3, 2**50, 5000)])
def test_an_operation_with_its_body_apart_is_the_same_operation(fields: tuple[object, ...], size: int):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert encode_head(fields, size) + body == encode_fields((*fields, body))


def test_messages_of_several_pairs_take_turns_fragment_by_fragment():
    wire = Wire(max_open_bytes=10_000)
    wire.say(0, Said(1, 1, 500))
    wire.say(1, Said(1, 2, 150))
    wire.say(2, Said(2, 1, 150))
    wire.run()
    assert wire.heard == [1, 2, 0]
    assert wire.kinds == ["Fragment"] * len(wire.kinds)


def test_between_two_fragments_everybody_else_has_their_say():
    wire = Wire()
    wire.say(0, Said(1, 1, 500))
    for number in range(1, 10):
        wire.turn()
        wire.outbox.encode(Ping(number))
        wire.say(number, Said(1, 2, 1))
    wire.run()
    assert wire.heard == [*range(1, 10), 0]
    assert wire.kinds[:9] == ["Fragment", "Ping", "Sent"] * 3
    assert wire.kinds.count("Fragment") == 13


def test_what_waits_behind_a_large_message_leaves_with_its_last_fragment():
    wire = Wire()
    for number, size in enumerate([100, 1, 1, 100, 1]):
        wire.say(number, Said(1, 1, size))
    wire.run()
    assert wire.heard == [0, 1, 2, 3, 4]
    assert wire.kinds == ["Fragment"] * 3 + ["Sent"] * 2 + ["Fragment"] * 3 + ["Sent"]


def test_a_thousand_stages_of_small_messages_leave_in_one_go():
    wire = Wire(max_open_bytes=10_000)
    wire.say(0, Said(1, 1, 100))
    for number in range(1, 3000):
        wire.say(number, Said(1, ANYBODY if number % 2 else 2, 1))
    assert len(wire.backlog) > 3000 * PIECE
    wire.run()
    assert wire.heard == list(range(3000))


def test_no_more_are_under_way_than_the_other_end_takes_and_the_first_to_come_goes_first():
    wire = Wire(max_open=2)
    for number in range(6):
        wire.say(number, Said(1, number, 100))
    largest = 0
    while wire.backlog:
        wire.turn()
        largest = max(largest, len(wire.assemblies))
    assert largest == 2 and wire.heard == list(range(6))
    wire = Wire(max_open_bytes=300)
    for number, size in enumerate([200, 200, 10, 40]):
        wire.say(number, Said(1, number, size))
    wire.run()
    assert wire.heard == [2, 0, 3, 1]  # the second did not fit beside the first, and was not overtaken for that


def test_what_waits_is_counted_down_as_it_leaves():
    wire = Wire(FRAGMENT_BYTES, MAX_OPEN, MAX_OPEN_BYTES)
    wire.say(0, Said(1, 1, 1_000_000))
    wire.say(1, Said(1, 1, 1))
    waits = [len(wire.backlog)]
    while wire.backlog:
        wire.turn()
        waits.append(len(wire.backlog))
    assert 1_000_000 < waits[0] < 1_001_000
    assert all(before > after for before, after in itertools.pairwise(waits)) and waits[-1] == 0
    assert len(waits) == 1 + -(-waits[0] // FRAGMENT_BYTES)


def test_the_largest_operation_passes_and_a_larger_one_is_refused():
    backlog, outbox, assemblies = Backlog(), Outbox(), Assemblies()
    head = encode_operation(Answered(1, "ok", msgspec.Raw(b"")))
    body = msgspec.msgpack.encode(bytes(MAX_OPERATION - len(head) - 5))
    operation = encode_operation(Answered(1, "ok", msgspec.Raw(body)))
    assert len(operation) == MAX_OPERATION
    with pytest.raises(MessageTooLarge, match="is the most that can be sent"):
        backlog.add(Answered.TAG, operation + b"x", 1, 2)
    assert not backlog
    backlog.add(Answered.TAG, operation, 1, 2)
    whole = None
    while backlog:
        backlog.feed(outbox)
        ((_, payload),) = FrameReader(MAX_FRAME).feed(outbox.take())
        operations = read_operations(Fragment.TAG, payload)
        assert operations is not None and whole is None
        (fragment,) = operations
        assert isinstance(fragment, Fragment)
        whole = assemblies.take(fragment)
    assert whole is not None and whole[1] is not None
    (answered,) = whole[1]
    assert isinstance(answered, Answered) and bytes(answered.body) == body


def test_a_fragment_of_a_kind_of_a_later_version_is_put_together_and_not_read():
    assemblies = Assemblies()
    assert assemblies.take(Fragment(1, 0x7E, 2, b"\xc1")) is None
    assert assemblies.take(Fragment(1, 0x7E, 2, b"\xc1")) == (0x7E, None)
    assert len(assemblies) == 0


def test_a_number_may_be_used_again_once_its_operation_is_whole():
    assemblies = Assemblies(max_open=1)
    data = encode_operation(Sent(1, None, msgspec.Raw(b"\xc0")))
    for _ in range(3):
        assert assemblies.take(Fragment(1, Sent.TAG, len(data), data[:2])) is None
        assert assemblies.take(Fragment(1, Sent.TAG, len(data), data[2:])) is not None


@pytest.mark.parametrize("bounds", [(1, 100), (9, 12)], ids=["operations", "bytes"])
def test_more_than_may_be_under_way_is_a_breach_though_it_has_not_come_yet(bounds: tuple[int, int]):
    assemblies = Assemblies(*bounds)
    assemblies.take(Fragment(1, Sent.TAG, 7, b"x"))
    with pytest.raises(RemoteProtocolError, match="one operation too many: 1 with 7 bytes are under way"):
        assemblies.take(Fragment(2, Sent.TAG, 7, b"x"))


FRAGMENTS = st.builds(
    Fragment, st.integers(0, 4), st.just(0x7E), st.sampled_from([2, 5, 5, 5, 7]), st.binary(min_size=1, max_size=3)
)


@given(st.lists(FRAGMENTS, max_size=30))
def test_whatever_a_peer_says_in_fragments_is_taken_or_a_breach_and_memory_is_bounded(parts: list[Fragment]):
    assemblies = Assemblies(max_open=2, max_open_bytes=12)
    with suppress(RemoteProtocolError):
        for part in parts:
            assemblies.take(part)
            assert len(assemblies) <= 2
            assert sum(len(assembly.payload) for assembly in assemblies._open.values()) <= 12 + 2


def test_two_outboxes_may_share_the_bytes_of_one_large_broadcast():
    data = bytes(100_000)
    backlogs = [Backlog(), Backlog()]
    for backlog in backlogs:
        backlog.add(Sent.TAG, data, 1, ANYBODY)
    assert all(backlog._waiting[0].items[0].head is data for backlog in backlogs)
