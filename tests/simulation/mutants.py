"""Kernels with one rule removed. Each must fail: a mutant that survives is a hole in the simulation."""

from collections.abc import Iterator
from math import inf
from typing import Any, NamedTuple

from kinfolk import effects as fx
from kinfolk.core.changes import Acknowledge, Change, OwnClaim
from kinfolk.core.ledger import Claim, Ledger, Log
from kinfolk.core.members import Members, Session, Verdict
from kinfolk.core.mirror import Mirror
from kinfolk.core.names import Names
from kinfolk.errors import KinfolkError, RemoteProtocolError
from kinfolk.kernel import Kernel
from kinfolk.orders import Orders
from kinfolk.transfers import Transfers


class Mutant(NamedTuple):
    """What runs on every host, and the network that shows what is wrong with it."""

    network: str = ""
    names: type[Names] = Names
    kernel: type[Kernel] = Kernel


SOUND = Mutant()


# --- the rules of names ---


class AcknowledgesAll(Names):
    """A peer's claim is acknowledged whatever else is known of its name."""

    def _may_acknowledge(self, claim: Claim) -> bool:
        return True


class NeverContests(Names):
    """Nobody tells the loser's origin."""

    def _contests(self, loser: Claim) -> bool:
        return False


class ForgetsConfirmation(Names):
    """A confirmed claim has no higher rank."""

    def _rank(self, claim: Claim) -> Any:
        return False, claim.order

    def _outranks(self, winner: Claim, confirmed: bool, own: OwnClaim) -> bool:
        return winner.order < own.claim.order


class YieldsToAnybody(Names):
    """An origin believes whoever says that its claim has lost."""

    def _outranks(self, winner: Claim, confirmed: bool, own: OwnClaim) -> bool:
        return True


class BelievesThirds(Names):
    """The word of a third node counts even about a node that speaks to us itself, whatever that one has said."""

    def _told_more(self, winner: Claim) -> bool:
        return False

    def _races(self, winner: Claim, confirmed: bool) -> bool:
        return not confirmed and self._lost.get(winner.pid.node) != winner.pid.creation


class DropsLosers(Names):
    """A claim that loses is not mirrored."""

    def _keeps(self, claim: Claim) -> bool:
        return claim.name not in self.view


class BelievesAtOnce(Names):
    """A confirmed winner that is not seen here counts the first time."""

    def _believed(self, own: OwnClaim, winner: Claim, now: float) -> bool:
        return True


class BelievesOfTheLost(Names):
    """An unconfirmed winner counts at once, even of a node that we have lost."""

    def _races(self, winner: Claim, confirmed: bool) -> bool:
        return not confirmed


class ContestsOnce(Names):
    """A contest is not repeated."""

    def contest_again(self) -> list[Change]:
        return []


class ViewsByRank(Names):
    """`whereis` prefers the earlier of two unconfirmed claims to the one that was acknowledged here."""

    def _view_order(self, claim: Claim) -> Any:
        return self._rank(claim)


class JoinsOpenly(Names):
    """Claims made during a join are confirmed before it is over."""

    def hold(self) -> None:
        pass


# --- the rules of names that move ---


class ContestsItsHeir(Names):
    """An heir that is not confirmed is contested by the claim that it succeeds."""

    def _contestants(self, claims: list[Claim]) -> list[Claim]:
        return claims


class HasHeirsOfItsAge(Names):
    """An heir is not older than the claim that it succeeds."""

    def _seniority(self, old: Claim) -> int:
        return old.stamp


class LetsGoAtOnce(Names):
    """The node that gives a name up acknowledges the heir like everybody else."""

    def _lets_go(self, old: Claim) -> bool:
        return True


class KeepsOrphans(Names):
    """An heir stays although the claim that it succeeds has gone."""

    def _is_orphan(self, claim: Claim) -> bool:
        return False


class _HastyTransfers(Transfers):
    def due(self, name: str) -> None:
        self._moving[name].let_go = False
        super().due(name)


class GivesNoTimeToHeirs(Kernel):
    """A node that has let go of a name takes it back at the deadline."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transfers.__class__ = _HastyTransfers


# --- the rules of mirrors ---


class ShowsWhatWas(Names):
    """A mirror that goes on is shown before what happened meanwhile has been heard."""

    def resumed(self, peer: str, position: int, until: int) -> list[Change]:
        return super().resumed(peer, position, position)


class TakesAcknowledgementsAsGiven(Names):
    """What was in a kept mirror is not acknowledged again."""

    def _mirror(self, mirror: Mirror, claim: Claim, confirmed: bool) -> None:
        super()._mirror(mirror, claim, confirmed)
        if mirror.peer in self._repairs:
            self._changes = [change for change in self._changes if not isinstance(change, Acknowledge)]


class KeepsHalfAMirror(Names):
    """A mirror is kept although its sync had not ended."""

    def _is_worth_keeping(self, mirror: Mirror, repairing: bool) -> bool:
        mirror.complete = True
        return super()._is_worth_keeping(mirror, False)


class SweepsWhatCameBack(Names):
    """What a peer tells anew enters the views while its old names leave them."""

    def _is_leaving(self, peer: str, creation: int) -> bool:
        return False


class FindsTheLost(Names):
    """Names of a lost peer resolve until their slice has come."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.whereis = self.view.get


