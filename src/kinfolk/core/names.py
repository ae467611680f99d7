"""The name table of one node: how what peers tell of their ledgers comes into the views, and goes.

Each method takes one event in and returns the changes it caused, in order; the caller passes them all on before the
next event. Which claim of a name counts is decided in `kinfolk.core.views`.

Whatever concerns many names at once goes in *slices*, each name as a whole: a lost node's names, or those of a dead
process, are refused by lookups at once and leave the views bit by bit (`_Sweep`); what was built beside the views comes
into them bit by bit (`Repair`). An event about one of these names lets that name go first. The caller calls `work` as
long as there is some.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from kinfolk.compiled import mypyc_attr
from kinfolk.core.changes import (
    Acknowledge,
    AcknowledgeThrough,
    Change,
    Contest,
    Diverged,
    NameAdded,
    NameRemoved,
    Settled,
    Synced,
)
from kinfolk.core.ledger import Claim, Ledger
from kinfolk.core.mirror import (
    Fact,
    Membership,
    Mirror,
    Repair,
    Staged,
    add_digest,
    claim_digest,
    membership_digest,
    total,
)
from kinfolk.core.views import Views
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid

SLICE = 500
"""Names in one step: a few milliseconds."""
_AUDITED = 100
"""Facts that an audit looks at in one step."""


class _Sweep(NamedTuple):
    """What has to leave the views: the facts of a lost node, (name, creation), or of a dead process of ours."""

    whose: Pid | tuple[str, int]
    facts: Iterator[Fact]


@mypyc_attr(allow_interpreted_subclasses=True)
class Names(Views):
    """The views, and all that peers have to do with them.

    Args:
        node, creation, patience, lapse: as for the views.
        step: names in one slice.
        room: names and memberships that kept mirrors may have together; the oldest go first.
    """

    def __init__(
        self, node: str, creation: int, *, patience: float, lapse: float, step: int = SLICE, room: int = 1_000_000
    ) -> None:
        super().__init__(node, creation, patience=patience, lapse=lapse)
        self.step, self.room = step, room
        self.staged: dict[str, Staged] = {}
        self.kept: dict[str, Mirror] = {}
        self._sweeps: deque[_Sweep] = deque()
        self._repairs: dict[str, tuple[Repair, Iterator[Fact]]] = {}
        self._disputes: Iterator[str] = iter(())
        self._contesting = False
        self._audit: Iterator[int] | None = None
        self._unaudited = 0

    # --- what peers tell of their ledgers ---

    def offer(self, peer: str, creation: int) -> int:
        """A session with a peer opens: the entry up to which its ledger is still mirrored here, 0 if it is not.

        The peer may go on from there (`resumed`), or begin anew (`sync_begins`).
        """
        mirror = self.kept.pop(peer, None)
        if mirror is None or mirror.creation != creation:
            return 0
        self.staged[peer] = Staged(mirror, offered=True)
        return mirror.position

    def resumed(self, peer: str, position: int, until: int) -> list[Change]:
        """The peer goes on where our mirror of it ends; what it says up to entry `until` is older than the session.

        Raises:
            RemoteProtocolError: our mirror does not end there, or is gone.
        """
        staged = self.staged.get(peer)
        if staged is None or not staged.offered or staged.mirror.position != position or until < position:
            raise RemoteProtocolError(f"goes on after entry {position}, which was not offered")
        staged.offered, staged.until = False, until
        self._unstage(peer)
        return self._take()

    def catches_up_to(self, peer: str) -> int:
        """The last entry of a peer's ledger that is older than the session, if it has gone on where it was; 0 if it has
        not, or if all of that is here by now."""
        staged = self.staged.get(peer)
        return 0 if staged is None or staged.until is None else staged.until

    def is_syncing(self, peer: str) -> bool:
        """Whether a sync of the peer is under way; else the next part that comes begins another."""
        staged = self.staged.get(peer)
        if staged is not None and not staged.offered:
            return not staged.mirror.complete
        mirror = self.mirrors.get(peer)
        return mirror is not None and not mirror.complete and peer not in self._repairs

    def sync_begins(self, peer: str, creation: int, position: int) -> None:
        """Begin the mirror of a peer at this position of its ledger: in the views, unless another is still there."""
        self.staged.pop(peer, None)
        self._repairs.pop(peer, None)
        mirror = Mirror(peer, creation, position)
        if peer in self.mirrors or self._is_leaving(peer, creation):
            self.staged[peer] = Staged(mirror)
        else:
            self._lost.pop(peer, None)
            self.mirrors[peer] = mirror

    def sync_part(
        self,
        peer: str,
        claims: Iterable[tuple[Claim, bool]],
        wall_ms: int,
        members: Iterable[Membership] = (),
        position: int | None = None,
    ) -> list[Change]:
        """Take in live facts of a peer as they are at this point of its ledger; of claims, whether they are confirmed.

        Raises:
            RemoteProtocolError: no sync is under way at that position, or it contradicts what the peer has said before.
        """
        mirror, aside = self._told(peer)
        if mirror.complete or position not in (None, mirror.position):
            raise RemoteProtocolError(f"sync at entry {position} while its mirror is at {mirror.position}")
        if self._undisturbed(peer) is mirror:
            claims = self._sync_plainly(mirror, claims, wall_ms)
        for claim, confirmed in claims:
            if not 0 < claim.position <= mirror.position:
                raise RemoteProtocolError(
                    f"syncs {claim.name!r}, claimed at {claim.position} of {mirror.position} entries"
                )
            known = mirror.claims.get(claim.name)
            if known is None:
                self._take_in(mirror, aside, claim, confirmed, wall_ms)
            elif known.position != claim.position:  # the same claim may have come as a change, between the parts
                raise RemoteProtocolError(f"syncs {claim.name!r}, claimed at {claim.position} and at {known.position}")
        for membership in members:
            if mirror.enter(membership) and not aside:
                self._add_member(membership[0], Pid(peer, mirror.creation, membership[1]))
        return self._take()

    def _sync_plainly(
        self, mirror: Mirror, claims: Iterable[tuple[Claim, bool]], wall_ms: int
    ) -> list[tuple[Claim, bool]]:
        """Take in the claims that are confirmed and undisputed, as a sync brings them by the hundred thousand.

        Returns the rest. All in one loop, since the sum over a part is what stalls the loop of a node that joins:
        2.7 -> 1.8 us of the joiner for each name.
        """
        view, rivals, known, last = self.view, self.rivals, mirror.claims, mirror.position
        rest: list[tuple[Claim, bool]] = []
        changes, digest, newest, end = self._changes, 0, 0, self.clock.end(wall_ms)
        for each in claims:
            claim, confirmed = each
            name, stamp, pid = claim.name, claim.stamp, claim.pid
            if not confirmed or name in view or name in known or name in rivals or not 0 < claim.position <= last:
                rest.append(each)
                continue
            known[name] = claim
            view[name] = pid
            digest += claim_digest(claim, True)
            if newest < stamp < end:
                newest = stamp
            changes.append(NameAdded(name, pid))
        mirror.digest = add_digest(mirror.digest, digest)
        self.clock.observe(newest, wall_ms)
        return rest

    def sync_done(self, peer: str) -> list[Change]:
        """The sync of the peer has ended: what it does not show does not exist."""
        mirror, aside = self._told(peer)
        mirror.complete = True
        if aside:
            self.staged[peer].until = mirror.position
            self._unstage(peer)
        else:
            self._is_here(mirror, mirror.position)
        return self._take()

    def peer_claimed(self, peer: str, claim: Claim, wall_ms: int) -> list[Change]:
        """The next entry of a peer's ledger is a claim.

        Raises:
            RemoteProtocolError: not the next entry, or the peer claims the name already.
        """
        self._claimed(peer, claim, wall_ms)
        return self._take()

    def peer_claimed_all(self, peer: str, claims: Iterable[Claim], wall_ms: int) -> list[Change]:
        """The next entries of a peer's ledger are these claims.

        Raises:
            RemoteProtocolError: as `peer_claimed`. The claims before have been taken in.
        """
        mirror = self._undisturbed(peer)
        for claim in claims:
            if mirror is None or claim.position != mirror.position + 1 or claim.name in mirror.claims:
                self._claimed(peer, claim, wall_ms)
                mirror = self._undisturbed(peer)
            else:
                mirror.position = claim.position
                self.clock.observe(claim.stamp, wall_ms)
                self._mirror(mirror, claim, False)
        return self._take()

    def _claimed(self, peer: str, claim: Claim, wall_ms: int) -> None:
        mirror, aside = self._advance(peer, claim.position, (claim.name,))
        if claim.name in mirror.claims:
            self._check(mirror, f"claims the name {claim.name!r} twice")
            mirror.drop(mirror.claims[claim.name])
            self._count_again(claim.name)
        self._take_in(mirror, aside, claim, False, wall_ms)
        if aside:
            self._unstage(peer)

    def peer_withdrew(
        self, peer: str, position: int, names: Sequence[str], claims: Sequence[int], members: Sequence[Membership] = ()
    ) -> list[Change]:
        """The next entry of a peer's ledger ends these claims, each named by its position, and these memberships.

        Raises:
            RemoteProtocolError: not the next entry, or what the peer does not have.
        """
        mirror, aside = self._advance(peer, position, [*names, *members])
        for name, at in zip(names, claims, strict=True):
            claim = mirror.claims.get(name)
            if claim is not None and claim.position == at:
                if aside:
                    mirror.drop(claim)
                else:
                    self._unmirror(mirror, claim)
                    self._judge(name)
            elif mirror.complete:  # else withdrawn before the sync came to it
                self._check(mirror, f"withdraws the name {name!r} as claimed at {at}, which it does not hold")
        for membership in members:
            if not mirror.leave(membership):
                if mirror.complete:
                    self._check(mirror, f"leaves the group {membership[0]!r}, of which it is no member")
            elif not aside:
                self._remove_member(membership[0], Pid(peer, mirror.creation, membership[1]))
        if not (aside and peer in self.mirrors):  # else a damaged mirror may still show what it ends
            self._changes.append(Acknowledge(peer, position))
        return self._advanced(peer, aside)

    def peer_withdrew_plainly(
        self, peer: str, entries: Iterable[tuple[int, str, int]]
    ) -> tuple[list[Change], list[Claim]]:
        """The next entries of a peer's ledger: each ends, at a position, its claim of a name made there.

        Takes in those at the beginning that end what nobody disputes, while nothing else is under way: as nearly all
        do. Returns, beside the changes, the claims that are gone, one for each entry that was taken in.
        """
        gone: list[Claim] = []
        mirror = self._undisturbed(peer)
        if mirror is None:
            return [], gone
        for position, name, at in entries:
            claim = mirror.claims.get(name)
            if claim is None or claim.position != at or position != mirror.position + 1:
                break
            if name in self.rivals or self.view.get(name) is not claim.pid:
                break
            mirror.position = position
            mirror.drop(claim)
            del self.view[name]
            gone.append(claim)
            self._changes += (NameRemoved(name, claim.pid), Acknowledge(peer, position))
        return self._take(), gone

    def peer_confirmed(self, peer: str, position: int, name: str, at: int) -> list[Change]:
        """The next entry of a peer's ledger says that its claim made there is confirmed.

        Raises:
            RemoteProtocolError: not the next entry, or a claim that the peer does not have.
        """
        self._confirmed(peer, position, name, at)
        return self._take()

    def peer_confirmed_all(self, peer: str, entries: Iterable[tuple[int, str, int]]) -> list[Change]:
        """The next entries of a peer's ledger confirm claims: by position, name, and where the claim was made.

        Raises:
            RemoteProtocolError: as `peer_confirmed`. The entries before have been taken in.
        """
        mirror = self._undisturbed(peer)
        for position, name, at in entries:
            claim = None if mirror is None or position != mirror.position + 1 else mirror.claims.get(name)
            if mirror is None or claim is None or claim.position != at or name in self.rivals:
                self._confirmed(peer, position, name, at)
                mirror = self._undisturbed(peer)
            else:
                mirror.position = position
                mirror.confirm(claim)
                mirror.held.discard(name)
                self._changes.append(Settled(name))
        return self._take()

    def _confirmed(self, peer: str, position: int, name: str, at: int) -> None:
        mirror, aside = self._advance(peer, position, (name,))
        claim = mirror.claims.get(name)
        if claim is not None and claim.position == at:
            mirror.confirm(claim)
            if not aside:
                mirror.held.discard(name)  # nobody waits for our acknowledgement any longer
                if name in self.rivals:
                    self._judge(name)
                self._changes.append(Settled(name))
        elif mirror.complete:
            self._check(mirror, f"confirms the name {name!r} as claimed at {at}, which it does not hold")
        if aside:
            self._unstage(peer)

    def peer_moved(self, peer: str, position: int, name: str, at: int, local: int) -> list[Change]:
        """The next entry of a peer's ledger gives its claim made there to another process of its.

        Raises:
            RemoteProtocolError: not the next entry, or a claim that the peer does not have.
        """
        mirror, aside = self._advance(peer, position, [name])
        old = mirror.claims.get(name)
        if old is not None and old.position == at:
            new = Claim(name, Pid(peer, mirror.creation, local), position, old.stamp, old.after)
            confirmed, held = mirror.is_confirmed(old), name in mirror.held
            mirror.drop(old)
            mirror.put(new, confirmed)
            if held:
                mirror.held.add(name)
            if not aside:
                self._replace(old, new)
                self._judge(name)
        elif mirror.complete:  # else the sync has yet to come to it
            self._check(mirror, f"moves the name {name!r} as claimed at {at}, which it does not hold")
        if not (aside and peer in self.mirrors):  # as for what is withdrawn: nothing shows the old claim
            self._changes.append(Acknowledge(peer, position))
        return self._advanced(peer, aside)

    def peer_entered(self, peer: str, position: int, membership: Membership) -> list[Change]:
        """The next entry of a peer's ledger makes a process of it a member of a group.

        Raises:
            RemoteProtocolError: not the next entry, or it is a member.
        """
        mirror, aside = self._advance(peer, position, [membership])
        if not mirror.enter(membership):
            self._check(mirror, f"enters the group {membership[0]!r} twice")
        if not aside:
            self._add_member(membership[0], Pid(peer, mirror.creation, membership[1]))
        return self._advanced(peer, aside)

    def peer_acknowledged(self, peer: str, positions: Iterable[int], through: int = 0) -> list[Change]:
        """A peer has these entries of ours in its views, and every withdrawal `through` that one.

        Claims that all peers have acknowledged are confirmed.

        Raises:
            RemoteProtocolError: there is no such entry.
        """
        self._complete(self.ledger.acknowledged(peer, positions, through))
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

    def told_from_here(self, peer: str) -> list[Change]:
        """We begin to tell a peer of our ledger: of what was withdrawn before, it will never hear, nor show it."""
        self._complete(self.ledger.excuse(peer))
        return self._take()

    def peer_down(self, peer: str, creation: int, returns: bool = False) -> list[Change]:
        """A session has ended: the peer's names are gone here, and nothing waits for it. A complete mirror is kept.

        With `returns` a new session with it takes the place of this one, and claims that wait for it go on waiting:
        a claim confirmed between the two sessions would be one that a connected peer does not know.
        """
        self._lost[peer] = creation
        # What an operation had changed before it broke the protocol is still to be told, but not to its sender.
        self._changes = [
            change
            for change in self._changes
            if not (isinstance(change, Acknowledge | AcknowledgeThrough | Contest | Synced) and change.peer == peer)
        ]
        staged, mirror = self.staged.pop(peer, None), self.mirrors.pop(peer, None)
        repairing = self._repairs.pop(peer, None) is not None
        if mirror is not None:
            # Whatever somebody else disputes is decided now; of the rest it is enough that nobody finds it.
            for claim in [claim for claims in self.rivals.values() for claim in claims if claim.pid.node == peer]:
                self._remove(claim)
                self._judge(claim.name)
            self._sweep(_Sweep((peer, mirror.creation), mirror.facts()))
        elif staged is not None:
            mirror = staged.mirror
        if mirror is not None and self._is_worth_keeping(mirror, repairing):
            self._keep(mirror)
        self._complete(self.ledger.peer_down(peer, returns))
        return self._take()

    def forget(self, peer: str) -> None:
        """Keep the mirror of a lost peer no longer."""
        self.kept.pop(peer, None)

    def forget_loss(self, peer: str) -> None:
        """A peer was lost so long ago that it counts as never met, unless it has come back."""
        self._lost.pop(peer, None)

    def _is_worth_keeping(self, mirror: Mirror, repairing: bool) -> bool:
        """Only a mirror of which all is known can go on where it ends."""
        return mirror.sound and mirror.position > 0 and not repairing

    def _is_leaving(self, peer: str, creation: int) -> bool:
        """Whether names of that start of the peer are on their way out: what comes now must not leave with them."""
        return (peer, creation) in self.refused

    def _keep(self, mirror: Mirror) -> None:
        mirror.held.clear()
        self.kept[mirror.peer] = mirror
        facts = sum(map(len, self.kept.values()))
        for peer in list(self.kept):
            if facts > self.room:
                facts -= len(self.kept.pop(peer))

    def process_exited(self, local: int) -> list[Change]:
        """Give up every name and membership of a dead process: in one entry of the ledger, or in one for each slice."""
        facts = self._by_process.get(local)
        if facts and len(facts) <= self.step:
            self._withdraw_facts(list(facts))
        elif facts:
            # Whatever somebody else disputes is decided now; of the rest it is enough that nobody finds it.
            disputed = [fact for fact in facts if fact in self.rivals]
            for start in range(0, len(disputed), self.step):
                self._withdraw_facts(disputed[start : start + self.step])
            pid = Pid(self.node, self.creation, local)
            self._sweep(_Sweep(pid, iter(list(facts))))
        return self._take()

    def contest_again(self) -> list[Change]:
        """Judge every disputed name again, in slices; to be called with each heartbeat."""
        if not self._contesting:
            self._disputes, self._contesting = iter(list(self.rivals)), True
        self._work(self.step)
        return self._take()

    # --- what goes in slices ---

    @property
    def busy(self) -> bool:
        """Whether something goes on in slices: the caller calls `work` after others have had their turn."""
        # `unsettled` written out: this is asked after every input.
        return self._contesting or bool(self._sweeps or self._repairs) or self._unaudited > 0

    @property
    def unsettled(self) -> bool:
        """Whether facts are on their way into the views, or out of them."""
        return bool(self._sweeps or self._repairs)

    def work(self) -> list[Change]:
        """Do the next slice."""
        self._work(self.step)
        return self._take()

    def _work(self, left: int) -> None:
        while left > 0 and self.busy:
            if self._contesting:
                left -= self._contest_on(left)
            elif self._sweeps:
                left -= self._sweep_on(left)
            elif self._repairs:
                left -= self._repair_on(left)
            else:
                left -= self._audit_on()

    def _contest_on(self, most: int) -> int:
        some = list(islice(self._disputes, most))
        for name in some:
            self._judge(name)
        self._contesting = len(some) == most
        return len(some)

    def _sweep(self, sweep: _Sweep) -> None:
        """From now on this one's names are refused; they leave the views as far as there is time."""
        self.refused.add(sweep.whose)
        self._sweeps.append(sweep)
        self._work(self.step)

    def _sweep_on(self, most: int) -> int:
        whose, facts = self._sweeps[0]
        some = list(islice(facts, most))
        if isinstance(whose, Pid):
            own = self._by_process.get(whose.local, {})
            self._withdraw_facts([fact for fact in some if fact in own])
        else:
            for fact in some:
                if isinstance(fact, str):
                    self._freshen(fact)
                else:
                    self._remove_member(fact[0], Pid(*whose, fact[1]))
        if len(some) < most:
            self._sweeps.popleft()
            self.refused.discard(whose)
            if not isinstance(whose, Pid):
                self._let_in(whose[0])
        return max(1, len(some))

    def _unstage(self, peer: str) -> None:
        """Let a staged mirror into the views, if it may enter, as far as there is time."""
        if self._let_in(peer):
            self._work(self.step)

    def _let_in(self, peer: str) -> bool:
        """Let a staged mirror enter, if it is ready and no earlier one of the same start is on its way out."""
        staged = self.staged.get(peer)
        if staged is None or not staged.ready or self._is_leaving(peer, staged.mirror.creation):
            return False
        del self.staged[peer]
        self._lost.pop(peer, None)
        wanted = staged.mirror
        live = self.mirrors.get(peer)
        if live is None:
            live = self.mirrors[peer] = Mirror(peer, wanted.creation, wanted.position)
        live.complete, live.damaged = False, wanted.damaged
        live.position, live.digest = wanted.position, wanted.digest
        repair = Repair(live, wanted)
        self._repairs[peer] = repair, iter(repair)
        return True

    def _repair_on(self, most: int) -> int:
        peer, (repair, facts) = next(iter(self._repairs.items()))
        done = 0
        for fact in islice(facts, most):
            self._repair(repair, fact)
            done += 1
        if done < most:
            del self._repairs[peer]
            repair.live.complete = True
            repair.live.held &= repair.live.claims.keys()  # damage may have left some there
            self._is_here(repair.live, repair.wanted.position)
        return max(1, done)

    def _repair(self, repair: Repair, fact: Fact) -> None:
        """Make one fact of a live mirror what it is to be."""
        digest = repair.live.digest
        if isinstance(fact, str):
            self._repair_claim(repair, fact)
        else:
            self._repair_membership(repair, fact)
        repair.live.digest = digest  # it is that of what is to be, from the start

    def _repair_claim(self, repair: Repair, name: str) -> None:
        live, wanted = repair.live, repair.wanted
        self._freshen(name)
        old, new = live.claims.get(name), wanted.claims.pop(name, None)
        confirmed = new is None or wanted.is_confirmed(new)
        if old is None and name not in self.view:
            if new is not None:
                self._mirror(live, new, confirmed)
        elif old != new or (old is not None and live.is_confirmed(old) != confirmed):
            if old is not None:
                live.drop(old)
            if new is not None:
                live.put(new, confirmed)
                if not confirmed:
                    live.held.add(name)
            self._count_again(name)
            if new is not None and confirmed:
                self._changes.append(Settled(name))

    def _repair_membership(self, repair: Repair, membership: Membership) -> None:
        group, pid = membership[0], Pid(repair.live.peer, repair.live.creation, membership[1])
        if membership in repair.wanted.members:
            del repair.wanted.members[membership]
            repair.live.enter(membership)
            self._add_member(group, pid)
        else:
            repair.live.leave(membership)
            self._remove_member(group, pid)

    # --- for people who ask why ---

    def claims_of(self, peer: str, names: Sequence[str]) -> tuple[Claim, ...]:
        """The claims of these names that a peer has told of, in the views or on their way there."""
        staged, live = self.staged.get(peer), self.mirrors.get(peer)
        mirror = live if staged is None or staged.offered else staged.mirror
        return () if mirror is None else tuple(mirror.claims[name] for name in names if name in mirror.claims)

    def arriving(self, name: str) -> list[Claim]:
        """Claims of a name that peers have told of, and that are on their way into the views."""
        mirrors = [staged.mirror for staged in self.staged.values()]
        mirrors += [repair.wanted for repair, _ in self._repairs.values()]
        return [mirror.claims[name] for mirror in mirrors if name in mirror.claims]

    # --- whether memory holds what was told ---

    def diverges(self, peer: str, position: int, digest: int) -> bool:
        """Whether our mirror is not what its node says it should be. False as long as that cannot be known."""
        mirror = self.mirrors.get(peer)
        return mirror is not None and mirror.sound and mirror.position == position and mirror.digest != digest

    def distrust(self, peer: str) -> int:
        """Our mirror of a peer is not what it has told. Returns the entry at which it stands."""
        mirror = self.mirrors.get(peer)
        if mirror is not None:
            mirror.damaged = True
        return self._told(peer)[0].position

    def put_right(self, name: str) -> list[Change]:
        """The views do not show what is claimed of this name: let them, unless it is by somebody dead."""
        self._put_right([name])
        self._freshen(name)
        return self._take()

    def audit(self, facts: int) -> list[Change]:
        """Look at so many facts, in slices: whether they add up to what was told, and are in the views.

        It goes on where it ended the last time; however few there are, it looks at none twice.
        """
        self._unaudited = facts
        self._work(self.step)
        return self._take()

    def _audit_on(self) -> int:
        if self._audit is None:
            self._audit = self._look_through()
        looked_at = next(self._audit, None)
        if looked_at is None:
            self._audit, looked_at = None, self._unaudited
        self._unaudited -= looked_at
        return max(1, looked_at)

    def _look_through(self) -> Iterator[int]:
        """Add up every table once, in slices. What changes meanwhile makes no difference: claims are values."""
        ours = [own.claim for own in self.own.values()]
        digest, added = self.digest, 0
        for part, facts in self._add_up(self.node, ours, self.memberships, self._pending):
            added += part
            yield facts
        if add_digest(added, -digest):
            self.digest = add_digest(self.digest, added - digest)
            self._changes.append(Diverged(self.node))
        yield from self._look_up(ours)
        for mirror in list(self.mirrors.values()):
            claims, digest, added = list(mirror.claims.values()), mirror.digest, 0
            facts_of = mirror.peer, claims, mirror.members, mirror.unconfirmed
            for part, facts in self._add_up(*facts_of) if mirror.sound else ():
                added += part
                yield facts
            if not mirror.sound or self.mirrors.get(mirror.peer) is not mirror:
                continue
            if add_digest(added, -digest):
                self._changes.append(Diverged(mirror.peer))
            else:
                yield from self._look_up(claims)
        yield from self._look_at_disputes()
        claimed = len(self.own) + sum(len(mirror.claims) for mirror in self.mirrors.values())
        if not self.unsettled and len(self.view) != claimed - sum(len(rivals) - 1 for rivals in self.rivals.values()):
            self._put_right([name for name in self.view if not self.claims(name)])

    def _add_up(
        self, node: str, claims: list[Claim], members: Iterable[Membership], unconfirmed: Iterable[int]
    ) -> Iterator[tuple[int, int]]:
        """What these facts, in slices, add to the digest, and how many they are."""
        members, unconfirmed = list(members), set(unconfirmed)
        for start in range(0, len(members), _AUDITED):
            entered = members[start : start + _AUDITED]
            yield sum(map(membership_digest, entered)), len(entered)
        for start in range(0, len(claims), _AUDITED):
            some = claims[start : start + _AUDITED]
            yield total(some, unconfirmed, node), len(some)

    def _look_up(self, claims: list[Claim]) -> Iterator[int]:
        """Find claims that the views do not show; to be asked of sound tables alone, or damage would spread."""
        for start in range(0, len(claims), _AUDITED):
            some = claims[start : start + _AUDITED]
            self._put_right(
                claim.name
                for claim in some
                if self.view.get(claim.name) is not claim.pid
                and claim.name not in self.rivals
                and self._claim_of(claim.pid.node, claim.name) is claim
            )
            yield len(some)

    def _look_at_disputes(self) -> Iterator[int]:
        """Find disputed names of which the views do not have what the tables have."""
        disputed = list(self.rivals)
        for start in range(0, len(disputed), _AUDITED):
            some = [name for name in disputed[start : start + _AUDITED] if name in self.rivals]
            self._put_right(
                name
                for name in some
                if sorted(self.rivals[name], key=self._rank) != sorted(self._gather(name), key=self._rank)
                or self.view.get(name) != min(self.rivals[name], key=self._view_order).pid
            )
            yield len(some)

    def _put_right(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._count_again(name)
            self._changes.append(Diverged(self.node))

    def _check(self, mirror: Mirror, breach: str) -> None:
        """What a peer says does not fit our mirror of it. Memory that does not hold what was told would be the reason.

        Raises:
            RemoteProtocolError: memory does hold it: the peer breaks the protocol.
        """
        if mirror.damaged:
            return
        if mirror.adds_up:
            raise RemoteProtocolError(breach)
        mirror.damaged = True
        self._changes.append(Diverged(mirror.peer))

    # --- inside ---

    def _told(self, peer: str) -> tuple[Mirror, bool]:
        """The mirror that what a peer tells of its ledger is for, and whether it is beside the views."""
        staged = self.staged.get(peer)
        if staged is not None and not staged.offered:
            return staged.mirror, True
        mirror = self.mirrors.get(peer)
        if mirror is None:
            raise RemoteProtocolError("tells of its ledger before it has begun to sync it")
        return mirror, False

    def _undisturbed(self, peer: str) -> Mirror | None:
        """The mirror of a peer, if what it tells goes there as it is: nobody's names are on their way in or out."""
        mirror = self.mirrors.get(peer)
        if mirror is None or mirror.damaged or self.staged or self._repairs or self.refused:
            return None
        return mirror

    def _advance(self, peer: str, position: int, facts: Iterable[Fact]) -> tuple[Mirror, bool]:
        """Go on to the peer's next entry, which is about these facts."""
        mirror, aside = self._told(peer)
        mirror.advance(position)
        if not aside and (self.refused or self._repairs or mirror.damaged):
            repair = self._repairs.get(peer)
            for fact in facts:
                if repair is not None and repair[0].take(fact):
                    self._repair(repair[0], fact)
                elif isinstance(fact, str):
                    self._freshen(fact)
                    if mirror.damaged:
                        self._count_again(fact)  # who knows what the views have of it
        return mirror, aside

    def _advanced(self, peer: str, aside: bool) -> list[Change]:
        if aside:
            self._unstage(peer)
        return self._take()

    def _is_here(self, mirror: Mirror, position: int) -> None:
        """What was so at this entry is in the views; and nothing that had ended, be it that its end was never told."""
        self._changes += (AcknowledgeThrough(mirror.peer, position), Synced(mirror.peer))

    def _take_in(self, mirror: Mirror, aside: bool, claim: Claim, confirmed: bool, wall_ms: int) -> None:
        self.clock.observe(claim.stamp, wall_ms)
        if aside:
            mirror.put(claim, confirmed)
        else:
            self._freshen(claim.name)
            self._mirror(mirror, claim, confirmed)
