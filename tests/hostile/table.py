"""Which frame may come when, and what is wrong with one. Every kind of `FRAMES` has an entry.

What a frame may look like is generated from its class: cut at every byte, too long, with too few fields, with each
field of every wrong kind and beyond its limits. What only its meaning makes wrong stands here, kind by kind, with the
words by which the log says so. There is no entry for "a claim for another node's process": no frame can say that, for a
local id is always the sender's; what comes nearest is a sync of another creation.
"""

from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, inspect

from kinfolk.ids import Pid
from kinfolk.wire import frames
from kinfolk.wire.fragments import MAX_OPEN
from kinfolk.wire.frames import (
    FRAMES,
    HANDSHAKE,
    HEADER_BYTES,
    MAX_FRAME,
    MAX_FRAME_BEFORE_AUTHENTICATION,
    Operation,
    encode_frame,
)
from kinfolk.wire.outbox import MAX_OPERATION
from kinfolk.wire.reader import frame_name
from tests.hostile.stage import BOB, MALLORY, OWN, Stage, Visit
from tests.wire.vectors import VECTORS

# --- where a session can be ---


class At(Enum):
    """Where a session is, as the node under attack sees it."""

    NAME = "listens, waiting for NAME"
    REPLY = "listens, waiting for REPLY"
    ADMITTED = "listens, has sent ACK"
    CHALLENGE = "dials, waiting for CHALLENGE"
    ACK = "dials, waiting for ACK"
    DIALLED = "dialled and open, before the peer list"
    UNGREETED = "open, before the peer list"
    UNSYNCED = "open, before the sync"
    OFFERED = "open again, its mirror offered"
    SYNCING = "open, in the middle of the sync"
    SYNCED = "open, after the sync"
    DIALLED_SYNCED = "dialled and open, after the sync"
    WATCHER_ADMITTED = "an observer, that has its ACK"
    WATCHER = "an observer's, open"


HANDSHAKES = frozenset({At.NAME, At.REPLY, At.CHALLENGE, At.ACK})
"""The other end has not proved itself to the node: it is told nothing."""
BEFORE_PEERS = frozenset({At.ADMITTED, At.DIALLED, At.UNGREETED})
SYNCED = frozenset({At.SYNCED, At.DIALLED_SYNCED})
UNTOLD = frozenset({At.UNSYNCED, At.OFFERED})
"""It has yet to say anything of its ledger."""
GREETED = SYNCED | UNTOLD | {At.SYNCING}
WATCHERS = frozenset({At.WATCHER_ADMITTED, At.WATCHER})

UNKNOWN = b"\x04\x00\x00\x00\x7e\xc1\xc1\xc1"
"""A frame of a later minor version, with what this version cannot read."""
POSITION = 5
"""The last entry of mallory's ledger that its sync reflects."""


def sync(creation: int, **changed: Any) -> frames.LedgerSynced:
    """Mallory's claims: one confirmed and made at 2, the other made at 4."""
    made: dict[str, Any] = {
        "position": POSITION,
        "done": True,
        "names": ["mallory/old", "mallory/new"],
        "locals": [7, 8],
        "positions": [2, 4],
        "stamps": [1 << 16, 2 << 16],
        "confirmed": [True, False],
    }
    return frames.LedgerSynced(creation=creation, **{**made, **changed})


async def _name(stage: Stage) -> Visit:
    return await stage.dial()


async def _reply(stage: Stage) -> Visit:
    return (await stage.dial()).go_on()


async def _admitted(stage: Stage) -> Visit:
    return (await _reply(stage)).go_on()


async def _challenge(stage: Stage) -> Visit:
    visit = await stage.be_dialled()
    return visit.listen()


async def _ack(stage: Stage) -> Visit:
    return (await _challenge(stage)).go_on()


async def _dialled(stage: Stage) -> Visit:
    return (await _ack(stage)).go_on()


async def _ungreeted(stage: Stage) -> Visit:
    visit = await _admitted(stage)
    visit.pipe.feed(UNKNOWN)
    return visit.listen()


async def _unsynced(stage: Stage) -> Visit:
    return (await _admitted(stage)).say(frames.Peers([BOB]))


async def _offered(stage: Stage) -> Visit:
    before = await _synced(stage)
    before.pipe.close()
    await stage.until(lambda: MALLORY not in stage.node.kernel.peers())
    visit = (await stage.dial(creation=before.creation)).go_on().go_on().say(frames.Peers([BOB]))
    (told,) = [said for said in visit.heard if isinstance(said, frames.Peers)]
    assert (told.creation, told.position) == (before.creation, POSITION), "what is known of its ledger is offered"
    return visit


async def _syncing(stage: Stage) -> Visit:
    visit = await _unsynced(stage)
    return visit.say(
        sync(visit.creation, done=False, names=["first"], locals=[6], positions=[1], stamps=[3], confirmed=[True])
    )


