"""Names that an outside authority (etcd) grants: what a node holds there by a lease of its own, and what it sees.

A node's lease, from top to bottom; whatever fails goes on at REVOKING, so nothing is ever held by two leases:

    OUT        not asked to take part
    GRANTING   asks for a lease
    ENTERING   writes its own key: of two starts of one node the later one stays
    EVICTING   ends the lease of an earlier start of itself
    HELD       has a lease: names are written under it, and it is renewed
    REVOKING   the lease counts no longer: all that was held is lost; ends it, in case it lives after all

Nobody tells a node that its lease has ended: it knows the moment itself. Each renewal counts from before it was asked
for, and `MARGIN` less, so the node gives up its names before the authority may give them to others, whatever is slow,
stopped or cut off.

A name of ours is WANTED (until there is a lease), ASKED (a Put is under way, or has to be repeated: what it finds may
be our own unanswered write), HELD, or LEAVING (until a Remove of exactly that value is answered).

What is seen: `view` shows of other nodes what was told last, and of this node what it holds. Our own writes enter the
view when they are answered, ahead of what is told; so each name has the revision it is known at, and what is older
changes nothing.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import ClassVar, TypeVar

import msgspec
from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.explain import ClaimInfo, Explanation, decided, granted
from kinfolk.core.ledger import Claim
from kinfolk.errors import (
    KinfolkError,
    NameLost,
    NameTaken,
    NameUnknown,
    NodeClosed,
    NodeUnreachable,
    NoProcess,
    NotConfirmed,
)
from kinfolk.ids import Pid, check_name, check_node_name
from kinfolk.rosters import AGAIN, Rosters
from kinfolk.rosters import PREFIX as _GROUPS

T = TypeVar("T")

MARGIN = 1.0
"""Seconds by which a lease ends earlier for its node than for the authority: for clocks that run at different speeds,
and for a deposed leader of etcd, which goes on renewing until it notices (one election timeout)."""
_NODES, _NAMES = "nodes/", "names/"


class Stage(Enum):
    """How far a node is with its lease."""

    OUT = "out"
    GRANTING = "granting"
    ENTERING = "entering"
    EVICTING = "evicting"
    HELD = "held"
    REVOKING = "revoking"


class State(Enum):
    """How far a node is with a name that it claims."""

    WANTED = "wanted"
    ASKED = "asked"
    HELD = "held"
    LEAVING = "leaving"


class Held(Struct, frozen=True):
    """What stands under a name: whose it is, and which of its node's claims."""

    pid: str
    claim: int


class Member(Struct, frozen=True):
    """What stands under a node."""

    creation: int


class _Own(Struct, eq=False):
    """A claim of this node."""

    name: str
    pid: Pid
    number: int
    on_lost: fx.OnLost
    value: bytes
    state: State = State.WANTED
    revision: int = 0
    asking: bool = False
    """Whether a Put or Remove of it is under way."""
    standing: bool = False
    """Whether somebody relies on it."""
    waiting: list[int] = []
    """Registers that wait for it."""
    rivals: list[int] = []
    """Registers, for other processes of this node, that wait for what becomes of it."""
    leavers: list[int] = []
    """Unregisters that wait until it is gone."""


class _Seen(Struct, frozen=True, gc=False):
    """Who has a name, as of this revision."""

    pid: Pid
    number: int
    revision: int


