"""The handshake: two ends of a TLS connection find out who they are and prove that they know the cookie.

    dialler                                    listener
    AWAITING_CHALLENGE  -- NAME ------------>  AWAITING_NAME
                        <------- CHALLENGE --  AWAITING_REPLY
    AWAITING_ACK        -- REPLY ----------->  PROVED            admit() or refuse() decides
    DONE                <------------- ACK --  DONE

REFUSED may take the place of CHALLENGE and of ACK. `ACCEPTS` is the table of what each state takes in; all else is a
breach of the protocol. Whatever goes wrong leaves the machine CLOSED.

A proof is an HMAC, under a key that only this role uses, over the frames NAME and CHALLENGE as they were sent and the
fingerprints of both certificates. So it holds for these names, creations, purpose, version, features and nonces, and
for this TLS connection alone: relayed, reflected, replayed or altered, it is worthless. The dialler proves first: a
listener proves nothing to somebody who knows no cookie.

Nonces and fingerprints are arguments, so that tests can fix them. A nonce must come from the operating system's random
numbers and must never be used twice.

Source: Erlang's distribution handshake (name, challenge, reply, ack); the binding to the channel is that of RFC 9266,
made with certificates because Python's ssl has no exporter.
"""

import hmac
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple, assert_never

from msgspec import Struct

from kinfolk.cookie import Hidden, ProofKeys
from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.ids import check_node_name, check_word
from kinfolk.wire.frames import Challenge, ChallengeAck, ChallengeReply, Hello, Operation, Refusal, encode_frame
from kinfolk.wire.reader import frame_name, read_operations

VERSION = 1
"""Of the protocol. Two ends that differ in it do not talk; what a minor version adds is in the features."""
NONCE_BYTES = 32
MAX_DETAIL = 1000
"""Characters of the explanation that we put into REFUSED and GOODBYE: in every script, a frame of 4 KiB holds them."""

Purpose = Literal["peer", "observer"]
_PURPOSES: dict[str, Purpose] = {"peer": "peer", "observer": "observer"}

_CONTEXT = b"kinfolk/1 handshake\0"


class State(Enum):
    """Where one end is. The value completes "while ..."."""

    AWAITING_CHALLENGE = "waiting for CHALLENGE"
    AWAITING_ACK = "waiting for ACK"
    AWAITING_NAME = "waiting for NAME"
    AWAITING_REPLY = "waiting for REPLY"
    PROVED = "deciding whether to admit the dialler"
    DONE = "the handshake was complete"
    CLOSED = "the handshake had ended"


