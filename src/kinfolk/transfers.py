"""Names that move: from one process to another, of the same node in one entry, or of another node by its *heir*.

Each node speaks only for itself. So the other node claims the name as the heir of the claim that has it, and every peer
acknowledges that beside the claim it knows. The node that gives the name up does so as the last: until then it can
change its mind. Once the heir is confirmed, its claim goes first everywhere, and the old one is withdrawn.

    old node: asked   -- "ready" ------------------------------->  let go    (we acknowledge the heir)
              asked   -- no heir, timeout, abandoned, its node lost -->  it stays
              let go  -- the heir is confirmed ----------------->  gone: done when all peers know
              let go  -- there is no heir any more ------------->  it stays
              let go  -- its node is lost ---------------------->  in doubt: gone, if a neighbour tells so in time
    new node: heir    -- all but the old node have acknowledged: "ready"
              heir    -- the old claim is gone, revoked, its process exits -->  withdrawn
              heir    -- all have acknowledged ----------------->  confirmed

Until it knows what has become of the heir, a node that has let go tells nobody that the name stays.
"""

from collections.abc import Callable

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core import changes as core
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names
from kinfolk.errors import (
    KinfolkError,
    NameUnknown,
    NodeClosed,
    NodeLost,
    NoProcess,
    NotConfirmed,
    NotMoved,
    RemoteProtocolError,
)
from kinfolk.ids import Pid
from kinfolk.orders import Orders
from kinfolk.wire.frames import Operation, SuccessionAnswered, SuccessionAsked, SuccessionRevoked

READY, DEAD, DECLINED = "ready", "dead", "declined"


class _Moving(Struct):
    """A name of ours on its way to another node."""

    number: int
    ref: int | None
    """None: nobody waits for it any longer."""
    claim: Claim
    heir: Pid
    deadline: float
    let_go: bool = False
    doubtful: bool = False
    done: Claim | None = None
    """The heir, once it is confirmed."""


class _Inheriting(Struct):
    """A name of another node on its way to us."""

    origin: str
    number: int
    name: str
    ready: bool = False


