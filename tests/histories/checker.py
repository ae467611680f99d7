"""Whether a history of names is one that the guarantees allow. Pure: a history in, its violations out.

What is promised depends on what is between two nodes. They are *at peace* at a moment if they have been at rest
together before, and nothing has happened between them since. For nodes at peace everything below is strict but for one
hop. A claim is *held for sure* from the return of its `register` to the first thing that may end it.

    made up       a lookup, or a refusal, names a process that nobody had begun to register under that name
    two holders   two claims of one name are held for sure at one moment, by nodes at peace with each other, or both
                  with a third
    missed        a register has returned, and a node at peace with the holder's resolves the name to somebody else, who
                  is not beyond a partition that has just healed: of such two the older claim counts, and may be
                  withdrawn before the younger one's holder has heard of it
    dead          a node resolves a name to a process that has ended: ever, if it is one of its own; after a hop if
                  they are at peace; after a silence, if the process's node is gone or apart
    withdrawn     a node at peace with the holder's resolves a name to a claim of which `unregister` had returned
    resurrected   a node resolves a name to a claim again that had ended before the node resolved it otherwise
    at odds       two nodes at rest together resolve a name differently
    robbed        a process has lost a name although its node was at peace with all others from before it claimed it
    not told      a living process had a name, has lost it, as is seen at rest, and was not told; or it was told twice
"""

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from tests.histories.history import (
    Apart,
    Exit,
    Fault,
    Gone,
    History,
    Lookup,
    Lost,
    Register,
    Rest,
    Unregister,
    node_of,
    start_of,
)


class _Claim(NamedTuple):
    """A claim that was confirmed."""

    name: str
    pid: str
    began: float
    held: float
    """Since when it is held for sure."""
    until: float
    """Until when."""
    over: float
    """From when on it has ended for sure."""
    withdrawn: float
    """When its `unregister` had returned."""


def check(history: History) -> list[str]:
    """The violations, a line each; none if the history is allowed."""
    return sorted(set(_Check(history).run()))


