"""The handshake between honest ends, and under every attack that design section 6 names."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.wire.frames import (
    Challenge,
    ChallengeAck,
    ChallengeReply,
    Hello,
    Operation,
    Ping,
    Refusal,
    decode_payload,
    encode_frame,
)
from kinfolk.wire.handshake import (
    ACCEPTS,
    VERSION,
    Dialler,
    Fingerprints,
    Identity,
    Listener,
    Proved,
    Refused,
    State,
    Step,
    printable,
)
from tests.wire.pair import (
    ADA,
    ADA_LEAF,
    ADA_NONCE,
    BOB,
    BOB_LEAF,
    BOB_NONCE,
    COOKIE,
    OTHER_COOKIE,
    dialler,
    identity,
    listener,
)

End = Dialler | Listener


def give(end: End, frame: bytes) -> Step:
    return end.receive(frame[4], frame[5:])


def operation(frame: bytes) -> Operation:
    operations = decode_payload(frame[4], frame[5:])
    assert operations is not None
    return operations[0]


def refusal(step: Step) -> Refused:
    assert isinstance(step.event, Refused)
    return step.event


def proved(step: Step) -> Proved:
    assert isinstance(step.event, Proved)
    return step.event


def up_to_reply(ada: Dialler, bob: Listener) -> bytes:
    """Go as far as the dialler's REPLY."""
    return give(ada, give(bob, ada.greeting).reply).reply


def refused_alike(ada: Dialler, frame: bytes, at_listener: Refused) -> Refused:
    """The dialler learns from the listener's frame what the listener decided."""
    at_dialler = refusal(give(ada, frame))
    assert at_dialler == at_listener
    assert ada.state is State.CLOSED
    return at_dialler


# --- honest ends ---


def test_two_nodes_with_one_cookie_prove_themselves_to_each_other():
    ada = dialler(identity(ADA, creation=7, features=("b", "a")))
    bob = listener(identity(BOB, creation=8, features=("c", "b")))
    reply = up_to_reply(ada, bob)
    assert proved(give(bob, reply)) == Proved(ADA, 7, "peer", frozenset({"b"}))
    assert proved(give(ada, bob.admit())) == Proved(BOB, 8, "peer", frozenset({"b"}))
    assert (ada.state, bob.state) == (State.DONE, State.DONE)


def test_a_seed_given_by_address_answers_by_its_own_name():
    ada, bob = dialler(expects=""), listener()
    give(bob, up_to_reply(ada, bob))
    assert proved(give(ada, bob.admit())).peer == BOB


def test_an_observer_has_a_word_for_a_name_and_its_purpose_is_told():
    ada, bob = dialler(identity("cli-4711", creation=0), purpose="observer"), listener()
    assert proved(give(bob, up_to_reply(ada, bob))) == Proved("cli-4711", 0, "observer", frozenset())
    assert proved(give(ada, bob.admit())).purpose == "observer"


@pytest.mark.parametrize(
    ("at_dialler", "at_listener"),
    [
        ((COOKIE, OTHER_COOKIE), (COOKIE,)),
        ((COOKIE,), (COOKIE, OTHER_COOKIE)),
        ((COOKIE,), (OTHER_COOKIE, COOKIE)),
        ((OTHER_COOKIE, COOKIE), (COOKIE, OTHER_COOKIE)),
        ((COOKIE, OTHER_COOKIE), (OTHER_COOKIE, COOKIE)),
        ((OTHER_COOKIE,), (OTHER_COOKIE, COOKIE)),
    ],
)
def test_neighbouring_steps_of_a_rotation_understand_each_other(at_dialler, at_listener):
    ada, bob = dialler(identity(ADA, cookies=at_dialler)), listener(identity(BOB, cookies=at_listener))
    proved(give(bob, up_to_reply(ada, bob)))
    proved(give(ada, bob.admit()))


def test_the_proofs_of_two_conversations_differ():
    first, second = (up_to_reply(dialler(), listener(nonce=bytes([n]) * 32)) for n in (1, 2))
    assert first != second