class Transfers:
    """Both sides of moving a name.

    Args:
        agenda: of the node.
        names: its name table.
        orders: what waits for claims and withdrawals.
        apply: passes on what has changed in the name table.
        answer: tells whoever gave an order how it ended.
        send: says something to a peer, if there is a session with it.
        creation_of: the creation of a peer that there is a session with, else None.
        is_alive: whether a process of this node, by its local id, is alive.
        doubt: seconds that neighbours may take to tell of an heir whose node we have lost.
    """

    def __init__(
        self,
        agenda: Agenda,
        names: Names,
        orders: Orders,
        apply: Callable[[list[core.Change]], None],
        answer: Callable[[fx.Succeed | fx.Fail], None],
        send: Callable[[str, Operation], None],
        creation_of: Callable[[str], int | None],
        is_alive: Callable[[int], bool],
        doubt: float,
    ) -> None:
        self._agenda = agenda
        self._names = names
        self._orders = orders
        self._apply = apply
        self._tell = answer
        self._send = send
        self._creation_of = creation_of
        self._is_alive = is_alive
        self._doubt = doubt
        self._numbers = 0
        self._moving: dict[str, _Moving] = {}  # by name
        self._inheriting: dict[int, _Inheriting] = {}  # by the position of our claim

    # --- the old node ---

    def transfer(self, order: fx.Transfer) -> None:
        """Let another process have a name of ours."""
        own = self._names.own.get(order.name)
        error: KinfolkError | None = None
        if own is None or order.position not in (None, own.claim.position):
            error = NameUnknown(order.name, "it is not held any more as this node saw it; nothing was changed")
        elif not own.confirmed:
            error = NotConfirmed(order.name, self._names.ledger.missing(own.claim.position))
        elif order.name in self._moving:
            error = NotMoved(order.name, f"it is on its way to {self._moving[order.name].heir}: wait for that")
        elif order.pid == own.claim.pid:
            self._tell(fx.Succeed(order.ref, own.claim))
        elif order.pid.node == self._names.node:
            error = self._move_here(order)
        else:
            error = self._ask(order, own)
        if error is not None:
            self._tell(fx.Fail(order.ref, error))

    def _move_here(self, order: fx.Transfer) -> KinfolkError | None:
        if order.pid.creation != self._names.creation or not self._is_alive(order.pid.local):
            return NoProcess(f"{order.pid} is dead")
        changes = self._names.move(order.name, order.pid)
        moved = next(change for change in changes if isinstance(change, core.Moved))
        position = moved.claim.position
        known = self._orders.await_withdrawal(position, order.ref, order.timeout, moved.claim)
        self._apply(changes)
        if known:
            self._orders.accepted(position)
        return None

    def _ask(self, order: fx.Transfer, own: core.OwnClaim) -> KinfolkError | None:
        heir = order.pid
        creation = self._creation_of(heir.node)
        if creation is None:
            return NodeLost(f"{heir.node} is not connected: only there can {heir} get a name")
        if creation != heir.creation:
            return NoProcess(f"{heir} is dead: {heir.node} has been restarted since")
        self._numbers += 1
        deadline = self._agenda.now.mono + order.timeout
        self._moving[order.name] = _Moving(self._numbers, order.ref, own.claim, heir, deadline)
        self._names.expect(order.name, heir)
        self._agenda.later(("transfer", order.name), order.timeout)
        ask = SuccessionAsked(self._numbers, order.name, own.claim.position, heir.local, own.on_lost)
        self._send(heir.node, ask)
        return None

    def answered(self, peer: str, answer: SuccessionAnswered) -> None:
        """The other node has an heir that only we have yet to acknowledge; or none, or none any more."""
        moving = next((each for each in self._moving.values() if each.number == answer.reference), None)
        if moving is None or moving.heir.node != peer:
            if answer.outcome == READY:  # revoked meanwhile
                self._send(peer, SuccessionRevoked(answer.reference))
        elif answer.outcome == READY:
            moving.let_go = True
            self._apply(self._names.let_go(moving.claim.name))
        elif answer.outcome == DEAD:
            self._stays(moving, NoProcess(answer.detail))
        else:
            self._stays(moving, NotMoved(moving.claim.name, answer.detail))

    def due(self, name: str) -> None:
        """The deadline of a transfer has come, or the end of a doubt. Having let go, we wait for the other's word."""
        moving = self._moving[name]
        if moving.doubtful:
            text = f"the connection to {moving.heir.node} ended as {name!r} went there, and nobody tells that it has"
            self._stays(moving, NodeLost(text))
            return
        self._send(moving.heir.node, SuccessionRevoked(moving.number))
        if not moving.let_go:
            missing = f"{moving.heir.node}, or a peer of it, did not answer in time"
            self._stays(moving, NotMoved(name, f"{missing}; try again, or allow a longer timeout"))

    def abandon(self, ref: int) -> None:
        """Whoever gave this order waits no longer."""
        moving = next((each for each in self._moving.values() if each.ref == ref), None)
        if moving is None:
            return
        moving.ref = None
        if not moving.doubtful:
            self._send(moving.heir.node, SuccessionRevoked(moving.number))
        if not moving.let_go:
            self._forget(moving)

    def handed_over(self, change: core.HandedOver) -> None:
        """The heir of a name of ours is confirmed; the Withdrawn of our claim follows."""
        moving = self._moving[change.own.claim.name]
        moving.done = change.heir

    def _stays(self, moving: _Moving, error: KinfolkError) -> None:
        self._forget(moving)
        if moving.ref is not None:
            self._tell(fx.Fail(moving.ref, error))

    def _forget(self, moving: _Moving) -> None:
        name = moving.claim.name
        del self._moving[name]
        self._agenda.timers.cancel(("transfer", name))
        self._names.keep(name)

    # --- the new node ---

    def asked(self, origin: str, ask: SuccessionAsked, pid: Pid) -> None:
        """A peer wants a process of ours to have a name of its own.

        Raises:
            RemoteProtocolError: it has used the reference before.
        """
        if any((each.origin, each.number) == (origin, ask.reference) for each in self._inheriting.values()):
            raise RemoteProtocolError(f"asks for an heir with reference {ask.reference} a second time")
        if not self._is_alive(ask.local):
            self._send(origin, SuccessionAnswered(ask.reference, DEAD, f"{pid} is dead"))
            return
        creation = self._creation_of(origin)
        assert creation is not None, "it asks in a session"
        on_lost = "message" if ask.on_lost == "message" else "exit"
        changes = self._names.inherit(ask.name, pid, (origin, creation, ask.claim), on_lost)
        if changes is None:
            text = f"{self._names.node} does not see it held by {origin} alone"
            self._send(origin, SuccessionAnswered(ask.reference, DECLINED, text))
            return
        claim = self._names.own[ask.name].claim
        self._inheriting[claim.position] = _Inheriting(origin, ask.reference, ask.name)
        self._apply(changes)

    def revoked(self, origin: str, told: SuccessionRevoked) -> None:
        """The old node has changed its mind. An heir that is confirmed by now stays."""
        for each in list(self._inheriting.values()):
            if (each.origin, each.number) == (origin, told.reference):
                self._apply(self._names.withdraw([each.name], "revoked"))

    def settle(self) -> None:
        """Tell old nodes whose acknowledgement alone is missing; to be called after every input."""
        for position, each in self._inheriting.items():
            if not each.ready and self._names.ledger.waits_only_for(position, each.origin):
                each.ready = True
                self._send(each.origin, SuccessionAnswered(each.number, READY))

    def confirmed(self, claim: Claim) -> None:
        """A claim of ours is confirmed."""
        if self._inheriting and self._inheriting.pop(claim.position, None) is not None:
            self._orders.rely_on(claim)

    # --- both ---

    def withdrawn(self, change: core.Withdrawn) -> None:
        """Claims of ours are gone: heirs that were not confirmed, or those that were to move, or that have."""
        if not self._inheriting and not self._moving:
            return
        for claim in change.claims:
            inheriting = self._inheriting.pop(claim.position, None)
            if inheriting is not None:
                outcome, text = DECLINED, "the new claim was withdrawn: the name is disputed, or its holder has gone"
                if change.exited:
                    outcome, text = DEAD, f"{claim.pid} exited before it had the name"
                self._send(inheriting.origin, SuccessionAnswered(inheriting.number, outcome, text))
            moving = self._moving.get(claim.name)
            if moving is not None and moving.claim.position == claim.position:
                self._has_gone(moving, change)

    def _has_gone(self, moving: _Moving, change: core.Withdrawn) -> None:
        name = moving.claim.name
        if moving.done is None:
            what = "exited" if change.exited else "gave it up, or lost it,"
            self._stays(moving, NameUnknown(name, f"{moving.claim.pid}, which held it, {what} before it had moved"))
            return
        self._forget(moving)
        if moving.ref is None:
            return
        left = max(0.0, moving.deadline - self._agenda.now.mono)
        if self._orders.await_withdrawal(change.position, moving.ref, left, moving.done):
            self._orders.accepted(change.position)

    def peer_down(self, peer: str) -> None:
        """The session with a peer has ended. (Heirs of its names are withdrawn by now.)"""
        for moving in [each for each in self._moving.values() if each.heir.node == peer]:
            if moving.let_go:
                moving.doubtful = True
                self._agenda.later(("transfer", moving.claim.name), self._doubt)
            else:
                self._stays(moving, NodeLost(f"the connection to {peer} ended before {moving.claim.name!r} had moved"))

    def close(self, error: NodeClosed) -> None:
        """Answer every order with this error."""
        for moving in self._moving.values():
            if moving.ref is not None:
                self._tell(fx.Fail(moving.ref, error))
        self._moving.clear()
        self._inheriting.clear()
