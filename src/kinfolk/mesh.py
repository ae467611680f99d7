"""The mesh: whom this node dials, and when a join is complete.

A node dials the seeds that it was given, everybody whom its peers list, and every peer that it has lost, again and
again. A *join* is complete when each of its seeds, and each node that those know, is connected with all its names here,
or was found to be out of reach.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.members import Members, Session, Target
from kinfolk.errors import AuthenticationFailed, KinfolkError, NodeClosed, NodeUnreachable
from kinfolk.ids import Address, Seed

_MOST = 12
"""As many times its own time a starting join takes at most, whatever is told: a minute, unless configured."""


class _Join(Struct):
    """A Join in progress: which targets are yet to be reached or found unreachable."""

    order: fx.Join
    seeds: list[Target]
    open: dict[Address, Target]
    seen: set[Address]
    failed: dict[Address, KinfolkError]
    parts: dict[int, int] = {}
    """How far the syncs in these sessions had come when its time was up."""
    times: int = 1
    """How many times its time will have been up, next."""


class Mesh:
    """Dials and joins.

    Args:
        agenda: of the node.
        members: its sessions and targets.
        new_connection: gives each dial its number.
        joining: told whether any join is in progress, whenever that changes.
        peers: gives how many peers there are.
        is_known: whether others say that a target is there, so that it is dialled however long it has not been seen.
        is_idle: whether a target leads to somebody who is a peer without a session, and nothing waits for one.
        least, most: seconds before a lost peer is dialled again; in between, a fifth of its absence.
        forget_after: seconds after which a lost peer is no longer dialled.
        rng: gives the jitter.
    """

    def __init__(
        self,
        agenda: Agenda,
        members: Members,
        new_connection: Callable[[], int],
        joining: Callable[[bool], None],
        peers: Callable[[], int],
        is_known: Callable[[Target], bool],
        is_idle: Callable[[Target], bool],
        *,
        least: float,
        most: float,
        forget_after: float,
        rng: random.Random,
    ) -> None:
        self._agenda = agenda
        self._members = members
        self._new_connection = new_connection
        self._joining = joining
        self._peers = peers
        self._is_known = is_known
        self._is_idle = is_idle
        self._least, self._most, self._forget_after = least, most, forget_after
        self._rng = rng
        self._joins: dict[int, _Join] = {}

    # --- dialling ---

    def know(self, peer: str) -> Target:
        """The target that a node name stands for."""
        return self._members.target(Seed.parse(peer), self._agenda.now.mono)

    def dial(self, target: Target) -> None:
        """Dial now, unless there is no need to."""
        if target.conn is not None or self._members.session_with(target) is not None:
            return
        if self._members.expects(target):
            self.redial(target)  # a dial of ours would only replace the session that opens in a moment
            return
        conn = self._new_connection()
        self._members.dial(target, conn)
        self._agenda.timers.cancel(("dial", target.seed.address))
        self._agenda.do(fx.Dial(conn, target.seed))

    def redial(self, target: Target) -> None:
        """Dial again later: soon at first, then ever more slowly, never all at the same moment."""
        absent = self._agenda.now.mono - target.wanted_since
        delay = self._most if target.refused else min(self._most, max(self._least, absent / 5))
        self._agenda.later(("dial", target.seed.address), delay * (0.5 + self._rng.random()))

    def redial_due(self, address: Address) -> None:
        """The moment to dial again has come."""
        target = self._members.targets.get(address)
        if target is None or self._members.session_with(target) is not None:
            return
        if self._is_idle(target) and not any(address in join.open for join in self._joins.values()):
            return
        if self._agenda.now.mono - target.wanted_since > self._forget_after and not self._is_known(target):
            text = f"gives up on {target.seed}, which has not been seen for long"
            self._agenda.log(logging.INFO, text, address=target.seed)
            self.drop(target)
        else:
            self.dial(target)

    def dial_failed(self, target: Target, error: KinfolkError, code: str) -> None:
        """A dial has failed. A seed of a starting node gets further chances until some seed has answered."""
        if code == "name" and target.expected != target.seed.expects:
            return  # by now we know who is there: the next dial expects that one
        # A connection that just ended may be a refusal, or a forwarder whose target is being restarted.
        refused = isinstance(error, AuthenticationFailed) and code != "ended"
        if target.attempts == 0 or (refused and not target.refused):
            level = logging.WARNING if refused or code == "protocol" else logging.INFO
            self._agenda.log(level, f"no session with {target.seed}: {error}", address=target.seed, reason=error)
        target.refused = refused
        address = target.seed.address
        for join in self._joins.values():
            if address in join.open:
                join.failed[address] = error
                again = join.order.patient and not refused and target in join.seeds
                if not again or any(self._reached(seed) for seed in join.seeds):
                    del join.open[address]

    def drop(self, target: Target, error: KinfolkError | None = None) -> None:
        """Dial this target no longer: it is ourselves, has left, or was not seen for long."""
        self._members.targets.pop(target.seed.address, None)
        self._agenda.timers.cancel(("dial", target.seed.address))
        for join in self._joins.values():
            if join.open.pop(target.seed.address, None) is None:
                continue
            if join.order.patient:  # a list of seeds that all nodes share may well name the node itself
                join.seeds = [seed for seed in join.seeds if seed is not target]
            else:
                join.failed[target.seed.address] = error or NodeUnreachable(f"{target.seed} is this node itself")
        self.settle()

    def seek(self, seeds: Iterable[Seed]) -> None:
        """Dial these from now on, until they leave or are forgotten."""
        for seed in seeds:
            if seed.expects != self._members.name:
                self.dial(self._members.target(seed, self._agenda.now.mono))

    def forget(self, seeds: Iterable[Seed]) -> None:
        """Dial these no longer, unless and as long as a session with them is open."""
        for seed in seeds:
            target = self._members.targets.get(seed.address)
            if target is None:
                continue
            target.asked_for = False
            if self._members.session_with(target) is None:
                self.drop(target)

    def keys_changed(self) -> None:
        """This node has other keys: whoever refused the old ones gets a chance to take these."""
        for target in self._members.targets.values():
            if target.refused and target.conn is None:
                target.refused, target.attempts, target.wanted_since = False, 0, self._agenda.now.mono
                self.redial(target)

    def peer_lost(self, peer: str, lasted: bool) -> None:
        """A session has ended. Dial again: soon, if it had lasted; else the waits go on growing."""
        for target in self._members.targets.values():
            if target.answers == peer and target.conn is None:
                target.attempts = 0
                if lasted:
                    target.wanted_since = self._agenda.now.mono
                self.redial(target)
                for join in self._joins.values():
                    if target.seed.address in join.seen:  # it was reached, and has to be again
                        join.open[target.seed.address] = target
        self.settle()

    def peer_left(self, peer: str) -> None:
        """A peer has closed in good order or left: it comes back by itself, if at all. Who was asked for is dialled."""
        for target in list(self._members.targets.values()):
            if target.answers == peer and not target.asked_for:
                self.drop(target, NodeUnreachable(f"{peer} has closed"))

    # --- joining ---

    def join(self, order: fx.Join) -> None:
        """Begin to join."""
        name = self._members.name
        seeds = [self._members.target(seed, self._agenda.now.mono) for seed in order.seeds if seed.expects != name]
        targets = {target.seed.address: target for target in seeds}
        join = self._joins[order.ref] = _Join(order, seeds, targets, set(targets), {})
        self._agenda.later(("join", order.ref), order.timeout)
        self._joining(True)
        for target in seeds:
            target.asked_for = True
            session = self._members.session_with(target)
            if session is None:
                target.attempts = 0
                self.dial(target)
            else:
                # Who is not on its list came after us, and has met us since.
                self._include(join, (*self._members.listed_by(session), *self._members.by_peer))
        join.parts = self._parts(join)
        self.settle()

    def listed(self, session: Session, listed: Mapping[str, int]) -> None:
        """A peer has told whom it is connected to: everybody there belongs to each join as well, and is dialled."""
        session.greeted, session.listed = True, listed
        peers = self._members.listed_by(session)
        for join in self._joins.values():
            self._include(join, peers)
        for peer in peers:
            self.dial(self.know(peer))
        self.settle()

    def due(self, ref: int) -> None:
        """The time of a join is up. While a node starts, who goes on telling its names gets as much time again."""
        join = self._joins[ref]
        before, join.parts = join.parts, self._parts(join)
        goes_on = any(parts > before.get(conn, 0) for conn, parts in join.parts.items())
        if goes_on and join.order.patient and join.times < _MOST:
            join.times += 1
            self._agenda.later(("join", ref), join.order.timeout)
        else:
            self._over(join)

    def abandon(self, ref: int) -> None:
        """Whoever gave this Join waits no longer. Its dials go on, as after a join whose time was up."""
        if ref in self._joins:
            self._ended(ref)

    def settle(self) -> None:
        """Finish each join that has nobody left to wait for."""
        for join in list(self._joins.values()):
            for address, target in list(join.open.items()):
                if self._reached(target):
                    del join.open[address]
                    join.failed.pop(address, None)
            refused = False
            if join.failed:
                if any(self._reached(seed) for seed in join.seeds):
                    for address in [address for address in join.open if address in join.failed]:
                        del join.open[address]
                # A refusal that came after its seed was found out of reach, with others to join, ends nothing.
                errors = ((seed.refused, join.failed.get(seed.seed.address)) for seed in join.seeds)
                refused = any(refused and isinstance(error, AuthenticationFailed) for refused, error in errors)
            if not join.open or (refused and join.order.patient):
                self._over(join)

    def close(self, error: NodeClosed) -> None:
        """Answer every join with this error."""
        for ref in self._joins:
            self._agenda.do(fx.Fail(ref, error))
        self._joins.clear()

    def _include(self, join: _Join, peers: Iterable[str]) -> None:
        """These belong to the mesh that is joined, and so does everybody whom those of them know that we know."""
        for peer in peers:
            target = self.know(peer)
            address = target.seed.address
            if address in join.seen and join.failed.pop(address, None) is None:
                continue  # and one that we could not reach lives, we hear now
            join.seen.add(address)
            join.open[address] = target
            session = self._members.session_with(target)
            if session is None:
                self.dial(target)
            else:
                self._include(join, self._members.listed_by(session))

    def _parts(self, join: _Join) -> dict[int, int]:
        sessions = map(self._members.session_with, join.open.values())
        return {session.conn: session.parts for session in sessions if session is not None and not session.synced}

    def _reached(self, target: Target) -> bool:
        session = self._members.session_with(target)
        return session is not None and session.greeted and session.synced

    def _over(self, join: _Join) -> None:
        """Answer a join: nobody is left to wait for, or its time is up."""
        ref = join.order.ref
        if ref not in self._joins:
            return
        error = self._verdict(join)
        self._agenda.do(fx.Succeed(ref) if error is None else fx.Fail(ref, error))
        self._ended(ref)

    def _ended(self, ref: int) -> None:
        del self._joins[ref]
        self._agenda.timers.cancel(("join", ref))
        if not self._joins:
            self._joining(False)

    def _verdict(self, join: _Join) -> KinfolkError | None:
        order = join.order
        errors = [join.failed.get(seed.seed.address) for seed in join.seeds if not self._reached(seed)]
        for error in errors:
            if isinstance(error, AuthenticationFailed):
                return error
        unanswered = NodeUnreachable(
            f"{', '.join(str(seed.seed) for seed in join.seeds) or 'nobody'} did not answer within {order.timeout:g} s:"
            " is it running there, and is the address right?"
        )
        if not order.patient:
            return next((error or unanswered for error in errors), None)
        reached = self._peers()
        if reached < order.min_peers:
            text = f"{reached} of at least {order.min_peers} peers reached within {order.timeout:g} s"
            return NodeUnreachable(f"{text}: check that the seeds run, or lower min_peers")
        if join.seeds and len(errors) == len(join.seeds):
            self._agenda.log(logging.WARNING, f"starts alone: {unanswered}; it keeps dialling", reason=unanswered)
        return None
