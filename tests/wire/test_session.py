from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.wire.frames import (
    FRAMES,
    HANDSHAKE,
    MAX_FRAME_BEFORE_AUTHENTICATION,
    Called,
    Fragment,
    Goodbye,
    Operation,
    Peers,
    Ping,
    Pong,
    Sent,
    decode_payload,
    encode_frame,
    encode_operation,
)
from kinfolk.wire.handshake import Proved, Refused
from kinfolk.wire.reader import frame_name
from kinfolk.wire.session import OBSERVER_TAGS, Event, Opened, Operations, Session, State
from tests.wire.pair import (
    ADA,
    BOB,
    OTHER_COOKIE,
    Pair,
    breach,
    dialler,
    identity,
    listener,
)
from tests.wire.vectors import VECTORS

FIRST = Peers([])


def handshaking_dialler() -> Session:
    return Session(dialler())


def challenged_dialler() -> Session:
    """Has sent REPLY and waits for ACK."""
    session, other = Session(dialler()), Session(listener())
    list(other.feed(session.outbox.take()))
    list(session.feed(other.outbox.take()))
    return session


def handshaking_listener() -> Session:
    return Session(listener())


def proved_listener() -> Session:
    return Pair(admit=False).run().listener


def admitted_listener() -> Session:
    return Pair().run().listener


def open_dialler() -> Session:
    return Pair().open(FIRST).dialler


def open_listener() -> Session:
    return Pair().open(FIRST).listener


def closed_session() -> Session:
    session = open_listener()
    session.close("", "no more")
    return session


BEFORE_OPEN = [handshaking_dialler, challenged_dialler, handshaking_listener, proved_listener]
OPEN = [open_dialler, open_listener]
EVERY_STATE = [*BEFORE_OPEN, admitted_listener, *OPEN, closed_session]


def open_pair() -> Pair:
    return Pair().open(FIRST)


# --- from the first byte to an open session ---


def test_both_ends_open_with_what_the_other_has_proved():
    pair = Pair(
        dialler(identity(ADA, creation=7, features=("x", "y"))),
        listener(identity(BOB, creation=8, features=("y", "z"))),
    ).run()
    assert pair.at_dialler == [Opened(BOB, 8, "peer", frozenset({"y"}), True)]
    assert pair.at_listener == [Proved(ADA, 7, "peer", frozenset({"y"}))]
    assert (pair.dialler.state, pair.listener.state) == (State.OPEN, State.ADMITTED)
    pair.dialler.outbox.encode(FIRST)
    pair.run()
    assert pair.at_listener[1:] == [Opened(ADA, 7, "peer", frozenset({"y"}), False), Operations(Peers.TAG, [FIRST])]
    assert pair.listener.state is State.OPEN


def test_the_handshake_may_be_cut_at_every_byte():
    session, other = Session(dialler()), Session(listener())
    for sender, receiver in ((session, other), (other, session)) * 2:
        for byte in sender.outbox.take():
            for event in receiver.feed(bytes([byte])):
                if isinstance(event, Proved):
                    receiver.admit()
    assert (session.state, other.state) == (State.OPEN, State.ADMITTED)


def test_a_listener_decides_in_its_own_time():
    pair = Pair(admit=False).run()
    assert pair.at_dialler == []
    pair.listener.admit()
    pair.run()
    assert [type(event) for event in pair.at_dialler] == [Opened]


def test_a_refusal_reaches_the_dialler_and_both_are_closed():
    pair = Pair(admit=False).run()
    pair.listener.refuse("stale", "a newer start is known", 41)
    pair.run()
    assert pair.at_dialler == [Refused("stale", "a newer start is known", 41)]
    assert (pair.dialler.state, pair.listener.state) == (State.CLOSED, State.CLOSED)


