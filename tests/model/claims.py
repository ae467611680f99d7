"""The registry as an executable model: one node, every rule in as few words as it takes.

This is the specification that `kinfolk.core` is compared with. It has no bytes, no sockets and no bounds but one; what
it keeps is every order in which things can happen. Each rule that matters is a *guard*: it can be left out, and then
some schedule of `tests.model.network` must show what breaks.

Words: a *ledger* is the log of one node's own facts, told by that node alone. A *mirror* is what a peer has of it. The
*views* are what lookups read: of each peer, the keys that it shows (a key is a name or a group). What enters or leaves
the views does so key by key, in slices, while everything else goes on.
"""

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.model.network import Simulation

NAMES = ("a", "b", "c")
GROUPS = ("x", "y")

BEAT = 4
"""Ticks between two heartbeats."""
DOWN_AFTER = 3 * BEAT
"""Ticks within which a death is noticed."""
PATIENCE = DOWN_AFTER + BEAT
LAPSE = 5 * BEAT // 2


class Claim(NamedTuple):
    """One claim of a name. Its order is that of its fields; its identity is (node, creation, position)."""

    stamp: int
    node: int
    creation: int
    position: int
    name: str
    pid: int
    after: "Identity | None" = None
    """The claim that this one succeeds: it is its *heir*."""

    @property
    def identity(self) -> "Identity":
        return self.node, self.creation, self.position


Identity = tuple[int, int, int]


# --- entries of a ledger ---


class Claimed(NamedTuple):
    position: int
    claim: Claim


class Withdrawn(NamedTuple):
    """These claims and memberships have ended; the exit of a process is one such entry."""

    position: int
    claims: tuple[tuple[str, int], ...]
    members: tuple[tuple[str, int], ...] = ()


class Confirmed(NamedTuple):
    position: int
    name: str
    made_at: int


class Moved(NamedTuple):
    """The claim made there is another process's of the same node from now on."""

    position: int
    name: str
    made_at: int
    pid: int


class Joined(NamedTuple):
    position: int
    group: str
    pid: int


class Left(NamedTuple):
    position: int
    group: str
    pid: int


Entry = Claimed | Withdrawn | Confirmed | Moved | Joined | Left

Shown = tuple[Claim, bool] | frozenset[int]
"""What is known of a key: of a name the claim and whether it is confirmed, of a group its members."""


def keys_of(entry: Entry) -> list[str]:
    """The keys that an entry is about."""
    match entry:
        case Claimed(_, claim):
            return [claim.name]
        case Withdrawn(_, claims, members):
            return sorted({key for key, _ in claims + members})
        case Confirmed(_, name, _) | Moved(_, name, _, _):
            return [name]
        case Joined(_, group, _) | Left(_, group, _):
            return [group]


class Facts:
    """The live facts of a ledger at a position: at its origin, or in a mirror of it."""

    def __init__(self, creation: int, position: int = 0, complete: bool = False) -> None:
        self.creation, self.position = creation, position
        self.complete = complete
        """What is not here does not exist."""
        self.table: dict[str, Shown] = {}

    def claim(self, name: str) -> Claim | None:
        """The claim of a name."""
        value = self.table.get(name)
        return value[0] if isinstance(value, tuple) else None

    def is_confirmed(self, name: str) -> bool:
        """Whether there is a claim of the name, and it is confirmed."""
        value = self.table.get(name)
        return isinstance(value, tuple) and value[1]

    def members(self, group: str) -> frozenset[int]:
        """The members of a group."""
        value = self.table.get(group)
        return value if isinstance(value, frozenset) else frozenset()

    def put(self, key: str, value: Shown | None) -> None:
        """Know this of a key, or nothing."""
        if value:
            self.table[key] = value
        else:
            self.table.pop(key, None)

    def apply(self, entry: Entry) -> bool:
        """Go on by one entry. Returns whether it fits what was known."""
        self.position = entry.position
        fits = True
        match entry:
            case Claimed(_, claim):
                fits = claim.name not in self.table
                self.put(claim.name, (claim, False))
            case Withdrawn(_, claims, members):
                for name, made_at in claims:
                    known = self.claim(name)
                    if known is not None and known.position == made_at:
                        self.put(name, None)
                    else:
                        fits = False
                for group, pid in members:
                    fits &= pid in self.members(group)
                    self.put(group, self.members(group) - {pid})
            case Confirmed(_, name, made_at):
                known = self.claim(name)
                if known is not None and known.position == made_at:
                    self.put(name, (known, True))
                else:
                    fits = False
            case Moved(position, name, made_at, pid):
                known = self.claim(name)
                if known is not None and known.position == made_at:
                    self.put(name, (known._replace(position=position, pid=pid), self.is_confirmed(name)))
                else:
                    fits = False
            case Joined(_, group, pid):
                fits = pid not in self.members(group)
                self.put(group, self.members(group) | {pid})
            case Left(_, group, pid):
                fits = pid in self.members(group)
                self.put(group, self.members(group) - {pid})
        return fits

    def digest(self) -> frozenset[tuple[str, Shown]]:
        """Equal for equal facts. (Real ones are short.)"""
        return frozenset(self.table.items())


