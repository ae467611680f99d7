"""Nodes with one rule of links, monitors or signals removed. Each must fail, or the simulation has a hole."""

from typing import Any, ClassVar

from kinfolk.core import relations as core
from kinfolk.core.relations import Change, Ended, Exited, Fate, Fired, Relations, Signal, Unwatched
from kinfolk.ids import Pid
from kinfolk.reasons import KILL, KILLED, NOCONNECTION, NOPROC, NORMAL, Reason
from kinfolk.shell.signals import Signals
from kinfolk.wire import frames
from tests.simulation.relatives import Rules

# --- links ---


class UnlinksAtOnce(Relations):
    """A link that was taken back is forgotten, and its acknowledgement is not waited for."""

    def unlink(self, own: int, other: Pid) -> list[Change]:
        changes = super().unlink(own, other)
        if changes:
            self._end_link(other.node, other.local, own)
        return changes


class NeverAcknowledges(Relations):
    """An UNLINK is not answered."""

    def peer_unlinked(self, node: str, other: int, own: int, number: int) -> list[Change]:
        super().peer_unlinked(node, other, own, number)
        return []


class AcknowledgesForTheLiving(Relations):
    """An UNLINK is answered only where there is a link."""

    def peer_unlinked(self, node: str, other: int, own: int, number: int) -> list[Change]:
        linked = own in self._own and Pid(node, self._peers[node].creation, other) in self._own[own].links
        changes = super().peer_unlinked(node, other, own, number)
        return changes if linked else []


class TakesAnyAcknowledgement(Relations):
    """An acknowledgement is for whatever is awaited."""

    def peer_saw_unlink(self, node: str, other: int, own: int, number: int) -> list[Change]:
        record = self._own.get(own)
        state = None if record is None else record.links.get(Pid(node, self._peers[node].creation, other))
        return super().peer_saw_unlink(node, other, own, state or number)


class LinksWhatItTakesBack(Relations):
    """A LINK that crosses an UNLINK counts."""

    def peer_linked(self, node: str, other: int, own: int) -> list[Change]:
        changes = super().peer_linked(node, other, own)
        if not changes:
            self._own[own].links[Pid(node, self._peers[node].creation, other)] = core._ACTIVE
        return changes


class UnlinksEitherWay(Relations):
    """Of two UNLINKs that cross, either ends the wait."""

    def peer_unlinked(self, node: str, other: int, own: int, number: int) -> list[Change]:
        changes = super().peer_unlinked(node, other, own, number)
        self._end_link(node, other, own)
        return changes


class HearsTheUnlinked(Relations):
    """An exit over a link that was taken back is a signal."""

    def peer_exited(self, node: str, other: int, own: int, reason: Reason) -> list[Change]:
        if self._end_link(node, other, own) is None:
            return []
        return [Signal(own, Pid(node, self._peers[node].creation, other), reason, linked=True)]


class HearsTheUnlinkedLost(Relations):
    """So is the loss of the session."""

    def peer_down(self, node: str, reason: str) -> list[Change]:
        peer = self._peers[node]
        for own, other in peer.links:
            self._own[own].links[Pid(node, peer.creation, other)] = core._ACTIVE
        return super().peer_down(node, reason)


class KeepsLinksOfTheLost(Relations):
    """Links outlive their session."""

    def peer_down(self, node: str, reason: str) -> list[Change]:
        self._peers[node].links.clear()
        return super().peer_down(node, reason)


class LinksTheDead(Relations):
    """A LINK to the dead is not answered."""

    def peer_linked(self, node: str, other: int, own: int) -> list[Change]:
        return super().peer_linked(node, other, own) if self._is_alive(own) else []


class ReachesOlderStarts(Relations):
    """A process of an earlier start of a node is taken for one of this start."""

    def _missing(self, pid: Pid) -> Reason | None:
        missing = super()._missing(pid)
        return None if missing == NOPROC and pid.node != self.name else missing


