"""Names of other nodes' processes: only a process's own node claims or withdraws its names, so others ask it to.

Asker:   Register, Unregister --ASK_REGISTER, ASK_UNREGISTER--> origin, which treats it like an order of its own users
Asker:   Transfer             --ASK_TRANSFER------------------> origin of the claim that is to move
Asker:   Succeed, Fail        <--------ASK_ANSWER-------------- origin
Asker:   ASK_SETTLED: keep what was registered, or let it go (its user was cancelled, or had waited for too long)

When the session ends before the answer was sent, the origin withdraws the claim, and the asker raises NodeLost. An
answer that was sent may have arrived: then its user relies on the name, so it stays. If it has not, the user gets
NodeLost, which says that much: the name may be registered, and registering it again returns the same claim.
"""

from collections.abc import Callable

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.ledger import Claim
from kinfolk.errors import (
    CallTimeout,
    KinfolkError,
    NameTaken,
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
from kinfolk.tenure import Tenure
from kinfolk.transfers import Transfers
from kinfolk.wire.frames import (
    AskAnswered,
    AskSettled,
    Operation,
    RegistrationAsked,
    TransferAsked,
    UnregistrationAsked,
    milliseconds_of,
)

OK, TAKEN, MISSING, DEAD, UNKNOWN, STAYS, CLOSED = "ok", "taken", "missing", "dead", "unknown", "stays", "closed"


REGISTER, UNREGISTER, TRANSFER = "register", "unregister", "transfer"


Registrar = Orders | Tenure
"""Who carries out orders about names of this node's processes."""


class _Asked(Struct, frozen=True):
    """An order of ours that another node carries out."""

    ref: int
    origin: str
    name: str
    pid: Pid
    kind: str


class _Served(Struct, frozen=True):
    """An order of another node that we carry out."""

    asker: str
    reference: int
    name: str
    registers: bool = False


class Asks:
    """Both sides of asking.

    Args:
        agenda: of the node.
        send: says something to a peer, if there is a session with it.
        creation_of: the creation of a peer that there is a session with, else None.
        is_alive: whether a process of this node, by its local id, is alive.
        slack: seconds that an answer may take longer than the origin was given.
    """

    def __init__(
        self,
        agenda: Agenda,
        send: Callable[[str, Operation], None],
        creation_of: Callable[[str], int | None],
        is_alive: Callable[[int], bool],
        slack: float,
    ) -> None:
        self._agenda = agenda
        self._send = send
        self._creation_of = creation_of
        self._is_alive = is_alive
        self._slack = slack
        self._asked: dict[int, _Asked] = {}  # by our reference
        self._served: dict[int, _Served] = {}  # by the negative reference that the order has here
        self._serving: dict[tuple[str, int], int] = {}  # that reference, by asker and its own
        self._unsettled: dict[tuple[str, int], Claim] = {}  # by asker and its reference: answered, and not kept yet
        self._references = 0

    # --- the asker ---

    def register(self, order: fx.Register) -> None:
        """Ask the node of this process to claim a name for it."""
        pid = order.pid
        if self._reachable(order.ref, pid):
            ask = RegistrationAsked(order.ref, order.name, pid.local, milliseconds_of(order.timeout), order.on_lost)
            self._ask(_Asked(order.ref, pid.node, order.name, pid, REGISTER), ask, order.timeout)

    def unregister(self, order: fx.Unregister, holder: Pid, seen: int | None) -> None:
        """Ask the node of the holder to withdraw exactly the claim that was meant, or that we have `seen`."""
        position = self._position(order, seen)
        if position is not None and self._reachable(order.ref, holder):
            ask = UnregistrationAsked(order.ref, order.name, position, milliseconds_of(order.timeout))
            self._ask(_Asked(order.ref, holder.node, order.name, holder, UNREGISTER), ask, order.timeout)

    def transfer(self, order: fx.Transfer, holder: Pid, seen: int | None) -> None:
        """Ask the node of the holder to let another process have the name, by the claim that we have `seen`."""
        position = self._position(order, seen)
        if position is not None and self._reachable(order.ref, holder):
            ask = TransferAsked(order.ref, order.name, position, order.pid, milliseconds_of(order.timeout))
            self._ask(_Asked(order.ref, holder.node, order.name, order.pid, TRANSFER), ask, order.timeout)

    def _position(self, order: fx.Unregister | fx.Transfer, seen: int | None) -> int | None:
        """Where the claim was made that was meant, or that we see."""
        position = seen if order.position is None else order.position
        if position is None:  # memory is broken: nobody has claimed what the view shows
            self._agenda.do(fx.Fail(order.ref, NameUnknown(order.name)))
        return position

    def abandon(self, ref: int) -> None:
        """Whoever gave this order waits no longer: what it registers shall go."""
        asked = self._asked.pop(ref, None)
        if asked is not None:
            self._agenda.timers.cancel(("ask", ref))
            self._send(asked.origin, AskSettled(ref, False))

    def due(self, ref: int) -> None:
        """The origin has not answered in time."""
        asked = self._asked[ref]
        self.abandon(ref)
        error: KinfolkError = NotConfirmed(asked.name, [asked.origin])
        if asked.kind != REGISTER:
            error = CallTimeout(f"{asked.origin}, which holds the name {asked.name!r}, did not answer in time")
        self._agenda.do(fx.Fail(ref, error))

    def answered(self, origin: str, answer: AskAnswered) -> None:
        """The origin has carried out an order of ours, or could not.

        Raises:
            RemoteProtocolError: it names a holder that cannot be.
        """
        if answer.holder is not None:
            _check_pid(answer.holder)
        asked = self._asked.get(answer.reference)
        if asked is None or asked.origin != origin:
            return  # too late: the origin has been told, or will be, that nobody waits
        del self._asked[asked.ref]
        self._agenda.timers.cancel(("ask", asked.ref))
        if answer.outcome != OK:
            self._agenda.do(fx.Fail(asked.ref, _error(asked, answer)))
        elif asked.kind != UNREGISTER:
            if asked.kind == REGISTER:
                self._send(origin, AskSettled(asked.ref, True))
            self._agenda.do(fx.Succeed(asked.ref, Claim(asked.name, asked.pid, answer.position, answer.stamp)))
        else:
            self._agenda.do(fx.Succeed(asked.ref))

    def _reachable(self, ref: int, pid: Pid) -> bool:
        creation = self._creation_of(pid.node)
        if creation is None:
            self._agenda.do(fx.Fail(ref, NodeLost(f"{pid.node} is not connected: it alone can change names of {pid}")))
        elif creation != pid.creation:
            self._agenda.do(fx.Fail(ref, NoProcess(f"{pid} is dead: {pid.node} has been restarted since")))
        return creation == pid.creation

    def _ask(self, asked: _Asked, operation: Operation, timeout: float) -> None:
        self._asked[asked.ref] = asked
        self._agenda.later(("ask", asked.ref), timeout + self._slack)
        self._send(asked.origin, operation)

    # --- the origin ---

    def asked_to_register(self, asker: str, ask: RegistrationAsked, pid: Pid, orders: Registrar) -> None:
        """A peer wants a name for a process of ours.

        Raises:
            RemoteProtocolError: it has used the reference before.
        """
        if not self._is_alive(ask.local):
            self._send(asker, AskAnswered(ask.reference, DEAD, detail=f"{pid} is dead"))
            return
        ref = self._serve(_Served(asker, ask.reference, ask.name, registers=True))
        on_lost: fx.OnLost = "message" if ask.on_lost == "message" else "exit"
        orders.register(fx.Register(ref, ask.name, pid, True, ask.timeout_ms / 1000, on_lost))

    def asked_to_unregister(self, asker: str, ask: UnregistrationAsked, orders: Registrar) -> None:
        """A peer wants a claim of ours withdrawn.

        Raises:
            RemoteProtocolError: it has used the reference before.
        """
        ref = self._serve(_Served(asker, ask.reference, ask.name))
        orders.unregister(fx.Unregister(ref, ask.name, ask.claim, ask.timeout_ms / 1000))

    def asked_to_transfer(self, asker: str, ask: TransferAsked, transfers: Transfers) -> None:
        """A peer wants a name of ours to move.

        Raises:
            RemoteProtocolError: it has used the reference before, or the new holder cannot be.
        """
        _check_pid(ask.pid)
        ref = self._serve(_Served(asker, ask.reference, ask.name))
        transfers.transfer(fx.Transfer(ref, ask.name, ask.pid, ask.timeout_ms / 1000, ask.claim))

    def settled(self, asker: str, told: AskSettled, orders: Registrar, transfers: Transfers) -> None:
        """The asker has our answer, or waits no longer."""
        claim = self._unsettled.pop((asker, told.reference), None)
        if told.keep:
            if claim is not None:
                orders.rely_on(claim)
        else:
            if claim is not None:
                self._undo(claim, orders)
            ref = self._serving.pop((asker, told.reference), None)
            if ref is not None:
                del self._served[ref]
                orders.abandon(fx.Abandon(ref))
                transfers.abandon(ref)

    def answer(self, effect: fx.Succeed | fx.Fail) -> None:
        """An order has ended: tell whoever gave it."""
        served = self._served.pop(effect.ref, None)
        if served is None:
            if effect.ref >= 0:  # else the asker is gone, and what it asked for has been done all the same
                self._agenda.do(effect)
            return
        del self._serving[served.asker, served.reference]
        if isinstance(effect, fx.Fail):
            self._send(served.asker, _failure(served.reference, effect.error))
        elif isinstance(effect.value, Claim):
            claim = effect.value
            if served.registers:
                self._unsettled[served.asker, served.reference] = claim
            self._send(served.asker, AskAnswered(served.reference, OK, claim.position, claim.stamp))
        else:
            self._send(served.asker, AskAnswered(served.reference, OK))

    def _serve(self, served: _Served) -> int:
        key = served.asker, served.reference
        if key in self._serving or key in self._unsettled:
            raise RemoteProtocolError(f"asks with reference {served.reference} a second time")
        self._references -= 1
        self._served[self._references] = served
        self._serving[key] = self._references
        return self._references

    def _undo(self, claim: Claim, orders: Registrar) -> None:
        """Withdraw what nobody relies on any more: neither somebody of this node, nor an asker that keeps it or may."""
        if all(other.position != claim.position for other in self._unsettled.values()):
            orders.let_go(claim)

    # --- both ---

    def concern(self, peer: str) -> bool:
        """Whether anything is under way with a peer."""
        return (
            any(asked.origin == peer for asked in self._asked.values())
            or any(served.asker == peer for served in self._served.values())
            or any(asker == peer for asker, _ in self._unsettled)
        )

    def asker_lost(self, peer: str, orders: Registrar, transfers: Transfers) -> None:
        """The session with a peer has ended. What it has asked for and was not answered is not to be."""
        for ref in [ref for ref, served in self._served.items() if served.asker == peer]:
            del self._serving[peer, self._served.pop(ref).reference]
            orders.abandon(fx.Abandon(ref))
            transfers.abandon(ref)
        for key in [key for key in self._unsettled if key[0] == peer]:
            orders.rely_on(self._unsettled.pop(key))  # its user may have been told

    def origin_lost(self, peer: str) -> None:
        """The session with a peer has ended: it will not answer what we have asked."""
        for asked in [asked for asked in self._asked.values() if asked.origin == peer]:
            del self._asked[asked.ref]
            self._agenda.timers.cancel(("ask", asked.ref))
            self._agenda.do(fx.Fail(asked.ref, NodeLost(f"the connection to {peer} ended before it answered")))

    def close(self, error: NodeClosed) -> None:
        """Answer every order of ours with this error."""
        for ref in self._asked:
            self._agenda.do(fx.Fail(ref, error))
        for table in (self._asked, self._served, self._serving, self._unsettled):
            table.clear()


def _check_pid(pid: Pid) -> None:
    try:
        Pid.parse(str(pid))
    except ValueError as error:
        raise RemoteProtocolError(f"speaks of a pid that cannot be: {error}") from None


def _failure(reference: int, error: KinfolkError) -> AskAnswered:
    match error:
        case NameTaken(holder=holder):
            return AskAnswered(reference, TAKEN, holder=holder)
        case NotConfirmed(missing=missing):
            return AskAnswered(reference, MISSING, missing=list(missing))
        case NoProcess():
            return AskAnswered(reference, DEAD, detail=str(error))
        case NameUnknown(detail=detail):
            return AskAnswered(reference, UNKNOWN, detail=detail)
        case NotMoved(detail=detail):
            return AskAnswered(reference, STAYS, detail=detail)
        case _:
            return AskAnswered(reference, CLOSED, detail=str(error))


def _error(asked: _Asked, answer: AskAnswered) -> KinfolkError:
    match answer.outcome:
        case "taken" if answer.holder is not None:
            return NameTaken(asked.name, answer.holder)
        case "missing":
            return NotConfirmed(asked.name, answer.missing)
        case "dead":
            return NoProcess(answer.detail)
        case "unknown":
            return NameUnknown(asked.name, answer.detail)
        case "stays":
            return NotMoved(asked.name, answer.detail)
        case _:
            return NodeLost(f"{asked.origin} could not: {answer.detail}")
