"""The name table of one node: its own claims, its mirrors of the peers' claims, and who holds each name.

Every node speaks only for its own processes. Who holds a name is computed, never sent: it is the first of the claims
known here by *rank* (confirmed ones first, then by stamp). `whereis` reads the *view*, which among claims not yet
confirmed prefers one that this node has acknowledged.

Each method takes one event in and returns the changes it caused, in order; the caller passes them all on before the
next event. The rules that make names safe are one small method each (``_may_acknowledge`` and its neighbours): remove
one, and the simulation shows what breaks.

Source: the owner's authority over its names as in ostinelli/syn (INTERNALS.md); an operation that returns its diff as
in Phoenix.Tracker; acknowledgements and contests are kinfolk's own, see ``docs/design-notes.md``.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from kinfolk.core.clock import Clock
from kinfolk.core.ledger import Claim, Ledger, Mirror, Order
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid

# --- changes: what an operation caused ---


class Added(Struct, frozen=True):
    """The name resolves to this pid now."""

    name: str
    pid: Pid


class Removed(Struct, frozen=True):
    """The name does not resolve to this pid any longer."""

    name: str
    pid: Pid


class Claimed(Struct, frozen=True):
    """A new entry of our ledger: tell all peers."""

    claim: Claim


class Withdrawn(Struct, frozen=True):
    """A new entry of our ledger, which withdraws these claims of ours: tell all peers."""

    position: int
    claims: tuple[Claim, ...]


class Confirmed(Struct, frozen=True):
    """A new entry of our ledger, which confirms this claim of ours: tell all peers, and who waits for it."""

    position: int
    claim: Claim


class Lost(Struct, frozen=True):
    """A claim of ours has yielded to another node's (its Withdrawn follows)."""

    own: "OwnClaim"
    winner: Claim


class Accepted(Struct, frozen=True):
    """Every peer has acknowledged this withdrawal of ours, which `await_withdrawal` asked for."""

    position: int


class Acknowledge(Struct, frozen=True):
    """Tell the peer that this entry of its ledger is in our views."""

    peer: str
    position: int


class Contest(Struct, frozen=True):
    """Tell the peer that its claim stands against one of higher rank."""

    peer: str
    loser: Claim
    winner: Claim
    confirmed: bool


Change = Added | Removed | Claimed | Withdrawn | Confirmed | Lost | Accepted | Acknowledge | Contest


class OwnClaim(Struct):
    """A live claim of this node, and whether every peer of the moment has acknowledged it."""

    claim: Claim
    on_lost: str
    confirmed: bool = False


class _Rumour(NamedTuple):
    """A contest by a confirmed winner that we do not see: since when it has been repeated without a break."""

    first: float
    last: float


