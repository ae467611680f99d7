"""One node's mind: inputs in, effects out, no clock, no I/O.

``handle(input, now)`` takes one fact or order and returns the effects to carry out, in order, before the next input.
``next_deadline()`` says when it wants a TimePassed input. What an input does is in the small method of its class; what
a peer's operation does is in the method of that operation's class; both tables are at the end of the class.

Names are decided in `core.names`, sessions in `core.members`; the kernel knows only when to ask which.
"""

import logging
import random
from collections.abc import Callable, Iterable
from typing import ClassVar

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.core import names as core
from kinfolk.core.ledger import Claim
from kinfolk.core.members import Members, Session, Target, Verdict
from kinfolk.core.names import Names
from kinfolk.core.timers import Timers
from kinfolk.errors import (
    AuthenticationFailed,
    KinfolkError,
    NameLost,
    NameTaken,
    NameUnknown,
    NodeClosed,
    NodeUnreachable,
    NoProcess,
    NotConfirmed,
    RemoteProtocolError,
)
from kinfolk.ids import MAX_CREATION, MAX_NAME_BYTES, Address, Pid, Seed, check_node_name
from kinfolk.wire import frames
from kinfolk.wire.handshake import printable


class Settings(Struct, frozen=True):
    """Times in seconds, sizes in names."""

    heartbeat: float = 1.0
    """How often peers get a sign of life."""
    down_after: float = 5.0
    """The silence after which a peer counts as lost."""
    redial_min: float = 0.1
    redial_max: float = 60.0
    """The shortest and the longest wait before a lost peer is dialled again; in between, a fifth of its absence."""
    forget_after: float = 24 * 3600.0
    """How long a lost peer is dialled."""
    sync_part: int = 1000
    """Names in one part of a sync."""


class _Order(Struct):
    """A Register that waits: for the claim of ours at `position`, or for `rival` to be confirmed or to lose."""

    ref: int
    name: str
    position: int = 0
    rival: Pid | None = None


class _Join(Struct):
    """A Join in progress: which targets are yet to be reached or found unreachable."""

    order: fx.Join
    seeds: list[Target]
    open: dict[Address, Target]
    seen: set[Address]
    failed: dict[Address, KinfolkError]