async def _synced(stage: Stage) -> Visit:
    visit = await _unsynced(stage)
    return visit.say(sync(visit.creation))


async def _dialled_synced(stage: Stage) -> Visit:
    visit = await _dialled(stage)
    return visit.say(frames.Peers([]), sync(visit.creation))


async def _watcher_admitted(stage: Stage) -> Visit:
    return (await stage.dial(purpose="observer")).go_on().go_on()


async def _watcher(stage: Stage) -> Visit:
    return (await _watcher_admitted(stage)).say(frames.Ping(1))


REACH: dict[At, Callable[[Stage], Awaitable[Visit]]] = {
    At.NAME: _name,
    At.REPLY: _reply,
    At.ADMITTED: _admitted,
    At.CHALLENGE: _challenge,
    At.ACK: _ack,
    At.DIALLED: _dialled,
    At.UNGREETED: _ungreeted,
    At.UNSYNCED: _unsynced,
    At.OFFERED: _offered,
    At.SYNCING: _syncing,
    At.SYNCED: _synced,
    At.DIALLED_SYNCED: _dialled_synced,
    At.WATCHER_ADMITTED: _watcher_admitted,
    At.WATCHER: _watcher,
}
"""How mallory gets there."""

# --- what is right and what is wrong with each kind ---


class Wrong(NamedTuple):
    """Something that ends the session wherever its kind may come, or only `at` some places."""

    what: str
    says: str
    """In the log, and to mallory."""
    make: Callable[[Visit], list[Operation]]
    """The last of these ends the session, unless an earlier one has."""
    at: frozenset[At] = frozenset(At)

    def frames(self, visit: Visit) -> bytes:
        """The bytes of it, for this session."""
        return b"".join(encode_frame([operation]) for operation in self.make(visit))


class Entry(NamedTuple):
    """One kind of frame.

    `at`: where it may come. `right`: one that may come there, made for the session. `wrong`: what only its meaning
    makes wrong. `idle`: frames that change nothing and end nothing, though nobody has asked for them. `ends`: whether a
    right one ends the session. `warns`: whether the log has a warning of it all the same.
    """

    at: frozenset[At]
    right: Callable[[Visit], Operation]
    wrong: tuple[Wrong, ...] = ()
    idle: tuple[Operation, ...] = ()
    ends: bool = False
    warns: bool = False


def _next(visit: Visit) -> Operation:
    """What an honest end would say now."""
    frame = visit.next()
    operations = frames.decode_payload(frame[4], frame[HEADER_BYTES:])
    assert operations is not None
    return operations[0]


def _fixed(operation: Operation) -> Callable[[Visit], Operation]:
    return lambda _: operation


def _said(*operations: Operation) -> Callable[[Visit], list[Operation]]:
    return lambda _: list(operations)


def _synced_as(**changed: Any) -> Callable[[Visit], list[Operation]]:
    return lambda visit: [sync(visit.creation, **changed)]


def _changed(**changed: Any) -> Callable[[Visit], list[Operation]]:
    """What an honest end would say now, but for some fields."""
    return lambda visit: [msgspec.structs.replace(_next(visit), **changed)]


HI = Raw(b"\xa2hi")
NOBODY = 10**9
"""A process that does not live, a reference that nobody gave."""
FAR = 2**63 - 1
LONG = "ä" * 200
"""A name of 200 characters and 400 bytes."""
GONE = "which it does not hold"
PID = "a pid that cannot be"
CLAIM = frames.NameClaimed(POSITION + 1, "mallory/next", 9, 3 << 16)
WITHDRAWAL = frames.NamesWithdrawn(POSITION + 1, ["mallory/old"], [2])
MOVE = frames.NameMoved(POSITION + 1, "mallory/old", 2, 9)
CONFIRMATION = frames.NameConfirmed(POSITION + 1, "mallory/new", 4)
RESUMED = frames.LedgerResumed(POSITION, FAR)
ENTRY = frames.GroupEntered(POSITION + 1, "rooms", 7)
CONTEST = frames.NameContested("nobody/has", 1, BOB, 1, 1, 1, 1, True)
LONG_ASK = frames.RegistrationAsked(1, "mallory/new", OWN, 60_000, "exit")
DEAD_ASK = frames.RegistrationAsked(1, "mallory/asked", NOBODY, 1000, "exit")


def _part(operation: Operation, **changed: Any) -> frames.Fragment:
    """All of an operation, in one fragment."""
    data = frames.encode_operation(operation)
    return msgspec.structs.replace(frames.Fragment(1, operation.TAG, len(data), data), **changed)


CALLED = frames.Called("kinfolk", None, 1, FAR, HI)
BEGUN = _part(CALLED, data=b"\x95")