@pytest.mark.parametrize(
    ("dialling", "listening", "code"),
    [
        (lambda: dialler(identity(ADA, cluster="other")), listener, "cluster"),
        (lambda: dialler(expects="carl@10.0.0.2:4370"), listener, "name"),
        (lambda: dialler(identity(BOB, creation=9)), listener, "name"),
        (lambda: dialler(identity(BOB, creation=2)), listener, "self"),
        (lambda: dialler(identity(ADA, cookies=[OTHER_COOKIE])), listener, "cookie"),
        (dialler, lambda: listener(identity(BOB, cookies=[OTHER_COOKIE])), "cookie"),
        (lambda: dialler(peer=bytes(32)), listener, "cookie"),
    ],
)
def test_a_refusal_of_the_handshake_is_told_at_both_ends(dialling, listening, code: str):
    pair = Pair(dialling(), listening()).run()
    (at_dialler,) = pair.at_dialler
    (at_listener,) = pair.at_listener
    assert isinstance(at_dialler, Refused)
    assert at_dialler == at_listener
    assert at_dialler.code == code
    assert (pair.dialler.state, pair.listener.state) == (State.CLOSED, State.CLOSED)


def test_a_dialler_that_changes_its_mind_at_ack_opens_nothing_at_the_listener():
    pair = Pair().run()
    pair.dialler.close("", "another session goes on")
    assert len(pair.dialler.outbox) == 0
    assert pair.listener.connection_lost() == "the connection ended"

    pair = Pair().run()
    pair.dialler.close("closed", "ada is closing\n")
    pair.run()
    assert pair.at_listener[1:] == [Refused("closed", r"ada is closing\n")]
    assert pair.listener.state is State.CLOSED


def test_a_session_closed_when_it_opens_delivers_no_frame():
    pair = Pair().run()
    pair.dialler.outbox.encode(FIRST)
    events: list[Event] = []
    for event in pair.listener.feed(pair.dialler.outbox.take()):
        events.append(event)
        pair.listener.close("", "not wanted after all")
    assert [type(event) for event in events] == [Opened]


def test_long_frames_are_allowed_from_authentication_on():
    pair = Pair().run()
    long = Peers([f"n{number}@10.0.0.1:4370" for number in range(1000)])
    pair.dialler.outbox.encode(long)
    pair.run()
    assert pair.at_listener[2:] == [Operations(Peers.TAG, [long])]
    pair.listener.outbox.encode(long)
    pair.run()
    assert pair.at_dialler[1:] == [Operations(Peers.TAG, [long])]


@pytest.mark.parametrize("make", BEFORE_OPEN)
@pytest.mark.parametrize("length", [MAX_FRAME_BEFORE_AUTHENTICATION + 1, 2**32 - 1])
def test_long_frames_are_refused_before(make: Callable[[], Session], length: int):
    assert f"{length} bytes: at most 4096" in str(breach(make(), length.to_bytes(4, "little")))


# --- an open session ---


@pytest.mark.parametrize("kind", [kind for kind in FRAMES if kind.TAG not in HANDSHAKE], ids=lambda kind: kind.__name__)
def test_every_kind_of_frame_arrives_as_operations(kind: type[Operation]):
    operations = VECTORS[kind].operations
    pair = open_pair()
    for operation in operations:
        pair.dialler.outbox.encode(operation)
        pair.listener.outbox.encode(operation)
    pair.run()
    if kind is Fragment:
        operations = VECTORS[Called].operations  # of which these are the parts
    for (event,) in (pair.at_listener, pair.at_dialler):
        assert isinstance(event, Operations)
        assert event.tag == operations[0].TAG
        assert encode_frame(event.operations) == encode_frame(operations)


def test_frames_arrive_in_their_order():
    pair = open_pair()
    said: list[Operation] = [Ping(1), Pong(2), Ping(3), Ping(4)]
    for operation in said:
        pair.dialler.outbox.encode(operation)
    pair.run()
    assert [op for event in pair.at_listener if isinstance(event, Operations) for op in event.operations] == said


def test_what_has_come_in_fragments_stays_as_it_is_when_the_read_buffer_is_used_again():
    session = open_listener()
    first, second = (encode_frame([part]) for part in VECTORS[Fragment].operations)
    assert list(session.feed(first)) == []
    (event,) = session.feed(second)
    list(session.feed(encode_frame([Ping(2**63 - 1)]) * 100))
    assert isinstance(event, Operations)
    assert encode_frame(event.operations) == encode_frame(VECTORS[Called].operations)


def test_a_session_that_ends_keeps_nothing_of_what_is_half_said_or_half_heard():
    for end in (lambda session: session.close("closed", ""), lambda session: session.connection_lost()):
        session = open_listener()
        list(session.feed(encode_frame(VECTORS[Fragment].operations[:1])))
        session.backlog.add(Sent.TAG, bytes(100_000), 1, 2)
        assert len(session._assemblies) == 1 and session.backlog
        end(session)
        assert len(session._assemblies) == 0 and not session.backlog and len(session.backlog) == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda session: session.feed(encode_frame([Ping(1)]) + encode_frame([Goodbye("closed", "")])),
        lambda session: session.feed(b"\xff" * 100),
        lambda session: session.connection_lost(),
    ],
    ids=["goodbye", "garbage", "hung up"],
)
def test_after_a_goodbye_a_session_listens_for_the_other_end_to_part_and_for_nothing_else(end):
    session = open_listener()
    session.close("closed", "")
    session.outbox.take()
    assert list(session.feed(encode_frame([Ping(1)]))) == []
    assert session.parting
    assert not isinstance(said := end(session), Iterator) or list(said) == []
    assert not session.parting and not session.outbox


def test_who_hears_a_goodbye_says_none_or_says_it_to_nobody_has_nothing_to_wait_for():
    for code in ("", "silent", "stalled", "overflow"):
        session = open_listener()
        session.close(code, "it does not listen")
        assert not session.parting
    session = open_listener()
    list(session.feed(encode_frame([Goodbye("closed", "")])))
    assert session.state is State.CLOSED and not session.parting


def test_a_goodbye_that_comes_in_the_same_read_as_what_made_us_say_ours_is_heard():
    session = open_listener()
    events = session.feed(encode_frame([Ping(1)]) + encode_frame([Goodbye("closed", "")]))
    assert isinstance(next(events), Operations)
    session.close("closed", "")
    assert list(events) == []
    assert not session.parting


def test_nothing_comes_out_of_a_frame_of_fragments_once_the_session_is_closed():
    data = encode_operation(Sent(1, None, msgspec.Raw(b"\xc0")))
    parts: list[Operation] = [Fragment(number, Sent.TAG, len(data), data) for number in range(3)]
    session = open_listener()
    events = session.feed(encode_frame(parts))
    assert isinstance(next(events), Operations)
    session.close("closed", "")
    assert list(events) == []


def test_bodies_are_views_that_last_until_the_next_event():
    session = open_listener()
    body = msgspec.msgpack.encode("hello")
    for event in session.feed(encode_frame([Sent(1, None, msgspec.Raw(body))])):
        assert isinstance(event, Operations)
        (sent,) = event.operations
        assert isinstance(sent, Sent)
        assert bytes(sent.body) == body
        assert msgspec.msgpack.decode(sent.body) == "hello"


@pytest.mark.parametrize("make", [admitted_listener, *OPEN])
def test_frames_of_a_later_minor_version_are_ignored_and_counted(make: Callable[[], Session]):
    session = make()
    unknown = (3).to_bytes(4, "little") + b"\x7e\xc1\xc1"
    events = list(session.feed(unknown * 2 + encode_frame([FIRST])))
    assert events[-1] == Operations(Peers.TAG, [FIRST])
    assert session.ignored == 2
    assert session.state is State.OPEN


def test_goodbye_is_the_last_frame():
    session = open_listener()
    goodbye = Goodbye("closed", "ada is closing")
    assert list(session.feed(encode_frame([goodbye]) + encode_frame([Ping(1)]))) == [Operations(Goodbye.TAG, [goodbye])]
    assert session.state is State.CLOSED
    assert len(session.outbox) == 0


