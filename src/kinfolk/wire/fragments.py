"""Large messages: cut into fragments at one end, put together at the other. No message holds up those of others.

The sender's end is a `Backlog`. A message over 64 KiB waits there and goes into the outbox fragment by fragment, as
that drains: one fragment of each message in turn, and between two of them whatever else there is to say to the peer.

**Order.** What a process says to another arrives in order, so whatever comes after a large message of the same pair
waits behind it: small messages, exit signals, answers. A message for a name or a group may be for anybody: it waits for
all that its sender has said before, and all that its sender says after it waits for it. So the backlog keeps *stages*
for each sender. In a stage there is a *lane* for each target, or one lane for anybody; the lanes of one stage go side
by side, and the next stage begins when they are empty. A sender without a stage has nothing here, and what it says
goes straight into the outbox.

    a lane    waiting    -- its turn comes, and the bounds allow it -->    under way
              under way  -- the last fragment is out -->    waiting, if after the small ones another large one follows
                                                            gone, if it is empty

**Bounds.** So many messages are under way at most, and so many bytes of them, that the other end knows what it must
keep: `MAX_OPEN` and `MAX_OPEN_BYTES`. Those that would be too many wait, first come, first served. What waits here
counts as waiting for the peer: the caller adds `len(backlog)` to `len(outbox)`.

The receiver's end is an `Assemblies`.

Source: interleaved fragments as in the fragmented messages of OTP 22 and the DATA frames of HTTP/2 (RFC 9113, 5.1.2).
"""

import itertools
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field

from kinfolk.errors import MessageTooLarge, RemoteProtocolError
from kinfolk.wire.frames import (
    FRAGMENT_BYTES,
    FRAMES,
    Answered,
    Broadcast,
    Called,
    Fragment,
    Operation,
    Sent,
    SentToName,
    SpawnAsked,
)
from kinfolk.wire.outbox import MAX_OPERATION, Outbox
from kinfolk.wire.reader import frame_name, read_operations