class Moving:
    """A name of ours on its way to another node.

    asked      the other node is asked to claim it as the heir of our claim; everybody acknowledges that but us
    let go     all others have: we acknowledge as the last, and the name goes when the heir is confirmed, or does not
    in doubt   the session with the other node has ended after that
    """

    def __init__(self, number: int, claim: Claim, to: int, deadline: float) -> None:
        self.number, self.claim, self.to, self.deadline = number, claim, to, deadline
        self.let_go = False
        self.doubt: float = inf
        """Until then we wait for word of the heir."""


class Feed:
    """How far the telling of our ledger to one peer has come, in one session."""

    def __init__(self) -> None:
        self.begun = False
        self.unsent: list[tuple[str, Shown | None]] = []
        """Fresh sync: keys to tell in chunks to come."""
        self.fresh = False
        """A fresh sync has begun and its end mark is still to be told."""
        self.cursor: int | None = None
        """Resume: the last entry of the log that was told, while there are more."""


class Peer:
    """What a node has of one peer, in a session or between two."""

    def __init__(self) -> None:
        self.creation: int | None = None
        """Of the peer, as the session says; None: no session."""
        self.feed = Feed()
        self.mirror: Facts | None = None
        """Its ledger as told in this session; the views show it, but for `entering`."""
        self.staged: Facts | None = None
        """A mirror being built outside the views."""
        self.until: float = 0
        """The position at which the staged mirror may take over."""
        self.offered: Facts | None = None
        """The mirror that we told the peer we still keep, until it begins to sync."""
        self.aside: Facts | None = None
        """Kept for a session to come."""
        self.shown: dict[str, Shown] = {}
        """What the views show of this peer."""
        self.entering: dict[str, Shown | None] = {}
        """What is still to be shown, replaced or (None) removed."""
        self.leaving: dict[str, None] = {}
        """Keys of a session that is over, still to be removed."""
        self.held: set[str] = set()
        """Names whose claim is in the views and not acknowledged."""
        self.resumed_at = -1
        self.through: int | None = None
        """The end mark of a sync that began anew, to be acknowledged when all of it is in the views."""