class ReachesLaterStarts(Relations):
    """A process of a start of a node that has yet to connect is looked for in the start that is lost."""

    def _missing(self, pid: Pid) -> Reason | None:
        missing = super()._missing(pid)
        return None if missing == NOCONNECTION and pid.node in self._peers else missing


class GoesSilently(Relations):
    """The end of a process is not told over its links."""

    def exited(self, own: int, reason: Reason) -> list[Change]:
        return [change for change in super().exited(own, reason) if not isinstance(change, Exited)]


# --- monitors ---


class FiresNotForTheLost(Relations):
    """Monitors do not fire when their session is lost."""

    def peer_down(self, node: str, reason: str) -> list[Change]:
        return [change for change in super().peer_down(node, reason) if not isinstance(change, Fired)]


class WatchesForTheLost(Relations):
    """A node watches on for one that it has lost."""

    def peer_down(self, node: str, reason: str) -> list[Change]:
        self._peers[node].watchers.clear()
        return super().peer_down(node, reason)


class WatchesTheDead(Relations):
    """A MONITOR of the dead is not answered."""

    def peer_watches(self, node: str, ref: int, own: int | None) -> list[Change]:
        return super().peer_watches(node, ref, own) if own is not None and self._is_alive(own) else []


class FiresAfterDemonitor(Relations):
    """An answer to a monitor that was taken back is a message."""

    def demonitor(self, own: int, ref: int) -> list[Change]:
        self.owners = getattr(self, "owners", {}) | {ref: own}
        return super().demonitor(own, ref)

    def peer_ended(self, node: str, ref: int, other: int | None, reason: Reason) -> list[Change]:
        owner = getattr(self, "owners", {}).get(ref)
        return super().peer_ended(node, ref, other, reason) or (
            [] if owner is None else [Fired(owner, ref, None, None, reason)]
        )


class FiresTwice(Relations):
    """A monitor stays where it was set when it has fired."""

    def peer_ended(self, node: str, ref: int, other: int | None, reason: Reason) -> list[Change]:
        return super().peer_ended(node, ref, other, reason) * 2


class TakesBackInSilence(Relations):
    """Nobody is told that a monitor was taken back."""

    def _forget_watch(self, ref: int, watch: core._Watch) -> list[Change]:
        return [change for change in super()._forget_watch(ref, watch) if not isinstance(change, Unwatched)]


class KnowsNoReasons(Relations):
    """Whoever ends while it is watched ends normally."""

    def exited(self, own: int, reason: Reason) -> list[Change]:
        changes = super().exited(own, reason)
        return [Ended(c.peer, c.ref, c.own, NORMAL) if isinstance(c, Ended) else c for c in changes]


class TellsTheNodeFirst(Relations):
    """The loss of a node is told before what ends with it."""

    def peer_down(self, node: str, reason: str) -> list[Change]:
        return super().peer_down(node, reason)[::-1]


class LosesNodesForGood(Relations):
    """Who watches a node is told only once."""

    def peer_up(self, node: str, creation: int) -> list[Change]:
        super().peer_up(node, creation)
        return []


# --- what a signal does ---


class DiesOfNormalEnds(Relations):
    """Whoever is linked dies of every end."""

    def fate(self, signal: Signal) -> tuple[Fate, Reason]:
        fate, reason = super().fate(signal)
        return (Fate.DEATH if fate is Fate.IGNORED else fate), reason


class TrapsKills(Relations):
    """A kill can be trapped."""

    def fate(self, signal: Signal) -> tuple[Fate, Reason]:
        return (Fate.MESSAGE, signal.reason) if self.traps(signal.own) else super().fate(signal)


class KillsOverLinks(Relations):
    """Whoever dies with the reason kill kills whom it is linked to, for good."""

    def fate(self, signal: Signal) -> tuple[Fate, Reason]:
        return (Fate.DEATH, KILLED) if signal.reason == KILL else super().fate(signal)


