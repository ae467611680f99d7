"""The frames: what two nodes say to each other, and how it looks in bytes.

A frame is ``[u32 length, little endian][u8 tag][payload]``; the length counts tag and payload. The payload is one
MessagePack array of *operations* of the tag's kind, each an array of the fields below in their order. Whatever one
turn of a loop has to say of one kind to one peer thus travels in one frame and is decoded in one call.

A new operation is a new class in ``FRAMES`` and a row in ``docs/protocol.md``. Fields are only ever appended: a
decoder ignores fields it does not know, so a minor version can add them.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Struct

from kinfolk.ids import Pid

HEADER_BYTES = 5
MAX_FRAME = 16 * 1024 * 1024
"""Bytes of tag and payload that an authenticated peer may send in one frame."""
MAX_FRAME_BEFORE_AUTHENTICATION = 4 * 1024
MAX_OPERATIONS = 64 * 1024
"""Operations in one frame: each may cost far more than the two bytes that the smallest takes."""
MAX_ROWS = 4096
"""Facts, positions or groups in one operation: whatever is in it is taken in without a break."""
FRAGMENT_BYTES = 64 * 1024
"""Bytes of a message in one fragment; a message with more travels in several."""
MAX_PEERS = 4096
"""Names in a list of peers: far beyond what a full mesh can be, and few enough to dial them all."""

Word = Annotated[str, Meta(min_length=1, max_length=64)]
NodeName = Annotated[str, Meta(min_length=1, max_length=400)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A creation, position, local id, stamp or reference: never negative, within 63 bits."""
FunctionName = Annotated[str, Meta(min_length=1, max_length=1024)]
ReasonWord = Annotated[str, Meta(min_length=1, max_length=1024)]
ReasonDetail = Annotated[list[Annotated[str, Meta(max_length=16 * 1024)]], Meta(max_length=16)]
Names = Annotated[list[Name], Meta(max_length=MAX_ROWS)]
Numbers = Annotated[list[Number], Meta(max_length=MAX_ROWS)]
Predecessor = tuple[NodeName, Number, Number]
"""A claim of another node: that node, its creation, the position of the claim."""
Predecessors = Annotated[list[Predecessor], Meta(max_length=MAX_ROWS)]
Flags = Annotated[list[bool], Meta(max_length=MAX_ROWS)]
"""A column."""
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Proof = Annotated[bytes, Meta(min_length=32, max_length=32)]


NEVER_MS = 2**53
"""The timeout on the wire of one who waits for ever."""


def milliseconds_of(seconds: float | None) -> int:
    """A timeout as it goes over the wire; None and infinity wait for ever."""
    if seconds is None or seconds * 1000 >= NEVER_MS:
        return NEVER_MS
    return max(0, int(seconds * 1000))


class Operation(Struct, frozen=True, array_like=True, gc=False):
    """Base of all operations: a flat record of atoms (so the garbage collector never looks at it)."""

    TAG: ClassVar[int]


# --- handshake: dialler and listener in turns, before anything else ---


class Hello(Operation, frozen=True):
    """NAME: the dialler says who it is, what for, and whom it expects (empty for a seed given by address)."""

    TAG = 0x01
    version: Number
    features: list[Word]
    purpose: Word
    cluster: Word
    name: NodeName
    creation: Number
    expects: Annotated[str, Meta(max_length=400)]
    nonce: Nonce


class Challenge(Operation, frozen=True):
    """CHALLENGE: the listener says who it is and gives its nonce."""

    TAG = 0x02
    version: Number
    features: list[Word]
    cluster: Word
    name: NodeName
    creation: Number
    nonce: Nonce


class ChallengeReply(Operation, frozen=True):
    """REPLY: the dialler proves that it knows the cookie and saw these certificates."""

    TAG = 0x03
    proof: Proof


class ChallengeAck(Operation, frozen=True):
    """ACK: the listener proves the same and lets the dialler in."""

    TAG = 0x04
    proof: Proof


class Refusal(Operation, frozen=True):
    """REFUSED: the listener says why it will not go on, then closes. For "stale", `number` is the creation it knows."""

    TAG = 0x05
    code: Word
    detail: Annotated[str, Meta(max_length=1024)]
    number: Number = 0


# --- messages between processes ---


class Sent(Operation, frozen=True):
    """SEND: a message for a process of the receiving node."""

    TAG = 0x10
    target: Number
    sender: Number | None
    body: msgspec.Raw


class SentToName(Operation, frozen=True):
    """REG_SEND: a message for whoever has this node-scoped name at the receiver."""

    TAG = 0x11
    target: Name
    sender: Number | None
    body: msgspec.Raw