class Node:
    """One start of a node."""

    def __init__(self, sim: "Simulation", ident: int, creation: int) -> None:
        self.sim, self.id, self.creation, self.guards = sim, ident, creation, sim.guards
        self.ledger = Facts(creation, complete=True)
        self.log: list[Entry] = []
        """The last entries of the ledger."""
        self.clock = self.last_pid = 0
        self.processes: list[int] = []
        self.missing: dict[int, set[int]] = {}
        """The peers that have yet to acknowledge a claim of ours, for each that is not confirmed, by position."""
        self.awaited: dict[int, set[int]] = {}
        """The same for withdrawals that an unregister waits for."""
        self.waiting: dict[str, float] = {}
        """Names whose register has not returned, with its deadline."""
        self.peers = {peer: Peer() for peer in range(sim.size) if peer != ident}
        self.lost: dict[int, int] = {}
        """The creations of peers whose session was lost."""
        self.moving: dict[str, Moving] = {}
        """Names of ours that another node is to have."""
        self.transfers = 0
        self.heirs: dict[int, int] = {}
        """For which transfer, in the count of the node that asked, each heir of ours was made, by position."""
        self.ready: set[int] = set()
        """Heirs of ours that only their predecessor's node has yet to acknowledge, which has been told so."""
        self.moves: dict[int, tuple[Claim, Claim | None]] = {}
        """Withdrawals by which a name has gone to an heir, and moves within this node, with the claims old and new."""
        self.rumours: dict[tuple[Claim, Claim | None], tuple[int, int]] = {}
        """Contests of winners that may be dead, each with our loser: since when, and when last."""

    # --- views ---

    def own(self, name: str) -> Claim | None:
        """Our own claim of a name."""
        return self.ledger.claim(name)

    def found(self, name: str) -> list[tuple[Claim, bool]]:
        """All claims of a name known here, each with whether it is confirmed."""
        values = [self.ledger.table.get(name)]
        values += [peer.shown.get(name) for peer in self.peers.values() if name not in peer.leaving]
        return [value for value in values if isinstance(value, tuple)]

    def whereis(self, name: str) -> Claim | None:
        """The holder of a name: confirmed first, then what we have acknowledged, then the earlier."""
        found = self.found(name)
        if "refused" not in self.guards:
            values = [peer.shown.get(name) for peer in self.peers.values() if name in peer.leaving]
            found += [value for value in values if isinstance(value, tuple)]

        def order(value: tuple[Claim, bool]) -> tuple[bool, bool, Claim]:
            claim, confirmed = value
            held = claim.node != self.id and name in self.peers[claim.node].held
            return not confirmed and "confirm" in self.guards, held and "viewed" in self.guards, claim

        return min(found, key=order)[0] if found else None

    def members(self, group: str) -> set[tuple[int, int]]:
        """The members of a group, on all nodes."""
        found = {(self.id, pid) for pid in self.ledger.members(group)}
        for ident, peer in self.peers.items():
            value = peer.shown.get(group)
            if isinstance(value, frozenset) and group not in peer.leaving:
                found |= {(ident, pid) for pid in value}
        return found

    # --- what users do ---

    def register(self, name: str, wait: bool, timeout: int) -> None:
        """Claim a name for one of our processes, with `wait` as a register, without as a register_nowait."""
        self.touch(name)
        if self.whereis(name):
            return
        pid = self.process()
        self.clock = self.sim.stamp(self.clock)
        claim = Claim(self.clock, self.id, self.creation, self.ledger.position + 1, name, pid)
        self.sim.made(claim)
        if wait:
            self.waiting[name] = self.sim.now + timeout
        self.missing[claim.position] = set(self.connected())
        self.append(Claimed(claim.position, claim))
        self.settle()

    def unregister(self, name: str) -> None:
        """Give up a name, and wait until no peer shows it."""
        position = self.withdraw([name])
        self.awaited[position] = set(self.connected())
        self.settle()

    def transfer(self, name: str, to: int, timeout: int) -> None:
        """Let a process of that node have a name of ours."""
        claim = self.own(name)
        if claim is None or not self.ledger.is_confirmed(name) or name in self.moving:
            return
        if to == self.id:
            position = self.ledger.position + 1
            self.sim.gone(claim)
            self.append(Moved(position, name, claim.position, self.process()))
            new = self.own(name)
            assert new is not None, "it has moved"
            self.sim.made(new)
            self.awaited[position], self.moves[position] = set(self.connected()), (claim, new)
        elif self.peers[to].creation is not None:
            self.transfers += 1
            self.moving[name] = Moving(self.transfers, claim, to, self.sim.now + timeout)
            self.sim.moves(claim)
            self.tell(to, "inherit", self.transfers, claim)
        self.settle()

    def join_or_leave(self, group: str) -> None:
        """Have one of our processes join a group, or leave it."""
        pid = self.process()
        position = self.ledger.position + 1
        member = pid in self.ledger.members(group)
        self.append(Left(position, group, pid) if member else Joined(position, group, pid))
        self.settle()

    def process(self) -> int:
        """A process of this node, perhaps a new one."""
        if not self.processes or self.sim.rng.random() < 0.5:
            self.last_pid += 1
            self.processes.append(self.last_pid)
        return self.sim.rng.choice(self.processes)

    def process_exits(self, pid: int) -> None:
        """A process dies: all it had goes, in one entry."""
        self.processes.remove(pid)
        self.sim.dead.add((self.id, self.creation, pid))
        names = [name for name in NAMES if (claim := self.own(name)) is not None and claim.pid == pid]
        groups = [group for group in GROUPS if pid in self.ledger.members(group)] if "exit" in self.guards else []
        if names or groups:
            self.withdraw(names, tuple((group, pid) for group in groups))
        self.settle()

    def time_passes(self) -> None:
        """Registers end at their deadline: the claim is withdrawn, NotConfirmed raised."""
        for name, deadline in list(self.waiting.items()):
            if self.sim.now >= deadline:
                claim = self.own(name)
                assert claim is not None, "who waits has a claim"
                del self.waiting[name]
                self.sim.timed_out(claim)
                if "timeout" in self.guards:
                    self.withdraw([name])
        self.settle()

    def transfers_pass(self) -> None:
        """So do transfers; and doubts, if nobody tells of the heir."""
        for name, moving in list(self.moving.items()):
            if self.sim.now >= min(moving.deadline, moving.doubt):
                self.revoke(name, moving)
        self.settle()

    def revoke(self, name: str, moving: Moving) -> None:
        """The time of a transfer is over. Once we have let go of the name, only the other node can say what is so."""
        self.tell(moving.to, "revoke", name, moving.number)
        moving.deadline = inf
        if not moving.let_go or self.sim.now >= moving.doubt or "word" not in self.guards:
            self.stays(name)

    def stays(self, name: str, sure: bool = True) -> None:
        """A transfer has failed: its caller is told. If not `sure`, the heir may be confirmed all the same."""
        moving = self.moving.pop(name)
        self.sim.stayed(moving.claim, sure and moving.doubt == inf)

    # --- our ledger ---

    def append(self, entry: Entry) -> None:
        """Make an entry, and tell it to whom we have told all before it."""
        self.ledger.apply(entry)
        self.log.append(entry)
        del self.log[: max(0, len(self.log) - self.sim.log_limit)]
        self.sim.entries[self.id, self.creation, entry.position] = entry
        for ident in self.connected():
            feed = self.peers[ident].feed
            if "overtaking" not in self.guards and feed.begun:
                self.sim.send(self.id, ident, ("entry", entry), overtake="chunk")
            elif feed.begun and feed.cursor is None:
                self.tell(ident, "entry", entry)
        for key in keys_of(entry):
            self.judge(key)

    def withdraw(self, names: list[str], members: tuple[tuple[str, int], ...] = ()) -> int:
        """Withdraw claims of ours in one entry. Returns its position."""
        claims = [claim for name in names if (claim := self.own(name)) is not None]
        declined = [claim for claim in claims if claim.after is not None and claim.position in self.missing]
        for claim in claims:
            self.missing.pop(claim.position, None)
            self.waiting.pop(claim.name, None)
            moving = self.moving.get(claim.name)
            if moving is not None:
                self.stays(claim.name, sure=not moving.let_go)
            self.sim.gone(claim)
        position = self.ledger.position + 1
        self.append(Withdrawn(position, tuple((claim.name, claim.position) for claim in claims), members))
        for claim in declined:
            assert claim.after is not None, "it is an heir"
            self.tell(claim.after[0], "declined", claim.name, self.heirs[claim.position])
        return position

    def yield_to(self, winner: Claim, confirmed: bool, by_contest: bool) -> None:
        """Withdraw a claim that has lost: NameTaken if it was not confirmed, else NameLost."""
        value = self.ledger.table[winner.name]
        assert isinstance(value, tuple)
        moving = self.moving.get(winner.name)
        if moving is not None and winner.after == moving.claim.identity and confirmed:
            del self.moving[winner.name]
            position = self.withdraw([winner.name])
            self.awaited[position], self.moves[position] = set(self.connected()), (moving.claim, winner)
            return
        self.sim.yielded(self, *value, (winner, confirmed), by_contest, winner.name in self.waiting)
        self.withdraw([winner.name])

    # --- telling it ---

    def connected(self) -> list[int]:
        """The peers that we have a session with."""
        return [ident for ident, peer in self.peers.items() if peer.creation is not None]

    def peer_up(self, ident: int, creation: int) -> None:
        """A session is open. Nothing is said of our ledger before the peer's list of peers has come."""
        peer = self.peers[ident]
        peer.creation, peer.feed = creation, Feed()
        if "newcomer" in self.guards:
            for missing in self.missing.values():
                missing.add(ident)
        kept, peer.aside = peer.aside, None
        if kept is not None and (kept.creation == creation or "creation" not in self.guards):
            peer.offered = kept
        self.tell(ident, "peers", (kept.creation, kept.position) if peer.offered and kept else None)
        self.settle()

    def begin(self, ident: int, have: tuple[int, int] | None) -> None:
        """Begin to sync: by the rest of the log if it reaches back to the mirror that the peer has, else afresh."""
        feed = self.peers[ident].feed
        feed.begun = True
        same = have is not None and (have[0] == self.creation or "creation" not in self.guards)
        if have is not None and same and self.reaches(have[1]):
            self.sim.count("resumes")
            feed.cursor = have[1] if have[1] < self.ledger.position else None
            self.tell(ident, "resumed", have[1], self.ledger.position)
        else:
            self.begin_afresh(ident, anew=False)
        if "begun" in self.guards:
            for awaited in self.awaited.values():  # its list came by this session: nothing older is shown there
                awaited.discard(ident)

    def begin_afresh(self, ident: int, anew: bool) -> None:
        """Begin a fresh sync; `anew` if this session has told of our ledger before."""
        feed = self.peers[ident].feed
        feed.cursor, feed.fresh = None, True
        feed.unsent = list(self.ledger.table.items())
        self.sim.rng.shuffle(feed.unsent)
        self.tell(ident, "begin", self.creation, self.ledger.position, anew)

    def reaches(self, position: int) -> bool:
        """Whether the log has every entry after this position."""
        return self.ledger.position - len(self.log) <= position <= self.ledger.position

    def has_more(self, ident: int) -> bool:
        """Whether a part of a sync is still to be told."""
        feed = self.peers[ident].feed
        return feed.fresh or feed.cursor is not None

    def tell_more(self, ident: int) -> None:
        """The outbox has room: tell the next part, each fact as it is at this moment."""
        feed = self.peers[ident].feed
        size = self.sim.rng.randint(1, 2)
        if feed.fresh:
            part, feed.unsent = feed.unsent[:size], feed.unsent[size:]
            if "moment" in self.guards:
                part = [(key, self.ledger.table.get(key)) for key, _ in part]
            self.tell(ident, "chunk", [(key, value) for key, value in part if value is not None])
            if not feed.unsent:
                feed.fresh = False
                self.tell(ident, "end", self.ledger.position)
        elif feed.cursor is not None:
            if not self.reaches(feed.cursor) and "trimmed" in self.guards:
                self.sim.count("trimmed")
                self.begin_afresh(ident, anew=True)
                return
            rest = [entry for entry in self.log if entry.position > (feed.cursor or 0)]
            for entry in rest[:size]:
                self.tell(ident, "entry", entry)
                feed.cursor = entry.position
            if feed.cursor == self.ledger.position:
                feed.cursor = None

    def beat(self) -> None:
        """A heartbeat: judge again what is disputed, and tell the digest of our ledger."""
        for name in NAMES if "again" in self.guards else ():
            if len(self.found(name)) > 1:
                self.judge(name)
        for ident in self.connected():
            self.tell(ident, "beat", self.ledger.position, self.ledger.digest())
        self.settle()

    # --- hearing of others' ---

    def receive(self, ident: int, kind: str, *args: Any) -> None:
        """A frame of a peer."""
        getattr(self, f"on_{kind}")(ident, self.peers[ident], *args)
        self.take_over(ident)
        self.settle()

    def on_peers(self, ident: int, peer: Peer, have: tuple[int, int] | None) -> None:
        self.begin(ident, have)

    def on_begin(self, ident: int, peer: Peer, creation: int, position: int, anew: bool) -> None:
        self.lost.pop(ident, None)
        peer.offered = None
        peer.staged = Facts(creation, position)
        peer.until = inf if anew else position
        if peer.mirror is not None:  # what lies between is not told: it is wrong until it is repaired
            peer.mirror.position = position
            self.doubt(peer)
            if "staged resync" not in self.guards:
                peer.mirror, peer.entering, peer.until = None, {}, position
                for key in list(peer.shown):
                    self.show(ident, key, None)

    def on_resumed(self, ident: int, peer: Peer, position: int, until: int) -> None:
        self.lost.pop(ident, None)
        peer.staged, peer.offered = peer.offered, None
        if peer.staged is None or peer.staged.position != position:
            self.sim.violation("protocol")
            peer.staged = peer.staged or Facts(self.creation, position)
        peer.until = until if "staged" in self.guards else position
        peer.resumed_at = position
        if peer.leaving:
            self.sim.count("back while swept")

    def on_chunk(self, ident: int, peer: Peer, part: list[tuple[str, Shown]]) -> None:
        for key, value in part:
            if peer.staged is not None:
                peer.staged.put(key, value)
            elif peer.mirror is not None:
                if "order" in self.guards:
                    self.touch(key)
                peer.mirror.put(key, value)
                self.observe(value)
                self.show(ident, key, value)

    def on_end(self, ident: int, peer: Peer, position: int) -> None:
        mirror = peer.staged or peer.mirror
        if mirror is None or mirror.position != position:
            self.sim.violation("protocol")
            return
        mirror.complete = True
        if peer.until == inf:
            peer.until = position
            peer.through = position if "through" in self.guards else None

    def on_entry(self, ident: int, peer: Peer, entry: Entry) -> None:
        """The next entry, for the mirror in the views and for a staged one, whichever there is."""
        if peer.mirror is None and peer.staged is None:
            self.sim.violation("protocol")
        hidden = peer.staged is not None and peer.mirror is None
        silent = hidden and (entry.position <= peer.until or "hidden" not in self.guards)
        if peer.staged is not None:
            self.follow(peer, peer.staged, entry)
            if isinstance(entry, Claimed) and "visible" not in self.guards:
                self.acknowledge(ident, entry.position)
        if peer.mirror is not None:
            if "order" in self.guards:
                for key in keys_of(entry):
                    self.touch(key)
            self.follow(peer, peer.mirror, entry)
            if isinstance(entry, Claimed):
                self.observe((entry.claim, False))
            for key in keys_of(entry):
                self.show(ident, key, peer.mirror.table.get(key))
        if isinstance(entry, Withdrawn | Moved) and not silent:
            self.acknowledge(ident, entry.position)

    def follow(self, peer: Peer, mirror: Facts, entry: Entry) -> None:
        """Let a mirror go on by an entry. One that does not fit shows that a complete mirror was wrong."""
        if entry.position != mirror.position + 1:
            self.sim.violation("protocol")
        if not mirror.apply(entry) and mirror.complete:
            self.sim.diverged()
            if mirror is peer.mirror:
                self.ask_resync(peer)

    def on_ack(self, ident: int, peer: Peer, positions: tuple[int, ...]) -> None:
        for position in positions:
            for table in (self.missing, self.awaited):
                if position in table:
                    table[position].discard(ident)

    def on_through(self, ident: int, peer: Peer, position: int) -> None:
        """All that we had said up to there is in the peer's views: what was withdrawn until then is not."""
        for withdrawn, awaited in self.awaited.items():
            if withdrawn <= position:
                awaited.discard(ident)

    def on_beat(self, ident: int, peer: Peer, position: int, digest: frozenset[tuple[str, Shown]]) -> None:
        """Compare the mirror with the digest, and the views with the mirror."""
        mirror = peer.mirror
        if mirror is None or "digest" not in self.guards:
            return
        if (mirror.complete and mirror.position == position) or "compared" not in self.guards:
            views_differ = any(
                peer.shown.get(key) != mirror.table.get(key)
                for key in {*peer.shown, *mirror.table}
                if key not in peer.entering
            )
            if mirror.digest() != digest or views_differ:
                self.sim.diverged()
                self.ask_resync(peer)

    def on_inherit(self, ident: int, peer: Peer, number: int, old: Claim) -> None:
        """A peer wants us to have a name of its own. Our claim is a moment older: who yields to one yields to both."""
        self.touch(old.name)
        if self.found(old.name) != [(old, True)] or old.stamp == 0:
            self.tell(ident, "declined", old.name, number)
            return
        position, stamp = self.ledger.position + 1, old.stamp - ("senior" in self.guards)
        heir = Claim(stamp, self.id, self.creation, position, old.name, self.process(), old.identity)
        self.sim.made(heir)
        self.heirs[position] = number
        self.missing[position] = set(self.connected())
        self.append(Claimed(position, heir))

    def on_declined(self, ident: int, peer: Peer, name: str, number: int) -> None:
        """There is no heir, or no more."""
        moving = self.moving.get(name)
        if moving is not None and moving.number == number:
            self.stays(name)

    def on_ready(self, ident: int, peer: Peer, name: str, number: int) -> None:
        """Everybody but us has acknowledged the heir."""
        moving = self.moving.get(name)
        if moving is not None and moving.number == number:
            moving.let_go = True

    def on_revoke(self, ident: int, peer: Peer, name: str, number: int) -> None:
        """The time of the transfer is over."""
        heir = self.own(name)
        if heir is not None and self.heirs.get(heir.position) == number and heir.position in self.missing:
            self.withdraw([name])

    def on_resync(self, ident: int, peer: Peer) -> None:
        self.begin_afresh(ident, anew=True)

    def ask_resync(self, peer: Peer) -> None:
        """The mirror is wrong: ask the peer to sync anew."""
        self.sim.count("resyncs")
        self.doubt(peer)
        ident = next(ident for ident, other in self.peers.items() if other is peer)
        self.tell(ident, "resync")

    def doubt(self, peer: Peer) -> None:
        """A mirror known to be wrong is neither compared nor kept for a session to come."""
        if peer.mirror is not None and "doubt" in self.guards:
            peer.mirror.complete = False

    # --- what enters the views, and what leaves them ---

    def take_over(self, ident: int) -> None:
        """Let a staged mirror that has come far enough take over; what it changes enters the views by and by."""
        peer = self.peers[ident]
        if peer.staged is None or peer.staged.position < peer.until or (peer.leaving and "sweep" in self.guards):
            return
        peer.mirror, peer.staged = peer.staged, None
        facts = peer.mirror.table
        peer.entering = {
            key: facts.get(key) for key in sorted({*facts, *peer.shown}) if facts.get(key) != peer.shown.get(key)
        }

    def has_slices(self, ident: int) -> bool:
        """Whether something has yet to enter the views, or to leave them."""
        peer = self.peers[ident]
        return bool(peer.leaving or peer.entering)

    def slice(self, ident: int) -> None:
        """Let one key leave or enter."""
        peer = self.peers[ident]
        if peer.leaving:
            key = self.sim.rng.choice(list(peer.leaving))
            self.leave(peer, key)
            self.judge(key)
        elif peer.entering:
            self.touch(self.sim.rng.choice(list(peer.entering)))
        self.take_over(ident)
        self.settle()

    def touch(self, key: str) -> None:
        """Something is about to happen to a key: first let it leave, and enter, wherever it has yet to do so."""
        for ident, peer in self.peers.items():
            if key in peer.leaving:
                self.leave(peer, key)
            if key in peer.entering:
                value = peer.entering.pop(key)
                self.observe(value)
                self.show(ident, key, value)

    def leave(self, peer: Peer, key: str) -> None:
        """Let a key of a session that is over leave the views."""
        del peer.leaving[key]
        peer.shown.pop(key, None)
        peer.held.discard(key)

    def show(self, ident: int, key: str, value: Shown | None) -> None:
        """Show this of a peer's key from now on, or (None) nothing."""
        peer = self.peers[ident]
        before = peer.shown.get(key)
        if isinstance(value, tuple) and "mirror" not in self.guards and before is None and self.found(key):
            return
        if value:
            peer.shown[key] = value
        else:
            peer.shown.pop(key, None)
        if isinstance(value, tuple):
            claim, confirmed = value
            if confirmed:
                peer.held.discard(key)
            elif not isinstance(before, tuple) or before[0] != claim:
                self.sim.appears(self, ident, claim)
                if claim.position > peer.resumed_at or "afresh" in self.guards:
                    peer.held.add(key)
        else:
            peer.held.discard(key)
        self.judge(key)

    def observe(self, value: Shown | None) -> None:
        if isinstance(value, tuple):
            self.clock = max(self.clock, value[0].stamp)

    # --- peers go ---

    def peer_down(self, ident: int, returns: bool) -> None:
        """A session is over. `returns`: a new one takes its place in this moment, and our claims wait for that."""
        peer = self.peers[ident]
        assert peer.creation is not None, "there was a session"
        self.lost[ident] = peer.creation
        whole = [
            facts
            for facts in (peer.staged, peer.mirror, peer.offered)
            if facts is not None and (facts.complete or "whole" not in self.guards)
        ]
        peer.aside = whole[0] if whole else None
        peer.creation = peer.mirror = peer.staged = peer.offered = peer.through = None
        peer.feed, peer.resumed_at = Feed(), -1
        peer.entering.clear()
        peer.held.clear()
        peer.leaving = dict.fromkeys(sorted(peer.shown))
        for table in (self.awaited,) if returns and "returns" in self.guards else (self.awaited, self.missing):
            for peers in table.values():
                peers.discard(ident)
        for key in list(peer.leaving):
            if key in NAMES and self.found(key):  # disputed
                self.leave(peer, key)
                self.judge(key)
        for name, moving in list(self.moving.items()):
            if moving.to == ident and moving.let_go:
                moving.doubt = min(moving.doubt, self.sim.now + PATIENCE)
            elif moving.to == ident:
                self.stays(name)
        self.settle()

    def forget(self, ident: int) -> None:
        """The time of a mirror kept aside is over; one that was offered stays."""
        peer = self.peers[ident]
        peer.aside = None
        if "pinned" not in self.guards:
            peer.offered = None

    # --- conflicts ---

    def judge(self, key: str) -> None:
        """Decide a name again: what is known of it has changed."""
        found = self.found(key) if key in NAMES else []
        known = {claim.identity for claim, _ in found}
        own = self.own(key)
        inherits = own is not None and own.after is not None and own.position in self.missing
        if own is not None and inherits and own.after not in known and "orphan" in self.guards:
            self.withdraw([key])
            return
        if "shadow" in self.guards:  # an heir to be stands behind the claim that it succeeds
            found = [value for value in found if value[1] or value[0].after not in known]
        if "confirm" in self.guards:
            found.sort(key=lambda value: (not value[1], value[0]))
        else:
            found.sort()
        for loser, _ in found[1:]:
            winner, confirmed = found[0]
            if loser.node == self.id:
                self.yield_to(winner, confirmed, by_contest=False)
                return
            elif "contest" in self.guards:
                self.tell(loser.node, "contest", loser, winner, confirmed)

    def on_contest(self, ident: int, peer: Peer, loser: Claim, winner: Claim, confirmed: bool) -> None:
        """Yield to the claim that a peer knows, unless we know better."""
        if self.own(loser.name) != loser or self.told_more(winner) or not self.outranked(winner, confirmed):
            return
        moving = self.moving.get(loser.name)
        heir = moving is not None and winner.after == loser.identity
        if heir or self.races(winner, confirmed) or self.believed(loser, winner):
            self.yield_to(winner, confirmed, by_contest=True)

    def outranked(self, winner: Claim, confirmed: bool) -> bool:
        value = self.ledger.table[winner.name]
        assert isinstance(value, tuple)
        if "rank" not in self.guards or "confirm" not in self.guards:
            return True
        return (not confirmed, winner) < (not value[1], value[0])

    def told_more(self, winner: Claim) -> bool:
        """The word of a third node counts nothing about a claim whose origin has told us of it, or that it is gone."""
        if winner.node == self.id:
            return True
        peer = self.peers[winner.node]
        if peer.creation is None or "direct" not in self.guards:
            return False
        if peer.creation != winner.creation:
            return peer.creation > winner.creation
        return peer.mirror is not None and peer.mirror.complete and peer.mirror.position >= winner.position

    def races(self, winner: Claim, confirmed: bool) -> bool:
        """A winner that is surely alive though unseen here: not confirmed yet, and of a node that we never met."""
        met = self.peers[winner.node].creation is not None and "direct" in self.guards
        met |= self.lost.get(winner.node) == winner.creation and "met" in self.guards
        return not confirmed and not met

    def believed(self, loser: Claim, winner: Claim) -> bool:
        """Any other may be dead without the sender having noticed: its contest must go on for a while.

        The while begins anew with each claim of ours: a winner believed in long ago may have died since.
        """
        now, key = self.sim.now, (winner, loser if "each" in self.guards else None)
        first, last = self.rumours.get(key, (now, now))
        if now - last > LAPSE:
            first = now
        self.rumours[key] = first, now
        return now - first >= PATIENCE or "patience" not in self.guards

    def settle(self) -> None:
        """Confirm our claims that all peers have acknowledged; acknowledge those of peers that stand alone here."""
        for name in NAMES:
            claim = self.own(name)
            if claim is None or claim.position not in self.missing:
                continue
            if claim.after is not None and self.missing[claim.position] == {claim.after[0]}:
                if claim.position not in self.ready:
                    self.ready.add(claim.position)
                    self.tell(claim.after[0], "ready", name, self.heirs[claim.position])
            elif not self.missing[claim.position]:
                del self.missing[claim.position]
                late = self.waiting.pop(name, None) is None
                self.append(Confirmed(self.ledger.position + 1, name, claim.position))
                self.sim.confirmed(self, claim, late)
        for position in [position for position, peers in self.awaited.items() if not peers]:
            del self.awaited[position]
            if position in self.moves:
                self.sim.moved(self, *self.moves.pop(position))
            else:
                self.sim.released(self, position)
        for ident, peer in self.peers.items():
            for name in sorted(peer.held):
                value = peer.shown.get(name)
                if isinstance(value, tuple) and self.may_acknowledge(value[0]):
                    peer.held.discard(name)
                    self.acknowledge(ident, value[0].position)
            if peer.through is not None and peer.staged is None and not peer.entering:
                self.tell(ident, "through", peer.through)
                peer.through = None

    def may_acknowledge(self, claim: Claim) -> bool:
        """Whether no other claim of the name is known but, of an heir, the one it succeeds; its own node is last."""
        others = [other for other, _ in self.found(claim.name) if other != claim]
        if not others or "alone" not in self.guards:
            return True
        if "heir" not in self.guards or [other.identity for other in others] != [claim.after]:
            return False
        moving = self.moving.get(claim.name)
        return others[0].node != self.id or "last" not in self.guards or (moving is not None and moving.let_go)

    def acknowledge(self, ident: int, position: int) -> None:
        self.sim.acknowledged(self, ident, position)
        self.tell(ident, "ack", (position,))

    def tell(self, ident: int, *message: Any) -> None:
        if self.peers[ident].creation is not None:
            self.sim.send(self.id, ident, message)

    def parts(self) -> Iterator[int]:
        """The peers for which something goes on in parts."""
        return (ident for ident in self.peers if self.has_more(ident) or self.has_slices(ident))
