import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.wire.frames import (
    MAX_FRAME,
    MAX_FRAME_BEFORE_AUTHENTICATION,
    Acknowledged,
    Peers,
    Ping,
    Sent,
    encode_frame,
)
from kinfolk.wire.reader import CAPACITY, FIRST_CAPACITY, FrameReader, frame_name, read_operations

Frame = tuple[int, bytes]


def encoded(tag: int, payload: bytes) -> bytes:
    return (len(payload) + 1).to_bytes(4, "little") + bytes([tag]) + payload


def size(reader: FrameReader) -> int:
    return len(reader._buffer)


FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=12)


@given(FRAMES, st.lists(st.integers(1, 50)), st.integers(5, 80))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(frames: list[Frame], cuts: list[int], capacity: int):
    data = b"".join(encoded(*frame) for frame in frames)
    reader = FrameReader(capacity=capacity)
    ends = [0, *(end for end in itertools.accumulate(cuts) if end < len(data)), len(data)]
    got: list[Frame] = []
    for start, end in itertools.pairwise(ends):
        got += reader.feed(data[start:end])
    assert got == frames
    assert len(reader) == 0


def test_every_cut_of_two_frames_into_three_pieces():
    frames = [(0x10, b"abc"), (0xF0, b"")]
    data = b"".join(encoded(*frame) for frame in frames)
    for first, second in itertools.combinations_with_replacement(range(len(data) + 1), 2):
        reader = FrameReader(capacity=5)
        got = reader.feed(data[:first]) + reader.feed(data[first:second]) + reader.feed(data[second:])
        assert got == frames


def test_frames_of_one_read_are_views_into_one_buffer():
    reader = FrameReader()
    data = encoded(1, b"one") + encoded(2, b"two")
    room = reader.get_buffer()
    room[: len(data)] = data
    reader.advance(len(data))
    buffers = {id(payload.obj) for _, payload in reader.frames()}
    assert buffers == {id(room.obj)}


@pytest.mark.parametrize("length", [MAX_FRAME_BEFORE_AUTHENTICATION + 1, 2**24, 2**32 - 1])
def test_a_long_frame_is_refused_by_its_length_before_anything_is_allocated(length: int):
    reader = FrameReader()
    before = size(reader)
    with pytest.raises(RemoteProtocolError, match=f"{length} bytes: at most 4096"):
        reader.feed(length.to_bytes(4, "little"))
    assert size(reader) == before


def test_a_frame_of_the_greatest_length_is_taken():
    frame = (7, bytes(MAX_FRAME_BEFORE_AUTHENTICATION - 1))
    assert FrameReader().feed(encoded(*frame)) == [frame]
    frame = (7, bytes(MAX_FRAME - 1))
    assert FrameReader(MAX_FRAME).feed(encoded(*frame)) == [frame]


def test_a_frame_of_length_zero_is_refused_although_no_byte_follows():
    with pytest.raises(RemoteProtocolError, match="length 0"):
        FrameReader().feed(bytes(4))


def test_the_limit_can_be_raised_between_two_frames_of_one_read():
    reader = FrameReader(limit=10)
    data = encoded(1, b"short") + encoded(2, bytes(100))
    room = reader.get_buffer()
    room[: len(data)] = data
    reader.advance(len(data))
    frames = reader.frames()
    assert next(frames)[0] == 1
    reader.limit = 1000
    assert next(frames)[0] == 2


def test_what_came_before_a_bad_frame_is_handed_out():
    reader = FrameReader()
    data = encoded(1, b"good") + bytes(4)
    room = reader.get_buffer()
    room[: len(data)] = data
    reader.advance(len(data))
    frames = reader.frames()
    assert next(frames)[0] == 1
    with pytest.raises(RemoteProtocolError):
        next(frames)


def test_the_buffer_grows_for_a_frame_that_needs_it_and_shrinks_when_it_has_gone():
    reader = FrameReader(MAX_FRAME, capacity=64)
    long = encoded(9, bytes(range(200)) * 5)
    assert reader.feed(long[:64]) == []
    reader.get_buffer()
    assert size(reader) == len(long)
    assert reader.feed(long[64:] + encoded(1, b"x")) == [(9, bytes(range(200)) * 5), (1, b"x")]
    reader.get_buffer()
    assert size(reader) == 64


@pytest.mark.parametrize("frames", [[encoded(9, bytes(FIRST_CAPACITY))], [encoded(9, bytes(100))] * 100])
def test_the_buffer_is_small_until_something_has_filled_it(frames: list[bytes]):
    reader = FrameReader(MAX_FRAME)
    for _ in range(100):
        reader.feed(encoded(1, b"x"))
    assert size(reader) == FIRST_CAPACITY
    assert len(reader.feed(b"".join(frames))) == len(frames)
    reader.get_buffer()
    assert size(reader) == CAPACITY
    reader.feed(encoded(1, b"x"))
    assert size(reader) == CAPACITY


def test_a_long_frame_never_takes_bytes_of_the_next_one():
    reader = FrameReader(MAX_FRAME, capacity=16)
    long = encoded(9, bytes(100))
    reader.feed(long[:16])
    assert len(reader.get_buffer()) == len(long) - 16


def test_the_hint_is_only_a_hint():
    reader = FrameReader(capacity=64)
    assert {len(reader.get_buffer(hint)) for hint in (-1, 0, 1, 10**6)} == {64}


def test_reading_into_a_buffer_whose_frames_were_not_taken_is_our_mistake():
    reader = FrameReader(capacity=16)
    reader.advance(len(reader.get_buffer()))
    with pytest.raises(LocalProtocolError, match="full buffer"):
        reader.get_buffer()


def test_more_bytes_than_there_was_room_for_are_our_mistake():
    with pytest.raises(LocalProtocolError, match="room for 16"):
        FrameReader(capacity=16).advance(17)


def test_payload_is_read_as_the_operations_of_its_tag():
    operations = [Ping(1), Ping(2)]
    assert read_operations(Ping.TAG, encode_frame(operations)[5:]) == operations


def test_payload_of_an_unknown_tag_is_none():
    assert read_operations(0x7E, b"\xc1") is None


@pytest.mark.parametrize(
    ("tag", "payload", "text"),
    [
        (Ping.TAG, b"", "truncated"),
        (Ping.TAG, b"\x90", "at least one"),
        (Ping.TAG, b"\x91\x91\x01\x00", "trailing"),
        (Ping.TAG, b"\x91\x91\xa1a", "Expected `int`"),
        (Ping.TAG, b"\x91\x91\xff", ">= 0"),
        (Ping.TAG, b"\xdd\xff\xff\xff\xff", "length <= 65536"),
        (Ping.TAG, b"\xdd\x00\x01\x00\x01" + b"\x91\x01" * 65537, "length <= 65536"),
        (Ping.TAG, b"\xdd\x00\x01\x00\x00" + b"\x91\x01" * 65535, "truncated"),
        (Ping.TAG, b"\xc1", "malformed|array"),
        (Acknowledged.TAG, b"\x91\x91\xdd\xff\xff\xff\xff", "length <= 4096"),
        (Peers.TAG, b"\x91\x91\x91\xa0", "length >= 1"),
        (Peers.TAG, b"\x91\x91\x91\xa2\xff\xfe", "utf-8"),
        (Sent.TAG, b"\x91\x93\x01\xc0" + b"\x91" * 100_000 + b"\xc0", "recursion"),
        (Sent.TAG, b"\x91\x93\x01\xc0\xdb\xff\xff\xff\xff", "truncated"),
        (Sent.TAG, b"\x91\x92\x01\xc0", "at least length 3"),
    ],
)
def test_payload_that_is_not_what_its_tag_says_is_a_breach(tag: int, payload: bytes, text: str):
    with pytest.raises(RemoteProtocolError, match=text) as info:
        read_operations(tag, payload)
    assert str(info.value).startswith(frame_name(tag))


def test_tags_are_shown_by_name_and_number():
    assert frame_name(0x1D) == "LedgerSynced (0x1d)"
    assert frame_name(0x7E) == "unknown tag 0x7e"
