"""Who holds each name, and by which rules: the views of one node.

Every node speaks only for its own processes. Who holds a name is computed, never sent: it is the first of the claims
known here by *rank* (confirmed ones first, then by stamp). `whereis` reads the *view*, which among claims not yet
confirmed prefers one that this node has acknowledged. Memberships of groups travel in the same ledgers; they never
contradict each other.

The rules that make names safe are one small method each (``_may_acknowledge`` and its neighbours): remove one, and the
simulation shows what breaks. How the claims of peers get here is the business of `kinfolk.core.names`.

Source: the owner's authority over its names as in ostinelli/syn (INTERNALS.md); an operation that returns its diff as
in Phoenix.Tracker; acknowledgements and contests are kinfolk's own, see ``docs/design-notes.md``.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kinfolk.compiled import mypyc_attr
from kinfolk.core.changes import (
    Accepted,
    Acknowledge,
    Cause,
    Change,
    Claimed,
    Confirmed,
    Contest,
    Entered,
    HandedOver,
    Lost,
    MemberAdded,
    MemberRemoved,
    Moved,
    NameAdded,
    NameRemoved,
    OwnClaim,
    Withdrawn,
)
from kinfolk.core.clock import Clock
from kinfolk.core.groups import Groups
from kinfolk.core.ledger import Claim, Identity, Ledger, Order
from kinfolk.core.mirror import (
    Fact,
    Membership,
    Mirror,
    add_digest,
    claim_digest,
    confirmation_digest,
    membership_digest,
)
from kinfolk.ids import Pid


class _Rumour(NamedTuple):
    """A contest by a confirmed winner that we do not see: since when it has been repeated without a break."""

    first: float
    last: float


@mypyc_attr(allow_interpreted_subclasses=True)
class Views:
    """Who has which name, as one node knows it from its own ledger and its mirrors of others.

    Args:
        node, creation: whose own claims these are.
        patience: seconds that the contest of a confirmed claim unseen here must be repeated before we yield to it: the
            time its sender needs to notice that the winner's node is dead.
        lapse: seconds without a repetition after which such a contest is forgotten.

    Attributes:
        whereis: ``whereis(name) -> Pid | None``: the holder, by one lookup, from any thread.
    """

    whereis: Callable[[str], Pid | None]

    def __init__(self, node: str, creation: int, *, patience: float, lapse: float) -> None:
        self.node, self.creation = node, creation
        self.patience, self.lapse = patience, lapse
        self.clock = Clock()
        self.ledger = Ledger()
        self.view: dict[str, Pid] = {}
        """Each name with its holder. Some of them may be `refused`: ask `whereis`."""
        self.refused: set[Pid | tuple[str, int]] = set()
        """Who is dead and still on the way out of the views: lost nodes, (name, creation), and processes of ours."""
        self.whereis = _lookup(self.view, self.refused)
        self.groups = Groups(self.refused)
        self.own: dict[str, OwnClaim] = {}
        self.memberships: dict[Membership, None] = {}
        """This node's own."""
        self.digest = 0
        """Of our own ledger."""
        self.mirrors: dict[str, Mirror] = {}
        """Of peers, as far as they are in the views."""
        self.rivals: dict[str, list[Claim]] = {}
        """All claims of each name that has more than one."""
        self.heirs: dict[str, Pid] = {}
        """Names of ours that are to move to another node, each with who is to have it."""
        self._let_go: set[str] = set()
        """Those of them whose heir has been acknowledged by everybody but us."""
        self._pending: dict[int, str] = {}
        self._by_process: dict[int, dict[Fact, None]] = {}
        self._rumours: OrderedDict[tuple[int, str, int, int], _Rumour] = OrderedDict()
        self._lost: dict[str, int] = {}
        """The creations of peers that were lost and have not come back."""
        self._changes: list[Change] = []

    def is_refused(self, pid: Pid) -> bool:
        """Whether a process is known to be dead, though it may still be in the views."""
        return pid in self.refused or (pid.node, pid.creation) in self.refused

    def names_of(self, local: int) -> list[str]:
        """The names that a process of ours has or claims, in the order in which it claimed them."""
        return [fact for fact in self._by_process.get(local, ()) if isinstance(fact, str)]

    @property
    def own_claims(self) -> int:
        """How many claims of this node there are."""
        return len(self.own)

    @property
    def disputed(self) -> int:
        """How many names more than one claim is known of."""
        return len(self.rivals)

    def groups_of(self, local: int) -> list[str]:
        """The groups that a process of ours is a member of, in the order in which it joined them."""
        return [fact[0] for fact in self._by_process.get(local, ()) if not isinstance(fact, str)]

    def owns(self, local: int) -> bool:
        """Whether a process of ours has or claims a name, or is a member of a group."""
        return local in self._by_process

    # --- this node's own claims and memberships ---

    def claim(self, name: str, pid: Pid, on_lost: str, wall_ms: int) -> list[Change]:
        """Claim a name that `whereis` does not know, for a process of ours. Confirmed at once if there is no peer."""
        self._freshen(name)
        assert name not in self.view and pid.node == self.node, "the caller looks before it claims"
        self._claim(Claim(name, pid, self.ledger.append(), self.clock.tick(wall_ms)), on_lost)
        return self._take()

    def withdraw(
        self, names: Sequence[str], cause: Cause = "unregistered", missing: Sequence[str] = ()
    ) -> list[Change]:
        """Give up these names of this node, in one entry of the ledger.

        Args:
            missing: the peers that did not acknowledge in time, if that is the cause.
        """
        self._withdraw(names, (), cause, tuple(missing))
        return self._take()

    def join(self, group: str, pid: Pid) -> list[Change]:
        """Make a process of this node a member of a group. Nothing changes if it is one."""
        membership = group, pid.local
        if membership not in self.memberships:
            self.memberships[membership] = None
            self.digest = add_digest(self.digest, membership_digest(membership))
            self._by_process.setdefault(pid.local, {})[membership] = None
            self._changes.append(Entered(self.ledger.append(), group, pid.local))
            self._add_member(group, pid)
        return self._take()

    def leave(self, group: str, pid: Pid) -> list[Change]:
        """End a membership of a process of this node. Nothing changes if there is none."""
        if (group, pid.local) in self.memberships:
            self._withdraw((), [(group, pid.local)])
        return self._take()

    def is_confirmed(self, name: str) -> bool:
        """Whether the holder of the name, in the view, has a confirmed claim."""
        holder = self.whereis(name)
        claim = None if holder is None else self._claim_of(holder.node, name)
        return claim is not None and self._is_confirmed(claim)

    def moving(self, name: str) -> Pid | None:
        """Who is to have a name that is on its way from its holder to another node."""
        claims = self.rivals.get(name, ())
        known = {claim.identity for claim in claims}
        heirs = (claim.pid for claim in claims if claim.after in known and not self._is_confirmed(claim))
        return next(heirs, None)

    # --- for people who ask why ---

    def in_view_order(self, name: str) -> list[Claim]:
        """All live claims of a name that are known here, the one that the view shows first."""
        return sorted(self.claims(name), key=self._view_order)

    def confirms(self, claim: Claim) -> bool:
        """Whether this claim, which is in the views, is confirmed."""
        return self._is_confirmed(claim)

    def acknowledges(self, claim: Claim) -> bool:
        """Whether this claim, which is in the views, is ours or has been acknowledged here."""
        mirror = self.mirrors.get(claim.pid.node)
        return mirror is None or claim.name not in mirror.held

    def heir_of(self, claim: Claim) -> Pid | None:
        """Who is to have the name after this claim."""
        if claim.pid.node == self.node and claim.name in self.heirs:
            return self.heirs[claim.name]
        return next((heir.pid for heir in self.claims(claim.name) if heir.after == claim.identity), None)

    def yields(self, claim: Claim, first: Claim) -> bool:
        """Whether a claim is to be given up for the first of its name: an heir that waits for it is not."""
        return claim != first and claim.after != first.identity

    def first(self, name: str) -> Claim | None:
        """The claim of a name to which all others known here yield."""
        claims = self._contestants(self.claims(name))
        return min(claims, key=self._rank, default=None)

    def own_claim(self, name: str) -> Claim | None:
        """The claim that this node has of a name."""
        own = self.own.get(name)
        return None if own is None else own.claim

    # --- names that move ---

    def move(self, name: str, pid: Pid) -> list[Change]:
        """Give a confirmed name of ours to another process of ours, in one entry of the ledger."""
        own = self.own[name]
        old = own.claim
        assert own.confirmed and pid.node == self.node, "the caller looks before it moves"
        new = Claim(name, pid, self.ledger.append(), old.stamp, old.after)
        self.own[name] = OwnClaim(new, own.on_lost, True)
        self.digest = add_digest(self.digest, claim_digest(new, True) - claim_digest(old, True))
        self._disengage(old.pid.local, name)
        self._by_process.setdefault(pid.local, {})[name] = None
        self._changes.append(Moved(new, old.position))
        self._replace(old, new)
        self._judge(name)
        return self._take()

    def inherit(self, name: str, pid: Pid, old: Identity, on_lost: str) -> list[Change] | None:
        """Claim a name for a process of ours as the heir of the claim that has it.

        Our claim is a moment older: whoever yields to the one yields to the other. None, and nothing is changed, if
        the name is not held by that very claim, confirmed and undisputed.
        """
        self._freshen(name)
        claims = self.claims(name)
        if [claim.identity for claim in claims] != [old] or not self._is_confirmed(claims[0]) or not claims[0].stamp:
            return None
        self._claim(Claim(name, pid, self.ledger.append(), self._seniority(claims[0]), old), on_lost)
        return self._take()

    def expect(self, name: str, heir: Pid) -> None:
        """A name of ours is to move to this process of another node."""
        self.heirs[name] = heir

    def let_go(self, name: str) -> list[Change]:
        """Everybody but us has acknowledged the heir of a name of ours: so do we."""
        self._let_go.add(name)
        self._judge(name)
        return self._take()

    def keep(self, name: str) -> None:
        """A name of ours is not to move any more, or has moved."""
        self.heirs.pop(name, None)
        self._let_go.discard(name)

    # --- conflicts ---

    def contested(self, name: str, loser: int, winner: Claim, confirmed: bool, now: float) -> list[Change]:
        """A peer knows a claim of higher rank than ours made at `loser`. Yield to it, unless we know better.

        An unconfirmed winner of a node that we do not know counts at once: both are alive and racing. Any other that
        we do not see ourselves may be dead without its sender having noticed, so its contest must go on for `patience`
        seconds.
        """
        self._freshen(name)
        own = self.own.get(name)
        if own is None or own.claim.position != loser or self._told_more(winner):
            return self._take()
        if self._outranks(winner, confirmed, own) and (
            self._goes_to(winner, own) or self._races(winner, confirmed) or self._believed(own, winner, now)
        ):
            self._yield(own, winner)
            self._judge(name)
        return self._take()

    # --- the rules, one method each ---

    def _may_acknowledge(self, claim: Claim) -> bool:
        """A peer's claim is acknowledged only while no other live claim of its name is known here.

        But for an heir: it is acknowledged beside the claim that it succeeds.
        """
        others = [other for other in self.rivals.get(claim.name, ()) if other.identity != claim.identity]
        return not others or ([other.identity for other in others] == [claim.after] and self._lets_go(others[0]))

    def _lets_go(self, old: Claim) -> bool:
        """The node that gives a name up acknowledges the heir as the last: until then nothing has gone."""
        return old.pid.node != self.node or old.name in self._let_go

    def _contestants(self, claims: list[Claim]) -> list[Claim]:
        """An heir that is not confirmed stands behind the claim that it succeeds: the two do not contest each other."""
        if all(claim.after is None for claim in claims):
            return claims
        known = {claim.identity for claim in claims}
        return [claim for claim in claims if claim.after not in known or self._is_confirmed(claim)]

    def _is_orphan(self, claim: Claim) -> bool:
        """An heir that is not confirmed goes with the claim that it succeeds: who gave that up may have kept it."""
        return claim.after is not None and all(other.identity != claim.after for other in self.claims(claim.name))

    def _seniority(self, old: Claim) -> int:
        """The stamp of an heir: that of the claim that it succeeds, and a moment less."""
        return old.stamp - 1

    def _goes_to(self, winner: Claim, own: OwnClaim) -> bool:
        """Whether a confirmed claim is the one that our name was to go to: then it is not lost, but has moved."""
        return self.heirs.get(own.claim.name) == winner.pid and own.confirmed

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

    def _believed(self, own: OwnClaim, winner: Claim, now: float) -> bool:
        """Whether the contest of a winner that may be dead has been repeated for long enough, without a break.

        Against each claim of ours anew: what was said against an earlier one says nothing about who lives now.
        """
        key = (own.claim.position, winner.pid.node, winner.pid.creation, winner.position)
        rumour = self._rumours.pop(key, None)
        if rumour is None or now - rumour.last > self.lapse:
            rumour = _Rumour(now, now)
        # They lie in the order of their last repetition: however many a peer tells of, each is looked at a few times.
        while self._rumours and now - next(iter(self._rumours.values())).last > self.lapse:
            self._rumours.popitem(last=False)
        self._rumours[key] = _Rumour(rumour.first, now)
        return now - rumour.first >= self.patience

    # --- inside ---

    def _freshen(self, name: str) -> None:
        """Whoever has the name and is refused leaves the view now. (No other claim of the name is known then.)"""
        holder = self.view.get(name) if self.refused else None
        if holder is None or not self.is_refused(holder):
            return
        if holder.node == self.node:
            self._withdraw_facts([name])
        else:
            self._changes.append(NameRemoved(name, self.view.pop(name)))

    def _judge(self, name: str) -> None:
        """Decide a name again after the claims known of it have changed."""
        own = self.own.get(name)
        if name not in self.rivals and (own is None or own.claim.after is None):
            # Nearly every name: there is nothing to decide, and at most an acknowledgement to give.
            holder = self.view.get(name)
            mirror = None if holder is None or own is not None else self.mirrors.get(holder.node)
            if mirror is not None and name in mirror.held and name in mirror.claims:
                mirror.held.discard(name)
                self._changes.append(Acknowledge(mirror.peer, mirror.claims[name].position))
            return
        if own is not None and not own.confirmed and self._is_orphan(own.claim):
            self._withdraw([name], cause="orphaned")
            return
        while claims := self.rivals.get(name):
            winner, *losers = sorted(self._contestants(claims), key=self._rank)
            if any(loser.pid.node == self.node for loser in losers):
                self._yield(self.own[name], winner)
                continue
            for loser in losers:
                if self._contests(loser):
                    self._changes.append(Contest(loser.pid.node, loser, winner, self._is_confirmed(winner)))
            break
        for claim in self.claims(name):
            mirror = self.mirrors.get(claim.pid.node)
            if mirror is None or name not in mirror.held or mirror.claims.get(name) != claim:
                continue  # the last: memory is broken, and shows a claim that its node has never told
            if self._may_acknowledge(claim):
                mirror.held.discard(name)
                self._changes.append(Acknowledge(claim.pid.node, claim.position))
        self._resolve(name)

    def claims(self, name: str) -> list[Claim]:
        """All live claims of a name that are known here, in no particular order."""
        rivals = self.rivals.get(name)
        if rivals is not None:
            return rivals
        holder = self.view.get(name)
        claim = None if holder is None else self._claim_of(holder.node, name)
        return [] if claim is None else [claim]

    def _claim_of(self, node: str, name: str) -> Claim | None:
        if node == self.node:
            return self.own_claim(name)
        mirror = self.mirrors.get(node)
        return None if mirror is None else mirror.claims.get(name)

    def _is_confirmed(self, claim: Claim) -> bool:
        if claim.pid.node == self.node:
            return claim.position not in self._pending
        return self.mirrors[claim.pid.node].is_confirmed(claim)

    def _resolve(self, name: str) -> None:
        """Let the view follow a disputed name: confirmed first, then what we have acknowledged, then the earlier."""
        rivals = self.rivals.get(name)
        if rivals is not None:
            self._show(name, min(rivals, key=self._view_order).pid)

    def _view_order(self, claim: Claim) -> tuple[bool, bool, Order]:
        mirror = self.mirrors.get(claim.pid.node)
        return not self._is_confirmed(claim), mirror is not None and claim.name in mirror.held, claim.order

    def _claim(self, claim: Claim, on_lost: str) -> None:
        """Enter a claim of ours, for which the ledger has a position."""
        self.own[claim.name] = OwnClaim(claim, on_lost)
        self.digest = add_digest(self.digest, claim_digest(claim, False))
        self._by_process.setdefault(claim.pid.local, {})[claim.name] = None
        self._pending[claim.position] = claim.name
        self._changes.append(Claimed(claim))
        self._add(claim)
        if self.ledger.await_claim(claim.position):
            self._confirm(claim.position)

    def _replace(self, old: Claim, new: Claim) -> None:
        """A claim has moved to another process of its node, and the tables of claims have it so: the views follow."""
        rivals = self.rivals.get(old.name)
        if old.pid != self.view.get(old.name) if rivals is None else old not in rivals:
            self._count_again(old.name)  # memory is broken
        elif rivals is None:
            self._show(old.name, new.pid)
        else:
            rivals[rivals.index(old)] = new
            self._resolve(old.name)

    def _add(self, claim: Claim) -> None:
        name = claim.name
        holder = self.view.get(name)
        if holder is None:
            self.view[name] = claim.pid
            self._changes.append(NameAdded(name, claim.pid))
            return
        rivals = self.rivals.get(name)
        if rivals is None:
            other = self._claim_of(holder.node, name)
            if other is None or other is claim:  # memory is broken: nobody has claimed what the view shows
                self._count_again(name)
                return
            rivals = self.rivals[name] = [other]
        rivals.append(claim)

    def _remove(self, claim: Claim) -> None:
        """A claim is gone, and no table of claims has it any more: the views follow."""
        name, holder = claim.name, self.view.get(claim.name)
        rivals = self.rivals.get(name)
        if holder is None or (claim.pid != holder if rivals is None else claim not in rivals):
            self._count_again(name)  # memory is broken: the views do not have what was claimed
            return
        if rivals is None:
            self._show(name, None)
            return
        rivals.remove(claim)
        if len(rivals) == 1:
            del self.rivals[name]
        if holder == claim.pid:
            self._show(name, min(rivals, key=self._view_order).pid)

    def _show(self, name: str, holder: Pid | None) -> None:
        """From now on the view has this holder of the name."""
        before = self.view.get(name)
        if holder is not None:
            self.view[name] = holder
        elif before is not None:
            del self.view[name]
        if before != holder:
            if before is not None:
                self._changes.append(NameRemoved(name, before))
            if holder is not None:
                self._changes.append(NameAdded(name, holder))

    def _add_member(self, group: str, pid: Pid) -> None:
        if self.groups.add(group, pid):
            self._changes.append(MemberAdded(group, pid))

    def _remove_member(self, group: str, pid: Pid) -> None:
        if self.groups.remove(group, pid):
            self._changes.append(MemberRemoved(group, pid))

    def _count_again(self, name: str) -> None:
        """Whatever the views say of a name: gather its claims anew, and let the views follow."""
        claims = self._gather(name)
        self.rivals.pop(name, None)
        if len(claims) > 1:
            self.rivals[name] = claims
        self._show(name, min(claims, key=self._view_order).pid if claims else None)
        self._judge(name)

    def _gather(self, name: str) -> list[Claim]:
        """All claims of a name, as the tables have them and whatever the views say."""
        claims = [self.own[name].claim] if name in self.own else []
        return claims + [mirror.claims[name] for mirror in self.mirrors.values() if name in mirror.claims]

    def _mirror(self, mirror: Mirror, claim: Claim, confirmed: bool) -> None:
        if not self._keeps(claim):
            return
        name = claim.name
        mirror.put(claim, confirmed)
        if name not in self.view and name not in self.rivals:
            # Nobody else claims it: there is nothing to decide, and nothing that could keep us from acknowledging it.
            self.view[name] = claim.pid
            self._changes.append(NameAdded(name, claim.pid))
            if not confirmed:
                self._changes.append(Acknowledge(mirror.peer, claim.position))
            return
        if not confirmed:
            mirror.held.add(name)
        self._add(claim)
        self._judge(name)

    def _unmirror(self, mirror: Mirror, claim: Claim) -> None:
        mirror.drop(claim)
        self._remove(claim)

    def _withdraw_facts(self, facts: Iterable[Fact]) -> None:
        """Give up facts of one process, which is dead."""
        names = [fact for fact in facts if isinstance(fact, str)]
        self._withdraw(names, [fact for fact in facts if not isinstance(fact, str)], "exited")

    def _withdraw(
        self,
        names: Sequence[str],
        members: Sequence[Membership] = (),
        cause: Cause = "unregistered",
        missing: tuple[str, ...] = (),
    ) -> None:
        if not names and not members:
            return
        claims = tuple(self._disown(name) for name in names)
        for group, local in members:
            del self.memberships[group, local]
            self.digest = add_digest(self.digest, -membership_digest((group, local)))
            self._disengage(local, (group, local))
            self._remove_member(group, Pid(self.node, self.creation, local))
        groups, local = tuple(group for group, _ in members), members[0][1] if members else 0
        self._changes.append(Withdrawn(self.ledger.append(), claims, groups, local, cause, missing))
        for name in names:
            self._judge(name)

    def _yield(self, own: OwnClaim, winner: Claim) -> None:
        moves = self._goes_to(winner, own)
        self._changes.append(HandedOver(own, winner) if moves else Lost(own, winner))
        self._disown(own.claim.name)
        cause: Cause = "handed over" if moves else "yielded"
        self._changes.append(Withdrawn(self.ledger.append(), (own.claim,), cause=cause))

    def _disown(self, name: str) -> Claim:
        own = self.own[name]
        claim = own.claim
        del self.own[name]
        self._remove(claim)
        self.digest = add_digest(self.digest, -claim_digest(claim, own.confirmed))
        self._pending.pop(claim.position, None)
        self.ledger.forget(claim.position)
        self._disengage(claim.pid.local, name)
        return claim

    def _disengage(self, local: int, fact: Fact) -> None:
        facts = self._by_process[local]
        del facts[fact]
        if not facts:
            del self._by_process[local]

    def _complete(self, positions: Iterable[int]) -> None:
        for position in positions:
            name = self._pending.get(position)
            if name is not None and self.refused and self.is_refused(self.own[name].claim.pid):
                self._withdraw_facts([name])  # its process is dead, and its turn has not come yet
            elif name is not None:
                self._confirm(position)
            else:
                self.ledger.forget(position)
                self._changes.append(Accepted(position))

    def _confirm(self, position: int) -> None:
        name = self._pending.pop(position)
        self.ledger.forget(position)
        own = self.own[name]
        own.confirmed = True
        self.digest = add_digest(self.digest, confirmation_digest(own.claim))
        self._changes.append(Confirmed(self.ledger.append(), own.claim))
        self._judge(name)

    def taken(self) -> list[Change]:
        """What was taken in, and not passed on, of operations that were cut short by one that breaks the protocol."""
        return self._take()

    def _take(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes


def _lookup(view: dict[str, Pid], refused: set[Pid | tuple[str, int]]) -> Callable[[str], Pid | None]:
    """`whereis` as a closure: half the cost of a method, and it is the one call that everybody makes."""
    get = view.get

    def whereis(name: str) -> Pid | None:
        pid = get(name)
        if refused and pid is not None and (pid in refused or (pid.node, pid.creation) in refused):
            return None
        return pid

    return whereis