# --- refusals: each told to the dialler, with what to do ---


def test_a_dialler_of_another_version_is_told_both_versions():
    ada, bob = dialler(), listener()
    hello = operation(ada.greeting)
    assert isinstance(hello, Hello)
    newer = Hello(2, [], "later", "a cluster", "any name at all", 1, "", hello.nonce)
    step = give(bob, encode_frame([newer]))
    told = refused_alike(ada, step.reply, refusal(step))
    assert told.code == "version"
    assert "speaks version 2" in told.detail
    assert f"{BOB} version {VERSION}" in told.detail


def test_a_listener_of_another_version_is_left():
    challenge = Challenge(2, [], "a cluster", "any name at all", 1, BOB_NONCE)
    assert refusal(give(dialler(), encode_frame([challenge]))).code == "version"


def test_a_dialler_of_another_cluster_is_told_both_clusters():
    ada, bob = dialler(identity(ADA, cluster="staging")), listener()
    step = give(bob, ada.greeting)
    told = refused_alike(ada, step.reply, refusal(step))
    assert told.code == "cluster"
    assert f"{ADA} is in the cluster staging, {BOB} in the cluster kinfolk" in told.detail


def test_a_listener_of_another_cluster_is_left():
    challenge = Challenge(VERSION, [], "staging", BOB, 1, BOB_NONCE)
    assert refusal(give(dialler(), encode_frame([challenge]))).code == "cluster"


def test_a_dialler_that_expected_another_node_is_told_who_is_there():
    ada, bob = dialler(expects="carl@10.0.0.2:4370"), listener()
    step = give(bob, ada.greeting)
    told = refused_alike(ada, step.reply, refusal(step))
    assert told.code == "name"
    assert "expected carl@10.0.0.2:4370, but it is bob@10.0.0.2:4370" in told.detail


def test_a_listener_that_is_not_the_expected_node_is_left():
    challenge = Challenge(VERSION, [], "kinfolk", "carl@10.0.0.2:4370", 1, BOB_NONCE)
    assert refusal(give(dialler(), encode_frame([challenge]))).code == "name"


def test_a_dialler_with_the_listeners_name_is_told_that_it_is_in_use():
    ada, bob = dialler(identity(BOB, creation=9), expects=""), listener()
    step = give(bob, ada.greeting)
    told = refused_alike(ada, step.reply, refusal(step))
    assert told.code == "name"
    assert f"{BOB} is in use" in told.detail


def test_a_listener_with_the_diallers_name_is_left():
    challenge = Challenge(VERSION, [], "kinfolk", ADA, 99, BOB_NONCE)
    assert refusal(give(dialler(expects=""), encode_frame([challenge]))).code == "name"


def test_a_node_that_dialled_itself_is_told_so_whatever_it_expected():
    for expects in ("", BOB, ADA):
        me = identity(BOB, creation=2)
        ada, bob = dialler(me, expects=expects), listener(me)
        step = give(bob, ada.greeting)
        assert refused_alike(ada, step.reply, refusal(step)).code == "self"


def test_an_unknown_purpose_is_refused():
    hello = Hello(VERSION, [], "conquer", "kinfolk", ADA, 1, "", ADA_NONCE)
    step = give(listener(), encode_frame([hello]))
    assert refusal(step).code == "purpose"
    assert "conquer" in refusal(step).detail


def test_a_dialler_with_another_cookie_is_refused_before_the_listener_has_proved_anything():
    ada, bob = dialler(identity(ADA, cookies=[OTHER_COOKIE])), listener()
    step = give(bob, up_to_reply(ada, bob))
    told = refused_alike(ada, step.reply, refusal(step))
    assert told.code == "cookie"
    assert bob.state is State.CLOSED
    with pytest.raises(LocalProtocolError):
        bob.admit()