def _taken_by(holder: Pid) -> Operation:
    return frames.AskAnswered(NOBODY, "taken", holder=holder)


TABLE: dict[type[Operation], Entry] = {
    frames.Hello: Entry(
        at=frozenset({At.NAME}),
        right=_next,
        wrong=(
            Wrong("another version", "version 2", _changed(version=2)),
            Wrong("a version beyond all", "version", _changed(version=FAR)),
            Wrong("another cluster", "in the cluster elsewhere", _changed(cluster="elsewhere")),
            Wrong("another purpose", "not spying", _changed(purpose="spying")),
            Wrong("expects another", "expected carl", _changed(expects="carl@127.0.0.1:9")),
            Wrong("expects what cannot be", "in the handshake", _changed(expects="carl")),
            Wrong("a name that cannot be", "in the handshake", _changed(name="no node")),
            Wrong("a cluster that cannot be", "in the handshake", _changed(cluster="no cluster")),
        ),
    ),
    frames.Challenge: Entry(
        at=frozenset({At.CHALLENGE}),
        right=_next,
        wrong=(
            Wrong("another version", "version 2", _changed(version=2)),
            Wrong("another cluster", "in the cluster elsewhere", _changed(cluster="elsewhere")),
            Wrong("another node", "expected mallory", _changed(name="carl@127.0.0.1:9")),
            Wrong("a name that cannot be", "in the handshake", _changed(name="no node")),
        ),
    ),
    frames.ChallengeReply: Entry(
        at=frozenset({At.REPLY}),
        right=_next,
        wrong=(Wrong("a wrong proof", "has not proved", _changed(proof=bytes(32))),),
    ),
    frames.ChallengeAck: Entry(
        at=frozenset({At.ACK}),
        right=_next,
        wrong=(Wrong("a wrong proof", "has not proved", _changed(proof=bytes(32))),),
    ),
    frames.Refusal: Entry(
        at=frozenset({At.CHALLENGE, At.ACK}), right=_fixed(frames.Refusal("cookie", "not you")), ends=True
    ),
    frames.Sent: Entry(at=GREETED, right=_fixed(frames.Sent(NOBODY, None, HI)), idle=(frames.Sent(FAR, FAR, HI),)),
    frames.SentToName: Entry(
        at=GREETED, right=_fixed(frames.SentToName("nobody", None, HI)), idle=(frames.SentToName(LONG, FAR, HI),)
    ),
    frames.Broadcast: Entry(
        at=GREETED,
        right=_fixed(frames.Broadcast("nobody is in it", None, HI)),
        idle=(frames.Broadcast(LONG, FAR, HI),),
    ),
    frames.Called: Entry(
        at=GREETED | WATCHERS,
        right=_fixed(frames.Called("kinfolk", None, 1, FAR, HI)),
        wrong=(
            Wrong("an observer asks a process", "may only call", _said(frames.Called(1, None, 1, 1000, HI)), WATCHERS),
            Wrong("an observer asks by name", "may only call", _said(frames.Called("ada", 1, 1, 1, HI)), WATCHERS),
        ),
    ),
    frames.Answered: Entry(
        at=GREETED,
        right=_fixed(frames.Answered(NOBODY, "ok", HI)),
        wrong=(Wrong("an observer answers", "not send Answered", _said(frames.Answered(1, "ok", HI)), WATCHERS),),
        idle=(frames.Answered(FAR, "never heard of", HI), frames.Answered(NOBODY, "noproc", HI)),
    ),
    frames.Fragment: Entry(
        at=GREETED | WATCHERS,
        right=_fixed(_part(CALLED)),
        wrong=(
            Wrong("of what has no body", "never in fragments", _said(_part(frames.Peers([])))),
            Wrong("of a fragment", "never in fragments", _said(_part(_part(CALLED)))),
            Wrong("of nothing", "of 0 bytes in all", _said(_part(CALLED, size=0))),
            Wrong("of more than a frame holds", "bytes in all", _said(_part(CALLED, size=MAX_OPERATION + 1))),
            Wrong("of more than there is", "bytes in all", _said(_part(CALLED, size=FAR))),
            Wrong("beyond its end", "goes beyond its 5 bytes", _said(_part(CALLED, size=5))),
            Wrong("of another size", "and began as", _said(BEGUN, msgspec.structs.replace(BEGUN, size=99))),
            Wrong("of another kind", "and began as", _said(BEGUN, msgspec.structs.replace(BEGUN, kind=0x35))),
            Wrong(
                "of one too many",
                f"{MAX_OPEN} with",
                _said(*(msgspec.structs.replace(BEGUN, number=number) for number in range(MAX_OPEN + 1))),
            ),
            Wrong(
                "of too many bytes",
                "one operation too many",
                _said(*(msgspec.structs.replace(BEGUN, number=number, size=MAX_OPERATION) for number in range(5))),
            ),
            Wrong("of what cannot be read", "Called (0x34) cannot be read", _said(_part(CALLED, size=1, data=b"\xc1"))),
            Wrong("of two operations", "cannot be read", _said(_part(CALLED, size=2, data=b"\xc0\xc0"))),
            Wrong("by an observer, of a message", "Sent (0x10)", _said(_part(frames.Sent(1, None, HI))), WATCHERS),
            Wrong(
                "by an observer, of a call to a process",
                "may only call",
                _said(_part(frames.Called(1, None, 1, 1000, HI))),
                WATCHERS,
            ),
        ),
        idle=(BEGUN, msgspec.structs.replace(BEGUN, number=FAR), _part(CALLED, number=2, kind=0x7E)),
    ),
    frames.ExitSignal: Entry(
        at=GREETED, right=_fixed(frames.ExitSignal(NOBODY, None, "kill")), idle=(frames.ExitSignal(FAR, FAR, "odd"),)
    ),
    frames.LinkMade: Entry(at=GREETED, right=_fixed(frames.LinkMade(NOBODY, 7)), idle=(frames.LinkMade(FAR, FAR),)),
    frames.LinkUndone: Entry(
        at=GREETED, right=_fixed(frames.LinkUndone(NOBODY, 7, 1)), idle=(frames.LinkUndone(FAR, FAR, FAR),)
    ),
    frames.UnlinkAcknowledged: Entry(
        at=GREETED,
        right=_fixed(frames.UnlinkAcknowledged(NOBODY, 7, 1)),
        idle=(frames.UnlinkAcknowledged(OWN, 7, FAR), frames.UnlinkAcknowledged(FAR, FAR, FAR)),
    ),
    frames.MonitorMade: Entry(
        at=GREETED,
        right=_fixed(frames.MonitorMade(1, NOBODY)),
        idle=(frames.MonitorMade(FAR, FAR), frames.MonitorMade(2, LONG)),
    ),
    frames.MonitorUndone: Entry(
        at=GREETED, right=_fixed(frames.MonitorUndone(NOBODY)), idle=(frames.MonitorUndone(FAR),)
    ),
    frames.MonitorFired: Entry(
        at=GREETED,
        right=_fixed(frames.MonitorFired(NOBODY, 7, "normal")),
        idle=(frames.MonitorFired(FAR, None, "never heard of", ["detail"]),),
    ),
    frames.SpawnAsked: Entry(
        at=GREETED,
        right=_fixed(frames.SpawnAsked(1, "os:system", None, False, None, None, Raw(b"\x91\xa2ls"))),
        warns=True,
    ),
    frames.SpawnAnswered: Entry(
        at=GREETED,
        right=_fixed(frames.SpawnAnswered(NOBODY, "ok", 7)),
        idle=(frames.SpawnAnswered(FAR, "never heard of", FAR, "\x1b[2J"),),
    ),
    frames.Peers: Entry(
        at=BEFORE_PEERS,
        right=_fixed(frames.Peers([BOB])),
        wrong=(
            Wrong("no address", "a peer that cannot be", _said(frames.Peers(["carl"]))),
            Wrong("port 0", "a peer that cannot be", _said(frames.Peers(["carl@host:0"]))),
            Wrong("port 65536", "a peer that cannot be", _said(frames.Peers([BOB, "carl@host:65536"]))),
            Wrong("a line break", "a peer that cannot be", _said(frames.Peers(["carl\n@host:1"]))),
            Wrong("more than a mesh has", "Peers", _said(frames.Peers(["a@b:1"] * (frames.MAX_PEERS + 1)))),
            Wrong("short creations", "unequal length", _said(frames.Peers([BOB, MALLORY], creations=[1]))),
            Wrong("twice", "a second time", _said(frames.Peers([]), frames.Peers([]))),
        ),
    ),
    frames.Ping: Entry(at=GREETED | WATCHERS, right=_fixed(frames.Ping(FAR))),
    frames.Pong: Entry(at=GREETED | WATCHERS, right=_fixed(frames.Pong(NOBODY)), idle=(frames.Pong(FAR),)),
    frames.NodeLeft: Entry(
        at=GREETED,
        right=lambda visit: frames.NodeLeft(visit.creation),
        wrong=(
            Wrong("a creation before", "leaves in creation", lambda visit: [frames.NodeLeft(visit.creation - 1)]),
            Wrong("a creation to come", "leaves in creation", _said(frames.NodeLeft(FAR))),
        ),
        ends=True,
    ),
    frames.StallPort: Entry(
        at=GREETED,
        right=_fixed(frames.StallPort(1, FAR, bytes(32))),
        idle=(frames.StallPort(65535, 0, bytes(32)), frames.StallPort(65535, 0, bytes(32))),
    ),
    frames.Rest: Entry(
        at=GREETED,
        right=_fixed(frames.Rest(True)),
        wrong=(Wrong("a no that nobody has asked for", "was not asked to end", _said(frames.Rest(False))),),
        idle=(frames.Rest(True), frames.Rest(True)),
    ),
    frames.Goodbye: Entry(
        at=BEFORE_PEERS | GREETED | WATCHERS, right=_fixed(frames.Goodbye("closed", "bye\x1b[2J")), ends=True
    ),
    frames.NameClaimed: Entry(
        at=GREETED - UNTOLD,
        right=_fixed(CLAIM),
        wrong=(
            Wrong("an entry again", "follows entry", _said(msgspec.structs.replace(CLAIM, position=POSITION))),
            Wrong("entry 0", "follows entry", _said(msgspec.structs.replace(CLAIM, position=0))),
            Wrong("a gap", "follows entry", _said(msgspec.structs.replace(CLAIM, position=POSITION + 2))),
            Wrong("the last entry of all", "follows entry", _said(msgspec.structs.replace(CLAIM, position=FAR))),
            Wrong("the same frame again", "follows entry", _said(CLAIM, CLAIM)),
            Wrong(
                "a name that it has",
                "twice",
                _said(CLAIM, msgspec.structs.replace(CLAIM, position=POSITION + 2)),
            ),
            Wrong("400 bytes of name", "400 bytes", _said(msgspec.structs.replace(CLAIM, name=LONG))),
        ),
    ),
    frames.NamesWithdrawn: Entry(
        at=GREETED - UNTOLD,
        right=_fixed(WITHDRAWAL),
        wrong=(
            Wrong("a gap", "follows entry", _said(msgspec.structs.replace(WITHDRAWAL, position=POSITION + 2))),
            Wrong("the same frame again", "follows entry", _said(WITHDRAWAL, WITHDRAWAL)),
            Wrong("twice in one", GONE, _said(frames.NamesWithdrawn(6, ["mallory/old"] * 2, [2, 2])), SYNCED),
            Wrong("what it never had", GONE, _said(frames.NamesWithdrawn(6, ["never"], [1])), SYNCED),
            Wrong("another claim", GONE, _said(frames.NamesWithdrawn(6, ["mallory/old"], [4])), SYNCED),
            Wrong("bob's name", GONE, _said(frames.NamesWithdrawn(6, ["bob/own"], [1])), SYNCED),
            Wrong("our name", GONE, _said(frames.NamesWithdrawn(6, ["ada/own"], [1])), SYNCED),
            Wrong("unequal columns", "unequal", _said(frames.NamesWithdrawn(6, ["mallory/old"], []))),
            Wrong("nothing", "withdraws nothing", _said(frames.NamesWithdrawn(6, [], []))),
            Wrong("a group it is not in", "no member", _said(frames.NamesWithdrawn(6, [], [], ["rooms"], 7)), SYNCED),
        ),
    ),
    frames.NameMoved: Entry(
        at=GREETED - UNTOLD,
        right=_fixed(MOVE),
        wrong=(
            Wrong("a gap", "follows entry", _said(msgspec.structs.replace(MOVE, position=POSITION + 2))),
            Wrong("the same frame again", "follows entry", _said(MOVE, MOVE)),
            Wrong("what it never had", GONE, _said(frames.NameMoved(6, "never", 1, 9)), SYNCED),
            Wrong("another claim", GONE, _said(frames.NameMoved(6, "mallory/old", 4, 9)), SYNCED),
            Wrong("bob's name", GONE, _said(frames.NameMoved(6, "bob/own", 1, 9)), SYNCED),
        ),
    ),
    frames.LedgerSynced: Entry(
        at=GREETED,
        right=lambda visit: sync(visit.creation),
        wrong=(
            Wrong("an older creation", "sync", lambda visit: [sync(visit.creation - 1)]),
            Wrong("a later creation", "sync", lambda visit: [sync(FAR)]),
            Wrong("short names", "unequal length", _synced_as(names=["mallory/old"])),
            Wrong("short locals", "unequal length", _synced_as(locals=[])),
            Wrong("short positions", "unequal length", _synced_as(positions=[2])),
            Wrong("short stamps", "unequal length", _synced_as(stamps=[])),
            Wrong("long confirmed", "unequal length", _synced_as(confirmed=[True] * 3)),
            Wrong("400 bytes of name", "400 bytes", _synced_as(names=["mallory/old", LONG])),
            Wrong("two claims of one name", "syncs", _synced_as(names=["mallory/new"] * 2)),
            Wrong("a claim of the future", "claimed at", _synced_as(positions=[2, POSITION + 1])),
            Wrong("a claim before the first", "claimed at", _synced_as(positions=[0, 4])),
            Wrong("a gap", "while its mirror is at", _synced_as(position=POSITION + 1), frozenset({At.SYNCING})),
            Wrong("short groups", "unequal length", _synced_as(members=[7])),
            Wrong("heirs of nobody", "unequal length", _synced_as(heirs=[0])),
            Wrong("400 bytes of group", "400 bytes", _synced_as(groups=[LONG], members=[7])),
        ),
    ),
    frames.LedgerResumed: Entry(
        at=frozenset({At.OFFERED}),
        right=_fixed(frames.LedgerResumed(POSITION, POSITION + 1)),
        wrong=(
            Wrong("from elsewhere", "not offered", _said(frames.LedgerResumed(POSITION - 1, FAR))),
            Wrong("into the past", "not offered", _said(frames.LedgerResumed(POSITION, 0))),
            Wrong("twice", "not offered", _said(RESUMED, RESUMED)),
        ),
    ),
    frames.ResyncAsked: Entry(
        at=GREETED, right=_fixed(frames.ResyncAsked(1)), idle=(frames.ResyncAsked(0), frames.ResyncAsked(FAR))
    ),
    frames.GroupEntered: Entry(
        at=GREETED - UNTOLD,
        right=_fixed(ENTRY),
        wrong=(
            Wrong("a gap", "follows entry", _said(msgspec.structs.replace(ENTRY, position=POSITION + 2))),
            Wrong("the same frame again", "follows entry", _said(ENTRY, ENTRY)),
            Wrong("twice", "twice", _said(ENTRY, msgspec.structs.replace(ENTRY, position=POSITION + 2))),
            Wrong("400 bytes of group", "400 bytes", _said(msgspec.structs.replace(ENTRY, group=LONG))),
        ),
    ),
    frames.NameConfirmed: Entry(
        at=GREETED - UNTOLD,
        right=_fixed(CONFIRMATION),
        wrong=(
            Wrong("a gap", "follows entry", _said(msgspec.structs.replace(CONFIRMATION, position=POSITION + 2))),
            Wrong("the same frame again", "follows entry", _said(CONFIRMATION, CONFIRMATION)),
            Wrong("what it never had", GONE, _said(frames.NameConfirmed(6, "never", 1)), SYNCED),
            Wrong("another claim", GONE, _said(frames.NameConfirmed(6, "mallory/new", 2)), SYNCED),
            Wrong("bob's name", GONE, _said(frames.NameConfirmed(6, "bob/own", 1)), SYNCED),
        ),
    ),
    frames.Acknowledged: Entry(
        at=GREETED,
        right=_fixed(frames.Acknowledged([1, 2])),
        wrong=(
            Wrong("what was never said", "acknowledges ledger entry", _said(frames.Acknowledged([1, 1000]))),
            Wrong("what never will be", "acknowledges ledger entry", _said(frames.Acknowledged([FAR]))),
            Wrong("through what never will be", "acknowledges ledger entry", _said(frames.Acknowledged([], FAR))),
        ),
        idle=(frames.Acknowledged([]), frames.Acknowledged([], 1), frames.Acknowledged([1] * 1000)),
    ),
    frames.NameContested: Entry(
        at=GREETED,
        right=_fixed(CONTEST),
        wrong=(
            Wrong("no node", "a node that cannot be", _said(msgspec.structs.replace(CONTEST, node="carl"))),
            Wrong("a host that is none", "cannot be", _said(msgspec.structs.replace(CONTEST, node="carl@a b:1"))),
        ),
        idle=(
            frames.NameContested("ada/own", NOBODY, BOB, 1, 1, 1, 0, True),  # not the claim that stands
            frames.NameContested("ada/own", 1, BOB, 1, 1, 1, 0, True),  # bob has told us himself
            frames.NameContested("bob/own", 1, MALLORY, FAR, FAR, FAR, FAR, True),  # not our name
            frames.NameContested("ada/own", 1, "carl@127.0.0.1:9", 1, 1, 1, 0, True),  # confirmed: not at once
            frames.NameContested("ada/own", 1, "carl@127.0.0.1:9", 1, 1, 1, 0, False),  # of lower rank
        ),
    ),
    frames.RegistrationAsked: Entry(
        at=GREETED,
        right=_fixed(DEAD_ASK),
        wrong=(
            Wrong("400 bytes of name", "400 bytes", _said(msgspec.structs.replace(DEAD_ASK, name=LONG))),
            Wrong("a reference under way", "a second time", _said(LONG_ASK, LONG_ASK), SYNCED),
        ),
        idle=(
            frames.RegistrationAsked(2, "bob/own", 1, 0, "exit"),
            frames.RegistrationAsked(FAR, "x", NOBODY, FAR, "no such word"),
        ),
    ),
    frames.UnregistrationAsked: Entry(
        at=GREETED,
        right=_fixed(frames.UnregistrationAsked(1, "never", 1, 1000)),
        idle=(
            frames.UnregistrationAsked(2, "ada/own", NOBODY, FAR),
            frames.UnregistrationAsked(3, "bob/own", 1, 0),
        ),
    ),
    frames.TransferAsked: Entry(
        at=GREETED,
        right=_fixed(frames.TransferAsked(1, "never", 1, Pid(BOB, 1, 1), 1000)),
        wrong=(
            Wrong("a holder without a node", PID, _said(frames.TransferAsked(2, "ada/own", 1, Pid("carl", 1, 1), 0))),
            Wrong("a holder below 0", PID, _said(frames.TransferAsked(2, "ada/own", 1, Pid(BOB, 1, -1), 0))),
        ),
        idle=(
            frames.TransferAsked(3, "ada/own", NOBODY, Pid(BOB, 1, 1), FAR),
            frames.TransferAsked(4, "bob/own", 1, Pid(BOB, 1, 1), 0),
            frames.TransferAsked(5, "ada/own", 1, Pid("nobody@10.9.9.9:1", 1, 1), 1000),
        ),
    ),
    frames.SuccessionAsked: Entry(
        at=GREETED,
        right=_fixed(frames.SuccessionAsked(1, "never", 1, OWN, "exit")),
        idle=(
            frames.SuccessionAsked(2, "ada/own", 1, OWN, "exit"),
            frames.SuccessionAsked(3, "bob/own", 1, OWN, "never heard of"),
            frames.SuccessionAsked(4, "mallory/new", NOBODY, NOBODY, "exit"),
        ),
    ),
    frames.SuccessionAnswered: Entry(
        at=GREETED,
        right=_fixed(frames.SuccessionAnswered(NOBODY, "ready")),
        idle=(
            frames.SuccessionAnswered(FAR, "dead", "\x1b[2J"),
            frames.SuccessionAnswered(0, "never heard of"),
        ),
    ),
    frames.SuccessionRevoked: Entry(
        at=GREETED,
        right=_fixed(frames.SuccessionRevoked(NOBODY)),
        idle=(frames.SuccessionRevoked(FAR),),
    ),
    frames.AskAnswered: Entry(
        at=GREETED,
        right=_fixed(frames.AskAnswered(NOBODY, "ok", 1, 1)),
        wrong=(
            Wrong("a holder without a node", "a pid that cannot be", _said(_taken_by(Pid("carl", 1, 1)))),
            Wrong("a holder below 0", "a pid that cannot be", _said(_taken_by(Pid(BOB, 1, -1)))),
            Wrong("a holder beyond 63 bits", "a pid that cannot be", _said(_taken_by(Pid(BOB, 2**63, 1)))),
        ),
        idle=(
            frames.AskAnswered(NOBODY, "taken", holder=Pid(BOB, 1, 1)),
            frames.AskAnswered(NOBODY, "taken"),
            frames.AskAnswered(NOBODY, "missing", missing=["no node"]),
            frames.AskAnswered(FAR, "never heard of", detail="\x1b[2J"),
        ),
    ),
    frames.AskSettled: Entry(
        at=GREETED,
        right=_fixed(frames.AskSettled(NOBODY, True)),
        idle=(frames.AskSettled(NOBODY, False), frames.AskSettled(FAR, False)),
    ),
}  # fmt: skip