class Tenure:
    """The names of one node, and its view of all others, with an outside authority.

    Args:
        agenda: of the node.
        node, creation: this start of it.
        ttl: whole seconds of its lease.
        authority: what it is called in messages, with its address.
        answer: tells whoever gave an order how it ended.
        outrun: told that a later start of this node is known; whether `creation` has become one later still.
        node_seen: told that another node has a lease, or another one, and under which creation.
        node_gone: told that another node has no lease any longer.

    Attributes:
        whereis: ``whereis(name) -> Pid | None``: the holder, by one lookup, from any thread.
        nodes: who has a lease, each with its creation.
    """

    whereis: Callable[[str], Pid | None]

    def __init__(
        self,
        agenda: Agenda,
        node: str,
        creation: int,
        ttl: int,
        authority: str,
        answer: Callable[[fx.Succeed | fx.Fail], None],
        outrun: Callable[[int], bool],
        node_seen: Callable[[str, int], None],
        node_gone: Callable[[str], None],
    ) -> None:
        self._agenda = agenda
        self.node, self.creation = node, creation
        self.authority = authority
        self.ttl = ttl
        self._answer = answer
        self._outrun = outrun
        self._node_seen, self._node_gone = node_seen, node_gone
        self.rosters = Rosters(agenda, node, creation, self._unknown_lease)
        """Who is in which group: as facts under the same lease, told by the same watch."""
        self.view: dict[str, Pid] = {}
        self.refused: frozenset[Pid | tuple[str, int]] = frozenset()
        """Nobody: whoever goes leaves the view in one step."""
        self.whereis = self.view.get
        self.nodes: dict[str, int] = {}
        self.stage = Stage.OUT
        self.until = 0.0
        """When the lease ends, as far as this node is concerned."""
        self._lease = 0
        self._old_lease = 0  # of an earlier start, to be evicted
        self._begun = 0.0  # when the lease was last asked for, as far as that was answered
        self._entered = 0  # the revision of our own key
        self._renewing: float | None = None  # since when a renewal is under way
        self._stepping = False  # whether a request about the lease is under way
        self._warned = False
        self._entering: int | None = None  # the order that waits for the first entry
        self._own: dict[str, _Own] = {}
        self._by_number: dict[int, _Own] = {}  # those that are leaving as well
        self._leaving: Counter[str] = Counter()  # how many claims of a name are
        self._by_process: dict[int, dict[str, None]] = {}
        self._refs: dict[int, _Own] = {}  # of registers that wait, or of rivals
        self._numbers = 0
        self._seen: dict[str, _Seen] = {}
        self._floors: OrderedDict[str, int] = OrderedDict()  # names given up, with the revision of what is known
        self._revision = 0  # all up to this one is in the view
        self._answered = 0  # the latest that an answer has told of: what is told of it may come later
        self._expected = 0  # the latest known when the following under way was asked for
        self._complete = False  # whether a snapshot has been taken in as a whole
        self._unseen: set[str] = set()  # keys that a snapshot has not shown so far
        self._followed = 0.0  # when the following under way was asked for
        self._current = 0.0

    # --- for whoever looks ---

    def is_refused(self, pid: Pid) -> bool:
        """Whether a process is known to be dead, though it may still be in the view. Never."""
        return False

    def staleness(self, mono: float) -> float:
        """How many seconds ago the view was last known to show all that was so then."""
        return max(0.0, mono - self._current)

    def lease_left(self, mono: float) -> float:
        """For how many seconds this node has a lease from now on, unless it is renewed; 0.0 if it has none."""
        return max(0.0, self.until - mono) if self.stage is Stage.HELD else 0.0

    def explain(self, name: str, mono: float) -> Explanation:
        """Why a name is where this node sees it: who has written it when, by which lease, and how old the view is."""
        age, left = self.staleness(mono), self.lease_left(mono)
        because = f"so {self.authority} has it, which was known to be all that it had {age:.1f} s ago"
        if not left:
            because += "; this node has no lease from it at present, and so no names"
        claims = [self._explain_own(own, left) for own in self._by_number.values() if own.name == name]
        seen = self._seen.get(name)
        if seen is not None and seen.pid.node != self.node:
            claims.insert(0, self._explain_seen(seen))
        return decided(self.node, name, self.whereis(name), because, claims, age)

    def _explain_seen(self, seen: _Seen) -> ClaimInfo:
        node = seen.pid.node
        lease = "which it has" if self.nodes.get(node) == seen.pid.creation else "which is not in the view here"
        text = f"written at revision {seen.revision} under the lease of {node}, {lease}"
        return granted(seen.pid, seen.number, seen.revision, "confirmed", text)

    def _explain_own(self, own: _Own, left: float) -> ClaimInfo:
        match own.state:
            case State.HELD:
                text = (
                    f"written at revision {own.revision} under the lease of this node, good for {left:.1f} s from now"
                )
                return granted(own.pid, own.number, own.revision, "confirmed", text)
            case State.LEAVING:
                text = f"given up here, and not yet known to be gone from {self.authority}"
                return granted(own.pid, own.number, own.revision, "leaving", text)
            case State.ASKED:
                return granted(
                    own.pid, own.number, 0, "waiting", f"asked for, and not answered by {self.authority} yet"
                )
            case State.WANTED:
                return granted(own.pid, own.number, 0, "waiting", "waits until this node has a lease")

    def epoch(self, claim: Claim) -> int | None:
        """The revision at which a claim was written: of two holders of a name, the later one's is higher."""
        own = self._own.get(claim.name)
        if own is not None and own.number == claim.position and own.pid == claim.pid:
            return own.revision or None
        return claim.stamp or None

    @property
    def own_claims(self) -> int:
        """How many names processes of ours have or claim."""
        return len(self._own)

    @property
    def disputed(self) -> int:
        """How many names more than one claim is known of: none, since the authority decides before anybody hears."""
        return 0

    def names_of(self, local: int) -> list[str]:
        """The names that a process of ours has or claims, in the order in which it claimed them."""
        return list(self._by_process.get(local, ()))

    def moving(self, name: str) -> Pid | None:
        """Who is about to get the name from its holder. Nobody: names do not move here."""
        return None

    @property
    def own(self) -> Mapping[str, object]:
        """What this node claims, by name."""
        return self._own

    def owns(self, name: str) -> bool:
        """Whether this node claims the name."""
        return name in self._own

    def position_of(self, name: str, holder: Pid) -> int | None:
        """Which of its claims the holder of a name has it by."""
        seen = self._seen.get(name)
        return seen.number if seen is not None and seen.pid == holder else None

    # --- orders ---

    def enter(self, order: fx.EnterRegistry) -> None:
        """Begin to take part; answered when all names are here and there is a lease."""
        self._entering = order.ref
        self._later("enter", 0, order.timeout)
        self.stage = Stage.GRANTING
        self._step()
        self._follow()

    def register(self, order: fx.Register) -> None:
        """Claim a name. The authority is asked in any case but that we hold it ourselves: the view may be behind."""
        self._look_at_clock()
        own = self._own.get(order.name)
        if own is not None and own.pid == order.pid:
            self._wait_for(own, order)
        elif own is not None and order.wait and own.state is not State.HELD:
            self._hold(own, own.rivals, order)
        elif own is not None or (not order.wait and order.name in self.view):
            self._fail(order.ref, NameTaken(order.name, self.view[order.name] if own is None else own.pid))
        else:
            own = self._claim(order)
            self._wait_for(own, order)
            self._ask(own)

    def abandon(self, order: fx.Abandon) -> None:
        """Whoever gave this Register waits no longer."""
        self._give_up(order.ref)

    def unregister(self, order: fx.Unregister) -> None:
        """Give up a name of this node, and wait until the authority knows."""
        own = self._own.get(order.name)
        if own is None or order.position not in (None, own.number):
            self._fail(order.ref, self._cannot_unregister(order))
            return
        self._fail_all(own, NameUnknown(order.name, "it was unregistered before it was confirmed"))
        own.leavers.append(order.ref)
        self._later("leave", order.ref, order.timeout)
        self._refs[order.ref] = own
        self._withdraw(own)

    def exited(self, local: int) -> None:
        """A process of this node is dead: it has no names, and is in no group."""
        for name in list(self._by_process.get(local, ())):
            own = self._own[name]
            self._fail_all(own, NoProcess(f"{own.pid} exited before its name {name!r} was confirmed"))
            self._withdraw(own)
        self.rosters.exited(local)

    def rely_on(self, claim: Claim) -> None:
        """Somebody has this claim, and relies on it as long as it lives."""
        own = self._own.get(claim.name)
        if own is not None and own.number == claim.position:
            own.standing = True

    def let_go(self, claim: Claim) -> None:
        """Withdraw this claim, if it lives and nobody relies on it."""
        own = self._own.get(claim.name)
        if own is not None and own.number == claim.position and not own.standing:
            self._withdraw(own)

    def due(self, ref: int) -> None:
        """The deadline of a register has come."""
        own = self._refs[ref]
        error: KinfolkError = NotConfirmed(own.name, [self.authority])
        if ref in own.rivals:
            error = NameTaken(own.name, own.pid)
        self._give_up(ref)
        self._fail(ref, error)

    def close(self, error: NodeClosed) -> None:
        """Answer every order with this error, and go."""
        waiting = [*self._refs] if self._entering is None else [*self._refs, self._entering]
        for ref in waiting:
            self._fail(ref, error)
        self._refs.clear()
        if self.stage is not Stage.OUT:
            self._consult(fx.Release(self._lease))
        self.stage = Stage.OUT

    # --- time ---

    def timer(self, what: str, number: int) -> None:
        """A deadline that was set has come."""
        match what:
            case "enter":
                self._enter_failed(number)
            case "expire":
                self._look_at_clock()
            case "renew":
                self._renew()
            case "step":
                self._step()
            case "follow":
                self._follow()
            case "again":
                self._again(number)
            case "leave":
                self._left(number)
            case _:
                raise AssertionError(f"no timer is called {what!r}")

    # --- what the authority says ---

    def consulted(self, fact: fx.Consulted) -> None:
        """A request has been answered, or has not been."""
        self._look_at_clock()
        if isinstance(fact.answer, fx.Done | fx.Fact):
            self._answered = max(self._answered, fact.answer.revision)
        match fact.request, fact.answer:
            case (fx.Put(key=key) | fx.Remove(key=key)) as request, answer if key.startswith(_GROUPS):
                self.rosters.consulted(request, answer)
            case fx.Grant(), fx.Granted(lease=lease, ttl=ttl) if ttl > 0:
                self._stepping, self._lease = False, lease
                self._set_until(self._begun, ttl)
                self._go_on(Stage.ENTERING)
            case fx.Renew(lease=lease), answer:
                self._renewed(lease, answer)
            case fx.Revoke(lease=lease), fx.Done():
                self._stepping = False
                self._revoked(lease)
            case fx.Put(claim=0) as put, answer if answer is not None:
                self._stepping = False
                self._entered_as(put, answer)
            case ((fx.Grant() | fx.Revoke() | fx.Put(claim=0)), _):
                self._stepping = False
                self._later("step", 0, AGAIN)
            case fx.Put() as put, answer:
                self._put(put, answer)
            case fx.Remove(claim=number), answer:
                self._removed(number, answer)
            case _:
                raise AssertionError(f"{fact.request!r} has no answer")

    def snapshot(self, part: fx.Snapshot) -> None:
        """Some of all that was there at one revision."""
        if part.first:
            if part.revision < max(self._revision, self._expected):
                self._begin_anew()
            self._complete = False
            self._unseen = {_NAMES + name for name in self._seen} | {_NODES + node for node in self.nodes}
            self._unseen.update(self.rosters.keys())
        for fact in part.facts:
            self._unseen.discard(fact.key)
            self._fold(fact)
        if part.done:
            for key in self._unseen:
                self._gone(key, part.revision + 1)  # gone at this revision or before, so what it had is older
            self._complete = True
            self._unseen = set()
            self._current = max(self._current, self._followed)
            self._told_through(part.revision)
            self._enter_done()

    def _begin_anew(self) -> None:
        """The authority has another history than the one we know: it lost its data, or an old copy has its place."""
        text = f"{self.authority} has forgotten what it has told: it has lost its data"
        self._agenda.log(logging.ERROR, text, address=self.authority)
        self._renew()  # whether our lease is of the new history, only the authority knows
        for name in [name for name, seen in self._seen.items() if seen.pid.node != self.node]:
            self._hide(name)
        self.rosters.forget_others()
        for node in list(self.nodes):
            self._forget_node(node)
        self._floors.clear()
        self._revision = self._answered = self._expected = 0
        for own in self._own.values():
            if own.state is State.HELD and own.name not in self._seen:  # won in the new history, and held to be old
                self._show(own.name, _Seen(own.pid, own.number, own.revision))

    def changed(self, told: fx.Changed) -> None:
        """The next changes."""
        for change in told.changes:
            if isinstance(change, fx.Fact):
                self._fold(change)
            else:
                self._gone(change.key, change.revision)
        if told.revision:
            self._told_through(told.revision)

    def current(self, fact: fx.Current) -> None:
        """The view shows all that was so at a moment."""
        if self._complete:
            self._current = max(self._current, fact.mono)

    def unfollowed(self, fact: fx.Unfollowed) -> None:
        """Nothing more is told: ask for what comes after the last, or for everything if that cannot be told."""
        self._complete = self._complete and not fact.compacted
        self._agenda.do(fx.Count("registry_follows_ended"))
        self._later("follow", 0, AGAIN)

    # --- the lease ---

    def _step(self) -> None:
        """Ask for what brings the lease further, unless that has been asked."""
        if self._stepping or self.stage in (Stage.OUT, Stage.HELD):
            return
        self._agenda.timers.cancel(("tenure", "step", 0))
        self._stepping = True
        match self.stage:
            case Stage.GRANTING:
                self._begun = self._agenda.now.mono
                self._consult(fx.Grant(self.ttl))
            case Stage.ENTERING:
                value = msgspec.json.encode(Member(self.creation))
                self._consult(fx.Put(_NODES + self.node, value, self._lease, 0))
            case Stage.EVICTING:
                self._consult(fx.Revoke(self._old_lease))
            case _:
                self._consult(fx.Revoke(self._lease))

    def _go_on(self, stage: Stage) -> None:
        self.stage = stage
        self._step()

    def _set_until(self, begun: float, ttl: int) -> None:
        self._begun = begun
        self.until = begun + ttl - MARGIN
        self._later("expire", 0, self.until - self._agenda.now.mono)

    def _look_at_clock(self) -> None:
        """A lease whose time is up is lost, whatever else happens in this step."""
        if self.stage in (Stage.ENTERING, Stage.EVICTING, Stage.HELD) and self._agenda.now.mono >= self.until:
            self._lose_lease(f"{self.authority} has not renewed its lease in time")

    def _entered_as(self, put: fx.Put, answer: object) -> None:
        """Our own key was to be written."""
        if self.stage is not Stage.ENTERING or put.lease != self._lease:
            self._step()  # its time was up meanwhile
            return
        match answer:
            case fx.Done(revision=revision):
                self._is_in(revision)
            case fx.Fact(lease=lease, revision=revision) if lease == self._lease:
                self._is_in(revision)
            case fx.Fact(value=value, lease=lease):
                self._meet_another_start(value, lease)
            case _:
                self._lose_lease("its lease has ended before it was used")

    def _meet_another_start(self, value: bytes, lease: int) -> None:
        there = _read(value, Member)
        if there is not None and lease and (there.creation <= self.creation or self._outrun(there.creation)):
            self._old_lease = lease
            self._go_on(Stage.EVICTING)
            return
        if not self._warned:
            self._warned = True
            text = f"a newer start of {self.node} is in {self.authority}: its name is in use, or its clock went back"
            text = text if there is not None and lease else f"{self.authority} has what is no node as {self.node}"
            self._agenda.log(logging.ERROR, text, address=self.authority)
        self._later("step", 0, self.ttl)

    def _is_in(self, revision: int) -> None:
        self.stage, self._entered, self._warned = Stage.HELD, revision, False
        text = f"has a lease of {self.ttl} s from {self.authority}"
        self._agenda.log(logging.INFO, text, address=self.authority, seconds=self.ttl)
        self._plan_renewal()
        for own in list(self._own.values()):
            self._ask(own)
        self.rosters.leased(self._lease)
        self._enter_done()

    def _plan_renewal(self) -> None:
        due = self._begun + (self.until - self._begun) / 3
        self._later("renew", 0, max(0.0, due - self._agenda.now.mono))

    def _renew(self) -> None:
        if self.stage is Stage.HELD and self._renewing is None:
            self._renewing = self._agenda.now.mono
            self._consult(fx.Renew(self._lease))

    def _renewed(self, lease: int, answer: object) -> None:
        begun = self._renewing
        if self.stage is not Stage.HELD or lease != self._lease or begun is None:
            return
        self._renewing = None
        if not isinstance(answer, fx.Granted):
            self._later("renew", 0, AGAIN)
        elif answer.ttl == 0:
            self._unknown_lease()
        else:
            self._set_until(begun, answer.ttl)
            self._plan_renewal()

    def _lose_lease(self, why: str) -> None:
        """All that was held is lost from now on, here and without asking anybody."""
        held = [own for own in self._own.values() if own.state is State.HELD]
        text = f"has lost its lease, and with it {len(held)} names: {why}"
        self._agenda.log(logging.WARNING, text, address=self.authority, reason=why, number=len(held))
        self._agenda.do(fx.Count("leases_lost"))
        self._agenda.timers.cancel(("tenure", "expire", 0))
        self._agenda.timers.cancel(("tenure", "renew", 0))
        self.stage, self._renewing = Stage.REVOKING, None
        for own in held:
            self._lose(own)
        for own in self._own.values():
            own.state, own.asking = State.WANTED, False
        self.rosters.unleased()
        self._step()

    def _unknown_lease(self) -> None:
        self._lose_lease(f"{self.authority} has ended its lease")

    def _revoked(self, lease: int) -> None:
        if self.stage is Stage.EVICTING and lease == self._old_lease:
            self._go_on(Stage.ENTERING)
        elif self.stage is Stage.REVOKING and lease == self._lease:
            self._lease = 0
            for own in [own for own in self._by_number.values() if own.state is State.LEAVING]:
                self._is_gone(own, 0)  # whatever it was that they had, it was under this lease
            self._go_on(Stage.GRANTING)
        else:
            self._step()

    def _enter_done(self) -> None:
        if self._entering is not None and self._complete and self.stage is Stage.HELD:
            self._agenda.timers.cancel(("tenure", "enter", 0))
            self._succeed(self._entering, None)
            self._entering = None

    def _enter_failed(self, _: int) -> None:
        if self._entering is not None:
            text = f"{self.authority} did not answer in time: is it running there, and is the address right?"
            self._fail(self._entering, NodeUnreachable(text))
            self._entering = None

    # --- claims ---

    def _claim(self, order: fx.Register) -> _Own:
        self._numbers += 1
        value = msgspec.json.encode(Held(str(order.pid), self._numbers))
        own = _Own(order.name, order.pid, self._numbers, order.on_lost, value)
        self._own[order.name] = self._by_number[own.number] = own
        self._by_process.setdefault(order.pid.local, {})[order.name] = None
        return own

    def _wait_for(self, own: _Own, order: fx.Register) -> None:
        if own.state is State.HELD or not order.wait:
            own.standing = own.standing or order.ref > 0
            self._succeed(order.ref, _claim_of(own))
            if own.state is not State.HELD:  # it holds here from now on, until others are known to have it
                self._show(own.name, _Seen(own.pid, own.number, self._floors.get(own.name, 0)), early=True)
        else:
            self._hold(own, own.waiting, order)

    def _hold(self, own: _Own, beside: list[int], order: fx.Register) -> None:
        beside.append(order.ref)
        self._refs[order.ref] = own
        self._agenda.later(("order", order.ref), order.timeout)

    def _ask(self, own: _Own) -> None:
        """Ask for a name, if there is a lease, and nothing about this name is under way."""
        if self.stage is not Stage.HELD or own.state is State.HELD or own.asking or self._leaving[own.name]:
            return
        own.state, own.asking = State.ASKED, True
        self._consult(fx.Put(_NAMES + own.name, own.value, self._lease, own.number))

    def _put(self, put: fx.Put, answer: object) -> None:
        """A claim was to be written."""
        own = self._by_number.get(put.claim)
        if own is None or put.lease != self._lease or self.stage is not Stage.HELD:
            return  # it was put under a lease that has ended
        own.asking = False
        if own.state is State.LEAVING:
            self._remove(own)  # also if nobody knows: it may be there, or may yet come
            return
        match answer:
            case fx.Done(revision=revision):
                self._won(own, revision)
            case fx.Fact(value=value, revision=revision) if value == own.value:
                self._won(own, revision)  # our own write, which was not answered
            case fx.Fact() as there:
                self._find_taken(own, there)
            case fx.NoLease():
                self._unknown_lease()
            case _:
                self._later("again", own.number, AGAIN)

    def _find_taken(self, own: _Own, there: fx.Fact) -> None:
        if self._complete and there.revision > self._revision:  # else we were told of it, and maybe of its end
            self._fold(there)
        held = _read(there.value, Held)
        pid = None if held is None else _pid(held.pid)
        if pid is None:
            self._fail_all(own, NotConfirmed(own.name, [f"{self.authority}, where {there.key!r} is no claim"]))
            self._drop(own)
        elif (pid.node, pid.creation) == (self.node, self.creation):
            self._later("again", own.number, AGAIN)  # what an earlier claim of ours has left is being removed
        else:
            self._agenda.do(fx.Count("names_contested"))
            standing = own.standing
            self._fail_all(own, NameTaken(own.name, pid))
            self._drop(own)
            if standing:
                self._agenda.do(fx.TellLoss(own.pid.local, NameTaken(own.name, pid), "message"))

    def _won(self, own: _Own, revision: int) -> None:
        """The authority has our claim."""
        if own.state is State.HELD:
            return
        own.state, own.revision = State.HELD, revision
        self._agenda.timers.cancel(("tenure", "again", own.number))
        self._show(own.name, _Seen(own.pid, own.number, revision))
        for ref in own.waiting:
            own.standing = own.standing or ref > 0  # another node's order is kept in mind by `asks`
            self._forget(ref)
            self._succeed(ref, _claim_of(own))
        own.waiting = []
        for ref in own.rivals:
            self._forget(ref)
            self._fail(ref, NameTaken(own.name, own.pid))
        own.rivals = []

    def _lose(self, own: _Own) -> None:
        """A name that we held is not ours any longer."""
        self._drop(own)
        loss = NameLost(own.name)
        self._agenda.do(fx.Count("names_lost"))
        self._agenda.do(fx.TellLoss(own.pid.local, loss, own.on_lost))

    def _withdraw(self, own: _Own) -> None:
        """Give up a claim: here at once, and then with the authority."""
        written = own.state is not State.WANTED
        self._disown(own)
        self._leave(own)
        if not written:
            self._is_gone(own, 0)
        elif not own.asking:  # else its answer comes first
            self._remove(own)

    def _leave(self, own: _Own) -> None:
        own.state = State.LEAVING
        self._by_number[own.number] = own
        self._leaving[own.name] += 1

    def _drop(self, own: _Own) -> None:
        """We claim this no longer, and the authority has nothing of it."""
        self._disown(own)
        del self._by_number[own.number]

    def _disown(self, own: _Own) -> None:
        """We claim this no longer: the view does not show it."""
        del self._own[own.name]
        names = self._by_process[own.pid.local]
        del names[own.name]
        if not names:
            del self._by_process[own.pid.local]
        self._agenda.timers.cancel(("tenure", "again", own.number))
        self._know(own.name, own.revision)
        seen = self._seen.get(own.name)
        if seen is not None and seen.pid == own.pid:
            self._hide(own.name)

    def _remove(self, own: _Own) -> None:
        own.asking = True
        self._consult(fx.Remove(_NAMES + own.name, own.value, own.number))

    def _removed(self, number: int, answer: object) -> None:
        own = self._by_number.get(number)
        if own is None:
            return
        own.asking = False
        if isinstance(answer, fx.Done):
            self._is_gone(own, answer.revision)
        elif isinstance(answer, fx.Fact):
            self._is_gone(own, answer.revision - 1)  # somebody else has written it since
        else:
            self._later("again", number, AGAIN)

    def _is_gone(self, own: _Own, revision: int) -> None:
        """The authority has nothing of this claim any longer."""
        del self._by_number[own.number]
        self._leaving[own.name] -= 1
        if not self._leaving[own.name]:
            del self._leaving[own.name]
        self._agenda.timers.cancel(("tenure", "again", own.number))
        self._know(own.name, revision)
        for ref in list(own.leavers):
            self._left(ref)
        following = self._own.get(own.name)
        if following is not None:
            self._ask(following)

    def _left(self, ref: int) -> None:
        """An unregister is over: the authority knows, or has had its time."""
        own = self._refs.pop(ref, None)
        if own is not None:
            own.leavers.remove(ref)
            self._agenda.timers.cancel(("tenure", "leave", ref))
            self._succeed(ref, None)

    def _again(self, number: int) -> None:
        """Something about a claim was not answered."""
        own = self._by_number.get(number)
        if own is None:
            return
        if own.state is not State.LEAVING:
            self._ask(own)
        elif not own.asking and self.stage is not Stage.REVOKING:
            self._remove(own)

    def _cannot_unregister(self, order: fx.Unregister) -> NameUnknown:
        holder = self.whereis(order.name)
        if order.position is not None:
            state = f"held by {holder} now" if holder else "free now"
            return NameUnknown(order.name, f"this registration has ended, the name is {state}; nothing was changed")
        return NameUnknown(order.name)

    # --- the view ---

    def _follow(self) -> None:
        self._followed = self._agenda.now.mono
        self._expected = max(self._revision, self._answered)
        self._consult(fx.Follow(self._revision if self._complete else 0, self._expected))

    def _fold(self, fact: fx.Fact) -> None:
        """Somebody has written this."""
        if fact.key.startswith(_NODES):
            there = _read(fact.value, Member)
            node = fact.key.removeprefix(_NODES)
            if there is not None and _is_node(node) and self.nodes.get(node) != there.creation:
                self.nodes[node] = there.creation
                if node != self.node:
                    self._node_seen(node, there.creation)
            return
        if fact.key.startswith(_GROUPS) and self.rosters.fold(fact):
            return
        held, name = _read(fact.value, Held), fact.key.removeprefix(_NAMES)
        pid = None if held is None else _pid(held.pid)
        if held is None or pid is None or not fact.key.startswith(_NAMES) or not _is_name(name):
            self._agenda.do(fx.Count("registry_unreadable"))
        elif pid.node != self.node:
            self._show(name, _Seen(pid, held.claim, fact.revision))
        elif pid.creation == self.creation:
            self._see_ours(name, pid, held.claim, fact)

    def _see_ours(self, name: str, pid: Pid, number: int, fact: fx.Fact) -> None:
        """A write of ours is there: one that we know of, or one that has come late. Under an old lease it will go."""
        if self.stage is not Stage.HELD or fact.lease != self._lease:
            return
        own = self._by_number.get(number)
        if own is not None and own.state is not State.LEAVING:
            self._won(own, fact.revision)
        elif own is None and fact.revision > self._floors.get(name, 0):
            ghost = _Own(name, pid, number, "message", fact.value)
            self._leave(ghost)
            self._remove(ghost)

    def _gone(self, key: str, revision: int) -> None:
        """There is no such key since before or at this revision."""
        name, node = key.removeprefix(_NAMES), key.removeprefix(_NODES)
        if key.startswith(_GROUPS):
            self.rosters.gone(key, revision)
            return
        if name == key:
            self._forget_node(node)
            if node == self.node and self.stage is Stage.HELD and self._entered < revision:
                self._lose_lease(f"{self.authority} has it no longer")
            return
        own, seen = self._own.get(name), self._seen.get(name)
        if own is not None and own.state is State.HELD:
            if own.revision < revision:
                self._lose(own)
        elif seen is not None and seen.revision < revision and (own is None or seen.pid != own.pid):
            self._hide(name)

    def _forget_node(self, node: str) -> None:
        if self.nodes.pop(node, None) is not None and node != self.node:
            self._node_gone(node)

    def _show(self, name: str, seen: _Seen, early: bool = False) -> None:
        """Somebody has a name. `early`: not written yet."""
        before = self._seen.get(name)
        if not early and (
            seen.revision <= self._floors.get(name, 0) or (before is not None and before.revision >= seen.revision)
        ):
            return
        self._seen[name] = seen
        if before is not None and before.pid == seen.pid:
            return
        if before is not None:
            self._agenda.do(fx.NameRemoved(name, before.pid))
        self.view[name] = seen.pid
        self._agenda.do(fx.NameAdded(name, seen.pid))

    def _hide(self, name: str) -> None:
        """Nobody has a name."""
        del self._seen[name]
        self._agenda.do(fx.NameRemoved(name, self.view.pop(name)))

    def _know(self, name: str, revision: int) -> None:
        """What is told of this name from before this revision is older than what we know."""
        if revision > self._revision:
            self._floors[name] = max(revision, self._floors.pop(name, 0))

    def _told_through(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        while self._floors and next(iter(self._floors.values())) <= self._revision:
            self._floors.popitem(last=False)

    TOLD: ClassVar[dict[type, Callable[..., None]]] = {
        fx.Consulted: consulted,
        fx.Snapshot: snapshot,
        fx.Changed: changed,
        fx.Current: current,
        fx.Unfollowed: unfollowed,
    }
    """Which method takes what the authority says."""

    # --- small things ---

    def _give_up(self, ref: int) -> None:
        """One who waits for a claim waits no longer; without anybody left who wants it, it is withdrawn."""
        own = self._refs.get(ref)
        if own is None or ref in own.leavers:
            return
        self._forget(ref)
        if ref in own.rivals:
            own.rivals.remove(ref)
            return
        own.waiting.remove(ref)
        if not own.waiting and not own.standing:
            self._fail_rivals(own, NameTaken(own.name, own.pid))
            self._withdraw(own)

    def _fail_all(self, own: _Own, error: KinfolkError) -> None:
        for ref in own.waiting:
            self._forget(ref)
            self._fail(ref, error)
        own.waiting = []
        self._fail_rivals(own, error if isinstance(error, NameTaken) else NameTaken(own.name, own.pid))

    def _fail_rivals(self, own: _Own, error: KinfolkError) -> None:
        for ref in own.rivals:
            self._forget(ref)
            self._fail(ref, error)
        own.rivals = []

    def _forget(self, ref: int) -> None:
        del self._refs[ref]
        self._agenda.timers.cancel(("order", ref))

    def _succeed(self, ref: int, value: object) -> None:
        self._answer(fx.Succeed(ref, value))

    def _fail(self, ref: int, error: KinfolkError) -> None:
        self._answer(fx.Fail(ref, error))

    def _consult(self, request: fx.Request) -> None:
        self._agenda.do(fx.Consult(request))

    def _later(self, what: str, number: int, seconds: float) -> None:
        self._agenda.later(("tenure", what, number), seconds)


def _claim_of(own: _Own) -> Claim:
    """The stamp is the revision, once there is one."""
    return Claim(own.name, own.pid, own.number, own.revision)


def _read(value: bytes, kind: type[T]) -> T | None:
    """What was written, None if it is something else: whoever can write there can write anything."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _pid(text: str) -> Pid | None:
    try:
        return Pid.parse(text)
    except ValueError:
        return None


def _is_name(name: str) -> bool:
    try:
        return check_name(name) == name
    except ValueError:
        return False


def _is_node(node: str) -> bool:
    try:
        return check_node_name(node) == node
    except ValueError:
        return False
