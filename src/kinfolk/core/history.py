"""What has happened to names here, so that people can ask why a name is where it is.

It is kept beside the name table, which needs none of it: a bounded number of short entries, each written in the step
in which the thing happened, and looked through only when somebody asks. There are three rings, so that no kind of entry
drives out another: what this node did to its own claims, which nobody else can tell; what peers told of theirs; and
peers that came and went. A peer that comes or goes is one entry, however many names come and go with it.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from kinfolk.core.changes import Cause
from kinfolk.core.ledger import Claim, Identity
from kinfolk.ids import Pid

ROOM = 10_000
"""Claims that the entries of a ring speak of, together; and names of lost peers that are remembered."""
_PEERS = 1000
"""Peers that came or went."""
_REASON = 200
"""Characters of the reason of an exit."""
_CONTESTS = 1000
"""Contests that are known: they are repeated with each heartbeat, and told of once."""

Ending = Literal["peer lost", "peer left", "superseded", "replaced"]
What = (
    Cause | Literal["claimed", "confirmed", "moved", "withdrawn", "lost", "contested", "challenged", "peer up"] | Ending
)
"""What has happened: to a claim, or to the peer that had it."""


class Entry(NamedTuple):
    """One thing that has happened."""

    order: int
    """Among all entries."""
    at: int
    """Milliseconds since 1970."""
    what: What
    claims: Sequence[Claim]
    """What it happened to."""
    other: Pid | None
    """Who has the name instead."""
    peers: Sequence[str]
    """Who did it, or was waited for."""
    text: str
    """A reason in words."""


_Raw = tuple[int, int, What, Sequence[Claim], Pid | None, Sequence[str], str]
"""The fields of an Entry: a plain tuple takes a third of the time, and most entries are never looked at."""


class _Ring:
    """The last entries, which speak of so many claims at most."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._claims = 0
        self.entries: deque[_Raw] = deque()

    def append(self, entry: _Raw) -> None:
        self.entries.append(entry)
        self._claims += len(entry[3])
        while self._claims > self._room and len(self.entries) > 1:  # the last stays, however much it speaks of
            self._claims -= len(self.entries.popleft()[3])


class _Session(Struct):
    """A session that has opened (`entry.what` is "peer up") or ended."""

    entry: Entry
    creation: int
    position: int = 0
    """Up to where the peer's ledger was known when it ended."""
    claims: Mapping[str, Claim] | None = None
    """The claims that went with it; None if there were too many to remember."""