def test_closing_with_a_code_says_goodbye_once():
    pair = open_pair()
    pair.listener.close("silent", "x" * 5000)
    pair.listener.close("closed", "again")
    pair.run()
    (event,) = pair.at_dialler
    assert isinstance(event, Operations)
    assert event.operations == [Goodbye("silent", "x" * 1000)]


def test_a_closed_session_takes_in_no_more_and_still_has_a_buffer():
    session = closed_session()
    assert len(session.get_buffer()) > 0
    assert list(session.feed(b"\xff" * 100_000)) == []


def test_a_session_closed_between_two_frames_of_one_read_delivers_no_more():
    session = open_listener()
    events = []
    for event in session.feed(encode_frame([Ping(1)]) + encode_frame([Ping(2)])):
        events.append(event)
        session.close("replaced", "a newer session takes its place")
    assert events == [Operations(Ping.TAG, [Ping(1)])]


# --- observers ---


def observed() -> Pair:
    return Pair(dialler(identity("cli"), purpose="observer")).open(Ping(1))


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_an_observer_asks_and_is_answered_and_no_more(kind: type[Operation]):
    for end in ("dialler", "listener"):
        session: Session = getattr(observed(), end)
        frame = encode_frame(VECTORS[kind].operations)
        if kind.TAG in OBSERVER_TAGS:
            (event,) = session.feed(frame)
            assert isinstance(event, Operations)
        else:
            assert kind.__name__ in str(breach(session, frame))


# --- breaches ---


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", EVERY_STATE)
def test_every_kind_of_frame_in_every_state(make: Callable[[], Session], kind: type[Operation]):
    session = make()
    state = session.state
    frame = encode_frame(VECTORS[kind].operations)
    handshake_takes = {
        handshaking_dialler: {"Challenge", "Refusal"},
        challenged_dialler: {"ChallengeAck", "Refusal"},
        handshaking_listener: {"Hello"},
    }
    if state is State.CLOSED:
        assert list(session.feed(frame)) == []
    elif state is State.HANDSHAKE:
        if kind.__name__ in handshake_takes.get(make, ()):
            list(session.feed(frame))
        else:
            assert kind.__name__ in str(breach(session, frame))
            assert session.state is State.CLOSED
    elif kind.TAG in HANDSHAKE:
        text = str(breach(session, frame))
        assert text == f"{frame_name(kind.TAG)} in state {state.value}: the handshake is over"
        assert session.state is State.CLOSED
    elif make is admitted_listener and kind not in (Peers, Goodbye):
        assert str(breach(session, frame)) == f"begins with {frame_name(kind.TAG)} instead of its list of peers"
        assert session.state is State.CLOSED
    else:
        events = list(session.feed(frame))
        assert isinstance(events[-1], Refused if make is admitted_listener and kind is Goodbye else Operations)


@pytest.mark.parametrize("make", [admitted_listener, *OPEN])
def test_after_a_breach_the_other_end_is_told_and_nothing_more_is_taken_in(make: Callable[[], Session]):
    session = make()
    session.outbox.take()
    error = breach(session, encode_frame([Ping(1)])[:-1] + b"\xa0")
    assert str(error).startswith("Ping (0xf0) cannot be read: ")
    assert session.state is State.CLOSED
    data = session.outbox.take()
    assert decode_payload(data[4], data[5:]) == [Goodbye("protocol", str(error))]
    assert list(session.feed(encode_frame([Ping(1)]))) == []


@pytest.mark.parametrize("make", BEFORE_OPEN)
def test_after_a_breach_a_stranger_is_told_nothing(make: Callable[[], Session]):
    session = make()
    session.outbox.take()
    breach(session, encode_frame([Ping(1)]))
    assert len(session.outbox) == 0