MAX_OPEN = 64
"""Messages of one session that may be under way in fragments at a time."""
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""Bytes that these may have together, when they are whole."""
FRAGMENTED = frozenset(kind.TAG for kind in (Sent, SentToName, Broadcast, Called, Answered, SpawnAsked))
"""The kinds of operations that may come in fragments: those with a body."""
ANYBODY = None
"""The target of what may be for any process of the peer: of a message for a name or a group."""

_KNOWN = frozenset(kind.TAG for kind in FRAMES)
_ITEM_BYTES = 200
"""What an operation in the backlog costs beside its bytes, about."""


class _Item(Struct, eq=False, frozen=True):
    """An operation, encoded, in two parts. The second is the body, as whoever sends it has it: it is not copied."""

    tag: int
    head: bytes
    body: bytes
    size: int
    """Bytes of both."""

    def part(self, start: int, size: int) -> bytes | memoryview:
        """So many bytes of it from there on, or what is left."""
        head, body = self.head, self.body
        if not body:
            return memoryview(head)[start : start + size]
        if start < len(head):
            first = head[start : start + size]
            return first + body[: size - len(first)]
        start -= len(head)
        return memoryview(body)[start : start + size]


class _Lane(Struct, eq=False):
    """What one sender has to say to one target, in order. The first is large."""

    sender: int
    target: int | None
    items: deque["_Item"] = field(default_factory=deque["_Item"])
    number: int = 0
    """Of the first, once it is under way."""
    sent: int = 0
    """Bytes of the first that are out."""


_Stage = dict[int | None, _Lane]


class Backlog:
    """What waits for large messages to be out, and these themselves.

    Args:
        fragment: bytes of a message in one fragment; what is longer is large.
        max_open, max_open_bytes: how many may be under way.

    ``bool(backlog)`` tells whether anything waits, ``len(backlog)`` how many bytes, about.
    """

    __slots__ = ("_fragment", "_max_open", "_max_open_bytes", "_numbers", "_open", "_open_bytes", "_size", "_stages",
                 "_waiting")  # fmt: skip

    def __init__(
        self, fragment: int = FRAGMENT_BYTES, max_open: int = MAX_OPEN, max_open_bytes: int = MAX_OPEN_BYTES
    ) -> None:
        self._fragment = fragment
        self._max_open = max_open
        self._max_open_bytes = max_open_bytes
        self._numbers = itertools.count(1)
        self._stages: dict[int, deque[_Stage]] = {}  # of each sender
        self._waiting: deque[_Lane] = deque()
        self._open: deque[_Lane] = deque()  # under way, in the order of their turns
        self._open_bytes = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return bool(self._stages)

    def holds(self, sender: int, target: int | None) -> bool:
        """Whether something is here that must leave before what this sender says to this target now."""
        stages = self._stages.get(sender)
        if not stages:
            return False
        return target is ANYBODY or len(stages) > 1 or ANYBODY in stages[0] or target in stages[0]

    def add(self, tag: int, operation: bytes, sender: int, target: int | None, body: bytes = b"") -> None:
        """Let an operation wait for its turn: a large one, or one for which `holds` is true.

        Args:
            tag, operation: its kind, and the operation as `frames.encode_operation` has encoded it.
            sender: who says it: a local id, 0 for no process.
            target: to whom: a local id, or a negative number for one of which there is no other; or ANYBODY.
            body: the end of the operation, if it is not in there: so large that it is not copied.

        Raises:
            MessageTooLarge: no receiver would take it; nothing was added.
        """
        item = _Item(tag, operation, body, len(operation) + len(body))
        if item.size > MAX_OPERATION:
            raise MessageTooLarge(
                f"a message of {item.size} bytes on the wire: {MAX_OPERATION} is the most that can be sent"
            )
        stages = self._stages.setdefault(sender, deque())
        if not stages or (target is ANYBODY) != (ANYBODY in stages[-1]):
            stages.append({})
        stage = stages[-1]
        lane = stage.get(target)
        if lane is None:
            lane = stage[target] = _Lane(sender, target)
            if len(stages) == 1:
                self._waiting.append(lane)
        lane.items.append(item)
        self._size += item.size + _ITEM_BYTES

    def feed(self, outbox: Outbox) -> None:
        """Put the next fragment into the outbox, and with the last one of a message what waited for its end.

        The caller does so whenever it takes what is in the outbox, and something is here.
        """
        while (
            self._waiting
            and len(self._open) < self._max_open
            and self._open_bytes + self._waiting[0].items[0].size <= self._max_open_bytes
        ):
            self._begin(self._waiting.popleft())
        lane = self._open.popleft()
        item = lane.items[0]
        data = item.part(lane.sent, self._fragment)
        outbox.encode_fields(Fragment.TAG, (lane.number, item.tag, item.size, data), MAX_OPERATION)
        lane.sent += len(data)
        self._size -= len(data)
        if lane.sent < item.size:
            self._open.append(lane)
            return
        lane.items.popleft()
        self._open_bytes -= item.size
        self._size -= _ITEM_BYTES
        self._go_on(lane, outbox)

    def clear(self) -> None:
        """The session is over: nothing of this will leave."""
        self._stages.clear()
        self._waiting.clear()
        self._open.clear()
        self._open_bytes = self._size = 0

    def _begin(self, lane: _Lane) -> None:
        lane.number, lane.sent = next(self._numbers), 0
        self._open_bytes += lane.items[0].size
        self._open.append(lane)

    def _go_on(self, lane: _Lane, outbox: Outbox) -> None:
        """The first message of a lane is out: what follows it has its turn, and then the next stage of the sender."""
        stages = self._stages[lane.sender]
        self._pass_on(lane, stages[0], outbox)
        while not stages[0]:
            stages.popleft()
            if not stages:
                del self._stages[lane.sender]
                return
            for other in list(stages[0].values()):
                self._pass_on(other, stages[0], outbox)

    def _pass_on(self, lane: _Lane, stage: _Stage, outbox: Outbox) -> None:
        """The small ones at the front of a lane leave; the lane waits with the large one after them, or is gone."""
        items = lane.items
        while items and items[0].size <= self._fragment:
            item = items.popleft()
            outbox.append(item.tag, item.head + item.body)
            self._size -= item.size + _ITEM_BYTES
        if items:
            self._waiting.append(lane)
        else:
            del stage[lane.target]


class _Assembly(Struct):
    """An operation of which a part has come."""

    kind: int
    size: int
    payload: bytearray
    """An array of this one operation, as far as it is here."""


class Assemblies:
    """Puts the large operations of one session together.

    Args:
        max_open, max_open_bytes: how many may be under way; more is a breach.
    """

    __slots__ = ("_max_open", "_max_open_bytes", "_open", "_open_bytes")

    def __init__(self, max_open: int = MAX_OPEN, max_open_bytes: int = MAX_OPEN_BYTES) -> None:
        self._max_open = max_open
        self._max_open_bytes = max_open_bytes
        self._open: dict[int, _Assembly] = {}
        self._open_bytes = 0

    def __len__(self) -> int:
        """Operations under way."""
        return len(self._open)

    def take(self, fragment: Fragment) -> tuple[int, Sequence[Operation] | None] | None:
        """Take in the next fragment.

        Returns:
            None if more are to come; else the tag of the whole operation and, as `read_operations` does, the operation
            itself, or None for a tag that this version does not know.

        Raises:
            RemoteProtocolError: it does not fit to those before it, or is more than may be under way, or is the last of
                what cannot be read.
        """
        assembly = self._open.get(fragment.number) or self._begin(fragment)
        if (fragment.kind, fragment.size) != (assembly.kind, assembly.size):
            raise RemoteProtocolError(
                f"Fragment {fragment.number} is of {frame_name(fragment.kind)} with {fragment.size} bytes, and began as"
                f" {frame_name(assembly.kind)} with {assembly.size}"
            )
        payload = assembly.payload
        payload += fragment.data
        if len(payload) <= fragment.size:
            return None
        if len(payload) > fragment.size + 1:
            raise RemoteProtocolError(f"Fragment {fragment.number} goes beyond its {fragment.size} bytes")
        del self._open[fragment.number]
        self._open_bytes -= fragment.size
        return fragment.kind, read_operations(fragment.kind, memoryview(payload))

    def clear(self) -> None:
        """The session is over: nothing more comes."""
        self._open.clear()
        self._open_bytes = 0

    def _begin(self, fragment: Fragment) -> _Assembly:
        """The first of its number. Memory is taken as its bytes come, but what it may become counts from now on."""
        if fragment.kind in _KNOWN and fragment.kind not in FRAGMENTED:
            raise RemoteProtocolError(f"Fragment of {frame_name(fragment.kind)}, which is never in fragments")
        if not 0 < fragment.size <= MAX_OPERATION:
            raise RemoteProtocolError(f"Fragment of {fragment.size} bytes in all: at most {MAX_OPERATION} are allowed")
        if len(self._open) >= self._max_open or self._open_bytes + fragment.size > self._max_open_bytes:
            raise RemoteProtocolError(
                f"Fragment of one operation too many: {len(self._open)} with {self._open_bytes} bytes are under way"
            )
        self._open_bytes += fragment.size
        assembly = self._open[fragment.number] = _Assembly(fragment.kind, fragment.size, bytearray(b"\x91"))
        return assembly