class History:
    """What has happened to names on one node.

    Args:
        room: claims that each ring speaks of.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._own, self._told = _Ring(room), _Ring(room)
        self._sessions: deque[_Session] = deque(maxlen=_PEERS)
        self._losses: deque[_Session] = deque()  # those of them whose claims are remembered
        self._remembered = 0
        self._exits: dict[int, str] = {}  # the reasons of processes that had names, by local id
        self._contests: dict[tuple[Identity, Identity], None] = {}
        self._count = 0

    # --- what happens ---

    def own(
        self,
        at: int,
        what: What,
        claims: Sequence[Claim],
        other: Pid | None = None,
        peers: Sequence[str] = (),
    ) -> None:
        """Something happened to claims of this node."""
        self._count += 1
        self._own.append((self._count, at, what, claims, other, peers, ""))

    def told(self, at: int, what: What, claims: Sequence[Claim], other: Pid | None = None) -> None:
        """A peer has told what happened to claims of its own."""
        self._count += 1
        self._told.append((self._count, at, what, claims, other, (), ""))

    def contested(self, at: int, what: Literal["contested", "challenged"], loser: Claim, winner: Claim) -> None:
        """Of two claims one stands behind the other, and its node is told; or we are, by somebody who sees both."""
        key = loser.identity, winner.identity
        if key in self._contests:
            return
        self._contests[key] = None
        if len(self._contests) > _CONTESTS:
            del self._contests[next(iter(self._contests))]
        self.own(at, what, (loser,), winner.pid)

    def exited(self, local: int, reason: str) -> None:
        """A process of this node that had names is dead."""
        self._exits[local] = reason[:_REASON]
        if len(self._exits) > self._room:
            del self._exits[next(iter(self._exits))]

    def reason_of(self, local: int) -> str:
        """Why a process of this node is dead, as far as that is remembered."""
        return self._exits.get(local, "")

    def peer_up(self, at: int, peer: str, creation: int) -> None:
        """A session has opened."""
        self._sessions.append(_Session(self._session(at, "peer up", peer, ""), creation))

    def peer_down(
        self, at: int, what: Ending, peer: str, creation: int, reason: str, position: int, claims: Mapping[str, Claim]
    ) -> None:
        """A session has ended, and with it these claims went out of sight."""
        session = _Session(self._session(at, what, peer, reason), creation, position)
        self._sessions.append(session)
        if len(claims) > self._room:
            return
        session.claims = dict(claims)
        self._losses.append(session)
        self._remembered += len(claims)
        while self._remembered > self._room or self._losses[0].entry.order < self._sessions[0].entry.order:
            oldest = self._losses.popleft()
            assert oldest.claims is not None, "it is among those with claims"
            self._remembered -= len(oldest.claims)
            oldest.claims = None

    def _session(self, at: int, what: What, peer: str, reason: str) -> Entry:
        self._count += 1
        return Entry(self._count, at, what, (), None, (peer,), reason)

    # --- what has happened ---

    def of(self, name: str, live: Iterable[Claim]) -> list[Entry]:
        """What has happened to a name, in order; in each entry, the claim of that name alone.

        Args:
            live: its claims that are known now, also in the kept mirrors of lost peers: they show which peers took
                the name with them that had too many to remember.
        """
        found = [
            Entry._make(entry)._replace(claims=(claim,))
            for ring in (self._own, self._told)
            for entry in ring.entries
            for claim in entry[3]
            if claim.name == name
        ]
        found.sort(key=_order)
        known = {claim.identity: claim for claim in live}
        known.update((entry.claims[0].identity, entry.claims[0]) for entry in found)
        return sorted(found + self._sessions_of(name, list(known.values()), found), key=_order)

    def _sessions_of(self, name: str, known: Sequence[Claim], found: Sequence[Entry]) -> list[Entry]:
        """Sessions that ended while their peer had the name, those after them, and those that brought the name."""
        sessions: set[Entry] = set()
        lost: set[str] = set()
        for session in self._sessions:
            entry = session.entry
            peer = entry.peers[0]
            if entry.what == "peer up":
                if peer in lost:
                    sessions.add(entry)
                lost.discard(peer)
                continue
            gone = _went_with(session, name, known, found)
            if gone is not None:
                lost.add(peer)
                sessions.add(entry._replace(claims=(gone,)))
        return [*sessions, *filter(None, {self._brought(claim, found) for claim in known} - sessions)]

    def _brought(self, claim: Claim, found: Sequence[Entry]) -> Entry | None:
        """The session in which a peer told of its claim among all others, unless it told of it when it was made."""
        told = [entry for entry in found if entry.claims[0].identity == claim.identity]
        if any(entry.what in ("claimed", "moved") for entry in told):
            return None
        origin, before = (claim.pid.node, claim.pid.creation), told[0].order if told else self._count + 1
        brought: Entry | None = None
        for session in self._sessions:
            entry = session.entry
            if entry.what == "peer up" and (entry.peers[0], session.creation) == origin and entry.order < before:
                brought = entry
        return brought


def _went_with(session: _Session, name: str, known: Iterable[Claim], found: Iterable[Entry]) -> Claim | None:
    """The claim of a name that went out of sight when a session ended."""
    if session.claims is not None:
        return session.claims.get(name)
    peer, ended = (session.entry.peers[0], session.creation), session.entry.order
    theirs = [claim for claim in known if (claim.pid.node, claim.pid.creation) == peer]
    last = max((each for each in theirs if each.position <= session.position), key=_position, default=None)
    withdrawn = [entry.claims[0] for entry in found if entry.what == "withdrawn" and entry.order < ended]
    return last if last not in withdrawn else None


def _order(entry: Entry) -> int:
    return entry.order


def _position(claim: Claim) -> int:
    return claim.position
