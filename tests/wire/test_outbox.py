from itertools import groupby
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.errors import MessageTooLarge
from kinfolk.wire.frames import MAX_FRAME, Operation, Ping, Pong, Sent, encode_frame, encode_operation
from kinfolk.wire.outbox import CLOSE_AT, MAX_OPERATION, Outbox
from kinfolk.wire.reader import FrameReader, read_operations

Frame = tuple[int, list[Operation]]


def frames(data: bytes | bytearray) -> list[Frame]:
    found: list[Frame] = []
    for tag, payload in FrameReader(MAX_FRAME).feed(data):
        operations = read_operations(tag, payload)
        assert operations is not None
        found.append((tag, list(operations)))
    return found


def sent(body: int) -> Sent:
    """A message whose body takes so many bytes and a header of three or five."""
    return Sent(1, None, msgspec.Raw(msgspec.msgpack.encode(bytes(body))))


def plain(operation: Operation) -> tuple[Any, ...]:
    """To compare operations with bodies."""
    return tuple(
        bytes(value) if isinstance(value, msgspec.Raw) else value for value in msgspec.structs.astuple(operation)
    )


OPERATIONS = st.lists(st.builds(Ping, st.integers(0, 2**63 - 1)) | st.builds(Pong, st.integers(0, 2**63 - 1)))


@given(OPERATIONS, st.sampled_from((0, 9, 30, CLOSE_AT)), st.data())
def test_what_comes_out_is_what_went_in_one_frame_for_each_run_of_a_kind(
    operations: list[Ping | Pong], close_at: int, data: st.DataObject
):
    outbox = Outbox(close_at)
    for operation in operations:
        if data.draw(st.booleans()):
            outbox.append(operation.TAG, encode_operation(operation))
        else:
            outbox.encode(operation)
    waiting = len(outbox)
    taken = outbox.take()
    found = frames(taken)
    assert len(taken) == waiting
    assert [operation for _, run in found for operation in run] == operations
    assert all(tag == operation.TAG for tag, run in found for operation in run)
    if close_at == CLOSE_AT:
        assert len(found) == len([*groupby(operations, type)])


def test_operations_of_one_kind_share_a_frame():
    outbox = Outbox()
    pings = [Ping(number) for number in range(1000)]
    for ping in pings:
        outbox.encode(ping)
    assert frames(outbox.take()) == [(Ping.TAG, pings)]


def test_another_kind_closes_the_frame_and_the_order_stays():
    outbox = Outbox()
    for operation in (Ping(1), Ping(2), Pong(3), Ping(4)):
        outbox.encode(operation)
    assert frames(outbox.take()) == [(Ping.TAG, [Ping(1), Ping(2)]), (Pong.TAG, [Pong(3)]), (Ping.TAG, [Ping(4)])]


def test_nothing_waits_after_take():
    outbox = Outbox()
    assert outbox.take() == b""
    outbox.encode(Ping(1))
    first = outbox.take()
    assert len(outbox) == 0
    outbox.encode(Ping(2))
    assert frames(first) == [(Ping.TAG, [Ping(1)])]
    assert frames(outbox.take()) == [(Ping.TAG, [Ping(2)])]


def test_a_frame_that_has_passed_its_size_takes_no_more():
    outbox = Outbox()
    for _ in range(200):
        outbox.encode(sent(1000))
    sizes = [len(payload) for _, payload in FrameReader(MAX_FRAME).feed(outbox.take())]
    assert len(sizes) == 4
    assert all(CLOSE_AT < size < CLOSE_AT + 1100 for size in sizes[:-1])


def test_a_frame_made_elsewhere_keeps_its_place():
    outbox = Outbox()
    outbox.encode(Ping(1))
    outbox.add_frame(encode_frame([Ping(2)]))
    outbox.encode(Ping(3))
    assert frames(outbox.take()) == [(Ping.TAG, [Ping(number)]) for number in (1, 2, 3)]


@pytest.mark.parametrize("way", ["append", "encode"])
def test_what_no_frame_can_hold_is_refused_and_the_rest_stays(way: str):
    largest = 100 - 6  # of the frame's 100 bytes, 6 are the tag and the count
    fits, too_large = sent(largest - 5), sent(largest - 4)
    assert [len(encode_operation(operation)) for operation in (fits, too_large)] == [largest, largest + 1]

    def add(operation: Operation) -> None:
        if way == "append":
            outbox.append(operation.TAG, encode_operation(operation))
        else:
            outbox.encode(operation)

    outbox = Outbox(close_at=50, max_frame=100)
    for before in ([], [Ping(1)], [sent(1)]):
        for operation in before:
            outbox.encode(operation)
        waiting = len(outbox)
        with pytest.raises(MessageTooLarge, match="95 bytes on the wire: a frame holds at most 94"):
            add(too_large)
        assert len(outbox) == waiting
        add(fits)
        expected = [*map(plain, before), plain(fits)]
        found = frames(outbox.take())
        assert [plain(operation) for _, run in found for operation in run] == expected
        assert len(found) == len(expected)  # it has a frame for itself


def test_a_frame_never_exceeds_the_limit_of_the_reader():
    outbox = Outbox(close_at=60, max_frame=100)
    for body in (40, 40, 3, 3, 3, 70, 3, 80, 89):
        outbox.encode(sent(body))
    reader = FrameReader(limit=100)
    reader.feed(outbox.take())
    assert len(reader) == 0


def test_the_largest_operation_fills_the_largest_frame():
    outbox = Outbox()
    largest = Sent(1, None, msgspec.Raw(msgspec.msgpack.encode(bytes(MAX_OPERATION - 8))))
    assert len(encode_operation(largest)) == MAX_OPERATION
    outbox.encode(Ping(1))
    outbox.encode(largest)
    data = outbox.take()
    ((_, _), (tag, payload)) = FrameReader(MAX_FRAME).feed(data)
    assert (tag, len(payload) + 1) == (Sent.TAG, MAX_FRAME)


def test_an_operation_given_as_its_fields_is_the_same_operation():
    one, other = Outbox(), Outbox()
    body = ["a", 1.5, None, {"b": b"c"}]
    for outbox in (one, other):
        outbox.encode(Ping(1))
    for number in range(2000):
        one.encode(Sent(number, None, msgspec.Raw(msgspec.msgpack.encode(body))))
        assert other.encode_fields(Sent.TAG, (number, None, body), 1000) == b""
    assert one.take() == other.take()


def test_an_operation_longer_than_it_may_be_is_handed_back():
    outbox = Outbox()
    fields = 1, None, bytes(100)
    encoded = msgspec.msgpack.encode(fields)
    for before in ([], [Ping(1)], [Ping(1), sent(3)]):
        for operation in before:
            outbox.encode(operation)
        waiting = len(outbox)
        assert outbox.encode_fields(Sent.TAG, fields, len(encoded) - 1) == encoded
        assert len(outbox) == waiting
        assert outbox.encode_fields(Sent.TAG, fields, len(encoded)) == b""
        found = [operation for _, run in frames(outbox.take()) for operation in run]
        assert len(found) == len(before) + 1


def test_what_cannot_be_encoded_leaves_no_trace():
    outbox = Outbox()
    with pytest.raises(TypeError):
        outbox.encode(Ping(object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        outbox.encode_fields(Sent.TAG, (1, None, ["begun", object()]), 1000)
    assert len(outbox) == 0
    outbox.encode(Pong(1))
    outbox.encode(Pong(2))
    with pytest.raises(TypeError):
        outbox.encode(Pong(object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        outbox.encode(Ping(object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert frames(outbox.take()) == [(Pong.TAG, [Pong(1), Pong(2)])]