class Kernel:
    """The state machine of a node.

    Args:
        name: the node's name, final.
        creation: this start of it.
        settings: times and sizes.
        rng: gives the jitter of redials.
        names_type: the name table; the simulation puts in ones with a rule removed.
    """

    def __init__(
        self, name: str, creation: int, settings: Settings, rng: random.Random, names_type: type[Names] = Names
    ) -> None:
        self.name, self.creation, self.settings = name, creation, settings
        self.names = names_type(
            name,
            creation,
            patience=settings.down_after + settings.heartbeat,
            lapse=2.5 * settings.heartbeat,
        )
        self.members = Members(name)
        self.closed = False
        self.creation_is_final = False
        """Set once a pid has been given out: from then on a refusal as stale is an error instead of a new creation."""
        self._rng = rng
        self._timers = Timers()
        self._effects: list[fx.Effect] = []
        self._conns = 0
        self._orders: dict[int, _Order] = {}
        self._waiting: dict[int, list[_Order]] = {}  # by position of the claim
        self._undecided: dict[str, list[_Order]] = {}  # by name, of those that wait for a rival
        self._leaving: dict[int, list[int]] = {}  # refs by position of the withdrawal
        self._standing: set[int] = set()  # positions of claims that somebody holds without waiting for them
        self._joins: dict[int, _Join] = {}
        self._pings = 0
        self._now = fx.Now(0.0, 0)

    # --- the interface ---

    def handle(self, happened: fx.Input, now: fx.Now) -> list[fx.Effect]:
        """Take one input. Returns its effects, to be carried out in order before the next input."""
        self._now = now
        if self.closed:
            self._after_shutdown(happened)
        else:
            self._INPUTS[type(happened)](self, happened)
        taken, self._effects = self._effects, []
        return taken

    def next_deadline(self) -> float | None:
        """When the kernel next wants TimePassed, on the scale of `Now.mono`; None if never."""
        return self._timers.next()

    def new_connection(self) -> int:
        """A number for a connection, never given before."""
        self._conns += 1
        return self._conns

    def peers(self) -> dict[str, int]:
        """The open sessions: each peer with its creation."""
        return {peer: session.creation for peer, session in self.members.by_peer.items()}

    def session_of(self, peer: str) -> int | None:
        """The connection of the session with a peer, if there is one."""
        session = self.members.by_peer.get(peer)
        return None if session is None else session.conn

    # --- connections ---

    def _proved(self, fact: fx.Proved) -> None:
        match self.members.admit(fact.conn, fact.peer, fact.creation):
            case Verdict.ADMIT:
                self._do(fx.Admit(fact.conn))
            case Verdict.DUPLICATE:
                self._do(fx.Refuse(fact.conn, "duplicate", f"{self.name} is dialling {fact.peer} at this moment"))
            case Verdict.STALE:
                known = self.members.creations[fact.peer]
                text = f"a newer start of {fact.peer} is known here: its name is in use, or its clock went back"
                self._do(fx.Refuse(fact.conn, "stale", text, known))
                self._log(logging.WARNING, f"refused {fact.peer}: {text}")

    def _opened(self, fact: fx.Opened) -> None:
        target = self.members.dial_ended(fact.conn) if fact.dialled else None
        if target is not None:
            target.answers, target.attempts, target.refused = fact.peer, 0, False
            if fact.peer == self.name:  # an address of our own, met through an alias
                self._do(fx.Close(fact.conn, "", "dialled itself"))
                self._drop_target(target)
                return
        if self.members.open(fact.conn, fact.peer, fact.creation, fact.dialled) is not Verdict.ADMIT:
            self._do(fx.Close(fact.conn, "", "another session with this peer goes on"))
            if target is not None:
                self._redial(target)
            self._settle_joins()
            return
        there = self.members.by_peer.get(fact.peer)
        if there is not None:
            code = "replaced" if there.creation == fact.creation else "superseded"
            self._do(fx.Close(there.conn, code, f"a newer session with {fact.peer} takes its place"))
            self._session_ended(there.conn, code, returns=True)
        session = self.members.opened(fact.conn, fact.peer, fact.creation, fact.dialled, self._now.mono)
        self._know_peer(fact.peer)
        self._log(logging.INFO, f"{fact.peer} is up")
        self._do(fx.PeerUp(fact.peer, fact.creation, fact.conn))
        if ("beat",) not in self._timers:
            self._timers.set(("beat",), self._now.mono + self.settings.heartbeat)
        self.names.peer_up(fact.peer)
        self._send(session, frames.Peers([peer for peer in self.members.by_peer if peer != fact.peer]))
        session.unsent = list(reversed(self.names.own))
        self._sync_part(session)

    def _dial_failed(self, fact: fx.DialFailed) -> None:
        target = self.members.dial_ended(fact.conn)
        if target is None:
            return
        match fact.code:
            case "duplicate":
                pass  # the other end dials us, or has us already: its session settles what waits for this one
            case "self":
                self._drop_target(target, fact.error)
                return
            case "stale" if not (self.members.creations or self.creation_is_final or fact.number >= MAX_CREATION):
                self.creation = self.names.creation = max(self.creation, fact.number) + 1
                self._do(fx.RaiseCreation(self.creation))
                self._dial(target)
                return
            case _:
                refused = isinstance(fact.error, AuthenticationFailed)
                if target.attempts == 0 or (refused and not target.refused):
                    self._log(
                        logging.WARNING if refused else logging.INFO, f"no session with {target.seed}: {fact.error}"
                    )
                target.refused = refused
                self._join_failed(target, fact.error)
        target.attempts += 1
        self._redial(target)
        self._settle_joins()

    def _connection_closed(self, fact: fx.Closed) -> None:
        self._session_ended(fact.conn, fact.reason, fact.level)

    def _heard(self, fact: fx.Heard) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is not None:
            session.heard = self._now.mono

    def _drained(self, fact: fx.Drained) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is not None:
            self._sync_part(session)

    def _received(self, fact: fx.Received) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is None:
            return  # replaced meanwhile: what is still under way there has no effect
        session.heard = self._now.mono
        try:
            for operation in fact.operations:
                handler = self._OPERATIONS.get(type(operation))
                if handler is None:
                    raise RemoteProtocolError(f"{type(operation).__name__} has no place in an open session")
                if not session.greeted and not isinstance(operation, frames.Peers | frames.Goodbye):
                    raise RemoteProtocolError(f"begins with {type(operation).__name__} instead of its list of peers")
                handler(self, session, operation)
                if session.conn not in self.members.sessions:
                    return
        except RemoteProtocolError as error:
            self._do(fx.Count("protocol_errors"))
            self._end(session, "protocol", f"broke the protocol: {error}", logging.WARNING)

    def _end(self, session: Session, code: str, reason: str, level: int = logging.INFO) -> None:
        """End a session from our side."""
        self._do(fx.Close(session.conn, code, reason[:1024]))
        self._session_ended(session.conn, reason, level)

    def _session_ended(self, conn: int, reason: str, level: int = logging.INFO, returns: bool = False) -> None:
        """A session is over. `returns`: another one with the same peer opens in this very step."""
        session = self.members.closed(conn)
        if session is None:
            return
        self._log(level, f"{session.peer} is down: {reason}")
        # The names first, so that who hears of the loss finds them free.
        self._apply(self.names.peer_down(session.peer, session.creation, returns))
        self._do(fx.PeerDown(session.peer, session.creation, conn, reason))
        for target in self.members.targets.values():
            if target.answers == session.peer and target.conn is None:
                target.attempts, target.wanted_since = 0, self._now.mono
                self._redial(target)
                for join in self._joins.values():
                    if target.seed.address in join.seen:  # it was reached, and has to be again
                        join.open[target.seed.address] = target
        self._settle_joins()

    # --- dialling ---

    def _know_peer(self, peer: str) -> Target:
        return self.members.target(Seed.parse(peer), self._now.mono)

    def _dial(self, target: Target) -> None:
        if target.conn is not None or self.members.session_with(target) is not None:
            return
        if self.members.expects(target):
            self._redial(target)  # a dial of ours would only replace the session that opens in a moment
        else:
            conn = self.new_connection()
            self.members.dial(target, conn)
            self._timers.cancel(("dial", target.seed.address))
            self._do(fx.Dial(conn, target.seed))

    def _redial(self, target: Target) -> None:
        """Dial again later: soon at first, then ever more slowly, never all at the same moment."""
        least, most = self.settings.redial_min, self.settings.redial_max
        absent = self._now.mono - target.wanted_since
        delay = most if target.refused else min(most, max(least, absent / 5))
        self._timers.set(("dial", target.seed.address), self._now.mono + delay * (0.5 + self._rng.random()))

    def _redial_due(self, address: Address) -> None:
        target = self.members.targets.get(address)
        if target is None or self.members.session_with(target) is not None:
            return
        if self._now.mono - target.wanted_since > self.settings.forget_after:
            self._log(logging.INFO, f"gives up on {target.seed}, which has not been seen for long")
            self._drop_target(target)
        else:
            self._dial(target)

    def _drop_target(self, target: Target, error: KinfolkError | None = None) -> None:
        self.members.targets.pop(target.seed.address, None)
        self._timers.cancel(("dial", target.seed.address))
        for join in self._joins.values():
            if join.open.pop(target.seed.address, None) is None:
                continue
            if join.order.patient:  # a list of seeds that all nodes share may well name the node itself
                join.seeds = [seed for seed in join.seeds if seed is not target]
            else:
                join.failed[target.seed.address] = error or NodeUnreachable(f"{target.seed} is this node itself")
        self._settle_joins()

    # --- joining ---

    def _join(self, order: fx.Join) -> None:
        seeds = [self.members.target(seed, self._now.mono) for seed in order.seeds if seed.expects != self.name]
        open_ = {target.seed.address: target for target in seeds}
        self._joins[order.ref] = _Join(order, seeds, open_, set(open_), {})
        self._timers.set(("join", order.ref), self._now.mono + order.timeout)
        self.names.hold()
        for target in seeds:
            target.asked_for = True
            session = self.members.session_with(target)
            if session is None:
                target.attempts = 0
                self._dial(target)
            else:
                # Its list may name some that an earlier join has yet to reach; who came after that has met us since.
                self._join_wants(self._joins[order.ref], {**self.members.by_peer, **dict.fromkeys(session.listed)})
        self._settle_joins()

    def _forget(self, order: fx.Forget) -> None:
        for seed in order.seeds:
            target = self.members.targets.get(seed.address)
            if target is None:
                continue
            target.asked_for = False
            if self.members.session_with(target) is None:
                self._drop_target(target)

    def _join_wants(self, join: _Join, peers: Iterable[str]) -> None:
        """Everybody whom a member of the mesh knows belongs to the join as well."""
        for peer in peers:
            target = self._know_peer(peer)
            if target.seed.address not in join.seen:
                join.seen.add(target.seed.address)
                join.open[target.seed.address] = target
                self._dial(target)

    def _join_failed(self, target: Target, error: KinfolkError) -> None:
        """A dial failed. A seed of a starting node gets further chances until some seed has answered."""
        address = target.seed.address
        for join in self._joins.values():
            if address in join.open:
                join.failed[address] = error
                again = join.order.patient and not target.refused and target in join.seeds
                if not again or any(self._joined(seed) for seed in join.seeds):
                    del join.open[address]

    def _joined(self, target: Target) -> bool:
        session = self.members.session_with(target)
        return session is not None and session.greeted and session.synced

    def _settle_joins(self) -> None:
        """Finish each join that has nobody left to wait for."""
        for join in list(self._joins.values()):
            for address, target in list(join.open.items()):
                if self._joined(target):
                    del join.open[address]
                    join.failed.pop(address, None)
            if any(self._joined(seed) for seed in join.seeds):
                for address in [address for address in join.open if address in join.failed]:
                    del join.open[address]
            refused = [seed for seed in join.seeds if seed.refused and seed.seed.address in join.failed]
            if not join.open or (refused and join.order.patient):
                self._join_over(join)

    def _join_over(self, join: _Join) -> None:
        """Answer a join: nobody is left to wait for, or its time is up."""
        order = join.order
        if self._joins.pop(order.ref, None) is None:
            return
        self._timers.cancel(("join", order.ref))
        errors = [join.failed.get(seed.seed.address) for seed in join.seeds if not self._joined(seed)]
        fatal = next((error for error in errors if isinstance(error, AuthenticationFailed)), None)
        reached = len(self.members.by_peer)
        unanswered = NodeUnreachable(
            f"{', '.join(str(seed.seed) for seed in join.seeds) or 'nobody'} did not answer within {order.timeout:g} s:"
            " is it running there, and is the address right?"
        )
        if fatal is not None:
            self._do(fx.Fail(order.ref, fatal))
        elif order.patient and reached < order.min_peers:
            text = f"{reached} of at least {order.min_peers} peers reached within {order.timeout:g} s"
            self._do(fx.Fail(order.ref, NodeUnreachable(f"{text}: check that the seeds run, or lower min_peers")))
        elif order.patient or not errors:
            if join.seeds and len(errors) == len(join.seeds):
                self._log(logging.WARNING, f"starts alone: {unanswered}; it keeps dialling")
            self._do(fx.Succeed(order.ref))
        else:
            self._do(fx.Fail(order.ref, next((error for error in errors if error), unanswered)))
        if not self._joins:
            self._apply(self.names.release())

    # --- the life of a name ---

    def _register(self, order: fx.Register) -> None:
        own = self.names.own.get(order.name)
        if own is not None and own.claim.pid == order.pid:
            self._also_registered(order, own)
            return
        holder = self.names.view.get(order.name)
        if holder is not None:
            if order.wait:
                self._hold(_Order(order.ref, order.name, rival=holder), order.timeout)
                self._settle_rivals(order.name)
            else:
                self._do(fx.Fail(order.ref, NameTaken(order.name, holder)))
            return
        self._tell_rivals(order.name, None)  # who waits in vain must not be told of a claim made after that
        changes = self.names.claim(order.name, order.pid, order.on_lost, self._now.wall_ms)
        own = self.names.own[order.name]
        self._wait_for(order, own)
        self._apply(changes)

    def _also_registered(self, order: fx.Register, own: core.OwnClaim) -> None:
        """The same process under the same name again: the same claim."""
        if own.confirmed:
            self._do(fx.Succeed(order.ref, own.claim))
        else:
            self._wait_for(order, own)

    def _wait_for(self, order: fx.Register, own: core.OwnClaim) -> None:
        position = own.claim.position
        if not order.wait:
            self._standing.add(position)
            self._do(fx.Succeed(order.ref, own.claim))
            return
        self._hold(_Order(order.ref, order.name, position), order.timeout)

    def _hold(self, waiting: _Order, timeout: float) -> None:
        self._orders[waiting.ref] = waiting
        self._beside(waiting).append(waiting)
        self._timers.set(("order", waiting.ref), self._now.mono + timeout)

    def _beside(self, waiting: _Order) -> list[_Order]:
        """All who wait for the same as this one."""
        if waiting.rival is None:
            return self._waiting.setdefault(waiting.position, [])
        return self._undecided.setdefault(waiting.name, [])

    def _settle_rivals(self, name: str) -> None:
        """Tell those who came second who has won, once that is certain: until then the winner may still lose itself.

        Where the name is free, its rival has lost, and the claim that it lost to is on its way here; or nobody has won.
        """
        if name not in self._undecided:
            return
        holder = self.names.view.get(name)
        if holder is None:
            if ("free", name) not in self._timers:
                self._timers.set(("free", name), self._now.mono + self.settings.heartbeat)
        elif self.names.is_confirmed(name):
            self._tell_rivals(name, holder)

    def _still_free(self, name: str) -> None:
        if name not in self.names.view:
            self._tell_rivals(name, None)

    def _tell_rivals(self, name: str, holder: Pid | None) -> None:
        for waiting in self._undecided.pop(name, ()):
            last = holder or waiting.rival
            assert last is not None, "whoever waits for a rival has seen one"
            self._answer(waiting, fx.Fail(waiting.ref, NameTaken(name, last)))

    def _abandon(self, order: fx.Abandon) -> None:
        self._give_up(order.ref, None)

    def _order_due(self, ref: int) -> None:
        if ref in self._orders:
            waiting = self._orders[ref]
            if waiting.rival is not None:
                self._give_up(ref, NameTaken(waiting.name, self.names.view.get(waiting.name, waiting.rival)))
            else:
                self._give_up(ref, NotConfirmed(waiting.name, self.names.ledger.missing(waiting.position)))
        else:
            for position, refs in list(self._leaving.items()):
                if ref in refs:  # silent peers are no reason to raise: the name is withdrawn, they hear it in order
                    self._accepted(core.Accepted(position))

    def _give_up(self, ref: int, error: KinfolkError | None) -> None:
        """One who waits for a claim waits no longer; without anybody left who wants it, it is withdrawn."""
        waiting = self._orders.pop(ref, None)
        if waiting is None:
            return
        self._timers.cancel(("order", ref))
        others = self._beside(waiting)
        others.remove(waiting)
        if error is not None:
            self._do(fx.Fail(ref, error))
        if others:
            return
        if waiting.rival is not None:
            del self._undecided[waiting.name]
            return
        del self._waiting[waiting.position]
        if waiting.position not in self._standing:
            self._apply(self.names.withdraw([waiting.name]))

    def _unregister(self, order: fx.Unregister) -> None:
        own = self.names.own.get(order.name)
        holder = self.names.view.get(order.name)
        if own is not None and order.position in (None, own.claim.position):
            self._fail_waiting(own.claim, NameUnknown(order.name, "it was unregistered before it was confirmed"))
            changes = self.names.withdraw([order.name])
            position = next(change.position for change in changes if isinstance(change, core.Withdrawn))
            self._leaving[position] = [order.ref]
            self._timers.set(("order", order.ref), self._now.mono + order.timeout)
            accepted = self.names.ledger.await_withdrawal(position)
            self._apply(changes)
            if accepted:
                self._accepted(core.Accepted(position))
        elif order.position is not None:
            state = f"held by {holder} now" if holder else "free now"
            text = f"this registration has ended, the name is {state}; nothing was changed"
            self._do(fx.Fail(order.ref, NameUnknown(order.name, text)))
        elif holder is not None:
            text = f"it is held by {holder}: unregister it on that node"
            self._do(fx.Fail(order.ref, NameUnknown(order.name, text)))
        else:
            self._do(fx.Fail(order.ref, NameUnknown(order.name)))

    def _process_exited(self, fact: fx.ProcessExited) -> None:
        self._apply(self.names.process_exited(fact.local), gone=True)

    # --- what the name table changed ---

    def _apply(self, changes: Iterable[core.Change], gone: bool = False) -> None:
        """Pass on, in order, what an event did to the name table. `gone`: the process behind it has exited."""
        for change in changes:
            match change:
                case core.Added(name, pid):
                    self._do(fx.NameAdded(name, pid))
                    self._settle_rivals(name)
                case core.Removed(name, pid):
                    self._do(fx.NameRemoved(name, pid))
                    self._settle_rivals(name)
                case core.Acknowledge(peer, position):
                    self._send(self.members.by_peer[peer], frames.Acknowledged([position]))
                case core.Claimed(claim):
                    self._tell(frames.NameClaimed(claim.position, claim.name, claim.pid.local, claim.stamp))
                case core.Withdrawn():
                    self._withdrawn(change, gone)
                case core.Confirmed():
                    self._confirmed(change)
                case core.Lost():
                    self._lost(change)
                case core.Accepted():
                    self._accepted(change)
                case core.Contest(peer, loser, winner, confirmed):
                    self._do(fx.Count("names_contested"))
                    self._send(self.members.by_peer[peer], _contest(loser, winner, confirmed))

    def _confirmed(self, change: core.Confirmed) -> None:
        claim = change.claim
        self._tell(frames.NameConfirmed(change.position, claim.name, claim.position))
        for waiting in self._waiting.pop(claim.position, ()):
            self._answer(waiting, fx.Succeed(waiting.ref, claim))
        self._settle_rivals(claim.name)

    def _withdrawn(self, change: core.Withdrawn, gone: bool) -> None:
        names, positions = [c.name for c in change.claims], [c.position for c in change.claims]
        self._tell(frames.NamesWithdrawn(change.position, names, positions))
        for claim in change.claims:
            self._standing.discard(claim.position)
            if gone:
                error = NoProcess(f"{claim.pid} exited before its name {claim.name!r} was confirmed")
                self._fail_waiting(claim, error)

    def _lost(self, change: core.Lost) -> None:
        own, winner = change.own, change.winner
        claim = own.claim
        if own.confirmed:
            loss: NameLost | NameTaken = NameLost(claim.name, winner.pid)
            on_lost: fx.OnLost = "exit" if own.on_lost == "exit" else "message"
            self._do(fx.Count("names_lost"))
            self._log(logging.WARNING, f"{claim.pid}: {loss}")
            self._do(fx.TellLoss(claim.pid.local, loss, on_lost))
        else:
            for waiting in self._waiting.pop(claim.position, ()):
                waiting.rival = winner.pid
                self._beside(waiting).append(waiting)
            self._settle_rivals(claim.name)
            if claim.position in self._standing:
                self._do(fx.TellLoss(claim.pid.local, NameTaken(claim.name, winner.pid), "message"))

    def _accepted(self, change: core.Accepted) -> None:
        self.names.ledger.forget(change.position)
        for ref in self._leaving.pop(change.position, ()):
            self._timers.cancel(("order", ref))
            self._do(fx.Succeed(ref))

    def _fail_waiting(self, claim: Claim, error: KinfolkError) -> None:
        for waiting in self._waiting.pop(claim.position, ()):
            self._answer(waiting, fx.Fail(waiting.ref, error))

    def _answer(self, waiting: _Order, answer: fx.Succeed | fx.Fail) -> None:
        del self._orders[waiting.ref]
        self._timers.cancel(("order", waiting.ref))
        self._do(answer)

    # --- what peers say ---

    def _peers(self, session: Session, operation: frames.Peers) -> None:
        try:
            peers = [check_node_name(peer) for peer in operation.names if peer != self.name]
        except ValueError as error:
            raise RemoteProtocolError(f"lists a peer that cannot be: {error}") from None
        session.greeted, session.listed = True, tuple(peers)
        for join in self._joins.values():
            self._join_wants(join, peers)
        for peer in peers:
            self._dial(self._know_peer(peer))
        self._settle_joins()

    def _ping(self, session: Session, operation: frames.Ping) -> None:
        self._send(session, frames.Pong(operation.sequence))

    def _pong(self, session: Session, operation: frames.Pong) -> None:
        pass  # that it came at all is what counts

    def _goodbye(self, session: Session, operation: frames.Goodbye) -> None:
        self._do(fx.Close(session.conn, "", "the peer has ended the session"))
        reason = f"it ended the session ({printable(operation.code)}): {printable(operation.detail)}"
        self._session_ended(session.conn, reason)
        if operation.code == "closed":  # it comes back by itself, if it does; nobody needs to look for it
            for target in list(self.members.targets.values()):
                if target.answers == session.peer and not target.asked_for:
                    self._drop_target(target)

    def _ledger_synced(self, session: Session, operation: frames.LedgerSynced) -> None:
        peer = session.peer
        mirror = self.names.mirrors.get(peer)
        if mirror is None:
            if operation.creation != session.creation:
                raise RemoteProtocolError(f"syncs creation {operation.creation:x} in a session of {session.creation:x}")
            self.names.sync_begins(peer, session.creation, operation.position)
        elif mirror.complete or operation.position != mirror.position:
            raise RemoteProtocolError(f"sync at entry {operation.position} while its mirror is at {mirror.position}")
        try:
            claims = [
                (Claim(_checked(name), Pid(peer, session.creation, local), position, stamp), confirmed)
                for name, local, position, stamp, confirmed in zip(
                    operation.names,
                    operation.locals,
                    operation.positions,
                    operation.stamps,
                    operation.confirmed,
                    strict=True,
                )
            ]
        except ValueError:
            raise RemoteProtocolError("syncs columns of unequal length") from None
        self._apply(self.names.sync_part(peer, claims, self._now.wall_ms))
        if operation.done and session.conn in self.members.sessions:
            self.names.sync_done(peer)
            session.synced = True
            self._settle_joins()

    def _name_claimed(self, session: Session, operation: frames.NameClaimed) -> None:
        pid = Pid(session.peer, session.creation, operation.local)
        claim = Claim(_checked(operation.name), pid, operation.position, operation.stamp)
        self._apply(self.names.peer_claimed(session.peer, claim, self._now.wall_ms))

    def _names_withdrawn(self, session: Session, operation: frames.NamesWithdrawn) -> None:
        if len(operation.names) != len(operation.claims):
            raise RemoteProtocolError("withdraws columns of unequal length")
        self._apply(self.names.peer_withdrew(session.peer, operation.position, operation.names, operation.claims))

    def _name_confirmed(self, session: Session, operation: frames.NameConfirmed) -> None:
        changes = self.names.peer_confirmed(session.peer, operation.position, operation.name, operation.claim)
        self._apply(changes)
        self._settle_rivals(operation.name)

    def _acknowledged(self, session: Session, operation: frames.Acknowledged) -> None:
        self._apply(self.names.peer_acknowledged(session.peer, operation.positions))

    def _name_contested(self, session: Session, operation: frames.NameContested) -> None:
        try:
            pid = Pid(check_node_name(operation.node), operation.creation, operation.local)
        except ValueError as error:
            raise RemoteProtocolError(f"contests for a node that cannot be: {error}") from None
        winner = Claim(operation.name, pid, operation.position, operation.stamp)
        self._apply(self.names.contested(operation.name, operation.loser, winner, operation.confirmed, self._now.mono))

    # --- time ---

    def _time_passed(self, fact: fx.TimePassed) -> None:
        for key, due in self._timers.due(self._now.mono):
            match key:
                case ("beat",):
                    self._beat(due)
                case ("order", int(ref)):
                    self._order_due(ref)
                case ("dial", Address() as address):
                    self._redial_due(address)
                case ("join", int(ref)):
                    self._join_over(self._joins[ref])
                case ("free", str(name)):
                    self._still_free(name)
                case _:
                    raise AssertionError(f"no timer has the key {key!r}")

    def _beat(self, due: float) -> None:
        """A heartbeat: find the silent, show the others that we live, and repeat what is disputed."""
        now = self._now.mono
        late = now - due > self.settings.heartbeat
        for session in list(self.members.sessions.values()):
            if late:
                # We were stopped or busy ourselves: what the others sent may wait in our buffers, unread.
                session.heard = now
            elif now - session.heard > self.settings.down_after:
                self._end(session, "silent", f"heard nothing for {now - session.heard:.1f} s")
        self._pings += 1
        self._tell(frames.Ping(self._pings))
        self._apply(self.names.contest_again())
        if self.members.sessions:
            self._timers.set(("beat",), now + self.settings.heartbeat)

    # --- the end ---

    def _shutdown(self, order: fx.Shutdown) -> None:
        error = NodeClosed(f"{self.name} is closed")
        for ref in [*self._orders, *(ref for refs in self._leaving.values() for ref in refs), *self._joins]:
            self._do(fx.Fail(ref, error))
        for session in list(self.members.sessions.values()):
            self._do(fx.Close(session.conn, "closed", f"{self.name} has been closed"))
        for conn in (*self.members.dials, *self.members.candidates):
            self._do(fx.Close(conn, "", "the node is closed"))
        self._timers = Timers()
        self.closed = True

    def _after_shutdown(self, happened: fx.Input) -> None:
        match happened:
            case fx.Register(ref=ref) | fx.Unregister(ref=ref) | fx.Join(ref=ref):
                self._do(fx.Fail(ref, NodeClosed(f"{self.name} is closed")))
            case fx.Proved(conn=conn):
                self._do(fx.Refuse(conn, "closed", f"{self.name} is closing"))
            case fx.Opened(conn=conn):
                self._do(fx.Close(conn, "", "the node is closed"))
            case _:
                pass

    # --- small things ---

    def _sync_part(self, session: Session) -> None:
        """Say the next part of our ledger's live claims, each as it is at this moment."""
        parts: list[core.OwnClaim] = []
        unsent = session.unsent
        while unsent and len(parts) < self.settings.sync_part:
            own = self.names.own.get(unsent.pop())
            if own is not None:
                parts.append(own)
        claims = [own.claim for own in parts]
        self._send(
            session,
            frames.LedgerSynced(
                creation=self.creation,
                position=self.names.ledger.position,
                done=not unsent,
                names=[claim.name for claim in claims],
                locals=[claim.pid.local for claim in claims],
                positions=[claim.position for claim in claims],
                stamps=[claim.stamp for claim in claims],
                confirmed=[own.confirmed for own in parts],
            ),
        )
        if unsent:
            self._do(fx.WantDrain(session.conn))

    def _do(self, effect: fx.Effect) -> None:
        self._effects.append(effect)

    def _log(self, level: int, text: str) -> None:
        self._effects.append(fx.Log(level, text))

    def _send(self, session: Session, operation: frames.Operation) -> None:
        self._effects.append(fx.Send((session.conn,), operation))

    def _tell(self, operation: frames.Operation) -> None:
        """Say the same to every peer."""
        if self.members.sessions:
            self._effects.append(fx.Send(tuple(self.members.sessions), operation))

    # --- which method takes what ---

    _INPUTS: ClassVar[dict[type, Callable[..., None]]] = {
        fx.Proved: _proved,
        fx.Opened: _opened,
        fx.DialFailed: _dial_failed,
        fx.Closed: _connection_closed,
        fx.Received: _received,
        fx.Heard: _heard,
        fx.Drained: _drained,
        fx.TimePassed: _time_passed,
        fx.ProcessExited: _process_exited,
        fx.Register: _register,
        fx.Abandon: _abandon,
        fx.Unregister: _unregister,
        fx.Join: _join,
        fx.Forget: _forget,
        fx.Shutdown: _shutdown,
    }
    _OPERATIONS: ClassVar[dict[type, Callable[..., None]]] = {
        frames.Peers: _peers,
        frames.Ping: _ping,
        frames.Pong: _pong,
        frames.Goodbye: _goodbye,
        frames.LedgerSynced: _ledger_synced,
        frames.NameClaimed: _name_claimed,
        frames.NamesWithdrawn: _names_withdrawn,
        frames.NameConfirmed: _name_confirmed,
        frames.Acknowledged: _acknowledged,
        frames.NameContested: _name_contested,
    }


def _contest(loser: Claim, winner: Claim, confirmed: bool) -> frames.NameContested:
    pid = winner.pid
    return frames.NameContested(
        name=loser.name,
        loser=loser.position,
        node=pid.node,
        creation=pid.creation,
        position=winner.position,
        local=pid.local,
        stamp=winner.stamp,
        confirmed=confirmed,
    )


def _checked(name: str) -> str:
    if len(name) > MAX_NAME_BYTES // 4 and len(name.encode()) > MAX_NAME_BYTES:
        raise RemoteProtocolError(f"uses a name of {len(name.encode())} bytes: at most {MAX_NAME_BYTES} are allowed")
    return name