def test_a_listener_with_another_cookie_is_left_even_if_it_admits():
    ada, bob = dialler(), listener()
    up_to_reply(ada, bob)
    forged = encode_frame([ChallengeAck(bytes(32))])
    left = refusal(give(ada, forged))
    assert left.code == "cookie"
    assert ada.state is State.CLOSED


@pytest.mark.parametrize("code", ["duplicate", "stale", "name", "left", "closed"])
def test_a_proved_dialler_can_still_be_refused_for_the_listeners_reasons(code: str):
    ada, bob = dialler(), listener()
    proved(give(bob, up_to_reply(ada, bob)))
    frame = bob.refuse(code, "for a reason", 42)
    assert refused_alike(ada, frame, Refused(code, "for a reason", 42)).number == 42


@pytest.mark.parametrize("state", [State.AWAITING_NAME, State.AWAITING_REPLY, State.PROVED])
def test_a_listener_may_refuse_at_any_time_before_ack(state: State):
    bob = in_state(state)
    assert isinstance(bob, Listener)
    frame = bob.refuse("closed", "the node is closing")
    for waiting in (State.AWAITING_CHALLENGE, State.AWAITING_ACK):
        assert refusal(give(in_state(waiting), frame)).code == "closed"


def test_an_explanation_is_cut_to_what_a_frame_before_authentication_holds():
    bob = listener()
    frame = bob.refuse("closed", "\N{SNOWMAN}\N{GRINNING FACE}" * 2000)
    assert len(frame) < 4096
    assert refusal(give(dialler(), frame)).code == "closed"


def test_an_explanation_from_outside_cannot_control_a_terminal():
    frame = encode_frame([Refusal("bad\ncode", "\x1b[2J red\n")])
    told = refusal(give(dialler(), frame))
    assert (told.code, told.detail) == (r"bad\ncode", r"\x1b[2J red\n")
    assert printable("näme ☃") == "näme ☃"


@pytest.mark.parametrize("cookies", [[COOKIE], [COOKIE, OTHER_COOKIE]])
def test_nothing_secret_is_in_a_refusal_a_repr_or_an_event(cookies):
    ada, bob = dialler(identity(ADA, cookies=[OTHER_COOKIE])), listener(identity(BOB, cookies=cookies[:1]))
    step = give(bob, up_to_reply(ada, bob))
    secrets = [
        key.reveal()
        for keys in identity(ADA, cookies=[COOKIE, OTHER_COOKIE]).keys
        for key in (keys.dialler, keys.listener)
    ]
    text = repr((ada, bob, step, identity(BOB, cookies=cookies)))
    for secret in secrets:
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text


# --- attacks ---


def test_a_relay_between_two_tls_connections_is_found_out():
    """Mallory holds certificates that both accept, ends TLS to both and passes the frames on untouched."""
    mallory = bytes([0xEE]) * 32
    ada, bob = dialler(own=ADA_LEAF, peer=mallory), listener(own=BOB_LEAF, peer=mallory)
    step = give(bob, up_to_reply(ada, bob))
    assert refusal(step).code == "cookie"
    assert "relays" in refusal(step).detail


def test_a_relayed_listener_is_found_out_by_the_dialler():
    mallory = bytes([0xEE]) * 32
    ada, bob = dialler(own=ADA_LEAF, peer=mallory), listener()
    honest = dialler()
    proved(give(bob, up_to_reply(honest, bob)))
    up_to_reply(ada, listener())
    assert refusal(give(ada, bob.admit())).code == "cookie"


def test_frames_reflected_to_their_sender_are_a_breach():
    ada, bob = dialler(), listener()
    with pytest.raises(RemoteProtocolError, match="Hello"):
        give(ada, ada.greeting)
    challenge = give(bob, dialler().greeting).reply
    with pytest.raises(RemoteProtocolError, match="Challenge"):
        give(bob, challenge)


def test_a_proof_reflected_as_the_answer_to_itself_is_worthless():
    ada, bob = dialler(), listener()
    reply = operation(up_to_reply(ada, bob))
    assert isinstance(reply, ChallengeReply)
    assert refusal(give(ada, encode_frame([ChallengeAck(reply.proof)]))).code == "cookie"


def test_a_node_reflected_to_itself_with_other_names_cannot_prove_anything():
    """Mallory plays Ada's own listener against her: the names and the roles in the proof do not fit."""
    ada = dialler(expects=BOB)
    own_listener = listener(identity(ADA), own=ADA_LEAF, peer=ADA_LEAF)
    assert refusal(give(own_listener, ada.greeting)).code == "self"


def test_a_recorded_conversation_cannot_be_replayed_to_the_listener():
    first = listener(nonce=bytes([1]) * 32)
    ada = dialler()
    recorded = ada.greeting, up_to_reply(ada, first)
    second = listener(nonce=bytes([2]) * 32)
    give(second, recorded[0])
    assert refusal(give(second, recorded[1])).code == "cookie"


def test_a_recorded_conversation_cannot_be_replayed_to_the_dialler():
    ada, bob = dialler(), listener()
    challenge = give(bob, ada.greeting).reply
    give(bob, give(ada, challenge).reply)
    acknowledged = bob.admit()
    again = dialler(nonce=bytes([9]) * 32)
    give(again, challenge)
    assert refusal(give(again, acknowledged)).code == "cookie"


@pytest.mark.parametrize(
    "change",
    [
        lambda hello: {"features": ["weaker"]},
        lambda hello: {"purpose": "observer", "name": "ada"},
        lambda hello: {"name": "eve@10.0.0.1:4370"},
        lambda hello: {"creation": hello.creation + 1},
        lambda hello: {"expects": ""},
        lambda hello: {"nonce": bytes(32)},
    ],
    ids=["features", "purpose", "name", "creation", "expects", "nonce"],
)
def test_nothing_of_what_the_dialler_said_can_be_altered_on_the_way(change: Callable[[Hello], dict[str, Any]]):
    ada, bob = dialler(identity(ADA, features=("strong",))), listener()
    hello = operation(ada.greeting)
    assert isinstance(hello, Hello)
    step = give(bob, encode_frame([replace(hello, **change(hello))]))
    assert refusal(give(bob, give(ada, step.reply).reply)).code == "cookie"


@pytest.mark.parametrize(
    "change",
    [{"features": ["weaker"]}, {"name": "eve@10.0.0.2:4370"}, {"creation": 99}, {"nonce": bytes(32)}],
    ids=["features", "name", "creation", "nonce"],
)
def test_nothing_of_what_the_listener_said_can_be_altered_on_the_way(change: dict[str, Any]):
    ada, bob = dialler(expects=""), listener(identity(BOB, features=("strong",)))
    challenge = operation(give(bob, ada.greeting).reply)
    reply = give(ada, encode_frame([replace(challenge, **change)])).reply
    assert refusal(give(bob, reply)).code == "cookie"


def test_even_a_field_that_this_version_does_not_know_is_covered_by_the_proof():
    ada, bob = dialler(), listener()
    hello = bytearray(ada.greeting)
    assert hello[5:7] == b"\x91\x98"  # one operation of eight fields: make it nine
    hello[6] += 1
    hello.append(0xC3)
    hello[0] += 1
    assert refusal(give(bob, give(ada, give(bob, bytes(hello)).reply).reply)).code == "cookie"


# --- order and form ---

VALID: dict[type[Operation], Operation] = {
    Hello: Hello(VERSION, [], "peer", "kinfolk", ADA, 1, BOB, ADA_NONCE),
    Challenge: Challenge(VERSION, [], "kinfolk", BOB, 2, BOB_NONCE),
    ChallengeReply: ChallengeReply(bytes(32)),
    ChallengeAck: ChallengeAck(bytes(32)),
    Refusal: Refusal("closed", "closing"),
    Ping: Ping(1),
}


def in_state(state: State) -> End:
    """An end that honest steps have brought to this state."""
    ada, bob = dialler(), listener()
    if state is State.AWAITING_NAME:
        return bob
    if state is State.AWAITING_CHALLENGE:
        return ada
    challenge = give(bob, ada.greeting).reply
    if state is State.AWAITING_REPLY:
        return bob
    reply = give(ada, challenge).reply
    if state is State.AWAITING_ACK:
        return ada
    give(bob, reply)
    if state is State.PROVED:
        return bob
    if state is State.CLOSED:
        bob.refuse("closed", "closing")
        return bob
    give(ada, bob.admit())
    return ada


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.__name__)
def test_each_state_takes_exactly_what_the_table_says(state: State, kind: type[Operation]):
    end = in_state(state)
    assert end.state is state
    frame = encode_frame([VALID[kind]])
    if kind in ACCEPTS[state]:
        give(end, frame)
    else:
        with pytest.raises(RemoteProtocolError, match=re.escape(state.value)) as info:
            give(end, frame)
        assert kind.__name__ in str(info.value)
        assert end.state is State.CLOSED


@pytest.mark.parametrize("state", [state for state in State if state is not State.PROVED])
def test_admitting_without_a_proof_is_our_mistake(state: State):
    end = in_state(state)
    if isinstance(end, Listener):
        with pytest.raises(LocalProtocolError, match=state.value):
            end.admit()


def test_deciding_twice_is_our_mistake():
    end = in_state(State.PROVED)
    assert isinstance(end, Listener)
    end.admit()
    for again in (end.admit, lambda: end.refuse("closed", "")):
        with pytest.raises(LocalProtocolError):
            again()


@pytest.mark.parametrize("state", [state for state in State if ACCEPTS[state]])
def test_a_truncated_message_is_a_breach(state: State):
    for kind in ACCEPTS[state]:
        payload = encode_frame([VALID[kind]])[5:]
        for size in range(len(payload)):
            end = in_state(state)
            with pytest.raises(RemoteProtocolError):
                end.receive(kind.TAG, payload[:size])
            assert end.state is State.CLOSED


@pytest.mark.parametrize("state", [state for state in State if ACCEPTS[state]])
def test_two_messages_in_one_frame_are_a_breach(state: State):
    for kind in ACCEPTS[state]:
        with pytest.raises(RemoteProtocolError, match="2 operations"):
            give(in_state(state), encode_frame([VALID[kind]] * 2))


@pytest.mark.parametrize(
    "hello",
    [
        Hello(VERSION, [], "peer", "kinfolk", "ada", 1, "", ADA_NONCE),
        Hello(VERSION, [], "peer", "kinfolk", "ada@10.0.0.1:0", 1, "", ADA_NONCE),
        Hello(VERSION, [], "observer", "kinfolk", ADA, 1, "", ADA_NONCE),
        Hello(VERSION, [], "peer", "kin folk", ADA, 1, "", ADA_NONCE),
        Hello(VERSION, [], "peer", "kinfolk", ADA, 1, "bob", ADA_NONCE),
        Hello(VERSION, [], "peer", "kinfolk", "ada\n@10.0.0.1:1", 1, "", ADA_NONCE),
    ],
)
def test_a_name_that_cannot_be_is_a_breach(hello: Hello):
    with pytest.raises(RemoteProtocolError, match="in the handshake"):
        give(listener(), encode_frame([hello]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: dialler(identity("ada")),
        lambda: dialler(identity(ADA), purpose="observer"),
        lambda: dialler(identity(ADA, cluster="")),
        lambda: dialler(expects="bob"),
        lambda: dialler(nonce=b"short"),
        lambda: dialler(own=b"short"),
        lambda: dialler(Identity(ADA, 1, "kinfolk", ())),
        lambda: listener(identity("cli")),
        lambda: Listener(identity(BOB), fingerprints=Fingerprints(BOB_LEAF, b""), nonce=BOB_NONCE),
    ],
)
def test_wrong_arguments_are_value_errors(make: Callable[[], object]):
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        make()
