"""The orders of users about names: who waits for what, and how each is answered, exactly once.

A `register` waits for its claim to be confirmed. If the claim loses, or the name was held when it came, it waits until
it is certain who has won: `NameTaken` is to name the winner, not somebody who was ahead for a moment.
"""

import logging
from collections.abc import Callable

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core import changes as core
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names
from kinfolk.errors import KinfolkError, NameLost, NameTaken, NameUnknown, NodeClosed, NoProcess, NotConfirmed
from kinfolk.ids import Pid


class _Waiting(Struct):
    """A Register that waits: for the claim of ours at `position`, or for `rival` to be confirmed or to lose."""

    ref: int
    name: str
    position: int = 0
    rival: Pid | None = None


class Orders:
    """The orders that are not answered yet.

    Args:
        agenda: of the node.
        names: its name table.
        apply: passes on what an order has changed in it.
        answer: tells whoever gave an order how it ended.
        patience: seconds that a name which has fallen free may take to show who has won it.
    """

    def __init__(
        self,
        agenda: Agenda,
        names: Names,
        apply: Callable[[list[core.Change]], None],
        answer: Callable[[fx.Succeed | fx.Fail], None],
        patience: float,
    ) -> None:
        self._agenda = agenda
        self._names = names
        self.whereis = names.whereis
        self._apply = apply
        self._tell = answer
        self._patience = patience
        self._all: dict[int, _Waiting] = {}  # by ref
        self._claims: dict[int, list[_Waiting]] = {}  # by position of the claim
        self.undecided: dict[str, list[_Waiting]] = {}
        """Those that wait for a rival, by name."""
        self._withdrawals: dict[int, tuple[int, object]] = {}  # refs, with their answers, by position of the withdrawal
        self._standing: set[int] = set()  # positions of claims that somebody relies on

    # --- for whoever looks ---

    def owns(self, name: str) -> bool:
        """Whether this node claims the name."""
        return name in self._names.own

    def position_of(self, name: str, holder: Pid) -> int | None:
        """Which of its node's claims the holder of a name has it by. None if memory is broken."""
        mirror = self._names.mirrors.get(holder.node)
        claim = None if mirror is None else mirror.claims.get(name)
        return None if claim is None else claim.position

    # --- orders ---

    def register(self, order: fx.Register) -> None:
        """Claim a name, or wait to be told who has it."""
        if order.name in self._names.own and order.name not in self._names.view:  # memory is broken
            self._apply(self._names.put_right(order.name))
        own = self._names.own.get(order.name)
        holder = self._names.whereis(order.name)
        if own is not None and own.claim.pid == order.pid:  # the same process again: the same claim
            if own.confirmed:
                self._succeed(order.ref, own.claim)
            else:
                self._wait_for(order, own.claim)
        elif holder is None:
            self._tell_rivals(order.name, None)  # who waits in vain must not be told of a claim made after that
            changes = self._names.claim(order.name, order.pid, order.on_lost, self._agenda.now.wall_ms)
            self._wait_for(order, self._names.own[order.name].claim)
            self._apply(changes)
        elif order.wait:
            self._hold(_Waiting(order.ref, order.name, rival=holder), order.timeout)
            self.name_changed(order.name)
        else:
            self._tell(fx.Fail(order.ref, NameTaken(order.name, holder)))

    def abandon(self, order: fx.Abandon) -> None:
        """Whoever gave this Register waits no longer."""
        self._give_up(order.ref, None)

    def unregister(self, order: fx.Unregister) -> None:
        """Withdraw a name of this node, and wait until all peers know."""
        own = self._names.own.get(order.name)
        if own is None or order.position not in (None, own.claim.position):
            self._tell(fx.Fail(order.ref, self._cannot_unregister(order)))
            return
        self._fail(own.claim, NameUnknown(order.name, "it was unregistered before it was confirmed"))
        changes = self._names.withdraw([order.name])
        position = next(change.position for change in changes if isinstance(change, core.Withdrawn))
        known = self.await_withdrawal(position, order.ref, order.timeout)
        self._apply(changes)
        if known:
            self.accepted(position)

    def await_withdrawal(self, position: int, ref: int, timeout: float, answer: object = None) -> bool:
        """Answer an order when all peers know of this withdrawal. True if they do; then the caller says `accepted`."""
        self._withdrawals[position] = ref, answer
        self._agenda.later(("withdrawal", position), timeout)
        return self._names.ledger.await_withdrawal(position)

    def rely_on(self, claim: Claim) -> None:
        """Somebody has this claim, and relies on it as long as it lives."""
        own = self._names.own.get(claim.name)
        if own is not None and own.claim == claim:
            self._standing.add(claim.position)

    def let_go(self, claim: Claim) -> None:
        """Withdraw this claim, if it lives and nobody relies on it."""
        own = self._names.own.get(claim.name)
        if own is not None and own.claim == claim and claim.position not in self._standing:
            self._apply(self._names.withdraw([claim.name], "unwanted"))

    def _cannot_unregister(self, order: fx.Unregister) -> NameUnknown:
        holder = self._names.whereis(order.name)
        if order.position is not None:
            state = f"held by {holder} now" if holder else "free now"
            return NameUnknown(order.name, f"this registration has ended, the name is {state}; nothing was changed")
        return NameUnknown(order.name)

    # --- time ---

    def due(self, ref: int) -> None:
        """The deadline of a register has come."""
        waiting = self._all[ref]
        if waiting.rival is not None:
            self._give_up(ref, NameTaken(waiting.name, self._names.whereis(waiting.name) or waiting.rival))
        else:
            self._give_up(ref, NotConfirmed(waiting.name, self._names.ledger.missing(waiting.position)))

    def still_free(self, name: str) -> None:
        """A name has been free for as long as the news of a winner could take: nobody has won it."""
        if self._names.whereis(name) is None:
            self._tell_rivals(name, None)

    def close(self, error: NodeClosed) -> None:
        """Answer every order with this error."""
        for ref in (*self._all, *(ref for ref, _ in self._withdrawals.values())):
            self._tell(fx.Fail(ref, error))
        for table in (self._all, self._claims, self.undecided, self._withdrawals):
            table.clear()

    # --- what the name table changed ---

    def name_changed(self, name: str) -> None:
        """Tell those who came second who has won, once that is certain: until then the winner may still lose itself.

        Where the name is free, its rival has lost, and the claim that it lost to is on its way here; or nobody has won.
        """
        if name not in self.undecided:
            return
        holder = self._names.whereis(name)
        if holder is None:
            if ("free", name) not in self._agenda.timers:
                self._agenda.later(("free", name), self._patience)
            return
        self._agenda.timers.cancel(("free", name))
        if self._names.is_confirmed(name):
            self._tell_rivals(name, holder)

    def confirmed(self, claim: Claim) -> None:
        """Every peer has acknowledged a claim of ours."""
        for waiting in self._claims.pop(claim.position, ()):
            del self._all[waiting.ref]
            self._agenda.timers.cancel(("order", waiting.ref))
            self._succeed(waiting.ref, claim)
        self.name_changed(claim.name)

    def withdrawn(self, change: core.Withdrawn) -> None:
        """Claims of ours are gone."""
        for claim in change.claims:
            self._standing.discard(claim.position)
            if claim.position not in self._claims:
                continue  # nobody waits: to make up a text all the same is a tenth of what an exit costs
            if change.exited:
                text = f"{claim.pid} exited before its name {claim.name!r} was confirmed"
                self._fail(claim, NoProcess(text))
            else:  # an heir, for which somebody has registered the name as well
                self._fail(claim, NameUnknown(claim.name, "it was to move here, and did not"))

    def lost(self, own: core.OwnClaim, winner: Claim) -> None:
        """A claim of ours has yielded to another node's."""
        claim = own.claim
        if own.confirmed:
            loss = NameLost(claim.name, winner.pid)
            self._agenda.do(fx.Count("names_lost"))
            self._agenda.log(
                logging.WARNING, f"{claim.pid}: {loss}", pid=claim.pid, registered=claim.name, peer=winner.pid.node
            )
            self._agenda.do(fx.TellLoss(claim.pid.local, loss, "exit" if own.on_lost == "exit" else "message"))
            return
        for waiting in self._claims.pop(claim.position, ()):
            waiting.rival = winner.pid
            self._beside(waiting).append(waiting)
        self.name_changed(claim.name)
        if claim.position in self._standing:
            self._agenda.do(fx.TellLoss(claim.pid.local, NameTaken(claim.name, winner.pid), "message"))

    def accepted(self, position: int) -> None:
        """Every peer knows of a withdrawal, or has had its time."""
        self._names.ledger.forget(position)
        waiting = self._withdrawals.pop(position, None)
        if waiting is not None:
            self._agenda.timers.cancel(("withdrawal", position))
            self._tell(fx.Succeed(*waiting))

    # --- inside ---

    def _wait_for(self, order: fx.Register, claim: Claim) -> None:
        if order.wait:
            self._hold(_Waiting(order.ref, order.name, claim.position), order.timeout)
        else:
            self._succeed(order.ref, claim)

    def _succeed(self, ref: int, claim: Claim) -> None:
        if ref > 0:  # another node's order is kept in mind by `asks`, until that node has settled it
            self._standing.add(claim.position)
        self._tell(fx.Succeed(ref, claim))

    def _hold(self, waiting: _Waiting, timeout: float) -> None:
        self._all[waiting.ref] = waiting
        self._beside(waiting).append(waiting)
        self._agenda.later(("order", waiting.ref), timeout)

    def _beside(self, waiting: _Waiting) -> list[_Waiting]:
        """All who wait for the same as this one."""
        if waiting.rival is None:
            return self._claims.setdefault(waiting.position, [])
        return self.undecided.setdefault(waiting.name, [])

    def _tell_rivals(self, name: str, holder: Pid | None) -> None:
        self._agenda.timers.cancel(("free", name))
        for waiting in self.undecided.pop(name, ()):
            last = holder or waiting.rival
            assert last is not None, "whoever waits for a rival has seen one"
            self._fail_one(waiting, NameTaken(name, last))

    def _give_up(self, ref: int, error: KinfolkError | None) -> None:
        """One who waits for a claim waits no longer; without anybody left who wants it, it is withdrawn."""
        waiting = self._all.pop(ref, None)
        if waiting is None:
            return
        self._agenda.timers.cancel(("order", ref))
        others = self._beside(waiting)
        others.remove(waiting)
        if error is not None:
            self._tell(fx.Fail(ref, error))
        if others:
            return
        if waiting.rival is not None:
            del self.undecided[waiting.name]
            self._agenda.timers.cancel(("free", waiting.name))
            return
        del self._claims[waiting.position]
        if waiting.position in self._standing:
            return
        if isinstance(error, NotConfirmed):
            self._apply(self._names.withdraw([waiting.name], "unconfirmed", error.missing))
        else:
            self._apply(self._names.withdraw([waiting.name], "abandoned"))

    def _fail(self, claim: Claim, error: KinfolkError) -> None:
        for waiting in self._claims.pop(claim.position, ()):
            self._fail_one(waiting, error)

    def _fail_one(self, waiting: _Waiting, error: KinfolkError) -> None:
        del self._all[waiting.ref]
        self._agenda.timers.cancel(("order", waiting.ref))
        self._tell(fx.Fail(waiting.ref, error))