def entry_of(kind: type[Operation]) -> Entry:
    """Its entry in the table."""
    assert kind in TABLE, (
        f"no entry for {kind.__name__}: add one to TABLE in {__name__}, which says where such a frame may come, how a"
        " right one looks, what only its meaning makes wrong (each with the words of the log line), and which of them"
        " change nothing although nobody has asked for them"
    )
    return TABLE[kind]


# --- wrong whatever it means: generated from the class ---

_EVERY_KIND: dict[type[inspect.Type], Any] = {
    inspect.NoneType: None,
    inspect.BoolType: True,
    inspect.IntType: 1,
    inspect.FloatType: 1.5,
    inspect.StrType: "x",
    inspect.BytesType: b"x",
    inspect.ListType: [],
    inspect.DictType: {},
    inspect.ExtType: msgspec.msgpack.Ext(5, b"x"),
}
_NOT_UTF8 = Raw(b"\xa1\xff")
_RESERVED = Raw(b"\xc1")


def wrong_values(kind: inspect.Type) -> list[Any]:
    """What a field of this type must not be: every other kind of value, and whatever is beyond its limits."""
    if isinstance(kind, inspect.UnionType):
        wrong = [wrong_values(member) for member in kind.types]
        return [value for value in wrong[0] if all(_among(value, others) for others in wrong[1:])]
    if isinstance(kind, inspect.RawType):
        return [_RESERVED]
    own = inspect.ListType if isinstance(kind, inspect.StructType | inspect.TupleType) else type(kind)
    assert own in _EVERY_KIND, f"say in {__name__} what is wrong for a field of type {kind}"
    return [value for other, value in _EVERY_KIND.items() if other is not own] + [_RESERVED, *_beyond(kind)]