def test_a_session_opens_only_by_a_frame_that_can_be_read():
    session = admitted_listener()
    events: list[Event] = []
    with pytest.raises(RemoteProtocolError):
        events.extend(session.feed(encode_frame([Ping(1)])[:-1] + b"\xa0"))
    assert events == []


@pytest.mark.parametrize("make", [admitted_listener, open_dialler])
@pytest.mark.parametrize("kind", [kind for kind in FRAMES if kind.TAG not in HANDSHAKE], ids=lambda kind: kind.__name__)
def test_a_frame_truncated_at_every_byte_is_a_breach(make: Callable[[], Session], kind: type[Operation]):
    payload = encode_frame(VECTORS[kind].operations)[5:]
    for size in range(len(payload)):
        frame = (size + 1).to_bytes(4, "little") + bytes([kind.TAG]) + payload[:size]
        assert frame_name(kind.TAG) in str(breach(make(), frame))


@pytest.mark.parametrize("make", [handshaking_dialler, challenged_dialler, open_dialler])
def test_a_dialler_admits_and_refuses_nobody(make: Callable[[], Session]):
    for order in (lambda session: session.admit(), lambda session: session.refuse("closed", "")):
        with pytest.raises(LocalProtocolError, match="dialler"):
            order(make())


@pytest.mark.parametrize("make", [handshaking_listener, admitted_listener, open_listener, closed_session])
def test_only_a_proved_dialler_is_admitted(make: Callable[[], Session]):
    with pytest.raises(LocalProtocolError, match="admit"):
        make().admit()


@pytest.mark.parametrize("make", [admitted_listener, open_listener, closed_session])
def test_who_has_been_admitted_is_not_refused(make: Callable[[], Session]):
    with pytest.raises(LocalProtocolError, match="refuse"):
        make().refuse("closed", "")


# --- the end of a connection ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (handshaking_dialler, "while waiting for CHALLENGE"),
        (challenged_dialler, "while waiting for ACK"),
        (handshaking_listener, "while waiting for NAME"),
        (proved_listener, "while deciding whether to admit the dialler"),
        (open_listener, "the connection ended"),
        (closed_session, "the session was closed"),
    ],
)
def test_the_end_of_a_connection_says_what_was_under_way(make: Callable[[], Session], words: str):
    session = make()
    assert words in session.connection_lost()
    assert session.state is State.CLOSED


def test_a_connection_that_ends_within_a_frame_says_so():
    session = open_listener()
    list(session.feed(encode_frame([Ping(1)])[:-1]))
    assert session.connection_lost() == "the connection ended in the middle of a frame"


# --- anything at all ---

NOISE = st.binary(max_size=200)
FRAMED_NOISE = st.builds(
    lambda tag, payload: (len(payload) + 1).to_bytes(4, "little") + bytes([tag]) + payload,
    st.sampled_from([kind.TAG for kind in FRAMES]) | st.integers(0, 255),
    st.binary(max_size=200),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame that was right, with some bytes changed, gone or new."""
    data = bytearray(encode_frame(VECTORS[draw(st.sampled_from(FRAMES))].operations))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
        data = data or bytearray(1)
    if draw(st.booleans()):
        data[:4] = max(1, len(data) - 4).to_bytes(4, "little")
    return bytes(data)


def take_in(session: Session, data: bytes) -> Iterator[Event]:
    with suppress(RemoteProtocolError):
        yield from session.feed(data)


@pytest.mark.parametrize("make", EVERY_STATE)
@given(data=NOISE | FRAMED_NOISE | st.lists(mutated(), max_size=3).map(b"".join))
def test_random_bytes_raise_nothing_but_a_breach_of_the_protocol(make: Callable[[], Session], data: bytes):
    session = make()
    state = session.state
    events = list(take_in(session, data))
    if make in BEFORE_OPEN:
        assert session.state in (state, State.CLOSED)
        assert not any(isinstance(event, Proved | Opened | Operations) for event in events)
