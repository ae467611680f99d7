"""Who is connected, whom to dial, and which of two connections to keep.

There is at most one session for each (peer, creation), and both ends must agree on which. Each end decides twice at
most, with what it knows then:

- the listener, when the dialler has proved itself (`admit`): of two dials in progress the smaller name's goes on;
- each end, when the session could open (`open`): the dialler at the listener's ACK, the listener at the dialler's first
  frame past it. Until that frame nothing of an older session is touched, so a dialler that changes its mind at ACK
  leaves no trace at the other end.

A dial against an established session is a sign that the other end has lost that session, and replaces it.
"""

from collections.abc import Mapping
from enum import Enum
from math import inf

from msgspec import Struct

from kinfolk.core.mirror import Fact
from kinfolk.core.silence import Signs
from kinfolk.ids import Address, Seed, node_address


class Session(Struct):
    """An open session with a peer."""

    conn: int
    peer: str
    creation: int
    dialled: bool
    since: int
    """When it opened, in the order of this node's events."""
    opened: float
    """When it opened, in seconds."""
    signs: Signs
    """When it gave which sign of life."""
    greeted: bool = False
    """Whether the peer's list of peers has come."""
    listed: Mapping[str, int] = {}
    """That list, with creations; 0 for one that is not known."""
    synced: bool = False
    """Whether the peer's sync has ended: all its names are here."""
    parts: int = 0
    """How many parts of the peer's sync, or entries that it catches us up on, have come with something in them."""
    unsent: list[Fact] = []
    """Facts of ours that the sync has yet to come to, the next one last."""
    resumes: int | None = None
    """The entry of our ledger up to which a peer that goes on with an old mirror has been told."""
    told: bool = False
    """Whether new entries of our ledger go to it at once."""
    mistrusted: bool = False
    """Whether our mirror of it has been found wrong, and its sync has yet to begin anew."""
    resting: bool = False
    """Whether one of the two has asked to end it, for want of anything to say, and this end waits or agrees."""
    asked: float = 0.0
    """When this end has asked."""
    stalled: bool = False
    """Whether it is known as one whose loop stands still."""
    round_trip: float | None = None
    """The seconds that it took to answer a sign of life, the last time."""


class Candidate(Struct, frozen=True):
    """A proved dialler whose session has not opened yet."""

    peer: str
    creation: int
    since: int


class Target(Struct):
    """Somebody we want a session with: a seed, or a peer that we know or knew."""

    seed: Seed
    answers: str
    """The name of the node there, empty while it is not known."""
    conn: int | None = None
    """The dial in progress."""
    expected: str = ""
    """The name that the last dial expected, empty for any."""
    attempts: int = 0
    """Dials that failed since the last success."""
    refused: bool = False
    """The last dial ended in a refusal that trying again will not change."""
    asked_for: bool = False
    """Whether the user named it to join: then it is dialled even after it has closed or left, for its next start."""
    wanted_since: float = 0.0
    """Since when we have been without a session, in seconds."""


class Verdict(Enum):
    """What to do with a connection that could become a session."""

    ADMIT = "admit"
    DUPLICATE = "duplicate"
    """The other dial, or the session that is there, is the one to keep."""
    STALE = "stale"
    """A newer start of that node is known: this one is dead or has been replaced."""
    LEFT = "left"
    """This start of that node has said that it leaves."""