class Names:
    """Who has which name, as one node knows it.

    Args:
        node, creation: whose own claims these are.
        patience: seconds that the contest of a confirmed claim unseen here must be repeated before we yield to it: the
            time its sender needs to notice that the winner's node is dead.
        lapse: seconds without a repetition after which such a contest is forgotten.
    """

    def __init__(self, node: str, creation: int, *, patience: float, lapse: float) -> None:
        self.node, self.creation = node, creation
        self.patience, self.lapse = patience, lapse
        self.clock = Clock()
        self.ledger = Ledger()
        self.view: dict[str, Pid] = {}
        """What `whereis` reads: each name with its holder."""
        self.own: dict[str, OwnClaim] = {}
        self.mirrors: dict[str, Mirror] = {}
        self.rivals: dict[str, list[Claim]] = {}
        """All claims of each name that has more than one."""
        self._pending: dict[int, str] = {}
        self._by_process: dict[int, set[str]] = {}
        self._rumours: OrderedDict[tuple[str, str, int, int], _Rumour] = OrderedDict()
        self._lost: dict[str, int] = {}
        """The creations of peers that were lost and have not come back."""
        self._changes: list[Change] = []

    # --- this node's own claims ---

    def claim(self, name: str, pid: Pid, on_lost: str, wall_ms: int) -> list[Change]:
        """Claim a name that `view` does not know for a process of this node. Confirmed at once if there is no peer."""
        assert name not in self.view and pid.node == self.node, "the caller looks before it claims"
        claim = Claim(name, pid, self.ledger.append(), self.clock.tick(wall_ms))
        self.own[name] = OwnClaim(claim, on_lost)
        self._by_process.setdefault(pid.local, set()).add(name)
        self._pending[claim.position] = name
        self._changes.append(Claimed(claim))
        self._add(claim)
        if self.ledger.await_claim(claim.position):
            self._confirm(claim.position)
        return self._take()

    def withdraw(self, names: Sequence[str]) -> list[Change]:
        """Give up these names of this node, in one entry of the ledger."""
        self._withdraw(names)
        return self._take()

    def process_exited(self, local: int) -> list[Change]:
        """Give up every name of a dead process, in one entry of the ledger."""
        self._withdraw(sorted(self._by_process.get(local, ())))
        return self._take()

    def is_pending(self, name: str) -> bool:
        """Whether this node has claimed the name and some peer has yet to acknowledge that."""
        own = self.own.get(name)
        return own is not None and not own.confirmed

    def is_confirmed(self, name: str) -> bool:
        """Whether the holder of the name, in the view, has a confirmed claim."""
        holder = self.view.get(name)
        return holder is not None and self._is_confirmed(self._claim_of(holder.node, name))

    # --- what peers tell of their ledgers ---

    def sync_begins(self, peer: str, creation: int, position: int) -> None:
        """Begin the mirror of a peer at this position of its ledger."""
        self._lost.pop(peer, None)
        self.mirrors[peer] = Mirror(peer, creation, position)

    def sync_part(self, peer: str, claims: Iterable[tuple[Claim, bool]], wall_ms: int) -> list[Change]:
        """Take in live claims of a peer, each with whether it is confirmed, as they are at this point of its ledger."""
        mirror = self.mirrors[peer]
        for claim, confirmed in claims:
            if not 0 < claim.position <= mirror.position:
                raise RemoteProtocolError(
                    f"syncs {claim.name!r}, claimed at {claim.position} of {mirror.position} entries"
                )
            known = mirror.claims.get(claim.name)
            if known is None:
                self._mirror(mirror, claim, confirmed, wall_ms)
            elif known.position != claim.position:  # the same claim may have come as a change, between the parts
                raise RemoteProtocolError(f"syncs {claim.name!r}, claimed at {claim.position} and at {known.position}")
        return self._take()

    def sync_done(self, peer: str) -> None:
        """The mirror of the peer is complete: what it does not show does not exist."""
        self.mirrors[peer].complete = True

    def peer_claimed(self, peer: str, claim: Claim, wall_ms: int) -> list[Change]:
        """The next entry of a peer's ledger is a claim.

        Raises:
            RemoteProtocolError: not the next entry, or the peer claims the name already.
        """
        mirror = self._advance(peer, claim.position)
        if claim.name in mirror.claims:
            raise RemoteProtocolError(f"claims the name {claim.name!r} twice")
        self._mirror(mirror, claim, False, wall_ms)
        return self._take()

    def peer_withdrew(self, peer: str, position: int, names: Sequence[str], claims: Sequence[int]) -> list[Change]:
        """The next entry of a peer's ledger withdraws these claims, each named by its position, and nothing else.

        Raises:
            RemoteProtocolError: not the next entry, or a claim that the peer does not have.
        """
        mirror = self._advance(peer, position)
        for name, at in zip(names, claims, strict=True):
            claim = mirror.claims.get(name)
            if claim is not None and claim.position == at:
                self._unmirror(mirror, claim)
                self._judge(name)
            elif mirror.complete:
                raise RemoteProtocolError(f"withdraws the name {name!r} as claimed at {at}, which it does not hold")
            # else: withdrawn before the sync came to it
        self._changes.append(Acknowledge(peer, position))
        return self._take()

    def peer_confirmed(self, peer: str, position: int, name: str, at: int) -> list[Change]:
        """The next entry of a peer's ledger says that its claim made there is confirmed.

        Raises:
            RemoteProtocolError: not the next entry, or a claim that the peer does not have.
        """
        mirror = self._advance(peer, position)
        claim = mirror.claims.get(name)
        if claim is not None and claim.position == at:
            mirror.confirmed.add(name)
            mirror.held.discard(name)  # nobody waits for our acknowledgement any longer
            self._judge(name)
        elif mirror.complete:
            raise RemoteProtocolError(f"confirms the name {name!r} as claimed at {at}, which it does not hold")
        return self._take()

    def peer_acknowledged(self, peer: str, positions: Iterable[int]) -> list[Change]:
        """A peer has these entries of ours in its views; claims that all peers acknowledged are confirmed.

        Raises:
            RemoteProtocolError: there is no such entry.
        """
        self._complete(self.ledger.acknowledged(peer, positions))
        return self._take()

    # --- peers come and go ---

    def hold(self) -> None:
        """A join is in progress: confirm nothing until `release`, for its peers may hold the names we claim."""
        self.ledger.peer_up(Ledger.JOINING)

    def release(self) -> list[Change]:
        """The join is over: what only waited for it is confirmed."""
        self._complete(self.ledger.peer_down(Ledger.JOINING))
        return self._take()

    def peer_up(self, peer: str) -> None:
        """A session is open: the peer will tell of its ledger, and claims of ours wait for its acknowledgement."""
        self.ledger.peer_up(peer)

    def peer_down(self, peer: str, creation: int, returns: bool = False) -> list[Change]:
        """A session has ended: the peer's names are gone here, and nothing waits for it.

        With `returns` a new session with it takes the place of this one, and claims that wait for it go on waiting:
        a claim confirmed between the two sessions would be one that a connected peer does not know.
        """
        self._lost[peer] = creation
        # What an operation had changed before it broke the protocol is still to be told, but not to its sender.
        self._changes = [c for c in self._changes if not (isinstance(c, Acknowledge | Contest) and c.peer == peer)]
        mirror = self.mirrors.pop(peer, None)
        for claim in list(mirror.claims.values()) if mirror else ():
            self._remove(claim)
            self._judge(claim.name)
        self._complete(self.ledger.peer_down(peer, returns))
        return self._take()

    # --- conflicts ---

    def contested(self, name: str, loser: int, winner: Claim, confirmed: bool, now: float) -> list[Change]:
        """A peer knows a claim of higher rank than ours made at `loser`. Yield to it, unless we know better.

        An unconfirmed winner of a node that we do not know counts at once: both are alive and racing. Any other that
        we do not see ourselves may be dead without its sender having noticed, so its contest must go on for `patience`
        seconds.
        """
        own = self.own.get(name)
        if own is None or own.claim.position != loser or self._told_more(winner):
            return []
        if self._outranks(winner, confirmed, own) and (self._races(winner, confirmed) or self._believed(winner, now)):
            self._yield(own, winner)
            self._judge(name)
        return self._take()

    def contest_again(self) -> list[Change]:
        """Judge every disputed name again; to be called with each heartbeat."""
        for name in list(self.rivals):
            self._judge(name)
        return self._take()

    # --- the rules, one method each ---

    def _may_acknowledge(self, name: str) -> bool:
        """A peer's claim is acknowledged only while no other live claim of its name is known here."""
        return name not in self.rivals

    def _contests(self, loser: Claim) -> bool:
        """Whoever sees two claims tells the loser's origin, if it can."""
        return loser.pid.node in self.mirrors

    def _rank(self, claim: Claim) -> tuple[bool, Order]:
        """Conflicts are decided by this order alone: confirmed goes before unconfirmed, whatever the stamps."""
        return not self._is_confirmed(claim), claim.order

    def _outranks(self, winner: Claim, confirmed: bool, own: OwnClaim) -> bool:
        """A contested origin yields only to a claim of higher rank than its own as it knows it."""
        return (not confirmed, winner.order) < (not own.confirmed, own.claim.order)

    def _told_more(self, winner: Claim) -> bool:
        """The word of a third node counts nothing about a claim whose origin has told us of it, or that it is gone."""
        if winner.pid.node == self.node:
            return True
        mirror = self.mirrors.get(winner.pid.node)
        if mirror is None:
            return False
        if mirror.creation != winner.pid.creation:
            return mirror.creation > winner.pid.creation
        return mirror.complete and mirror.position >= winner.position

    def _keeps(self, claim: Claim) -> bool:
        """Losing claims are mirrored as well: dropped, they would be missing when the winner goes."""
        return True

    def _races(self, winner: Claim, confirmed: bool) -> bool:
        """Whether a winner is surely alive though unseen here: not confirmed yet, and of a node that we never met.

        One that we have a session with would tell us itself; one that we had a session with may be dead.
        """
        node = winner.pid.node
        return not confirmed and node not in self.mirrors and self._lost.get(node) != winner.pid.creation

    def _believed(self, winner: Claim, now: float) -> bool:
        """Whether the contest of a winner that may be dead has been repeated for long enough, without a break."""
        key = (winner.name, winner.pid.node, winner.pid.creation, winner.position)
        rumour = self._rumours.pop(key, None)
        if rumour is None or now - rumour.last > self.lapse:
            rumour = _Rumour(now, now)
        # They lie in the order of their last repetition: however many a peer tells of, each is looked at a few times.
        while self._rumours and now - next(iter(self._rumours.values())).last > self.lapse:
            self._rumours.popitem(last=False)
        self._rumours[key] = _Rumour(rumour.first, now)
        return now - rumour.first >= self.patience

    # --- inside ---

    def _judge(self, name: str) -> None:
        """Decide a name again after the claims known of it have changed."""
        while claims := self.rivals.get(name):
            winner, *losers = sorted(claims, key=self._rank)
            if any(loser.pid.node == self.node for loser in losers):
                self._yield(self.own[name], winner)
                continue
            for loser in losers:
                if self._contests(loser):
                    self._changes.append(Contest(loser.pid.node, loser, winner, self._is_confirmed(winner)))
            break
        for claim in self.claims(name):
            mirror = self.mirrors.get(claim.pid.node)
            if mirror is not None and name in mirror.held and self._may_acknowledge(name):
                mirror.held.discard(name)
                self._changes.append(Acknowledge(claim.pid.node, claim.position))
        self._resolve(name)

    def claims(self, name: str) -> list[Claim]:
        """All live claims of a name that are known here, in no particular order."""
        rivals = self.rivals.get(name)
        if rivals is not None:
            return rivals
        holder = self.view.get(name)
        return [] if holder is None else [self._claim_of(holder.node, name)]

    def _claim_of(self, node: str, name: str) -> Claim:
        return self.own[name].claim if node == self.node else self.mirrors[node].claims[name]

    def _is_confirmed(self, claim: Claim) -> bool:
        if claim.pid.node == self.node:
            return self.own[claim.name].confirmed
        return claim.name in self.mirrors[claim.pid.node].confirmed

    def _resolve(self, name: str) -> None:
        """Let the view follow a disputed name: confirmed first, then what we have acknowledged, then the earlier."""
        rivals = self.rivals.get(name)
        if rivals is None:
            return
        holder = min(rivals, key=self._view_order).pid
        if holder != self.view[name]:
            self._changes += (Removed(name, self.view[name]), Added(name, holder))
            self.view[name] = holder

    def _view_order(self, claim: Claim) -> tuple[bool, bool, Order]:
        mirror = self.mirrors.get(claim.pid.node)
        return not self._is_confirmed(claim), mirror is not None and claim.name in mirror.held, claim.order

    def _add(self, claim: Claim) -> None:
        holder = self.view.get(claim.name)
        if holder is None:
            self.view[claim.name] = claim.pid
            self._changes.append(Added(claim.name, claim.pid))
        else:
            rivals = self.rivals.get(claim.name)
            if rivals is None:
                rivals = self.rivals[claim.name] = [self._claim_of(holder.node, claim.name)]
            rivals.append(claim)

    def _remove(self, claim: Claim) -> None:
        name = claim.name
        rivals = self.rivals.get(name)
        if rivals is None:
            self._changes.append(Removed(name, self.view.pop(name)))
            return
        rivals.remove(claim)
        if len(rivals) == 1:
            del self.rivals[name]
        if self.view[name] == claim.pid:
            self.view[name] = min(rivals, key=self._view_order).pid
            self._changes += (Removed(name, claim.pid), Added(name, self.view[name]))

    def _advance(self, peer: str, position: int) -> Mirror:
        mirror = self.mirrors.get(peer)
        if mirror is None:
            raise RemoteProtocolError("tells of its ledger before it has begun to sync it")
        mirror.advance(position)
        return mirror

    def _mirror(self, mirror: Mirror, claim: Claim, confirmed: bool, wall_ms: int) -> None:
        self.clock.observe(claim.stamp, wall_ms)
        if not self._keeps(claim):
            return
        mirror.claims[claim.name] = claim
        (mirror.confirmed if confirmed else mirror.held).add(claim.name)
        self._add(claim)
        self._judge(claim.name)

    def _unmirror(self, mirror: Mirror, claim: Claim) -> None:
        self._remove(claim)
        del mirror.claims[claim.name]
        mirror.held.discard(claim.name)
        mirror.confirmed.discard(claim.name)

    def _withdraw(self, names: Sequence[str]) -> None:
        if not names:
            return
        claims = tuple(self._disown(name) for name in names)
        self._changes.append(Withdrawn(self.ledger.append(), claims))
        for name in names:
            self._judge(name)

    def _yield(self, own: OwnClaim, winner: Claim) -> None:
        self._changes.append(Lost(own, winner))
        self._disown(own.claim.name)
        self._changes.append(Withdrawn(self.ledger.append(), (own.claim,)))

    def _disown(self, name: str) -> Claim:
        claim = self.own[name].claim
        self._remove(claim)
        del self.own[name]
        self._pending.pop(claim.position, None)
        self.ledger.forget(claim.position)
        names = self._by_process[claim.pid.local]
        names.discard(name)
        if not names:
            del self._by_process[claim.pid.local]
        return claim

    def _complete(self, positions: Iterable[int]) -> None:
        for position in positions:
            if position in self._pending:
                self._confirm(position)
            else:
                self.ledger.forget(position)
                self._changes.append(Accepted(position))

    def _confirm(self, position: int) -> None:
        name = self._pending.pop(position)
        self.ledger.forget(position)
        own = self.own[name]
        own.confirmed = True
        self._changes.append(Confirmed(self.ledger.append(), own.claim))
        self._judge(name)

    def _take(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes
