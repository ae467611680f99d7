"""One node's mind: inputs in, effects out, no clock, no I/O.

``handle(input, now)`` takes one fact or order and returns the effects to carry out, in order, before the next input.
``next_deadline()`` says when it wants a TimePassed input. What an input does is in the small method of its class; what
a peer's operation does is in the method of that operation's class, and so is what a change of the name table leads to.
The tables are at the end.

Names are decided in `core.names`, sessions in `core.members`, whom to dial in `mesh`, how users' orders end in
`orders`; the kernel knows only when to ask which.
"""

import logging
import math
import random
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.asks import Asks, Registrar
from kinfolk.compiled import mypyc_attr
from kinfolk.cookie import Hidden
from kinfolk.core import changes as core
from kinfolk.core.explain import Explanation, explain
from kinfolk.core.history import Ending, History, What
from kinfolk.core.ledger import Claim, Log
from kinfolk.core.members import Members, Session, Target, Verdict
from kinfolk.core.mirror import Membership
from kinfolk.core.names import Names
from kinfolk.core.silence import Standing
from kinfolk.core.timers import Timers
from kinfolk.errors import (
    KinfolkError,
    NodeClosed,
    NodeUnreachable,
    NotMoved,
    RemoteProtocolError,
)
from kinfolk.ids import MAX_CREATION, MAX_NAME_BYTES, Address, Pid, check_node_name
from kinfolk.mesh import Mesh
from kinfolk.ondemand import IDLE, OnDemand
from kinfolk.orders import Orders
from kinfolk.tempo import Settings
from kinfolk.tenure import MARGIN, Stage, Tenure
from kinfolk.transfers import Transfers
from kinfolk.wire import frames
from kinfolk.wire.handshake import printable

_ENDINGS: dict[str, Ending] = {"left": "peer left", "superseded": "superseded", "replaced": "replaced"}
"""The ends of sessions after which a peer is not lost, by their reason."""
Entry = frames.NameClaimed | frames.NamesWithdrawn | frames.NameConfirmed | frames.NameMoved | frames.GroupEntered
"""The operations that are entries of a ledger."""
_WATCHED: Final = (core.NameAdded, core.NameRemoved)


@mypyc_attr(allow_interpreted_subclasses=True)
class Kernel:
    """The state machine of a node.

    Args:
        name: the node's name, final.
        creation: this start of it.
        settings: times and sizes.
        rng: gives the jitter of redials.
        names_type: the name table; the simulation puts in ones with a rule removed.
        is_alive: whether a process of this node, by its local id, is alive.
        authority: what decides about names, if it is not the mesh: how it is called in messages. Then `tenure` holds
            them, no name is in the ledgers, and sessions open on demand.
        quiet: for how many seconds nothing has been said to or by processes of a peer; 0 if anything hangs on the
            session with it.
    """

    def __init__(
        self,
        name: str,
        creation: int,
        settings: Settings,
        rng: random.Random,
        names_type: type[Names] = Names,
        is_alive: Callable[[int], bool] = lambda _: True,
        authority: str | None = None,
        quiet: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        self.name, self.creation, self.settings = name, creation, settings
        self.names = names_type(
            name,
            creation,
            patience=settings.down_after + settings.heartbeat,
            lapse=2.5 * settings.heartbeat,
            step=settings.step,
            room=settings.room,
        )
        self.history = History()
        self._entries = Log[frames.Operation](settings.log)
        self.members = Members(name, settings.forget_after)
        self.closed = False
        self.creation_is_final = False
        """Set once a pid has been given out: from then on a refusal as stale is an error instead of a new creation."""
        self._agenda = Agenda()
        self._mesh = Mesh(
            self._agenda,
            self.members,
            self.new_connection,
            self._joining,
            lambda: len(self.peers()),
            lambda target: self.tenure is not None and target.seed.expects in self.tenure.nodes,
            lambda target: self._on_demand is not None and self._on_demand.is_idle(target),
            least=settings.redial_min,
            most=settings.redial_max,
            forget_after=settings.forget_after,
            rng=rng,
        )
        self._asks = Asks(self._agenda, self._say, self._creation_of, is_alive, slack=2 * settings.heartbeat)
        self._orders = Orders(self._agenda, self.names, self._apply, self._asks.answer, settings.heartbeat)
        self.tenure: Tenure | None = None
        self._on_demand: OnDemand | None = None
        if authority is not None:
            ttl = math.ceil(settings.down_after + MARGIN)
            self.tenure = Tenure(
                self._agenda, name, creation, ttl, authority, self._asks.answer, self._outrun,
                self._node_seen, self._node_gone,
            )  # fmt: skip
            tenure = self.tenure
            self._on_demand = OnDemand(
                self._agenda,
                self.members,
                self._mesh,
                tenure.nodes,
                is_leased=lambda: tenure.stage is Stage.HELD,
                quiet=quiet,
                asks=self._asks.concern,
                lost=self._forget_orders_with,
                end=lambda session, reason: self._end(session, "silent", reason),
                idle_after=settings.idle_after,
                patience=settings.down_after,
            )
        self.groups = self.names.groups if self.tenure is None else self.tenure.rosters.view
        """Who is a member of which group."""
        self._registrar: Registrar = self.tenure or self._orders
        self._transfers = Transfers(
            self._agenda,
            self.names,
            self._orders,
            self._apply,
            self._asks.answer,
            self._say,
            self._creation_of,
            is_alive,
            doubt=settings.down_after + settings.heartbeat,
        )
        self._conns = 0
        self._pings = 0
        self._pinged = 0.0  # when the last of them was sent
        self._turn_wanted = False
        self._applying: list[core.Change] | None = None  # the changes of the name table that are being passed on
        self._unapplied: list[core.Change] = []  # those after one of which an exception came
        self._acknowledging: tuple[str, list[int]] | None = None  # the last that this step says, if it is that

    # --- the interface ---

    def handle(self, happened: fx.Input, now: fx.Now) -> list[fx.Effect]:
        """Take one input. Returns its effects, to be carried out in order before the next input."""
        self._agenda.now = now
        if self.closed:
            self._after_shutdown(happened)
        else:
            _INPUTS[type(happened)](self, happened)
            self._transfers.settle()
            if self.names.busy and not self._turn_wanted:
                self._turn_wanted = True
                self._do(fx.WantTurn())
        self._acknowledging = None
        return self._agenda.take()

    def next_deadline(self) -> float | None:
        """When the kernel next wants TimePassed, on the scale of `Now.mono`; None if never."""
        return self._agenda.timers.next()

    def new_connection(self) -> int:
        """A number for a connection, never given before."""
        self._conns += 1
        return self._conns

    def peers(self) -> dict[str, int]:
        """The peers, each with its creation: those with an open session, or those that one is opened with on demand."""
        if self._on_demand is not None:
            return dict(self._on_demand.up)
        return {peer: session.creation for peer, session in self.members.by_peer.items()}

    def stalled(self) -> dict[str, float]:
        """The peers whose loop stands still: each with when it had its last turn, on the scale of `Now.mono`."""
        return {peer: session.signs.turned for peer, session in self.members.by_peer.items() if session.stalled}

    def groups_of(self, local: int) -> list[str]:
        """The groups that a process of ours is a member of, in the order in which it joined them."""
        return self.names.groups_of(local) if self.tenure is None else self.tenure.rosters.groups_of(local)

    def explain(self, name: str, mono: float | None = None) -> Explanation:
        """Why this node sees a name where it sees it. `mono`: the time, if it is later than that of the last input."""
        if self.tenure is not None:
            return self.tenure.explain(name, self._agenda.now.mono if mono is None else mono)
        return explain(self.names, self.history, name)

    def round_trips(self) -> dict[str, float | None]:
        """The seconds that each peer took to answer the last sign of life that it answered in time; None at first."""
        return {peer: session.round_trip for peer, session in self.members.by_peer.items()}

    def minds_exit(self, local: int) -> bool:
        """Whether the end of a process of this node, as far as all inputs so far go, changes anything here."""
        return self.tenure is not None or self.names.owns(local)

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
                self._log(logging.WARNING, f"refused {fact.peer}: {text}", peer=fact.peer, reason="stale")
            case Verdict.LEFT:
                text = f"this start of {fact.peer} has left the cluster: start it anew"
                self._do(fx.Refuse(fact.conn, "left", text))
                self._log(logging.WARNING, f"refused {fact.peer}: {text}", peer=fact.peer, reason="left")

    def _opened(self, fact: fx.Opened) -> None:
        target = self.members.dial_ended(fact.conn) if fact.dialled else None
        if target is not None:
            target.answers, target.attempts, target.refused = fact.peer, 0, False
            if fact.peer == self.name:  # an address of our own, met through an alias
                self._do(fx.Close(fact.conn, "", "dialled itself"))
                self._mesh.drop(target)
                return
        if self._on_demand is not None and self._on_demand.is_outdated(fact.peer, fact.creation):
            self._do(fx.Close(fact.conn, "", "a later start of it is known"))
            self.members.closed(fact.conn)
            if target is not None:
                text = f"an older start of {fact.peer} answers there"
                self._on_demand.dial_failed(target, NodeUnreachable(text))
                self._mesh.redial(target)
            return
        verdict = self.members.open(fact.conn, fact.peer, fact.creation, fact.dialled)
        if verdict is not Verdict.ADMIT:
            left = verdict is Verdict.LEFT
            self._do(fx.Close(fact.conn, "", "it has left" if left else "another session with this peer goes on"))
            if target is not None:
                self._mesh.redial(target)
            self._mesh.settle()
            return
        there = self.members.by_peer.get(fact.peer)
        if there is not None:
            code = "replaced" if there.creation == fact.creation else "superseded"
            self._do(fx.Close(there.conn, code, f"a newer session with {fact.peer} takes its place"))
            self._session_broke(there.conn, code, returns=True)
        session = self.members.opened(fact.conn, fact.peer, fact.creation, fact.dialled, self._agenda.now.mono)
        self._mesh.know(fact.peer)
        if self._on_demand is None:
            self._log(logging.INFO, f"{fact.peer} is up", peer=fact.peer)
            self._do(fx.PeerUp(fact.peer, fact.creation, fact.conn))
        self.history.peer_up(self._agenda.now.wall_ms, fact.peer, fact.creation)
        if ("beat",) not in self._agenda.timers:
            self._agenda.later(("beat",), self.settings.heartbeat)
        self.names.peer_up(fact.peer)
        mirrored = self.names.offer(fact.peer, fact.creation)
        peers = {peer: creation for peer, creation in self._listed().items() if peer != fact.peer}
        told = frames.Peers(list(peers), fact.creation if mirrored else 0, mirrored, list(peers.values()))
        self._send(session, told)
        if self._on_demand is not None:
            self._on_demand.opened(session)

    def _listed(self) -> dict[str, int]:
        """Whom our list of peers names: nobody, if all know all from an authority."""
        return self.peers() if self._on_demand is None else {}

    def _dial_failed(self, fact: fx.DialFailed) -> None:
        target = self.members.dial_ended(fact.conn)
        if target is None or self.members.targets.get(target.seed.address) is not target:
            return  # it was dropped meanwhile, and this says nothing about one that is there in its place
        match fact.code:
            case "duplicate":
                pass  # the other end dials us, or has us already: its session settles what waits for this one
            case "self":
                self._unreachable(target, fact.error)
                self._mesh.drop(target, fact.error)
                return
            case "stale" if not (self.members.creations or self.creation_is_final or fact.number >= MAX_CREATION):
                self._raise_creation(fact.number)
                self._mesh.dial(target)
                return
            case _:
                self._mesh.dial_failed(target, fact.error, fact.code)
                self._unreachable(target, fact.error)
        target.attempts += 1
        self._mesh.redial(target)
        self._mesh.settle()

    def _unreachable(self, target: Target, error: KinfolkError) -> None:
        if self._on_demand is not None:
            self._on_demand.dial_failed(target, error)

    def _reach(self, order: fx.Reach) -> None:
        assert self._on_demand is not None, "nobody else has contacts"
        self._on_demand.reach(order.peer)

    def _unsaid(self, fact: fx.Unsaid) -> None:
        assert self._on_demand is not None, "nobody else has contacts"
        session = self.members.by_peer.get(fact.peer)
        if session is not None:
            self._end(session, "overflow", fact.reason, logging.WARNING)
        else:
            self._on_demand.overflown(fact.peer, fact.reason)

    def _connection_closed(self, fact: fx.Closed) -> None:
        self._session_broke(fact.conn, fact.reason, fact.level)

    def _heard(self, fact: fx.Heard) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is not None:
            self._lives(session)

    def _lives(self, session: Session) -> None:
        """Bytes have come. While reports come as well, they are old: a system sends on for a loop that stands still."""
        signs, now = session.signs, self._agenda.now.mono
        signs.heard = now
        if session.stalled and now - signs.reported > self.settings.heartbeat:
            session.stalled = False
            self._resumed(session)

    def _resumed(self, session: Session) -> None:
        seconds = session.signs.reported - session.signs.turned
        text = f"{session.peer} goes on: its event loop had stood still for {seconds:.1f} s"
        self._log(logging.INFO, text, peer=session.peer, seconds=seconds)
        self._do(fx.PeerResumed(session.peer, session.conn, seconds))

    def _stall_heard(self, fact: fx.StallHeard) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is None:
            return
        session.signs.report(fact.age, self._agenda.now.mono)
        if self._standing(session) is not Standing.STALLED or session.stalled:
            return
        session.stalled = True
        self._do(fx.Count("peer_stalls"))
        self._log(
            logging.WARNING,
            f"{session.peer} is stalled: its event loop stands still, for {fact.age:.1f} s until now. It lives, but"
            f" answers nothing: its names and links are kept until that is {self.settings.stalled_limit:g} s",
            peer=session.peer,
            seconds=fact.age,
        )
        self._do(fx.PeerStalled(session.peer, session.conn, fact.age))

    def _standing(self, session: Session) -> Standing:
        return session.signs.standing(self._agenda.now.mono, self.settings.down_after, self.settings.stalled_limit)

    def _drained(self, fact: fx.Drained) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is not None:
            self._sync_on(session)

    def _turn(self, fact: fx.Turn) -> None:
        self._turn_wanted = False
        self._apply(self.names.work())

    def _received(self, fact: fx.Received) -> None:
        session = self.members.sessions.get(fact.conn)
        if session is None:
            return  # replaced meanwhile: what is still under way there has no effect
        self._lives(session)
        try:
            for kind, operations in groupby(fact.operations, type):
                self._said(session, kind, list(operations))
                if session.conn not in self.members.sessions:
                    return
        except RemoteProtocolError as error:
            self._apply(self.names.taken())  # while the session is known: what came before the breach was taken in
            self._do(fx.Count("protocol_errors"))
            self._end(session, "protocol", f"broke the protocol: {error}", logging.WARNING)
            self.names.forget(session.peer)  # or the next session would go on to the same breach

    def _said(self, session: Session, kind: type, operations: list[frames.Operation]) -> None:
        """A peer has said several operations of one kind, as they come in a frame."""
        of_all, of_each = _RUNS.get(kind), _OPERATIONS.get(kind)
        if of_all is None and of_each is None:
            raise RemoteProtocolError(f"{kind.__name__} has no place in an open session")
        if not session.greeted and kind is not frames.Peers and kind is not frames.Goodbye:
            raise RemoteProtocolError(f"begins with {kind.__name__} instead of its list of peers")
        if not session.synced and kind in _ENTRIES:
            session.parts += 1
        if of_all is not None:
            of_all(self, session, operations)
            return
        assert of_each is not None, "it is one or the other"
        for operation in operations:
            of_each(self, session, operation)
            if session.conn not in self.members.sessions:
                return

    def _end(self, session: Session, code: str, reason: str, level: int = logging.INFO) -> None:
        """End a session from our side, because something is wrong with it."""
        session.resting = False
        self._do(fx.Close(session.conn, code, reason[:1024]))
        self._session_ended(session.conn, reason, level)

    def _session_broke(self, conn: int, reason: str, level: int = logging.INFO, returns: bool = False) -> None:
        """A session is over without a goodbye. One that rests ends well all the same, if nothing was lost."""
        session = self.members.sessions.get(conn)
        if session is not None and session.resting:
            session.resting = self._on_demand is not None and self._on_demand.has_nothing_to_lose(session)
        self._session_ended(conn, reason, level, returns)

    def _session_ended(self, conn: int, reason: str, level: int = logging.INFO, returns: bool = False) -> None:
        """A session is over. `returns`: another one with the same peer opens in this very step."""
        session = self.members.closed(conn)
        if session is None:
            return
        if session.resting:
            text = f"the session with {session.peer} was idle, and has ended"
            self._log(logging.DEBUG, text, peer=session.peer)
        else:
            self._log(level, f"{session.peer} is down: {reason}", peer=session.peer, reason=reason)
        mirror = self.names.mirrors.get(session.peer)
        self.history.peer_down(
            self._agenda.now.wall_ms,
            _ENDINGS.get(reason, "peer lost"),
            session.peer,
            session.creation,
            reason,
            0 if mirror is None else mirror.position,
            {} if mirror is None else mirror.claims,
        )
        if self._on_demand is None:
            # Before a claim is confirmed only because nobody waits for this peer any more.
            self._asks.asker_lost(session.peer, self._registrar, self._transfers)
        # The names first, so that who hears of the loss finds them free.
        self._apply(self.names.peer_down(session.peer, session.creation, returns))
        self._agenda.later(("kept", session.peer), self.settings.keep_mirrors)
        self._agenda.later(("lost", session.peer), self.settings.forget_after)
        if self._on_demand is not None:
            self._on_demand.ended(session, reason)
            if session.stalled and session.peer in self._on_demand.up:
                self._resumed(session)  # nobody would hear of it any more: stalls are told of connected nodes only
            if session.resting:
                return
        else:
            self._do(fx.PeerDown(session.peer, session.creation, conn, reason))
            self._asks.origin_lost(session.peer)
            self._transfers.peer_down(session.peer)
        # A connection that drops is dialled again soon, however often; not so a peer with whom every session breaks.
        lasted = level < logging.WARNING or self._agenda.now.mono - session.opened > self.settings.heartbeat
        self._mesh.peer_lost(session.peer, lasted)

    def _forget_orders_with(self, peer: str) -> None:
        """A peer is lost: it answers nothing, and nothing is answered to it."""
        self._asks.asker_lost(peer, self._registrar, self._transfers)
        self._asks.origin_lost(peer)

    # --- orders ---

    def _join(self, order: fx.Join) -> None:
        self._mesh.join(order)

    def _joining(self, now: bool) -> None:
        """Nothing of ours is confirmed while a join is in progress."""
        if now:
            self.names.hold()
        else:
            self._apply(self.names.release())

    def _seek(self, order: fx.Seek) -> None:
        self._mesh.seek(order.seeds)

    def _forget(self, order: fx.Forget) -> None:
        self._mesh.forget(order.seeds)

    def _keys_changed(self, fact: fx.KeysChanged) -> None:
        self._mesh.keys_changed()

    def _register(self, order: fx.Register) -> None:
        if order.pid.node == self.name:
            self._registrar.register(order)
        else:
            self._asks.register(order)

    def _abandon(self, order: fx.Abandon) -> None:
        self._registrar.abandon(order)
        self._asks.abandon(order.ref)
        self._transfers.abandon(order.ref)
        self._mesh.abandon(order.ref)

    def _unregister(self, order: fx.Unregister) -> None:
        holder = order.holder
        if holder is None and order.position is None and not self._registrar.owns(order.name):
            holder = self._registrar.whereis(order.name)
        if holder is None or holder.node == self.name:
            self._registrar.unregister(order)
        else:
            self._asks.unregister(order, holder, self._registrar.position_of(order.name, holder))

    def _transfer(self, order: fx.Transfer) -> None:
        if self.tenure is not None:
            text = f"names in {self.tenure.authority} do not move: unregister it, and register it for the other process"
            self._do(fx.Fail(order.ref, NotMoved(order.name, text)))
            return
        holder = None if order.name in self.names.own else self.names.whereis(order.name)
        if holder is None or holder.node == self.name:
            self._transfers.transfer(order)
        else:
            self._asks.transfer(order, holder, self._orders.position_of(order.name, holder))

    def _process_exited(self, fact: fx.ProcessExited) -> None:
        if self.tenure is not None:
            self.tenure.exited(fact.local)
        changes = self.names.process_exited(fact.local)
        if changes:
            self.history.exited(fact.local, fact.reason)
        self._apply(changes)

    def _join_group(self, order: fx.JoinGroup) -> None:
        if self.tenure is not None:
            self.tenure.rosters.join(order.group, order.pid)
        else:
            self._apply(self.names.join(order.group, order.pid))

    def _leave_group(self, order: fx.LeaveGroup) -> None:
        if self.tenure is not None:
            self.tenure.rosters.leave(order.group, order.pid)
        else:
            self._apply(self.names.leave(order.group, order.pid))

    # --- an authority outside the mesh ---

    def _enter_registry(self, order: fx.EnterRegistry) -> None:
        assert self.tenure is not None, "the node has one"
        self.tenure.enter(order)

    def _told_by_authority(self, fact: fx.Consulted | fx.Snapshot | fx.Changed | fx.Current | fx.Unfollowed) -> None:
        assert self.tenure is not None, "the node has one"
        self.tenure.TOLD[type(fact)](self.tenure, fact)

    def _outrun(self, known: int) -> bool:
        """A later start of this node is known. Whether this one has become one later still: nobody knows it yet."""
        if self.members.creations or self.creation_is_final or known >= MAX_CREATION:
            return False
        self._raise_creation(known)
        return True

    def _node_seen(self, node: str, creation: int) -> None:
        """The authority knows a node."""
        assert self._on_demand is not None, "there is an authority"
        session = self.members.by_peer.get(node)
        if session is not None and session.creation < creation:
            self._end(session, "superseded", f"a later start of {node} has a lease")
        self._on_demand.seen(node, creation)

    def _node_gone(self, node: str) -> None:
        """The authority knows a node no longer: without a session with it, it is not dialled either."""
        assert self._on_demand is not None, "there is an authority"
        self._on_demand.gone(node)

    def _raise_creation(self, known: int) -> None:
        self.creation = self.names.creation = max(self.creation, known) + 1
        if self.tenure is not None:
            self.tenure.creation = self.tenure.rosters.creation = self.creation
        self._do(fx.RaiseCreation(self.creation))

    # --- what the name table changed ---

    def _apply(self, changes: list[core.Change]) -> None:
        """Pass on, in order, what an event did to the name table.

        What one change leads to may change the table again (a join ends, and what waited for it is confirmed). That is
        passed on after the changes before it: our entries have their order.
        """
        if self._applying is not None:
            self._applying += changes  # the loop below, which is under way, comes to them
            return
        if self._unapplied:
            changes = [*self._unapplied, *changes]
            self._unapplied = []
        self._applying = changes
        do, undecided = self._agenda.do, self._orders.undecided
        left = iter(changes)
        try:
            for change in left:
                if isinstance(change, _WATCHED) and not undecided:
                    do(change)  # who watches is told, and nobody else minds: an eighth of what a node's join costs
                    continue
                # By a table: `match` asks for one class after the other, a sixth of what a name costs (57 -> 48 us).
                _CHANGES[type(change)](self, change)
        except BaseException:
            self._unapplied = list(left)  # a breach: all else has happened, and our entries go on
            raise
        finally:
            self._applying = None

    def _name_changed(self, change: core.NameAdded | core.NameRemoved) -> None:
        self._agenda.do(change)
        self._orders.name_changed(change.name)

    def _members_changed(self, change: core.MemberAdded | core.MemberRemoved) -> None:
        self._agenda.do(change)

    def _acknowledge(self, change: core.Acknowledge) -> None:
        # Claims come many in a frame: one operation acknowledges those of a step between which nothing else is said to
        # the peer, a contest for example (nowait: 49 -> 43 us).
        if self._acknowledging is not None and self._acknowledging[0] == change.peer:
            self._acknowledging[1].append(change.position)
            return
        session = self.members.by_peer.get(change.peer)
        if session is None:
            return  # its session has just ended, and the next acknowledges anew what is so then
        positions = [change.position]
        self._send(session, frames.Acknowledged(positions))
        self._acknowledging = change.peer, positions

    def _acknowledge_through(self, change: core.AcknowledgeThrough) -> None:
        if change.position:
            self._send(self.members.by_peer[change.peer], frames.Acknowledged([], change.position))

    def _settled(self, change: core.Settled) -> None:
        self._orders.name_changed(change.name)

    def _claimed(self, change: core.Claimed) -> None:
        claim = change.claim
        self._happened("claimed", (claim,))
        self._enter(frames.NameClaimed(claim.position, claim.name, claim.pid.local, claim.stamp, claim.after))

    def _withdrawn(self, change: core.Withdrawn) -> None:
        claims, groups = change.claims, list(change.groups)
        names, made_at = [claim.name for claim in claims], [claim.position for claim in claims]
        entry = frames.NamesWithdrawn(change.position, names, made_at, groups, change.local)
        self._enter(entry, len(claims) + len(groups))
        if claims and change.cause not in ("yielded", "handed over"):  # of which we know more
            self._happened(change.cause, claims, peers=change.missing)
        self._orders.withdrawn(change)
        self._transfers.withdrawn(change)

    def _confirmed(self, change: core.Confirmed) -> None:
        claim = change.claim
        self._enter(frames.NameConfirmed(change.position, claim.name, claim.position))
        self._happened("confirmed", (claim,))
        self._orders.confirmed(claim)
        self._transfers.confirmed(claim)

    def _moved(self, change: core.Moved) -> None:
        claim = change.claim
        self._enter(frames.NameMoved(claim.position, claim.name, change.position, claim.pid.local))
        self._happened("moved", (claim,))

    def _entered(self, change: core.Entered) -> None:
        self._enter(frames.GroupEntered(change.position, change.group, change.local))

    def _claim_lost(self, change: core.Lost) -> None:
        self._happened("lost" if change.own.confirmed else "yielded", (change.own.claim,), change.winner.pid)
        self._orders.lost(change.own, change.winner)

    def _handed_over(self, change: core.HandedOver) -> None:
        self._happened("handed over", (change.own.claim,), change.heir.pid)
        self._transfers.handed_over(change)

    def _accepted(self, change: core.Accepted) -> None:
        self._orders.accepted(change.position)

    def _contest_claim(self, change: core.Contest) -> None:
        loser, winner = change.loser, change.winner
        if winner.after != loser.identity:  # else it only has not heard yet that its name has moved
            self._do(fx.Count("names_contested"))
            self.history.contested(self._agenda.now.wall_ms, "contested", loser, winner)
        session = self.members.by_peer.get(change.peer)
        if session is not None:  # else it has just ended
            self._send(session, _contest(loser, winner, change.confirmed))

    def _synced(self, change: core.Synced) -> None:
        self.members.by_peer[change.peer].synced = True
        self._mesh.settle()

    def _happened(
        self, what: What, claims: tuple[Claim, ...], other: Pid | None = None, peers: tuple[str, ...] = ()
    ) -> None:
        """Something happened to claims of ours, which people may ask about."""
        self.history.own(self._agenda.now.wall_ms, what, claims, other, peers)

    def _enter(self, entry: Entry, facts: int = 1) -> None:
        """A new entry of our ledger: keep it for who comes back, and tell it to all who are told already."""
        self._entries.append(entry.position, entry, facts)
        conns = tuple([session.conn for session in self.members.sessions.values() if session.told])
        if conns:
            self._emit(conns, entry)

    def _diverged(self, change: core.Diverged) -> None:
        """What is here of a node's facts is not what it has told. It is asked for all of them again."""
        node = change.node
        session = self.members.by_peer.get(node)
        if session is not None and session.mistrusted:
            return
        self._do(fx.Count("registry_divergence_total"))
        if session is None:
            self._log(logging.ERROR, "names in memory were not what they should be, and have been put right")
            return
        session.mistrusted = True
        position = self.names.distrust(node)
        text = f"the names of {node} in memory, at entry {position}, are not what it told: asks anew"
        self._log(logging.ERROR, text, peer=node)
        self._send(session, frames.ResyncAsked(position))

    # --- what peers say ---

    def _peers(self, session: Session, operation: frames.Peers) -> None:
        if session.greeted:
            raise RemoteProtocolError("lists its peers a second time")
        try:
            for peer in operation.names:
                check_node_name(peer)
        except ValueError as error:
            raise RemoteProtocolError(f"lists a peer that cannot be: {error}") from None
        creations = operation.creations or [0] * len(operation.names)
        if len(creations) != len(operation.names):
            raise RemoteProtocolError("lists columns of unequal length")
        peers = dict(zip(operation.names, creations, strict=True)) if self._on_demand is None else {}
        peers.pop(self.name, None)
        self._mesh.listed(session, peers)
        # Only now do we know how much of our ledger the peer still has.
        self._apply(self.names.told_from_here(session.peer))
        if operation.creation == self.creation and self._entries.reaches(operation.position):
            session.resumes = operation.position
            self._send(session, frames.LedgerResumed(operation.position, self.names.ledger.position))
            self._sync_on(session)
        else:
            self._sync_anew(session)

    def _ping(self, session: Session, operation: frames.Ping) -> None:
        self._send(session, frames.Pong(operation.sequence))
        if self.names.diverges(session.peer, operation.position, operation.digest):
            self._diverged(core.Diverged(session.peer))

    def _pong(self, session: Session, operation: frames.Pong) -> None:
        if operation.sequence == self._pings:  # else it is late; that it came at all counts in any case
            session.round_trip = self._agenda.now.mono - self._pinged

    def _stall_port(self, session: Session, operation: frames.StallPort) -> None:
        # Told again, the last counts: that costs the same each time.
        self._do(fx.ReportStalls(session.conn, operation.port, operation.session, Hidden(operation.key)))

    def _rest(self, session: Session, operation: frames.Rest) -> None:
        if not operation.asks:
            if not session.resting or self._on_demand is None:
                raise RemoteProtocolError("does not want to end a session that it was not asked to end")
            self._on_demand.goes_on(session)
        elif self._on_demand is None:
            self._send(session, frames.Rest(False))
        elif self._on_demand.agrees_to_rest(session):
            self._do(fx.Close(session.conn, IDLE, "nothing was said for long"))
            self._session_ended(session.conn, IDLE)

    def _goodbye(self, session: Session, operation: frames.Goodbye) -> None:
        session.resting = session.resting and operation.code == IDLE
        self._do(fx.Close(session.conn, "", "the peer has ended the session"))
        reason = f"it ended the session ({printable(operation.code)}): {printable(operation.detail)}"
        level = logging.WARNING if operation.code in ("protocol", "overflow") else logging.INFO
        self._session_ended(session.conn, reason, level)
        if operation.code == "closed":
            self._mesh.peer_left(session.peer)

    def _node_left(self, session: Session, operation: frames.NodeLeft) -> None:
        if operation.creation != session.creation:
            raise RemoteProtocolError(f"leaves in creation {operation.creation:x}, and not in {session.creation:x}")
        self.members.leaves(session)
        self._end(session, "", "left")
        self._mesh.peer_left(session.peer)
        self.names.forget(session.peer)  # it never comes back to go on from there

    def _ledger_synced(self, session: Session, operation: frames.LedgerSynced) -> None:
        peer = session.peer
        if operation.creation != session.creation:
            raise RemoteProtocolError(f"syncs creation {operation.creation:x} in a session of {session.creation:x}")
        if (operation.names or operation.groups) and self._claims_with_mesh(session):
            return
        session.parts += bool(operation.names or operation.groups)
        if not self.names.is_syncing(peer):
            session.mistrusted = False
            self._do(fx.Count("mirrors_synced"))
            self.names.sync_begins(peer, session.creation, operation.position)
        creation = session.creation
        try:
            after = dict(zip(operation.heirs, operation.after, strict=True))
            claims = [
                (Claim(name, Pid(peer, creation, local), position, stamp), confirmed)
                for name, local, position, stamp, confirmed in zip(
                    _all_checked(operation.names),
                    operation.locals,
                    operation.positions,
                    operation.stamps,
                    operation.confirmed,
                    strict=True,
                )
            ]
            for row, predecessor in after.items() if claims else ():
                if 0 <= row < len(claims):
                    claim, confirmed = claims[row]
                    claims[row] = Claim(claim.name, claim.pid, claim.position, claim.stamp, predecessor), confirmed
            members = _memberships(operation.groups, operation.members)
        except ValueError:
            raise RemoteProtocolError("syncs columns of unequal length") from None
        self._apply(self.names.sync_part(peer, claims, self._agenda.now.wall_ms, members, operation.position))
        if operation.done and session.conn in self.members.sessions:
            self._apply(self.names.sync_done(peer))

    def _claims_with_mesh(self, session: Session) -> bool:
        """Whether a peer tells of names or groups although an authority keeps them here; then its session ends."""
        if self.tenure is None:
            return False
        text = f"it has names and groups in the mesh, but they are in {self.tenure.authority} here"
        self._end(session, "registry", f"{text}: give all nodes of a cluster the same registry", logging.WARNING)
        return True

    def _ledger_resumed(self, session: Session, operation: frames.LedgerResumed) -> None:
        self._apply(self.names.resumed(session.peer, operation.position, operation.until))
        self._do(fx.Count("mirrors_resumed"))

    def _resync_asked(self, session: Session, operation: frames.ResyncAsked) -> None:
        if not session.unsent:  # else a sync is under way
            text = f"{session.peer} asks for all names again: what it had of them was damaged"
            self._log(logging.INFO, text, peer=session.peer)
            self._sync_anew(session)

    # What comes by the thousand is taken in with one step of the name table, and remembered in one entry of the history
    # (nowait: 34.4 -> 25.4 us of the processor of three nodes).

    def _names_claimed(self, session: Session, operations: list[frames.NameClaimed]) -> None:
        if self.tenure is not None and self._claims_with_mesh(session):
            return
        peer, creation = session.peer, session.creation
        claims = [
            Claim(_checked(each.name), Pid(peer, creation, each.local), each.position, each.stamp, each.after)
            for each in operations
        ]
        old = self.names.catches_up_to(peer)
        self._apply(self.names.peer_claimed_all(peer, claims, self._agenda.now.wall_ms))
        self._told("claimed", [claim for claim in claims if claim.position > old] if old else claims)

    def _names_withdrawn(self, session: Session, operations: list[frames.NamesWithdrawn]) -> None:
        plain = [
            (each.position, each.names[0], each.claims[0])
            for each in operations
            if len(each.names) == len(each.claims) == 1 and not each.groups
        ]
        gone: list[Claim] = []
        if len(plain) == len(operations):
            changes, gone = self.names.peer_withdrew_plainly(session.peer, plain)
            if gone:
                self.history.told(self._agenda.now.wall_ms, "withdrawn", gone)
            self._apply(changes)
        for operation in operations[len(gone) :]:
            self._facts_withdrawn(session, operation)

    def _facts_withdrawn(self, session: Session, operation: frames.NamesWithdrawn) -> None:
        if len(operation.names) != len(operation.claims):
            raise RemoteProtocolError("withdraws columns of unequal length")
        if not (operation.names or operation.groups):
            raise RemoteProtocolError("withdraws nothing")
        members = [(group, operation.local) for group in operation.groups]
        made = set(operation.claims)
        gone = [claim for claim in self.names.claims_of(session.peer, operation.names) if claim.position in made]
        # Who has the name instead: asked only where there may be somebody.
        alone = len(operation.names) == 1 and (operation.names[0] in self.names.rivals or self.names.staged)
        first = self.names.first(operation.names[0]) if alone else None
        changes = self.names.peer_withdrew(session.peer, operation.position, operation.names, operation.claims, members)
        if gone:
            other = None if first is None or first in gone else first.pid
            self.history.told(self._agenda.now.wall_ms, "withdrawn", gone, other)
        self._apply(changes)

    def _name_moved(self, session: Session, operation: frames.NameMoved) -> None:
        self._apply(
            self.names.peer_moved(session.peer, operation.position, operation.name, operation.claim, operation.local)
        )
        self.history.told(self._agenda.now.wall_ms, "moved", self.names.claims_of(session.peer, (operation.name,)))

    def _group_entered(self, session: Session, operation: frames.GroupEntered) -> None:
        membership = _checked(operation.group), operation.local
        if self.tenure is not None and self._claims_with_mesh(session):
            return
        self._apply(self.names.peer_entered(session.peer, operation.position, membership))

    def _names_confirmed(self, session: Session, operations: list[frames.NameConfirmed]) -> None:
        entries = [(each.position, each.name, each.claim) for each in operations]
        old = self.names.catches_up_to(session.peer)
        self._apply(self.names.peer_confirmed_all(session.peer, entries))
        names = [each.name for each in operations if each.position > old]
        self._told("confirmed", self.names.claims_of(session.peer, names))

    def _told(self, what: What, claims: Sequence[Claim]) -> None:
        """A peer has told of claims. What one that comes back catches up on is not news, and may be much."""
        if claims:
            self.history.told(self._agenda.now.wall_ms, what, claims)

    def _acknowledged(self, session: Session, operation: frames.Acknowledged) -> None:
        self._apply(self.names.peer_acknowledged(session.peer, operation.positions, operation.through))

    def _name_contested(self, session: Session, operation: frames.NameContested) -> None:
        try:
            pid = Pid(check_node_name(operation.node), operation.creation, operation.local)
        except ValueError as error:
            raise RemoteProtocolError(f"contests for a node that cannot be: {error}") from None
        winner = Claim(operation.name, pid, operation.position, operation.stamp)
        own = self.names.own_claim(operation.name)
        if own is not None and own.position == operation.loser:
            self.history.contested(self._agenda.now.wall_ms, "challenged", own, winner)
        self._apply(
            self.names.contested(operation.name, operation.loser, winner, operation.confirmed, self._agenda.now.mono)
        )

    def _registration_asked(self, session: Session, operation: frames.RegistrationAsked) -> None:
        _checked(operation.name)
        pid = Pid(self.name, self.creation, operation.local)
        self._asks.asked_to_register(session.peer, operation, pid, self._registrar)

    def _unregistration_asked(self, session: Session, operation: frames.UnregistrationAsked) -> None:
        self._asks.asked_to_unregister(session.peer, operation, self._registrar)

    def _transfer_asked(self, session: Session, operation: frames.TransferAsked) -> None:
        if self.tenure is not None and self._claims_with_mesh(session):
            return
        self._asks.asked_to_transfer(session.peer, operation, self._transfers)

    def _succession_asked(self, session: Session, operation: frames.SuccessionAsked) -> None:
        _checked(operation.name)
        if self.tenure is not None and self._claims_with_mesh(session):
            return
        self._transfers.asked(session.peer, operation, Pid(self.name, self.creation, operation.local))

    def _succession_answered(self, session: Session, operation: frames.SuccessionAnswered) -> None:
        self._transfers.answered(session.peer, operation)

    def _succession_revoked(self, session: Session, operation: frames.SuccessionRevoked) -> None:
        self._transfers.revoked(session.peer, operation)

    def _ask_answered(self, session: Session, operation: frames.AskAnswered) -> None:
        self._asks.answered(session.peer, operation)

    def _ask_settled(self, session: Session, operation: frames.AskSettled) -> None:
        self._asks.settled(session.peer, operation, self._registrar, self._transfers)

    # --- time ---

    def _time_passed(self, fact: fx.TimePassed) -> None:
        for key, due in self._agenda.timers.due(self._agenda.now.mono):
            match key:
                case ("beat",):
                    self._beat(due)
                case ("order", int(ref)):
                    self._registrar.due(ref)
                case ("withdrawal", int(position)):
                    self._orders.accepted(position)  # silent peers hear it in order: no reason to raise
                case ("transfer", str(name)):
                    self._transfers.due(name)
                case ("ask", int(ref)):
                    self._asks.due(ref)
                case ("dial", Address() as address):
                    self._mesh.redial_due(address)
                case ("join", int(ref)):
                    self._mesh.due(ref)
                case ("tenure", str(what), int(number)) if self.tenure is not None:
                    self.tenure.timer(what, number)
                case ("roster", str(membership)) if self.tenure is not None:
                    self.tenure.rosters.again(membership)
                case ("free", str(name)):
                    self._orders.still_free(name)
                case ("kept", str(peer)):
                    self.names.forget(peer)
                case ("lost", str(peer)):
                    self.names.forget_loss(peer)
                case _:
                    raise AssertionError(f"no timer has the key {key!r}")

    def _beat(self, due: float) -> None:
        """A heartbeat: find the silent, show the others that we live, and repeat what is disputed."""
        now = self._agenda.now.mono
        late = now - due > self.settings.heartbeat
        for session in list(self.members.sessions.values()):
            if late:
                # We were stopped or busy ourselves: what the others sent may wait in our buffers, unread.
                session.signs.heard = now
                continue
            signs = session.signs
            match self._standing(session):
                case Standing.SILENT:
                    self._end(session, "silent", f"heard nothing for {now - signs.heard:.1f} s")
                case Standing.STALLED_TOO_LONG:
                    text = f"its event loop has stood still for {now - signs.turned:.1f} s, longer than stalled_limit"
                    self._end(session, "stalled", text)
                case Standing.UP | Standing.STALLED:
                    pass
        self._apply(self.names.audit(self.settings.audit))
        self._pings += 1
        self._pinged = self._agenda.now.mono
        self._tell(frames.Ping(self._pings, self.names.ledger.position, self.names.digest))
        self._apply(self.names.contest_again())
        if self._on_demand is not None:
            self._on_demand.beat(late)
        if self.members.sessions:
            self._agenda.later(("beat",), self.settings.heartbeat)

    # --- the end ---

    def _shutdown(self, order: fx.Shutdown) -> None:
        error = NodeClosed(f"{self.name} is closed")
        self._asks.close(error)
        self._registrar.close(error)
        self._transfers.close(error)
        self._mesh.close(error)
        if order.leaves:
            self._tell(frames.NodeLeft(self.creation))
        for session in list(self.members.sessions.values()):
            self._do(fx.Close(session.conn, "closed", f"{self.name} has been closed"))
        for conn in (*self.members.dials, *self.members.candidates):
            self._do(fx.Close(conn, "", "the node is closed"))
        self._agenda.timers = Timers()
        self.closed = True

    def _after_shutdown(self, happened: fx.Input) -> None:
        match happened:
            case (
                fx.Register(ref=ref)
                | fx.Unregister(ref=ref)
                | fx.Transfer(ref=ref)
                | fx.Join(ref=ref)
                | fx.EnterRegistry(ref=ref)
            ):
                self._do(fx.Fail(ref, NodeClosed(f"{self.name} is closed")))
            case fx.Proved(conn=conn):
                self._do(fx.Refuse(conn, "closed", f"{self.name} is closing"))
            case fx.Opened(conn=conn):
                self._do(fx.Close(conn, "", "the node is closed"))
            case _:
                pass

    # --- small things ---

    def _sync_anew(self, session: Session) -> None:
        """Begin to say all our live facts. Entries made from now on go between the parts."""
        session.resumes, session.told = None, True
        session.unsent = [*reversed(self.names.memberships), *reversed(self.names.own)]
        self._sync_part(session)

    def _sync_on(self, session: Session) -> None:
        """There is room in the outbox: say the next part of what the peer does not know yet."""
        if session.resumes is not None:
            self._catch_up(session, session.resumes)
        elif session.unsent:
            self._sync_part(session)

    def _sync_part(self, session: Session) -> None:
        """Say the next part of our live facts, each as it is at this moment."""
        unsent, size = session.unsent, self.settings.sync_part
        some = unsent[: -size - 1 : -1]
        del unsent[-size:]
        own_claims, memberships = self.names.own, self.names.memberships
        parts = [own_claims[fact] for fact in some if fact in own_claims and isinstance(fact, str)]
        members = [fact for fact in some if fact in memberships and not isinstance(fact, str)] if memberships else []
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
                groups=[group for group, _ in members],
                members=[local for _, local in members],
                heirs=[row for row, claim in enumerate(claims) if claim.after is not None],
                after=[claim.after for claim in claims if claim.after is not None],
            ),
        )
        if unsent:
            self._do(fx.WantDrain(session.conn))

    def _catch_up(self, session: Session, position: int) -> None:
        """Say the next entries after this one to a peer that goes on with an old mirror."""
        if not self._entries.reaches(position):  # it was too slow, or we were too busy
            self._sync_anew(session)
            return
        entries = self._entries.after(position, self.settings.sync_part)
        for entry in entries:
            self._send(session, entry)
        session.resumes = position + len(entries)
        if session.resumes == self.names.ledger.position:
            session.resumes, session.told = None, True
        else:
            self._do(fx.WantDrain(session.conn))

    def _do(self, effect: fx.Effect) -> None:
        self._agenda.do(effect)

    def _log(self, level: int, text: str, **about: object) -> None:
        self._agenda.log(level, text, **about)

    def _send(self, session: Session, operation: frames.Operation) -> None:
        self._emit((session.conn,), operation)

    def _say(self, peer: str, operation: frames.Operation) -> None:
        if self._on_demand is not None:
            self._do(fx.Say(peer, operation))
            return
        session = self.members.by_peer.get(peer)
        if session is not None:
            self._send(session, operation)

    def _creation_of(self, peer: str) -> int | None:
        if self._on_demand is not None:
            return self._on_demand.up.get(peer)
        session = self.members.by_peer.get(peer)
        return None if session is None else session.creation

    def _tell(self, operation: frames.Operation) -> None:
        """Say the same to every peer."""
        if self.members.sessions:
            self._emit(tuple(self.members.sessions), operation)

    def _emit(self, conns: tuple[int, ...], operation: frames.Operation) -> None:
        self._acknowledging = None
        self._do(fx.Send(conns, operation))


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