class _Check:
    def __init__(self, history: History) -> None:
        self.bounds = history.bounds
        self.registers: list[Register] = []
        self.unregisters: list[Unregister] = []
        self.lookups: list[Lookup] = []
        self.lost: list[Lost] = []
        self.rests: list[Rest] = []
        self.exits: dict[str, Exit] = {}
        self.gone: dict[str, Gone] = {}
        self.faults: dict[frozenset[str], list[float]] = defaultdict(list)
        self.apart: dict[frozenset[str], list[Apart]] = defaultdict(list)
        for happened in history.happened:
            match happened:
                case Lookup():
                    self.lookups.append(happened)
                case Register():
                    self.registers.append(happened)
                case Unregister():
                    self.unregisters.append(happened)
                case Lost():
                    self.lost.append(happened)
                case Rest():
                    self.rests.append(happened)
                case Exit(pid, began, ended):
                    first = self.exits.setdefault(pid, Exit(pid, began, ended))
                    first.began, first.ended = min(first.began, began), min(first.ended, ended)
                case Gone():
                    self.gone[happened.start] = happened
                case Fault(pair, at):
                    self.faults[pair].append(at)
                case Apart(pair, began):
                    self.faults[pair].append(began)
                    self.apart[pair].append(happened)
        self.claims = [self._claim(register) for register in self.registers if register.outcome == "held"]
        self.by_name: dict[str, list[_Claim]] = defaultdict(list)
        for claim in self.claims:
            self.by_name[claim.name].append(claim)

    def run(self) -> Iterator[str]:
        yield from self._made_up()
        yield from self._two_holders()
        yield from self._wrong_lookups()
        yield from self._resurrected()
        yield from self._at_odds()
        yield from self._robbed()
        yield from self._not_told()

    # --- what is known of each claim ---

    def _claim(self, register: Register) -> _Claim:
        name, pid = register.name, register.pid
        ends, sure, withdrawn = [inf], [inf], [inf]
        end = self.exits.get(pid)
        if end is not None:
            ends.append(end.began)
            sure.append(end.ended)
        for other in self.unregisters:
            # One that began before the claim was confirmed may have meant it, and may have missed it.
            if other.name == name and other.pid == pid and other.ended >= register.began:
                ends.append(other.began)
                if other.done and other.began >= register.ended:
                    sure.append(other.ended)
                    withdrawn.append(other.ended)
        for told in self.lost:
            if told.name == name and told.pid == pid:
                ends.append(self._may_be_lost(register))  # which is before it is told
                sure.append(told.at)
        gone = self._gone(pid)
        if gone is not None:
            ends.append(gone.at)
            sure.append(gone.at)
        return _Claim(name, pid, register.began, register.ended, min(ends), min(sure), min(withdrawn))

    def _may_be_lost(self, register: Register) -> float:
        """From when on a claim that is lost may have been: with the first fault, or at once where one was not over."""
        node, began = node_of(register.pid), register.began
        if any(self._peace(node, other, began) == inf for other in self._nodes()):
            return register.ended
        return min((at for at in self._faults_of(register.pid) if at >= began), default=register.ended)

    def _faults_of(self, pid: str) -> list[float]:
        node = node_of(pid)
        return [at for pair, times in self.faults.items() if node in pair for at in times]

    def _gone(self, pid: str) -> Gone | None:
        return self.gone.get(start_of(pid))

    def _peace(self, one: str, other: str, at: float) -> float:
        """Since when two nodes are at peace at this moment; infinity if they are not."""
        if one == other:
            return -inf
        pair = frozenset((one, other))
        last = max((fault for fault in self.faults[pair] if fault <= at), default=-inf)
        return min((rest.at for rest in self.rests if pair <= rest.nodes and last <= rest.at <= at), default=inf)

    # --- the rules ---

    def _made_up(self) -> Iterator[str]:
        begun: dict[tuple[str, str], float] = {}
        for register in self.registers:
            key = register.name, register.pid
            begun[key] = min(begun.get(key, inf), register.began)
        for lookup in self.lookups:
            if lookup.pid is not None and begun.get((lookup.name, lookup.pid), inf) > lookup.ended:
                yield f"made up: {_seen(lookup)}, which nobody had registered"
        for register in self.registers:
            if register.holder is not None and begun.get((register.name, register.holder), inf) > register.ended:
                yield f"made up: {register.name!r} was refused for {register.holder}, which nobody had registered"

    def _two_holders(self) -> Iterator[str]:
        for name, claims in self.by_name.items():
            for number, one in enumerate(claims):
                for other in claims[:number]:
                    if one.pid == other.pid:
                        continue
                    both, until = max(one.held, other.held), min(one.until, other.until)
                    for at in (both, *(rest.at for rest in self.rests if both <= rest.at)):
                        if at < until and self._are_near(node_of(one.pid), node_of(other.pid), at):
                            yield f"two holders: {name!r} is held by {other.pid} and by {one.pid} at {at:.3f}"
                            break

    def _are_near(self, one: str, other: str, at: float) -> bool:
        """Whether two nodes are at peace at this moment, or both are with a third."""
        thirds = (self._peace(one, third, at) < inf and self._peace(third, other, at) < inf for third in self._nodes())
        return self._peace(one, other, at) < inf or any(thirds)

    def _wrong_lookups(self) -> Iterator[str]:
        for lookup in self.lookups:
            for claim in self.by_name[lookup.name]:
                if claim.held < lookup.began and lookup.ended < claim.until and claim.pid != lookup.pid:
                    since = self._peace(lookup.node, node_of(claim.pid), lookup.ended)
                    if since <= claim.began and not self._are_rivals(claim, lookup):
                        yield f"missed: {_seen(lookup)}, and {claim.pid} has held it since {claim.held:.3f}"
            if lookup.pid is not None:
                yield from self._named_dead(lookup, lookup.pid)
                yield from self._named_withdrawn(lookup, lookup.pid)

    def _are_rivals(self, claim: _Claim, lookup: Lookup) -> bool:
        """Whether a lookup has found somebody whose node and the holder's have not agreed since they were apart."""
        if lookup.pid is None:
            return False
        return self._peace(node_of(lookup.pid), node_of(claim.pid), lookup.ended) == inf

    def _named_dead(self, lookup: Lookup, pid: str) -> Iterator[str]:
        home, end, gone = node_of(pid), self.exits.get(pid), self._gone(pid)
        ended = end.ended if end is not None else inf
        if lookup.node == home and gone is None and ended < lookup.began:
            yield f"dead: {_seen(lookup)}, one of its own, which had ended at {ended:.3f}"
        if ended + self.bounds.hop < lookup.began and self._peace(lookup.node, home, lookup.began) < ended:
            yield f"dead: {_seen(lookup)}, which had ended at {ended:.3f}"
        if gone is not None:
            untold = (
                gone.silent or self._disturbed(lookup.node, home, gone.at) or self._cut_off(lookup.node, home, gone.at)
            )
            known = gone.at + (self.bounds.silence if untold else 0)
            if known + self.bounds.hop < lookup.began:
                yield f"dead: {_seen(lookup)}, whose node was gone at {gone.at:.3f}"
        for apart in self.apart[frozenset((lookup.node, home))]:
            if apart.began + self.bounds.silence + self.bounds.hop < lookup.began and lookup.ended < apart.ended:
                yield f"dead: {_seen(lookup)}, of whose node nothing has been heard since {apart.began:.3f}"

    def _disturbed(self, one: str, other: str, at: float) -> bool:
        """Whether the two were not at peace up to that moment, so that news of an end may not have come."""
        pair = frozenset((one, other))
        last = max((time for time in self.faults[pair] if time < at), default=-inf)
        return not any(pair <= rest.nodes and last <= rest.at <= at for rest in self.rests)

    def _cut_off(self, one: str, other: str, at: float) -> bool:
        """Whether the two were parted while the news of an end at that moment was on its way."""
        parted = self.apart[frozenset((one, other))]
        return any(apart.began <= at + self.bounds.hop and at <= apart.ended for apart in parted)

    def _named_withdrawn(self, lookup: Lookup, pid: str) -> Iterator[str]:
        if self._registered_again(lookup.name, pid):
            return
        for claim in self.by_name[lookup.name]:
            if claim.pid != pid or claim.withdrawn >= lookup.began:
                continue
            if self._peace(lookup.node, node_of(pid), lookup.began) < claim.held:
                yield f"withdrawn: {_seen(lookup)}, of which unregister had returned at {claim.withdrawn:.3f}"

    def _registered_again(self, name: str, pid: str) -> bool:
        return sum(register.name == name and register.pid == pid for register in self.registers) > 1

    def _resurrected(self) -> Iterator[str]:
        seen: dict[tuple[str, str], list[Lookup]] = defaultdict(list)
        for lookup in self.lookups:
            seen[lookup.node, lookup.name].append(lookup)
        for (_, name), lookups in seen.items():
            lookups.sort(key=lambda lookup: lookup.began)
            for claim in self.by_name[name]:
                if self._registered_again(name, claim.pid):
                    continue
                forgotten = False
                for lookup in lookups:
                    if lookup.began > claim.over and lookup.pid is None:
                        forgotten = True
                    elif forgotten and lookup.pid == claim.pid:
                        yield f"resurrected: {_seen(lookup)}, whose claim had ended at {claim.over:.3f}, again"

    def _at_odds(self) -> Iterator[str]:
        for rest in self.rests:
            found: dict[str, dict[str | None, str]] = defaultdict(dict)
            for lookup in self.lookups:
                if lookup.began >= rest.at and _within(lookup, rest):
                    found[lookup.name][lookup.pid] = lookup.node
            for name, by in found.items():
                if len(by) > 1:
                    told = ", ".join(f"{pid} at {node}" for pid, node in sorted(by.items(), key=str))
                    yield f"at odds: at rest at {rest.at:.3f} {name!r} is {told}"

    def _robbed(self) -> Iterator[str]:
        for lost in self.lost:
            for claim in self.by_name[lost.name]:
                node = node_of(claim.pid)
                if claim.pid != lost.pid or any(claim.began <= at <= lost.at for at in self._faults_of(claim.pid)):
                    continue
                if all(self._peace(node, other, claim.began) <= claim.began for other in self._nodes()):
                    yield f"robbed: {claim.pid} has lost {lost.name!r} at {lost.at:.3f} without any fault"

    def _nodes(self) -> set[str]:
        """Those that are known of."""
        return {node_of(register.pid) for register in self.registers}.union(*(rest.nodes for rest in self.rests))

    def _not_told(self) -> Iterator[str]:
        told: dict[tuple[str, str], int] = defaultdict(int)
        for lost in self.lost:
            told[lost.name, lost.pid] += 1
        for claim in self.claims:
            times = told[claim.name, claim.pid]
            registers = sum(r.name == claim.name and r.pid == claim.pid for r in self.registers)
            if times > registers:
                yield f"not told: {claim.pid} was told {times} times that it has lost {claim.name!r}"
            if times:
                continue
            for lookup in self.lookups:
                own = lookup.node == node_of(claim.pid) and lookup.name == claim.name
                while_held = claim.held < lookup.began and lookup.ended < claim.until
                if own and while_held and lookup.pid != claim.pid and any(_within(lookup, rest) for rest in self.rests):
                    yield f"not told: {claim.pid} has lost {claim.name!r}, {_seen(lookup)}, and was not told"


def _within(lookup: Lookup, rest: Rest) -> bool:
    """Whether a node of those at rest was asked while they were."""
    return rest.at <= lookup.began and lookup.ended <= rest.until and lookup.node in rest.nodes


def _seen(lookup: Lookup) -> str:
    return f"{lookup.node} resolves {lookup.name!r} to {lookup.pid} at {lookup.began:.3f}"