class Broadcast(Operation, frozen=True):
    """ROOM_BROADCAST: a message for all processes of the receiving node that are members of a group."""

    TAG = 0x1E
    group: Name
    sender: Number | None
    body: msgspec.Raw


class Called(Operation, frozen=True):
    """CALL: a request that wants an Answered with the same reference within so many milliseconds."""

    TAG = 0x34
    target: Number | Name
    sender: Number | None
    reference: Number
    timeout_ms: Number
    body: msgspec.Raw


class Answered(Operation, frozen=True):
    """ANSWER: the outcome of a call. Outcomes are in `kinfolk.wire.codec`."""

    TAG = 0x35
    reference: Number
    outcome: Word
    body: msgspec.Raw


class Fragment(Operation, frozen=True):
    """FRAGMENT: a part of a large operation of this kind, which is `size` bytes long.

    The parts of one operation come in order and have one number; those of others may come between them.
    """

    TAG = 0x3E
    number: Number
    kind: Annotated[int, Meta(ge=0, le=255)]
    size: Number
    data: Annotated[bytes, Meta(min_length=1, max_length=FRAGMENT_BYTES)]


# --- the ends of processes ---


class ExitSignal(Operation, frozen=True):
    """EXIT: an exit signal for a process: over a link whose other end has exited, or because somebody has called exit.

    A reason is a word and what belongs to it, as in `kinfolk.reasons`.
    """

    TAG = 0x15
    target: Number
    sender: Number | None
    reason: ReasonWord
    linked: bool = False
    detail: ReasonDetail = []


class LinkMade(Operation, frozen=True):
    """LINK: the sender's process is linked to this one from now on."""

    TAG = 0x13
    target: Number
    sender: Number


class LinkUndone(Operation, frozen=True):
    """UNLINK: the sender's process takes its link back, and ignores what comes of it until the acknowledgement."""

    TAG = 0x14
    target: Number
    sender: Number
    number: Number


class UnlinkAcknowledged(Operation, frozen=True):
    """UNLINK_ACK: the link that the target has taken back with this number is gone here as well."""

    TAG = 0x40
    target: Number
    sender: Number
    number: Number


class MonitorMade(Operation, frozen=True):
    """MONITOR: answer with a MonitorFired of the same reference when this process ends, or if it does not live."""

    TAG = 0x16
    reference: Number
    target: Number | Name


class MonitorUndone(Operation, frozen=True):
    """DEMONITOR: no answer to this MonitorMade is wanted any more."""

    TAG = 0x17
    reference: Number


class MonitorFired(Operation, frozen=True):
    """MONITOR_EXIT: the process has ended; without its local id: nobody had the name."""

    TAG = 0x18
    reference: Number
    process: Number | None
    reason: ReasonWord
    detail: ReasonDetail = []


# --- processes started from afar ---


class SpawnAsked(Operation, frozen=True):
    """SPAWN: start a process that runs this function, and answer with the same reference.

    With `linked` it is linked to the sender from its start; with `monitor` it is watched, as by a MonitorMade with
    that reference.
    """

    TAG = 0x19
    reference: Number
    function: FunctionName
    sender: Number | None
    linked: bool
    monitor: Number | None
    max_mailbox: Number | None
    args: msgspec.Raw


class SpawnAnswered(Operation, frozen=True):
    """SPAWN_REPLY: the process that was started, or why there is none. Outcomes are in `kinfolk.shell.spawns`."""

    TAG = 0x1A
    reference: Number
    outcome: Word
    local: Number = 0
    detail: Annotated[str, Meta(max_length=1024)] = ""


# --- the mesh ---


class Peers(Operation, frozen=True):
    """PEER_LIST: the nodes that the sender is connected to. First frame of a session, each way.

    `creation` and `position` say how far the sender still mirrors the receiver's ledger, from an earlier session.
    `creations` are those of the nodes, in the same order: who has left is not there again before a higher one is.
    """

    TAG = 0x12
    names: Annotated[list[NodeName], Meta(max_length=MAX_PEERS)]
    creation: Number = 0
    position: Number = 0
    creations: Annotated[list[Number], Meta(max_length=MAX_PEERS)] = []


class Ping(Operation, frozen=True):
    """PING: a sign of life that asks for a Pong with the same number; and the digest of the sender's ledger there."""

    TAG = 0xF0
    sequence: Number
    position: Number = 0
    digest: Number = 0


class Pong(Operation, frozen=True):
    """PONG: the answer to a Ping."""

    TAG = 0xF1
    sequence: Number


class NodeLeft(Operation, frozen=True):
    """LEAVE: the sender leaves the cluster. In this creation, the session's, it never comes back."""

    TAG = 0x3F
    creation: Number