def _beyond(kind: inspect.Type) -> Iterator[Any]:
    match kind:
        case inspect.IntType(ge=least, le=most):
            assert least is not None and most is not None, "a number has limits"
            yield from (least - 1, -(2**63), most + 1, 2**64 - 1)
        case inspect.StrType(min_length=least, max_length=most):
            yield _NOT_UTF8
            if least:
                yield ""
            if most:
                yield "x" * (most + 1)
        case inspect.BytesType(min_length=least, max_length=most):
            assert least and most, "bytes have limits"
            yield from (bytes(least - 1), bytes(most + 1))
        case inspect.ListType(item_type=item):
            yield from ([value] for value in wrong_values(item))
        case inspect.StructType():
            yield []
        case inspect.TupleType(item_types=items):
            right = [BOB, 1, 1]
            yield from ([], right[:-1], [*right, 1])
            for index, item in enumerate(items):
                yield from ([*right[:index], value, *right[index + 1 :]] for value in wrong_values(item))
        case _:
            pass


def _among(value: Any, values: list[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)


def misshapen(operation: Operation) -> Iterator[tuple[str, bytes]]:
    """Frames that are like one with this operation, but cannot be read: what is wrong, and the frame."""
    kind = type(operation)
    payload = encode_frame([operation])[HEADER_BYTES:]
    for size in range(len(payload)):
        yield f"cut after {size} bytes", framed(kind.TAG, payload[:size])
    yield "a byte too much", framed(kind.TAG, payload + b"\xc0")
    yield "no operations", framed(kind.TAG, b"\x90")
    yield "no array", framed(kind.TAG, b"\x80")
    yield "an operation that is none", framed(kind.TAG, b"\x91\xc0")
    yield "a right one and a wrong one", framed(kind.TAG, b"\x92" + payload[1:] + b"\xc0")
    yield "four milliards of operations", framed(kind.TAG, b"\xdd\xff\xff\xff\xff")
    yield "four milliards of fields", framed(kind.TAG, b"\x91\xdd\xff\xff\xff\xff")
    yield "nested beyond the stack", framed(kind.TAG, b"\x91" * 4000)
    fields = inspect.type_info(kind)
    assert isinstance(fields, inspect.StructType)
    values = [getattr(operation, field.name) for field in fields.fields]
    required = sum(field.required for field in fields.fields)
    for count in range(required):
        yield f"{count} of {required} fields", framed(kind.TAG, msgspec.msgpack.encode([values[:count]]))
    for index, field in enumerate(fields.fields):
        for value in wrong_values(field.type):
            changed = [*values[:index], value, *values[index + 1 :]]
            yield f"{field.name} = {str(value)[:20]!r}", framed(kind.TAG, msgspec.msgpack.encode([changed]))


def heads(at: At) -> Iterator[tuple[str, bytes, str]]:
    """Heads of frames that cannot be: what is wrong, the bytes, and what the log says."""
    most = MAX_FRAME_BEFORE_AUTHENTICATION if at in HANDSHAKES else MAX_FRAME
    yield "length 0", bytes(4), "length 0"
    yield "a byte too long", (most + 1).to_bytes(4, "little"), f"{most + 1} bytes: at most {most}"
    yield "4 GiB", b"\xff\xff\xff\xff", f"at most {most}"


def framed(tag: int, payload: bytes) -> bytes:
    """A frame of any payload."""
    return (len(payload) + 1).to_bytes(4, "little") + bytes((tag,)) + payload


def out_of_place(at: At) -> Iterator[tuple[type[Operation], str]]:
    """The kinds that may not come there, and how the log names them."""
    for kind in FRAMES:
        entry = entry_of(kind)
        if at not in entry.at and not any(wrong.at != frozenset(At) and at in wrong.at for wrong in entry.wrong):
            yield kind, kind.__name__ if at in HANDSHAKES or kind.TAG in HANDSHAKE else _place(kind, at)


def _place(kind: type[Operation], at: At) -> str:
    if at in BEFORE_PEERS:
        return "instead of its list of peers"
    if at in WATCHERS:
        return frame_name(kind.TAG)
    if kind is frames.Peers:
        return "a second time"
    if kind is frames.LedgerResumed:
        return "not offered"
    return "before it has begun to sync it"


def example(kind: type[Operation]) -> Operation:
    """A frame of this kind that is right by itself."""
    return VECTORS[kind].operations[0]