class DiesOfItselfInNoWay(Relations):
    """A process that sends itself a normal exit lives on."""

    def fate(self, signal: Signal) -> tuple[Fate, Reason]:
        fate, reason = super().fate(signal)
        return (Fate.IGNORED if fate is Fate.DEATH and reason == NORMAL else fate), reason


class TrapsFromTheGrave(Relations):
    """Trapping outlives a process."""

    def exited(self, own: int, reason: Reason) -> list[Change]:
        traps = self.traps(own)
        changes = super().exited(own, reason)
        if traps:
            self.trap(own, True)
        return changes


# --- the rim ---


class MidStep(Signals):
    """Signals act in the middle of a kernel's step."""

    def _do(self, changes: Any) -> None:
        before, self._afterwards = self._afterwards, lambda action: action()
        try:
            super()._do(changes)
        finally:
            self._afterwards = before


class ExitsOlderStarts(Signals):
    """An exit signal for a process of another start of a node goes to whoever has its number now."""

    def exit(self, sender: int, target: Pid, reason: Reason) -> None:
        peer = self._peers.get(target.node)
        if peer is not None:
            target = Pid(target.node, peer.creation, target.local)
        super().exit(sender, target, reason)


class LosesSessionsInSilence(Signals):
    """The end of a session is not told to those whose links went over it."""

    def peer_down(self, name: str, reason: str) -> None:
        self._peers.pop(name, None)
        self.relations.peer_down(name, reason)


class KnowsNoNames(Signals):
    """Nobody has a name of the node alone, for those elsewhere."""

    def _monitored(self, node: str, operation: frames.MonitorMade) -> list[Change]:
        target = operation.target if isinstance(operation.target, int) else None
        return self.relations.peer_watches(node, operation.reference, target)

    OPERATIONS: ClassVar[Any] = {**Signals.OPERATIONS, frames.MonitorMade: _monitored}


QUIET, TORN = "quiet", "torn"

MUTANTS: dict[str, Rules] = (
    {
        mutant.__name__: Rules(network, relations=mutant)
        for network, mutant in (
            (QUIET, UnlinksAtOnce),
            (QUIET, NeverAcknowledges),
            (QUIET, AcknowledgesForTheLiving),
            (QUIET, TakesAnyAcknowledgement),
            (QUIET, LinksWhatItTakesBack),
            (QUIET, UnlinksEitherWay),
            (QUIET, HearsTheUnlinked),
            (TORN, HearsTheUnlinkedLost),
            (TORN, KeepsLinksOfTheLost),
            (QUIET, LinksTheDead),
            (TORN, ReachesOlderStarts),
            (TORN, ReachesLaterStarts),
            (QUIET, GoesSilently),
            (TORN, FiresNotForTheLost),
            (TORN, WatchesForTheLost),
            (QUIET, WatchesTheDead),
            (QUIET, FiresAfterDemonitor),
            (QUIET, FiresTwice),
            (QUIET, TakesBackInSilence),
            (QUIET, KnowsNoReasons),
            (TORN, TellsTheNodeFirst),
            (TORN, LosesNodesForGood),
            (QUIET, DiesOfNormalEnds),
            (QUIET, TrapsKills),
            (QUIET, KillsOverLinks),
            (QUIET, DiesOfItselfInNoWay),
            (QUIET, TrapsFromTheGrave),
        )
    }
    | {
        mutant.__name__: Rules(network, signals=mutant)
        for network, mutant in (
            (TORN, MidStep),
            (TORN, ExitsOlderStarts),
            (TORN, LosesSessionsInSilence),
            (QUIET, KnowsNoNames),
        )
    }
    | {
        "EndsOvertakeMessages": Rules(QUIET, late=(frames.Sent,)),
        "UnlinksOvertakeLinks": Rules(QUIET, late=(frames.LinkMade,)),
    }
)