class Members:
    """One node's sessions, dials and targets.

    Args:
        name: of the node.
        forget_after: seconds after its last session for which the creation of a peer is remembered.
    """

    def __init__(self, name: str, forget_after: float = inf) -> None:
        self.name = name
        self._forget_after = forget_after
        self.sessions: dict[int, Session] = {}
        self.by_peer: dict[str, Session] = {}
        self.candidates: dict[int, Candidate] = {}
        self.targets: dict[Address, Target] = {}
        self.dials: dict[int, Target] = {}
        self.creations: dict[str, int] = {}
        """The highest creation seen of each node: an older start of it, which has not noticed yet that it has been
        replaced, is refused. When nothing was seen of a node for `forget_after`, any start of it is as good as new."""
        self.left: set[str] = set()
        """The nodes that have left in that creation."""
        self._last_heard: dict[str, float] = {}  # of those without a session, in the order in which theirs ended
        self._events = 0

    def admit(self, conn: int, peer: str, creation: int) -> Verdict:
        """A dialler has proved itself to us, the listener."""
        self._events += 1
        over = self._over(peer, creation)
        if over is not None:
            return over
        if self.name < peer and any(_leads_to(target, peer) for target in self.dials.values()):
            return Verdict.DUPLICATE
        self.candidates[conn] = Candidate(peer, creation, self._events)
        return Verdict.ADMIT

    def open(self, conn: int, peer: str, creation: int, dialled: bool) -> Verdict:
        """A session could open. On ADMIT, the caller ends the one that the peer may still have, then calls `opened`."""
        self._events += 1
        candidate = self.candidates.pop(conn, None)
        over = self._over(peer, creation)
        if over is not None:
            return over
        there = self.by_peer.get(peer)
        if there is not None and there.creation == creation:
            if dialled:
                # Reached by two addresses, the first session stays. Dialled by both, the smaller name's dial does.
                keep = there.dialled or peer < self.name
            else:
                # Admitted before our own dial had opened: both were in progress, and the smaller name's dial stays.
                # Admitted after: the peer has lost the session that we still see, or would not have gone on past ACK.
                keep = there.dialled and self.name < peer and candidate is not None and candidate.since < there.since
            return Verdict.DUPLICATE if keep else Verdict.ADMIT
        if (
            dialled
            and peer < self.name
            and any(other.peer == peer and other.creation == creation for other in self.candidates.values())
        ):
            return Verdict.DUPLICATE  # theirs has our ACK, and its first frame is on the way
        return Verdict.ADMIT

    def opened(self, conn: int, peer: str, creation: int, dialled: bool, now: float) -> Session:
        """Take the session in."""
        session = Session(conn, peer, creation, dialled, self._events, now, Signs(now))
        self.sessions[conn] = self.by_peer[peer] = session
        self.creations[peer] = creation
        self.left.discard(peer)
        self._last_heard.pop(peer, None)
        self._forget(now)
        return session

    def closed(self, conn: int) -> Session | None:
        """A connection has ended. Returns the session that ended with it, if there was one."""
        self._events += 1
        self.candidates.pop(conn, None)
        session = self.sessions.pop(conn, None)
        if session is not None:
            del self.by_peer[session.peer]
            self._last_heard[session.peer] = session.signs.heard
        return session

    def leaves(self, session: Session) -> None:
        """The peer has said that it leaves: this start of it is over. To be told before the session is closed."""
        self.left.add(session.peer)

    def listed_by(self, session: Session) -> list[str]:
        """The nodes that a peer has listed, but for those that have left in that creation."""
        return [
            peer
            for peer, creation in session.listed.items()
            if not (peer in self.left and 0 < creation <= self.creations[peer])
        ]

    def _over(self, peer: str, creation: int) -> Verdict | None:
        """Why there is no session with this start of a node any more; None if there can be one."""
        known = self.creations.get(peer, 0)
        if creation < known:
            return Verdict.STALE
        return Verdict.LEFT if creation == known and peer in self.left else None

    def _forget(self, now: float) -> None:
        """Forget the creations of those who have been gone for long. Only a new session makes the memory grow."""
        while self._last_heard:
            peer, heard = next(iter(self._last_heard.items()))
            if now - heard <= self._forget_after:
                return
            del self._last_heard[peer], self.creations[peer]
            self.left.discard(peer)

    def target(self, seed: Seed, now: float) -> Target:
        """The target at the seed's address, made if it is new."""
        target = self.targets.get(seed.address)
        if target is None:
            target = self.targets[seed.address] = Target(seed, seed.expects, wanted_since=now)
        elif seed.expects and seed.expects != target.seed.expects:
            target.seed, target.answers = seed, seed.expects  # the last we heard of who is there
        elif not seed.expects and target.refused:
            target.seed, target.answers = seed, ""  # refused while we expected somebody: now whoever is there is meant
        return target

    def session_with(self, target: Target) -> Session | None:
        """The session that makes dialling this target unnecessary."""
        return self.by_peer.get(target.answers) if target.answers else None

    def expects(self, target: Target) -> bool:
        """Whether whom we would dial has dialled us, and its session is about to open."""
        return any(_leads_to(target, candidate.peer) for candidate in self.candidates.values())

    def dial(self, target: Target, conn: int) -> None:
        """A dial begins."""
        target.conn, target.expected = conn, target.seed.expects
        self.dials[conn] = target

    def dial_ended(self, conn: int) -> Target | None:
        """A dial is over, one way or the other. None if it was given up before."""
        target = self.dials.pop(conn, None)
        if target is not None:
            target.conn = None
        return target


def _leads_to(target: Target, peer: str) -> bool:
    """Whether a dial of the target reaches this peer, as far as we know: by its name, or else by the address in it."""
    known = target.answers or target.seed.expects
    return known == peer if known else target.seed.address == node_address(peer)