ACCEPTS: dict[State, tuple[type[Operation], ...]] = {
    State.AWAITING_CHALLENGE: (Challenge, Refusal),
    State.AWAITING_ACK: (ChallengeAck, Refusal),
    State.AWAITING_NAME: (Hello,),
    State.AWAITING_REPLY: (ChallengeReply,),
    State.PROVED: (),
    State.DONE: (),
    State.CLOSED: (),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What an end says about itself, and the keys by which it proves that it belongs here.

    Args:
        name: the node's name; an observer's is a short word.
        creation: the number of this start of it.
        cluster: the cluster's name.
        keys: of each cookie; the first to prove ourselves, all to check the other end.
        features: what it can do beyond the version.
    """

    name: str
    creation: int
    cluster: str
    keys: tuple[ProofKeys, ...]
    features: tuple[str, ...] = ()


class Fingerprints(NamedTuple):
    """SHA-256 of the certificate that each end has shown in this TLS connection."""

    own: bytes
    peer: bytes


class Proved(Struct, frozen=True):
    """The other end has proved that it knows the cookie. At the dialler: and lets us in."""

    peer: str
    creation: int
    purpose: Purpose
    """Of the connection, as the dialler chose it."""
    features: frozenset[str]
    """What both can do."""


class Refused(Struct, frozen=True):
    """One of the two ends will not go on. `detail` is for a human at either end, `number` belongs to code "stale"."""

    code: str
    detail: str
    number: int = 0


class Step(NamedTuple):
    """What follows from a frame: a frame to send, and what has been decided."""

    reply: bytes = b""
    event: Proved | Refused | None = None


class Dialler:
    """The end that connects.

    Args:
        me: an observer's name is a word, a peer's a node name.
        fingerprints: of this TLS connection.
        nonce: 32 random bytes.
        expects: the node name that shall answer; empty if only its address is known.
        purpose: "peer" to join the mesh, "observer" to ask.

    Raises:
        ValueError: one of these is not valid.
    """

    def __init__(
        self, me: Identity, *, fingerprints: Fingerprints, nonce: bytes, expects: str = "", purpose: Purpose = "peer"
    ) -> None:
        _check_identity(me, purpose, fingerprints, nonce)
        if expects:
            check_node_name(expects)
        self._me = me
        self._fingerprints = fingerprints
        self._hello = Hello(VERSION, list(me.features), purpose, me.cluster, me.name, me.creation, expects, nonce)
        self._purpose: Purpose = purpose
        self._transcript = b""
        self._peer: Proved | None = None
        self.state = State.AWAITING_CHALLENGE
        self.greeting = encode_frame([self._hello])
        """The NAME frame, which is to be sent before anything else."""

    def receive(self, tag: int, payload: bytes | memoryview) -> Step:
        """Take in a frame.

        Raises:
            RemoteProtocolError: it is not one that may come now, or not what it should be.
        """
        state, self.state = self.state, State.CLOSED
        match _expect(state, tag, payload):
            case Challenge() as challenge:
                return self._challenged(challenge, _frame(tag, payload))
            case ChallengeAck(proof=proof):
                return self._acknowledged(proof)
            case Refusal(code=code, detail=detail, number=number):
                return Step(event=Refused(printable(code), printable(detail), number))
            case other:
                raise AssertionError(f"{other!r} is in no row of ACCEPTS for a dialler")

    def _challenged(self, challenge: Challenge, frame: bytes) -> Step:
        if challenge.version != VERSION:  # before its names: another version may have other ones
            return Step(event=_other_version(self._me.name, VERSION, printable(challenge.name), challenge.version))
        _check_peer(challenge.name, "peer", challenge.cluster)
        refused = self._judge(challenge)
        if refused is not None:
            return Step(event=refused)
        self._transcript = _transcript(self.greeting, frame, self._fingerprints.own, self._fingerprints.peer)
        features = frozenset(self._hello.features) & frozenset(challenge.features)
        self._peer = Proved(challenge.name, challenge.creation, self._purpose, features)
        self.state = State.AWAITING_ACK
        return Step(encode_frame([ChallengeReply(_proof(self._me.keys[0].dialler, self._transcript))]))

    def _judge(self, listener: Challenge) -> Refused | None:
        """What an honest listener has checked as well."""
        me = self._me
        if listener.cluster != me.cluster:
            return _other_cluster(me.name, me.cluster, listener.name, listener.cluster)
        if listener.name == me.name:
            return _same_name(me.name, me.creation == listener.creation)
        if self._hello.expects not in ("", listener.name):
            return _other_name(me.name, self._hello.expects, listener.name)
        return None

    def _acknowledged(self, proof: bytes) -> Step:
        assert self._peer is not None, "ACK is taken only after CHALLENGE"
        if not hmac.compare_digest(_proof(self._me.keys[0].listener, self._transcript), proof):
            return Step(event=_unproved(self._peer.peer, self._me.name))
        self.state = State.DONE
        return Step(event=self._peer)


class Listener:
    """The end that is connected to.

    Args:
        me: a node.
        fingerprints: of this TLS connection.
        nonce: 32 random bytes.

    Raises:
        ValueError: one of these is not valid.
    """

    def __init__(self, me: Identity, *, fingerprints: Fingerprints, nonce: bytes) -> None:
        _check_identity(me, "peer", fingerprints, nonce)
        self._me = me
        self._fingerprints = fingerprints
        self._challenge = Challenge(VERSION, list(me.features), me.cluster, me.name, me.creation, nonce)
        self._transcript = b""
        self._peer: Proved | None = None
        self._ack = b""
        self.state = State.AWAITING_NAME

    def receive(self, tag: int, payload: bytes | memoryview) -> Step:
        """Take in a frame. After `Proved`, the caller decides: `admit` or `refuse`.

        Raises:
            RemoteProtocolError: it is not one that may come now, or not what it should be.
        """
        state, self.state = self.state, State.CLOSED
        match _expect(state, tag, payload):
            case Hello() as hello:
                return self._named(hello, _frame(tag, payload))
            case ChallengeReply(proof=proof):
                return self._replied(proof)
            case other:
                raise AssertionError(f"{other!r} is in no row of ACCEPTS for a listener")

    def admit(self) -> bytes:
        """Let the proved dialler in: the ACK frame.

        Raises:
            LocalProtocolError: no dialler has proved itself, or it has been decided already.
        """
        if self.state is not State.PROVED:
            raise LocalProtocolError(f"admit() while {self.state.value}")
        self.state = State.DONE
        return self._ack

    def refuse(self, code: str, detail: str, number: int = 0) -> bytes:
        """Do not let the dialler in, for a reason of the caller's: the REFUSED frame.

        Args:
            code: one of the codes in docs/protocol.md.
            detail: why, and what to do, for the human who started the dialler.
            number: for code "stale", the creation that is known.

        Raises:
            LocalProtocolError: it has been decided already.
        """
        if self.state in (State.DONE, State.CLOSED):
            raise LocalProtocolError(f"refuse() while {self.state.value}")
        return self._refuse(Refused(code, detail, number)).reply

    def _named(self, hello: Hello, frame: bytes) -> Step:
        if hello.version != VERSION:  # before its names: another version may have other ones
            return self._refuse(_other_version(printable(hello.name), hello.version, self._me.name, VERSION))
        purpose = _PURPOSES.get(hello.purpose)
        if purpose is None:
            return self._refuse(_other_purpose(printable(hello.purpose), self._me.name))
        _check_peer(hello.name, purpose, hello.cluster, hello.expects)
        refused = self._judge(hello)
        if refused is not None:
            return self._refuse(refused)
        challenge = encode_frame([self._challenge])
        self._transcript = _transcript(frame, challenge, self._fingerprints.peer, self._fingerprints.own)
        features = frozenset(hello.features) & frozenset(self._challenge.features)
        self._peer = Proved(hello.name, hello.creation, purpose, features)
        self.state = State.AWAITING_REPLY
        return Step(challenge)

    def _judge(self, dialler: Hello) -> Refused | None:
        me = self._me
        if dialler.cluster != me.cluster:
            return _other_cluster(dialler.name, dialler.cluster, me.name, me.cluster)
        if dialler.name == me.name:
            return _same_name(me.name, me.creation == dialler.creation)
        if dialler.expects not in ("", me.name):
            return _other_name(dialler.name, dialler.expects, me.name)
        return None

    def _replied(self, proof: bytes) -> Step:
        assert self._peer is not None, "REPLY is taken only after NAME"
        # Every cookie is tried, so that the time does not tell which one it was.
        known = [keys for keys in self._me.keys if hmac.compare_digest(_proof(keys.dialler, self._transcript), proof)]
        if not known:
            return self._refuse(_unproved(self._peer.peer, self._me.name))
        self._ack = encode_frame([ChallengeAck(_proof(known[0].listener, self._transcript))])
        self.state = State.PROVED
        return Step(event=self._peer)

    def _refuse(self, refused: Refused) -> Step:
        self.state = State.CLOSED
        return Step(encode_frame([Refusal(refused.code, refused.detail[:MAX_DETAIL], refused.number)]), refused)


def printable(text: str) -> str:
    """Text from the other end, made safe for a log line and a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# --- what a frame must be ---


def _expect(state: State, tag: int, payload: bytes | memoryview) -> Operation:
    accepted = ACCEPTS[state]
    if tag not in (kind.TAG for kind in accepted):
        expected = f": expected {' or '.join(frame_name(kind.TAG) for kind in accepted)}" if accepted else ""
        raise RemoteProtocolError(f"{frame_name(tag)} while {state.value}{expected}")
    operations = read_operations(tag, payload)
    assert operations is not None, "every kind in ACCEPTS is known"
    if len(operations) != 1:
        raise RemoteProtocolError(f"{frame_name(tag)} with {len(operations)} operations: the handshake has one a frame")
    return operations[0]


def _check_peer(name: str, purpose: Purpose, cluster: str, expects: str = "") -> None:
    try:
        _check_names(name, purpose, cluster)
        if expects:
            check_node_name(expects)
    except ValueError as error:
        raise RemoteProtocolError(f"in the handshake: {error}") from None


def _check_identity(me: Identity, purpose: Purpose, fingerprints: Fingerprints, nonce: bytes) -> None:
    _check_names(me.name, purpose, me.cluster)
    if not me.keys:
        raise ValueError("an identity needs the keys of at least one cookie")
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    if len(fingerprints.own) != 32 or len(fingerprints.peer) != 32:
        raise ValueError("a fingerprint is a SHA-256 of 32 bytes")


def _check_names(name: str, purpose: Purpose, cluster: str) -> None:
    check_word(cluster, "the cluster's name")
    match purpose:
        case "peer":
            check_node_name(name)
        case "observer":
            check_word(name, "an observer's name")
        case other:
            assert_never(other)


# --- proofs ---


def _frame(tag: int, payload: bytes | memoryview) -> bytes:
    """The frame as it was sent."""
    return (len(payload) + 1).to_bytes(4, "little") + bytes((tag,)) + payload


def _transcript(name: bytes, challenge: bytes, dialler: bytes, listener: bytes) -> bytes:
    """What both ends prove. Each part says how long it is or has a fixed length, so no two conversations look alike."""
    return _CONTEXT + name + challenge + dialler + listener


def _proof(key: Hidden[bytes], transcript: bytes) -> bytes:
    return hmac.digest(key.reveal(), transcript, "sha256")


# --- refusals: each is read at both ends, so it names the nodes ---


def _other_version(dialler: str, dialler_version: int, listener: str, listener_version: int) -> Refused:
    return Refused(
        "version",
        f"{dialler} speaks version {dialler_version} of the protocol, {listener} version {listener_version}:"
        " run releases of kinfolk that share one",
    )


def _other_purpose(purpose: str, listener: str) -> Refused:
    return Refused("purpose", f"{listener} knows the purposes peer and observer, not {purpose}: upgrade kinfolk there")


def _other_cluster(dialler: str, dialler_cluster: str, listener: str, listener_cluster: str) -> Refused:
    return Refused(
        "cluster",
        f"{dialler} is in the cluster {dialler_cluster}, {listener} in the cluster {listener_cluster}:"
        " give both the same cluster name, or check the address",
    )


def _same_name(name: str, same_creation: bool) -> Refused:
    if same_creation:
        return Refused("self", f"{name} has dialled itself: leave its own address out of those to join")
    return Refused("name", f"the node name {name} is in use by the node that listens there: give one another name")


def _other_name(dialler: str, expected: str, listener: str) -> Refused:
    return Refused("name", f"{dialler} expected {expected}, but it is {listener} that listens there: check the address")


def _unproved(peer: str, me: str) -> Refused:
    return Refused(
        "cookie",
        f"{peer} has not proved to {me} that it knows the cookie: give both nodes the same one"
        " (if they have it, something between them relays the connection)",
    )