def _memberships(groups: list[str], locals_: list[int]) -> list[Membership]:
    return [(_checked(group), local) for group, local in zip(groups, locals_, strict=True)]


def _all_checked(names: list[str]) -> list[str]:
    """As `_checked`; names that are short enough in any letters need no look each."""
    if max(map(len, names), default=0) > MAX_NAME_BYTES // 4:
        for name in names:
            _checked(name)
    return names


def _checked(name: str) -> str:
    if len(name) > MAX_NAME_BYTES // 4 and len(name.encode()) > MAX_NAME_BYTES:
        raise RemoteProtocolError(f"uses a name of {len(name.encode())} bytes: at most {MAX_NAME_BYTES} are allowed")
    return name


# --- which method takes what (below the class, since that can be compiled: then its methods are there only now) ---

_INPUTS: Final[dict[type, Callable[..., None]]] = {
    fx.Proved: Kernel._proved,
    fx.Opened: Kernel._opened,
    fx.DialFailed: Kernel._dial_failed,
    fx.Closed: Kernel._connection_closed,
    fx.Received: Kernel._received,
    fx.Heard: Kernel._heard,
    fx.StallHeard: Kernel._stall_heard,
    fx.Drained: Kernel._drained,
    fx.Turn: Kernel._turn,
    fx.TimePassed: Kernel._time_passed,
    fx.ProcessExited: Kernel._process_exited,
    fx.Register: Kernel._register,
    fx.Abandon: Kernel._abandon,
    fx.Unregister: Kernel._unregister,
    fx.Transfer: Kernel._transfer,
    fx.JoinGroup: Kernel._join_group,
    fx.LeaveGroup: Kernel._leave_group,
    fx.Join: Kernel._join,
    fx.Seek: Kernel._seek,
    fx.Forget: Kernel._forget,
    fx.Reach: Kernel._reach,
    fx.Unsaid: Kernel._unsaid,
    fx.KeysChanged: Kernel._keys_changed,
    fx.EnterRegistry: Kernel._enter_registry,
    fx.Consulted: Kernel._told_by_authority,
    fx.Snapshot: Kernel._told_by_authority,
    fx.Changed: Kernel._told_by_authority,
    fx.Current: Kernel._told_by_authority,
    fx.Unfollowed: Kernel._told_by_authority,
    fx.Shutdown: Kernel._shutdown,
}
_CHANGES: Final[dict[type, Callable[..., None]]] = {
    core.NameAdded: Kernel._name_changed,
    core.NameRemoved: Kernel._name_changed,
    core.MemberAdded: Kernel._members_changed,
    core.MemberRemoved: Kernel._members_changed,
    core.Acknowledge: Kernel._acknowledge,
    core.AcknowledgeThrough: Kernel._acknowledge_through,
    core.Settled: Kernel._settled,
    core.Claimed: Kernel._claimed,
    core.Withdrawn: Kernel._withdrawn,
    core.Confirmed: Kernel._confirmed,
    core.Moved: Kernel._moved,
    core.Entered: Kernel._entered,
    core.Lost: Kernel._claim_lost,
    core.HandedOver: Kernel._handed_over,
    core.Accepted: Kernel._accepted,
    core.Contest: Kernel._contest_claim,
    core.Synced: Kernel._synced,
    core.Diverged: Kernel._diverged,
}
_OPERATIONS: Final[dict[type, Callable[..., None]]] = {
    frames.Peers: Kernel._peers,
    frames.Ping: Kernel._ping,
    frames.Pong: Kernel._pong,
    frames.NodeLeft: Kernel._node_left,
    frames.StallPort: Kernel._stall_port,
    frames.Rest: Kernel._rest,
    frames.Goodbye: Kernel._goodbye,
    frames.LedgerSynced: Kernel._ledger_synced,
    frames.LedgerResumed: Kernel._ledger_resumed,
    frames.ResyncAsked: Kernel._resync_asked,
    frames.NameMoved: Kernel._name_moved,
    frames.GroupEntered: Kernel._group_entered,
    frames.Acknowledged: Kernel._acknowledged,
    frames.NameContested: Kernel._name_contested,
    frames.RegistrationAsked: Kernel._registration_asked,
    frames.UnregistrationAsked: Kernel._unregistration_asked,
    frames.TransferAsked: Kernel._transfer_asked,
    frames.SuccessionAsked: Kernel._succession_asked,
    frames.SuccessionAnswered: Kernel._succession_answered,
    frames.SuccessionRevoked: Kernel._succession_revoked,
    frames.AskAnswered: Kernel._ask_answered,
    frames.AskSettled: Kernel._ask_settled,
}
"""What takes each operation of a kind."""
_RUNS: Final[dict[type, Callable[..., None]]] = {
    frames.NameClaimed: Kernel._names_claimed,
    frames.NamesWithdrawn: Kernel._names_withdrawn,
    frames.NameConfirmed: Kernel._names_confirmed,
}
"""What takes all operations of a kind that come together."""
_ENTRIES: Final = frozenset({*_RUNS, frames.NameMoved, frames.GroupEntered})
"""The entries of a ledger."""