class StallPort(Operation, frozen=True):
    """STALL_PORT: reports of your stalls reach me at this UDP port, for this session and under this key.

    What a report is, is in `kinfolk.wire.stalls`.
    """

    TAG = 0x46
    port: Annotated[int, Meta(ge=1, le=65535)]
    session: Number
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Rest(Operation, frozen=True):
    """REST: nobody has used this session for long. Shall it end? I say nothing more before you answer.

    The answer is a GOODBYE with the code "idle", or this with `asks` false: it shall go on.
    """

    TAG = 0x47
    asks: bool


class Goodbye(Operation, frozen=True):
    """GOODBYE: why the sender ends this session. Last frame of a session."""

    TAG = 0x36
    code: Word
    detail: Annotated[str, Meta(max_length=1024)]


# --- the registry: each node's own ledger, entry by entry, and its peers' answers ---


class NameClaimed(Operation, frozen=True):
    """GLOBAL_REGISTER: ledger entry `position` claims a name for the sender's process `local`, stamped so."""

    TAG = 0x1B
    position: Number
    name: Name
    local: Number
    stamp: Number
    after: Predecessor | None = None
    """The claim of another node that this one succeeds."""


class NamesWithdrawn(Operation, frozen=True):
    """GLOBAL_UNREGISTER: ledger entry `position` withdraws these names, each as claimed at the position beside it.

    And the sender's process `local` is no longer a member of these groups.
    """

    TAG = 0x1C
    position: Number
    names: Names
    claims: Numbers
    groups: Names = []
    local: Number = 0


class NameMoved(Operation, frozen=True):
    """MOVE: ledger entry `position` gives the claim of the name made at `claim` to the sender's process `local`."""

    TAG = 0x41
    position: Number
    name: Name
    claim: Number
    local: Number


class LedgerSynced(Operation, frozen=True):
    """GLOBAL_SYNC: a part of the sender's live facts, in columns; entries up to `position` are reflected.

    The first part begins a new mirror, `done` marks the last; changes made meanwhile come between the parts.
    """

    TAG = 0x1D
    creation: Number
    position: Number
    done: bool
    names: Names
    locals: Numbers
    positions: Numbers
    stamps: Numbers
    confirmed: Flags
    groups: Names = []
    """With `members` beside it: the groups that processes are members of."""
    members: Numbers = []
    heirs: Numbers = []
    """With `after` beside it: the rows of claims that succeed others, and those others."""
    after: Predecessors = []


class LedgerResumed(Operation, frozen=True):
    """RESUME: the mirror that the receiver kept up to `position` is good; the entries after it follow.

    Those up to `until` are older than this session.
    """

    TAG = 0x3B
    position: Number
    until: Number


class ResyncAsked(Operation, frozen=True):
    """ASK_SYNC: the sender's mirror of the receiver's ledger, at `position`, is not what it should be: sync anew."""

    TAG = 0x3C
    position: Number


class GroupEntered(Operation, frozen=True):
    """GROUP_JOIN: ledger entry `position` makes the sender's process `local` a member of a group."""

    TAG = 0x3D
    position: Number
    group: Name
    local: Number


class NameConfirmed(Operation, frozen=True):
    """CONFIRM: ledger entry `position` says that every peer has acknowledged the claim made at `claim`."""

    TAG = 0x31
    position: Number
    name: Name
    claim: Number


class Acknowledged(Operation, frozen=True):
    """ACKNOWLEDGE: the receiver's ledger entries at these positions are in the sender's views.

    And so is every withdrawal up to entry `through`, whether the sender has been told of it or synced behind it.
    """

    TAG = 0x30
    positions: Numbers
    through: Number = 0


class NameContested(Operation, frozen=True):
    """CONTEST: the receiver's claim of the name made at `loser` stands against this claim of another node."""

    TAG = 0x32
    name: Name
    loser: Number
    node: NodeName
    creation: Number
    position: Number
    local: Number
    stamp: Number
    confirmed: bool


class RegistrationAsked(Operation, frozen=True):
    """ASK_REGISTER: claim this name for your process `local`, and answer with the same reference."""

    TAG = 0x37
    reference: Number
    name: Name
    local: Number
    timeout_ms: Number
    on_lost: Word


class UnregistrationAsked(Operation, frozen=True):
    """ASK_UNREGISTER: withdraw this name, if it is still held by the claim that you made at `claim`; answer."""

    TAG = 0x38
    reference: Number
    name: Name
    claim: Number
    timeout_ms: Number


class TransferAsked(Operation, frozen=True):
    """ASK_TRANSFER: let this process have the name, if it is still held by the claim that you made at `claim`."""

    TAG = 0x45
    reference: Number
    name: Name
    claim: Number
    pid: Pid
    timeout_ms: Number