class SyncsOverTheOld(Names):
    """A sync in the same session replaces the mirror instead of being built beside it."""

    def sync_begins(self, peer: str, creation: int, position: int) -> None:
        self.mirrors.pop(peer, None)
        super().sync_begins(peer, creation, position)


class NeverCompares(Names):
    """Neither digests nor what is in memory are looked at."""

    def diverges(self, peer: str, position: int, digest: int) -> bool:
        return False

    def audit(self, facts: int) -> list[Change]:
        return []


class ComparesOnlyDigests(Names):
    """What was told is compared with what was heard, but not with what is in memory."""

    def audit(self, facts: int) -> list[Change]:
        return []


class BelievesItsMemory(Names):
    """What does not fit our mirror is always the fault of the peer."""

    def _check(self, mirror: Mirror, breach: str) -> None:
        if not mirror.damaged:
            raise RemoteProtocolError(breach)


class LooksAtNoDispute(Names):
    """What is disputed is not compared with what the tables have."""

    def _look_at_disputes(self) -> Iterator[int]:
        return iter(())


# --- the rules of the ledger ---


class CountsOutTheReplaced(Names):
    """A peer whose new session replaces the old one is counted out in between."""

    def peer_down(self, peer: str, creation: int, returns: bool = False) -> list[Change]:
        return super().peer_down(peer, creation)


class _TrustingLedger(Ledger):
    def peer_up(self, peer: str) -> None:
        self.peers.add(peer)


class AsksNoNewcomer(Names):
    """A claim that waits does not wait for peers that join meanwhile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = _TrustingLedger()


class _EndlessLog(Log[Any]):
    def reaches(self, position: int) -> bool:
        return 0 < position <= self._last


class GoesOnWithAGap(Kernel):
    """A peer is told to go on although the log no longer has all that it missed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entries.__class__ = _EndlessLog


class Overtakes(Kernel):
    """New entries go at once to a peer that has yet to catch up."""

    def _catch_up(self, session: Session, position: int) -> None:
        session.told = True
        super()._catch_up(session, position)


class _KeepingOrders(Orders):
    def _give_up(self, ref: int, error: KinfolkError | None) -> None:
        waiting = self._all.get(ref)
        if waiting is not None:
            self._standing.add(waiting.position)
        super()._give_up(ref, error)


class KeepsWhatTimedOut(Kernel):
    """A claim stays although its register has failed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._orders.__class__ = _KeepingOrders


# --- the rules of sessions ---


class _AdmittingMembers(Members):
    def open(self, conn: int, peer: str, creation: int, dialled: bool) -> Verdict:
        verdict = super().open(conn, peer, creation, dialled)
        return Verdict.ADMIT if verdict is Verdict.DUPLICATE else verdict


class OpensEverySession(Kernel):
    """The later of two sessions always replaces the earlier."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.members.__class__ = _AdmittingMembers  # the same object, for others have it too


class SyncsThePast(Kernel):
    """All parts of a sync are of the moment at which it began."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.past: dict[int, dict[str, OwnClaim]] = {}

    def _sync_part(self, session: Session) -> None:
        now, self.names.own = self.names.own, self.past.setdefault(session.conn, dict(self.names.own))
        super()._sync_part(session)
        self.names.own = now


class WakesInPanic(Kernel):
    """A node that was stopped believes that the others were."""

    def _beat(self, due: float) -> None:
        super()._beat(inf)


class NeverListensForSilence(Kernel):
    """Only a closed socket ends a session."""

    def handle(self, happened: fx.Input, now: fx.Now) -> list[fx.Effect]:
        for session in self.members.sessions.values():
            session.signs.heard = now.mono
        return super().handle(happened, now)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: Mutant(network, names=mutant)
    for network, mutant in (
        ("strangers", AcknowledgesAll),
        ("strangers", NeverContests),
        ("strangers", ForgetsConfirmation),
        ("strangers", YieldsToAnybody),
        ("calm", BelievesThirds),
        ("calm", DropsLosers),
        ("deaths", BelievesAtOnce),
        ("deaths", BelievesOfTheLost),
        ("apart", ContestsOnce),
        ("strangers", ViewsByRank),
        ("moves", ContestsItsHeir),
        ("moves", HasHeirsOfItsAge),
        ("moves", LetsGoAtOnce),
        ("moves", KeepsOrphans),
        ("joins", JoinsOpenly),
        ("deaths", CountsOutTheReplaced),
        ("joins", AsksNoNewcomer),
        ("flaps", ShowsWhatWas),
        ("flaps", TakesAcknowledgementsAsGiven),
        ("flaps", KeepsHalfAMirror),
        ("flaps", SweepsWhatCameBack),
        ("deaths", FindsTheLost),
        ("decay", SyncsOverTheOld),
        ("damage", NeverCompares),
        ("damage", ComparesOnlyDigests),
        ("decay", BelievesItsMemory),
        ("decay", LooksAtNoDispute),
    )
} | {
    mutant.__name__: Mutant(network, kernel=mutant)
    for network, mutant in (
        ("joins", OpensEverySession),
        ("joins", SyncsThePast),
        ("faults", WakesInPanic),
        ("deaths", NeverListensForSilence),
        ("flaps", GoesOnWithAGap),
        ("flaps", Overtakes),
        ("calm", KeepsWhatTimedOut),
        ("moves", GivesNoTimeToHeirs),
    )
}