class AskAnswered(Operation, frozen=True):
    """ASK_ANSWER: how it went; the outcomes are in `kinfolk.asks`.

    "ok" comes with the claim's position and stamp, "taken" with the holder, "missing" with the peers that did not
    acknowledge in time, every other outcome with its text.
    """

    TAG = 0x39
    reference: Number
    outcome: Word
    position: Number = 0
    stamp: Number = 0
    holder: Pid | None = None
    missing: list[NodeName] = []
    detail: Annotated[str, Meta(max_length=1024)] = ""


class SuccessionAsked(Operation, frozen=True):
    """ASK_HEIR: claim this name for your process `local` as the heir of the claim that the sender made at `claim`."""

    TAG = 0x42
    reference: Number
    name: Name
    claim: Number
    local: Number
    on_lost: Word


class SuccessionAnswered(Operation, frozen=True):
    """HEIR_ANSWER: the receiver alone has yet to acknowledge the heir; or there is none. See `kinfolk.transfers`."""

    TAG = 0x43
    reference: Number
    outcome: Word
    detail: Annotated[str, Meta(max_length=1024)] = ""


class SuccessionRevoked(Operation, frozen=True):
    """REVOKE_HEIR: withdraw the heir that was asked for with this reference, unless it is confirmed."""

    TAG = 0x44
    reference: Number


class AskSettled(Operation, frozen=True):
    """ASK_SETTLED: the asker has the answer and the name shall stay; or it waits no longer, and the name shall go."""

    TAG = 0x3A
    reference: Number
    keep: bool


FRAMES: tuple[type[Operation], ...] = (
    Hello, Challenge, ChallengeReply, ChallengeAck, Refusal,
    Sent, SentToName, Broadcast, Called, Answered, Fragment,
    ExitSignal, LinkMade, LinkUndone, UnlinkAcknowledged, MonitorMade, MonitorUndone, MonitorFired,
    SpawnAsked, SpawnAnswered,
    Peers, Ping, Pong, NodeLeft, StallPort, Rest, Goodbye,
    NameClaimed, NamesWithdrawn, NameMoved, LedgerSynced, LedgerResumed, ResyncAsked, GroupEntered,
    NameConfirmed, Acknowledged, NameContested,
    RegistrationAsked, UnregistrationAsked, TransferAsked, AskAnswered, AskSettled,
    SuccessionAsked, SuccessionAnswered, SuccessionRevoked,
)  # fmt: skip
"""Every kind of frame; the tests are generated from it, so that a new one cannot be forgotten."""

HANDSHAKE: frozenset[int] = frozenset(frame.TAG for frame in (Hello, Challenge, ChallengeReply, ChallengeAck, Refusal))

_FIXARRAY, _BIN32 = 0x90, 0xC6
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {
    frame.TAG: msgspec.msgpack.Decoder(Annotated[list[frame], Meta(max_length=MAX_OPERATIONS)])  # type: ignore[valid-type]
    for frame in FRAMES
}


def encode_operation(operation: Operation) -> bytes:
    """The bytes of one operation, to be appended to any number of outboxes (a broadcast is encoded once)."""
    return _ENCODER.encode(operation)


def encode_fields(fields: tuple[object, ...]) -> bytes:
    """The bytes of an operation, or of its first fields, given as a tuple."""
    return _ENCODER.encode(fields)


def encode_head(fields: tuple[object, ...], size: int) -> bytes:
    """The bytes of an operation but for those of a last field, which is so many (at least 64 Ki) bytes as they are.

    Args:
        fields: all others, fewer than 15.
    """
    encoded = _ENCODER.encode(fields)
    return bytes((_FIXARRAY | len(fields) + 1,)) + encoded[1:] + bytes((_BIN32,)) + size.to_bytes(4, "big")


def encode_frame(operations: Sequence[Operation]) -> bytes:
    """A whole frame of one or more operations of one kind."""
    payload = _ENCODER.encode(list(operations))
    return (len(payload) + 1).to_bytes(4, "little") + bytes((operations[0].TAG,)) + payload


def decode_payload(tag: int, payload: bytes | bytearray | memoryview) -> Sequence[Operation] | None:
    """The operations of a frame, or None for a tag of a later minor version.

    ``Raw`` bodies are views into `payload`: decode or copy them before the buffer is used again.

    Raises:
        ValueError: not MessagePack, or not the fields of this tag (msgspec.DecodeError), or a str that is not UTF-8.
        RecursionError: nested too deeply.
    """
    decoder = _DECODERS.get(tag)
    return None if decoder is None else decoder.decode(payload)
