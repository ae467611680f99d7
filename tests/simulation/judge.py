"""The guarantees, checked while a schedule runs and at its end.

The judge follows every claim from the outside: who made it, whether it was confirmed, what became of it. What it knows
of a kernel are its effects and its tables; only the moments at which a claim is confirmed and at which one yields to
another are reported by a subclass of the name table. A broken promise is a *violation*, one line with the virtual time.
"""

import traceback
from collections.abc import Callable, Collection, Iterable
from functools import cache
from math import inf
from typing import Any

from kinfolk import effects as fx
from kinfolk.core.changes import OwnClaim
from kinfolk.core.ledger import Claim
from kinfolk.core.mirror import Mirror
from kinfolk.core.names import Names
from kinfolk.errors import NameLost, NameTaken, NoProcess, NotConfirmed, NotMoved
from kinfolk.ids import Pid, Seed
from kinfolk.wire import frames
from tests.simulation.world import End, Node, State, World

SLACK = 1e-6
_TELLS = frozenset(
    {
        frames.LedgerSynced, frames.NameClaimed, frames.NamesWithdrawn, frames.NameConfirmed, frames.NameMoved,
        frames.GroupEntered,
    }
)  # fmt: skip
"""What a sync consists of."""
_ALWAYS = (
    " raised ",
    " broke the protocol",
    " is down without a fault",
    "still names the dead",
    "is unanswered",
    " late",
    " twice",
)
"""Violations that no damage to the memory of names excuses, by words in them."""


class WatchedNames(Names):
    """A name table that reports when a claim is confirmed and when one yields."""

    on_claim: Callable[[Claim], None]
    on_move: Callable[[Claim, Claim], None]
    on_confirm: Callable[[Claim], None]
    on_yield: Callable[[OwnClaim, Claim, bool], None]
    on_end: Callable[[Claim], None]
    on_synced: Callable[[str], None]
    on_anew: Callable[[str], None]
    by_contest = False

    def _claim(self, claim: Claim, on_lost: str) -> None:
        self.on_claim(claim)
        super()._claim(claim, on_lost)

    def _replace(self, old: Claim, new: Claim) -> None:
        if old.pid.node == self.node:
            self.on_move(old, new)
        super()._replace(old, new)

    def _confirm(self, position: int) -> None:
        claim = self.own[self._pending[position]].claim
        super()._confirm(position)
        self.on_confirm(claim)

    def _yield(self, own: OwnClaim, winner: Claim) -> None:
        self.on_yield(own, winner, self.by_contest)
        super()._yield(own, winner)

    def _disown(self, name: str) -> Claim:
        claim = super()._disown(name)
        self.on_end(claim)
        return claim

    def _is_here(self, mirror: Mirror, position: int) -> None:
        super()._is_here(mirror, position)
        self.on_synced(mirror.peer)

    def sync_begins(self, peer: str, creation: int, position: int) -> None:
        super().sync_begins(peer, creation, position)
        if peer in self.mirrors and peer in self.staged:
            self.on_anew(peer)

    def contested(self, name: str, loser: int, winner: Claim, confirmed: bool, now: float) -> list[Any]:
        self.by_contest = True
        try:
            return super().contested(name, loser, winner, confirmed, now)
        finally:
            self.by_contest = False


@cache
def watched(names_type: type) -> type[WatchedNames]:
    """The same name table, with its reports."""
    return type(f"Watched{names_type.__name__}", (WatchedNames, names_type), {})


class Record:
    """What became of one claim."""

    def __init__(self, node: Node, claim: Claim, now: float) -> None:
        self.node, self.claim, self.claimed = node, claim, now
        self.confirmed = inf
        self.gone = inf
        """When it was withdrawn, or its node or process died."""
        self.unwanted = False
        """Whoever wanted it gave it up, and it has to go."""
        self.doomed = False
        """Somebody elsewhere has asked to give it up, and it may go."""
        self.standing = False
        """Somebody holds it without waiting for it."""
        self.lost_to: Record | None = None
        self.lost_confirmed = False
        self.told = 0
        self.moved = False
        """It has gone to another process, or was to come from one and has not."""

    def __repr__(self) -> str:
        return f"{self.claim.name!r} of {self.node} (pid {self.claim.pid.local}, entry {self.claim.position})"


class Order:
    """What became of one order."""

    def __init__(
        self, kind: str, ref: int, node: Node, given: float, timeout: float,
        name: str = "", pid: Pid | None = None, wait: bool = True,
    ) -> None:  # fmt: skip
        self.kind, self.ref, self.node, self.given = kind, ref, node, given
        self.name, self.pid, self.wait = name, pid, wait
        self.timeout, self.deadline = timeout, given + timeout
        self.answers = 0
        self.error: Exception | None = None
        self.abandoned = False
        self.claim: Record | None = None
        """The claim that a Register waits for."""
        self.release: Record | None = None
        """The claim that an Unregister means."""
        self.mesh: list[tuple[Node, list[Record]]] = []
        """For a Join: the mesh of the seeds when the order was given, with its confirmed claims."""
        self.starts = False
        """Whether it is the Join of a node that starts."""


class Judge:
    """Watches a world.

    Args:
        partitions: confirmed claims may be lost, because a partition can have two of them confirmed.
        prompt: nothing but deaths happens to nodes, so no living claimant may be beaten by a claim of the dead.
        reachable: nothing keeps a joiner from anybody.
    """

    def __init__(self, *, partitions: bool, prompt: bool, reachable: bool) -> None:
        self.partitions, self.prompt, self.reachable = partitions, prompt, reachable
        self.world: World
        self.violations: list[str] = []
        self.records: dict[tuple[str, int, int], Record] = {}
        self.orders: dict[int, Order] = {}
        self.joining: dict[Node, int] = {}
        """How many joins of each node go on."""
        self.on_free: Callable[[Node, str], None] | None = None
        """Told when a name resolves to nobody any more at a node."""
        self.last_death = 0.0
        self.damage = False
        """Memory is being damaged."""
        self.decay = False
        """And that while names change: until all is quiet again, users may be told what is wrong, but nothing falls."""
        self.steady = True
        """There has been no fault: no session may end."""
        self._refs = 0
        self.confirmed = self.losses = self.beaten_by_the_dead = 0
        self.moves = 0
        self._stays: set[tuple[str, Pid]] = set()
        """Heirs that cannot get their name any more, as somebody was told."""
        self._claimed: set[tuple[str, Pid]] = set()
        self._remote: dict[tuple[str, Pid], Order] = {}
        """Registers for processes of other nodes, each for a new one."""
        self._folded: dict[Node, dict[str, Pid]] = {}
        self._up: dict[Node, dict[str, tuple[int, int]]] = {}
        self._seen: dict[Node, dict[str, int]] = {}
        self._withdrawn: dict[Node, set[tuple[str, int, int]]] = {}
        self._gone: dict[Node, set[tuple[str, int]]] = {}
        """Peers that each node has lost or is synced with anew, whose names may still be on their way out, or back."""
        self._back: list[tuple[Node, tuple[str, int]]] = []
        """Those of which the last input has ended that."""
        self._at: Node
        self._happened: fx.Input
        self._dirty = False
        """Whether the last input left something in these:"""
        self._confirmed_now: list[Claim] = []
        self._lost_now: dict[tuple[int, str], Record] = {}
        self._removed: list[tuple[Node, str, Pid]] = []

    def effects(self) -> dict[type, Callable[[Node, Any], None]]:
        """Which effects the judge wants to see."""
        return {
            fx.Succeed: self._succeed,
            fx.Fail: self._fail,
            fx.TellLoss: self._tell_loss,
            fx.PeerUp: self._peer_up,
            fx.PeerDown: self._peer_down,
            fx.NameAdded: self._name_added,
            fx.NameRemoved: self._name_removed,
            fx.Count: self._count,
        }

    def violation(self, text: str) -> None:
        """A promise is broken."""
        if self.decay and not text.startswith("never quiet") and not any(word in text for word in _ALWAYS):
            return
        self.violations.append(f"{self.world.now:.3f}: {text}")
        if self.world.trace:
            self.world.trace(f"!!! {text}")

    # --- orders of the schedule ---

    def register(
        self, node: Node, name: str, pid: Pid, *, wait: bool, timeout: float, on_lost: fx.OnLost = "exit"
    ) -> Order:
        """Somebody asks for a name for a process of this node, or for a new one of another node."""
        order = self._order("register", node, timeout, name, pid, wait)
        if pid.node != node.name:
            self._remote[name, pid] = order
            order.deadline += 2 * self.world.settings.heartbeat
        self.world.feed(node, fx.Register(order.ref, name, pid, wait, timeout, on_lost))
        own = node.kernel.names.own.get(name)
        if own is not None and own.claim.pid == pid:
            order.claim = self._record(node, own.claim)
        return order

    def abandon(self, order: Order) -> None:
        """Whoever waits for a register goes away."""
        del self.orders[order.ref]
        order.abandoned = True
        self._waits_no_longer(order)
        self.world.feed(order.node, fx.Abandon(order.ref))

    def unregister(self, node: Node, name: str, position: int | None, timeout: float) -> Order:
        """Somebody gives up a name of the node."""
        order = self._order("unregister", node, timeout, name)
        own = node.kernel.names.own.get(name)
        holder = node.kernel.names.whereis(name)
        if own is not None and position in (None, own.claim.position):
            order.release = self._record(node, own.claim)
            order.release.unwanted = True
        elif own is None and position is None and holder is not None:
            claim = node.kernel.names.mirrors[holder.node].claims.get(name)
            release = None if claim is None else self.records.get((holder.node, holder.creation, claim.position))
            assert release is not None or self.decay, "what is in a view has been claimed"
            if release is not None:
                order.release, release.doomed = release, True
            order.deadline += 2 * self.world.settings.heartbeat
        self.world.feed(node, fx.Unregister(order.ref, name, position, timeout))
        own = node.kernel.names.own.get(name)
        if order.release is not None and own is not None and own.claim is order.release.claim:
            self.violation(f"{order.release} is still there after unregister")
        return order

    def transfer(self, node: Node, name: str, pid: Pid, timeout: float) -> Order:
        """Somebody lets a process have a name."""
        order = self._order("transfer", node, timeout, name, pid)
        self._stays.discard((name, pid))
        settings = self.world.settings
        # The word of an heir, the loss of its node, a doubt after that, and the answer to who has asked from afar.
        order.deadline += 3 * (settings.down_after + settings.heartbeat) + 2 * settings.heartbeat
        self.world.feed(node, fx.Transfer(order.ref, name, pid, timeout))
        return order

    def join(self, node: Node, seeds: Iterable[Seed], *, timeout: float, patient: bool, min_peers: int = 0) -> Order:
        """A node joins a mesh."""
        order = self._order("join", node, timeout)
        order.starts = patient
        seeds = tuple(seeds)
        for member in self._mesh(node, seeds) if self.reachable else ():
            claims = [self._record(member, own.claim) for own in member.kernel.names.own.values() if own.confirmed]
            order.mesh.append((member, claims))
        self.joining[node] += 1
        self.world.feed(node, fx.Join(order.ref, seeds, timeout, patient, min_peers))
        return order

    def _order(
        self, kind: str, node: Node, timeout: float, name: str = "", pid: Pid | None = None, wait: bool = True
    ) -> Order:
        self._refs += 1
        order = self.orders[self._refs] = Order(kind, self._refs, node, self.world.now, timeout, name, pid, wait)
        return order

    def _record(self, node: Node, claim: Claim) -> Record:
        key = (node.name, claim.pid.creation, claim.position)
        record = self.records.get(key)
        if record is None:
            record = self.records[key] = Record(node, claim, self.world.now)
            self._claimed.add((claim.name, claim.pid))
        return record

    def _waits_no_longer(self, order: Order) -> None:
        """A claim that nobody waits for any more, and nobody holds, is to be withdrawn."""
        record = order.claim
        if record is None or record.standing or record.confirmed < inf or record.lost_to is not None:
            return
        if not any(other.claim is record and not other.answers for other in self.orders.values()):
            record.unwanted = True

    # --- what happens ---

    def started(self, node: Node) -> None:
        """A node has started."""
        self.joining[node] = 0
        self._folded[node] = {}
        self._up[node] = {}
        self._seen[node] = {}
        self._withdrawn[node] = set()
        self._gone[node] = set()
        names = node.kernel.names
        assert isinstance(names, WatchedNames), "the world makes kernels with watched names"
        names.on_claim = lambda claim: self._on_claim(node, claim)
        names.on_move = lambda old, new: self._on_move(node, old, new)
        names.on_confirm = lambda claim: self._on_confirm(node, claim)
        names.on_synced = lambda peer: self._on_synced(node, peer)
        names.on_anew = lambda peer: self._gone[node].add((peer, names.mirrors[peer].creation))
        names.on_end = lambda claim: self._on_end(node, claim)
        names.on_yield = lambda own, winner, contest: self._on_yield(node, own, winner, contest)

    def stopped(self, node: Node, crashed: bool) -> None:
        """A node has died or closed."""
        self.last_death = self.world.now
        for record in self.records.values():
            if record.node is node:
                record.unwanted = True
                record.gone = min(record.gone, self.world.now)
        for ref in [ref for ref, order in self.orders.items() if order.node is node]:
            if not crashed and not self.orders[ref].answers:
                self.violation(f"{node} has closed without an answer to its {self.orders[ref].kind} {ref}")
            del self.orders[ref]
        del self.joining[node]

    def before(self, node: Node, happened: fx.Input) -> None:
        """A kernel is about to take an input."""
        self._at, self._happened = node, happened
        if self._dirty:
            self._dirty = False
            self._check_removed()
            for at, peer_start in self._back:
                self._gone[at].discard(peer_start)
            self._back.clear()
            self._confirmed_now.clear()
            self._lost_now.clear()
        if type(happened) is fx.Received:
            kind = type(happened.operations[0])
            if kind in _TELLS and self.joining[node]:
                for order in self.orders.values():
                    if order.starts and order.node is node:  # a start waits on for who goes on telling its names
                        order.deadline = max(order.deadline, self.world.now + 2 * order.timeout)
            if kind is frames.NamesWithdrawn:
                peer = _other(node.ends[happened.conn])
                for operation in happened.operations:
                    assert isinstance(operation, frames.NamesWithdrawn), "one frame, one kind"
                    self._withdrawn[node].update((peer.name, peer.kernel.creation, at) for at in operation.claims)
        elif type(happened) is fx.ProcessExited:
            for record in self.records.values():
                if record.node is node and record.claim.pid.local == happened.local:
                    record.unwanted = True

    def failed(self, node: Node, happened: fx.Input, error: Exception) -> None:
        """A kernel raised: it must not, whatever happens."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.violation(f"{node} raised {error!r} at {where.name}:{where.lineno} on {happened}")
        if self.world.trace:
            self.world.trace("".join(traceback.format_exception(error)))

    def _succeed(self, node: Node, effect: fx.Succeed) -> None:
        order = self._answered(node, effect.ref)
        if order is None:
            return
        if order.kind == "register":
            claim = effect.value
            assert isinstance(claim, Claim), "register returns its claim"
            if (claim.name, claim.pid) != (order.name, order.pid):
                self.violation(f"{node} answers the register of {order.name!r} with {claim}")
                return
            record = self.records.get((claim.pid.node, claim.pid.creation, claim.position))
            if record is None or (record.confirmed == inf and order.wait):
                self.violation(f"{claim} is not confirmed, but register returns")
            elif not order.wait:
                record.standing = True
            elif claim in self._confirmed_now:
                if self.joining[node]:
                    self.violation(f"{record} is confirmed during a join")
                self._check_winner(record)
        elif order.kind == "unregister" and order.release is not None:
            self._check_gone(order, order.release)
        elif order.kind == "transfer":
            assert isinstance(effect.value, Claim), "transfer returns a claim"
            self._check_moved(order, effect.value)
        elif order.kind == "join":
            self._check_joined(order)

    def _fail(self, node: Node, effect: fx.Fail) -> None:
        order = self._answered(node, effect.ref)
        if order is None:
            return
        order.error = effect.error
        if order.kind == "transfer" and isinstance(effect.error, NotMoved | NoProcess) and order.pid is not None:
            self._stays.add((order.name, order.pid))
            if any(record.confirmed < inf for record in self._heirs(order.name, order.pid)):
                self.violation(f"{order.pid} has got {order.name!r}, but {node} was told {effect.error!r}")
        if isinstance(effect.error, NameTaken):
            holder = effect.error.holder
            if holder == order.pid or (order.name, holder) not in self._claimed:
                self.violation(f"{node} answers the register of {order.name!r} by {order.pid} with {effect.error!r}")
        elif order.kind == "register" and isinstance(effect.error, NotConfirmed):
            self._waits_no_longer(order)
            settings = self.world.settings
            long_enough = settings.down_after + 2 * settings.heartbeat
            if self.prompt and self.last_death <= order.given and order.deadline - order.given >= long_enough - SLACK:
                self.violation(f"{node} failed to register {order.name!r} because of a dying peer: {effect.error}")

    def _answered(self, node: Node, ref: int) -> Order | None:
        order = self.orders.get(ref)
        if order is None:
            self.violation(f"{node} answers order {ref}, for which nobody waits")
            return None
        order.answers += 1
        if order.answers > 1:
            self.violation(f"{node} answers its {order.kind} {ref} twice")
        if self.world.now > max(order.deadline, node.wakes) + SLACK:
            self.violation(f"{node} answers its {order.kind} {ref} {self.world.now - order.deadline:.3f} s late")
        if order.kind == "join":
            self.joining[node] -= 1
        return order

    def _tell_loss(self, node: Node, effect: fx.TellLoss) -> None:
        loss = effect.loss
        record = self._lost_now.get((effect.local, loss.name))
        if record is None:
            self.violation(f"{node} tells process {effect.local} of a loss that was none: {loss}")
            return
        record.told += 1
        if isinstance(loss, NameLost) != record.lost_confirmed or loss.name != record.claim.name:
            self.violation(f"{record}: told {loss!r}")
        if effect.on_lost == "exit":
            world = self.world
            world.at(world.now, node, lambda local: world.process_exits(node, local), effect.local)

    def _peer_up(self, node: Node, effect: fx.PeerUp) -> None:
        up = self._up[node]
        if effect.peer in up:
            self.violation(f"{node}: {effect.peer} is up twice")
        up[effect.peer] = (effect.creation, effect.conn)
        seen = self._seen[node]
        if effect.creation < seen.get(effect.peer, 0):
            self.violation(f"{node}: an older start of {effect.peer} is up again")
        seen[effect.peer] = effect.creation

    def _peer_down(self, node: Node, effect: fx.PeerDown) -> None:
        if self._up[node].pop(effect.peer, None) != (effect.creation, effect.conn):
            self.violation(f"{node}: {effect.peer} is down without having been up")
        if self.steady:
            self.violation(f"{node}: {effect.peer} is down without a fault: {effect.reason}")
        awake, settings = self.world.now - node.wakes, self.world.settings
        if (
            node.slept > 2 * settings.heartbeat
            and awake < settings.down_after
            and effect.reason.startswith("heard nothing")
        ):
            self.violation(f"{node} wakes and takes {effect.peer} for dead")
        self._gone[node].add((effect.peer, effect.creation))
        for name in node.kernel.names.view:
            holder = node.kernel.names.whereis(name)
            if holder is not None and (holder.node, holder.creation) == (effect.peer, effect.creation):
                self.violation(f"{node}: {name!r} still resolves to {holder} of the lost {effect.peer}")

    def _name_added(self, node: Node, effect: fx.NameAdded) -> None:
        folded, name, pid = self._folded[node], effect.name, effect.pid
        if name in folded:
            self.violation(f"{node}: {name!r} is added twice")
        folded[name] = pid
        if self._removed:
            self._removed = [gone for gone in self._removed if gone[1] != name]
        if pid.node == node.name:
            if pid.local not in node.processes:
                self.violation(f"{node}: {name!r} names the dead {pid}")
            return
        if pid.creation < self._seen[node].get(pid.node, 0):
            self.violation(f"{node}: {name!r} names {pid}, of an older start")
        mirror = node.kernel.names.mirrors.get(pid.node)
        claim = None if mirror is None else mirror.claims.get(name)
        if claim is not None and (pid.node, pid.creation, claim.position) in self._withdrawn[node]:
            self.violation(f"{node}: the withdrawn {claim} is back")
        number = node.kernel.session_of(pid.node)
        if claim is not None and number is not None:
            record = self.records.get((pid.node, pid.creation, claim.position))
            if record is not None and record.gone < node.ends[number].opened - self.world.delay:
                self.violation(f"{node}: {record}, given up before the session began, is back")

    def _name_removed(self, node: Node, effect: fx.NameRemoved) -> None:
        if self._folded[node].pop(effect.name, None) != effect.pid:
            self.violation(f"{node}: {effect.name!r} is removed from {effect.pid}, which did not have it")
        if self.on_free is not None:
            self.on_free(node, effect.name)
        if effect.pid.node != node.name:
            happened = self._happened
            if type(happened) is fx.Received:
                end = node.ends.get(happened.conn)
                if end is not None and _other(end).name == effect.pid.node:
                    return
            self._dirty = True
            self._removed.append((node, effect.name, effect.pid))

    def _check_removed(self) -> None:
        """Nobody takes away a third node's names. (Told by its own word, its lost session, or a better claim.)"""
        for node, name, pid in self._removed:
            if (pid.node, pid.creation) not in self._gone[node] and not self.damage:
                self.violation(f"{name!r} was taken from {pid} by neither its node nor its loss")
        self._removed = []

    def _count(self, node: Node, effect: fx.Count) -> None:
        if effect.counter == "protocol_errors":
            self.violation(f"{node}: a peer broke the protocol")
        if effect.counter == "registry_divergence_total" and not self.damage:
            self.violation(f"{node}: its memory is not what it was told")

    # --- names ---

    def _on_claim(self, node: Node, claim: Claim) -> None:
        self._record(node, claim)

    def _on_synced(self, node: Node, peer: str) -> None:
        self._back.append((node, (peer, node.kernel.names.mirrors[peer].creation)))
        self._dirty = True
        number = node.kernel.session_of(peer)
        assert number is not None, "a peer tells of its names in a session"
        node.ends[number].synced = min(node.ends[number].synced, self.world.now)

    def _on_end(self, node: Node, claim: Claim) -> None:
        record = self._record(node, claim)
        record.gone = self.world.now
        if claim.after is not None and record.confirmed == inf:
            record.moved = True

    def _on_move(self, node: Node, old: Claim, new: Claim) -> None:
        self.moves += 1
        before, after = self._record(node, old), self._record(node, new)
        before.gone = after.confirmed = self.world.now
        before.moved = True
        after.claimed, after.standing = before.claimed, before.standing

    def _heirs(self, name: str, pid: Pid) -> list[Record]:
        return [each for each in self.records.values() if (each.claim.name, each.claim.pid) == (name, pid)]

    def _check_moved(self, order: Order, claim: Claim) -> None:
        """When transfer returns before its deadline, nobody resolves the name to the old holder any more."""
        record = self.records.get((claim.pid.node, claim.pid.creation, claim.position))
        if record is None or record.confirmed == inf or (claim.name, claim.pid) != (order.name, order.pid):
            self.violation(f"{order.node} answers the transfer of {order.name!r} to {order.pid} with {claim}")
            return
        self.moves += 1
        if self.world.now >= order.given + order.timeout - SLACK or record.gone < inf or not self.steady:
            return
        for other in self.world.running():
            holder = other.kernel.names.whereis(claim.name)
            if other is record.node or self.world.link(record.node, other) is None or holder == claim.pid:
                continue
            on = None if holder is None else self._heirs(claim.name, holder)[-1].claim.after
            if on != claim.identity:
                self.violation(f"{record} has got its name by a transfer, but {other} resolves it to {holder}")

    def _on_confirm(self, node: Node, claim: Claim) -> None:
        record = self._record(node, claim)
        record.confirmed = self.world.now
        self.confirmed += 1
        self._confirmed_now.append(claim)
        if claim.after is not None and (claim.name, claim.pid) in self._stays:
            self.violation(f"{record} is confirmed, though its transfer has failed")
        self._dirty = True

    def _check_winner(self, record: Record) -> None:
        """Guarantee 1, at the moment when register returns."""
        world, node, name, pid = self.world, record.node, record.claim.name, record.claim.pid
        if node.kernel.names.whereis(name) != pid:
            self.violation(f"{record} is confirmed, but {node} resolves {name!r} to {node.kernel.names.whereis(name)}")
        for other in world.running():
            if other is node:
                continue
            rival = other.kernel.names.own.get(name)
            if world.link(node, other) is not None:
                if rival is not None and rival.confirmed:
                    self.violation(f"{record} and the connected {self._record(other, rival.claim)} are both confirmed")
                holder = other.kernel.names.whereis(name)
                if holder != pid and (holder is None or self._barred(record, other, holder)):
                    self.violation(f"{record} is confirmed, but the connected {other} resolves {name!r} to {holder}")
            elif rival is not None and rival.confirmed and self._neighbours(record, other):
                self.violation(f"{record} and {self._record(other, rival.claim)} are both confirmed beside a neighbour")

    def _barred(self, record: Record, other: Node, holder: Pid) -> bool:
        """Whether a holder seen elsewhere is no excuse, as one confirmed out of our sight is."""
        if holder.node == other.name:
            return True
        claim = other.kernel.names.mirrors[holder.node].claims.get(record.claim.name)
        rival = None if claim is None else self.records.get((holder.node, holder.creation, claim.position))
        if rival is None:
            assert self.decay, "what is in a view has been claimed"
            return False
        if rival.confirmed == inf:
            return True
        if rival.gone < inf:  # the other has just met that node anew, and the withdrawal is still on its way
            return self._steady(rival.node, other, record.claimed)
        return self._neighbours(record, rival.node)

    def _neighbours(self, record: Record, other: Node) -> bool:
        """Whether since before the claim somebody has been connected to both, or they to each other."""
        since = record.claimed
        return self._steady(record.node, other, since) or any(
            self._steady(record.node, middle, since) and self._steady(middle, other, since)
            for middle in self.world.running()
            if middle is not record.node and middle is not other
        )

    def _steady(self, a: Node, b: Node, since: float) -> bool:
        end = self.world.link(a, b)
        return end is not None and end.synced < since and end.other is not None and end.other.synced < since

    def _check_gone(self, order: Order, record: Record) -> None:
        """When unregister returns before its deadline, no connected node knows the claim."""
        if record.gone == inf:
            self.violation(f"unregister of {record} has returned, but it is still claimed")
        if self.world.now >= order.given + order.timeout - SLACK or not record.node.alive:
            return
        for other in self.world.running():
            if other is not record.node and self.world.link(record.node, other) is not None:
                mirror = other.kernel.names.mirrors.get(record.node.name)
                if mirror is not None and record.claim in mirror.claims.values():
                    self.violation(f"unregister of {record} has returned, but {other} still knows it")

    def _on_yield(self, node: Node, own: OwnClaim, winner: Claim, contest: bool) -> None:
        record = self._record(node, own.claim)
        self._lost_now[own.claim.pid.local, own.claim.name] = record
        self._dirty = True
        pid = winner.pid
        rival = self.records.get((pid.node, pid.creation, winner.position))
        if rival is None or rival.claim.order != winner.order or rival.claim.pid != pid:
            self.violation(f"{record} yields to a claim that never was: {winner}")
            return
        if record.claim.after == rival.claim.identity:
            self.violation(f"the heir {record} yields to {rival}, which it succeeds")
        if rival.claim.after == record.claim.identity and node.kernel.names.heirs.get(winner.name) == pid:
            record.moved = True
            if rival.confirmed == inf:
                self.violation(f"{record} has moved to {rival}, which is not confirmed")
            return
        record.lost_to, record.lost_confirmed = rival, own.confirmed
        if rival.lost_to is record:
            self.violation(f"{record} and {rival} yield to each other")
        if own.confirmed:
            self.losses += 1
            if rival.confirmed == inf:
                self.violation(f"the confirmed {record} yields to {rival}, which is not")
            elif winner.order > own.claim.order:
                self.violation(f"the confirmed {record} yields to the younger {rival}")
            if not self.partitions:
                self.violation(f"the confirmed {record} yields to {rival} without a partition")
        if contest:
            mirror = node.kernel.names.mirrors.get(pid.node)
            if (
                mirror is not None
                and mirror.creation == pid.creation
                and mirror.complete
                and mirror.position >= winner.position
                and mirror.claims.get(winner.name) != winner
            ):
                self.violation(f"{record} yields, on another's word, to {rival}, which its own node knows to be gone")
            if rival.gone <= record.claimed:
                self.beaten_by_the_dead += 1
                if self.prompt:
                    self.violation(f"{record} yields to {rival}, which was gone before")

    def damaged(self, node: Node) -> None:
        """Somebody has changed the memory of the node, its view included."""
        self.damage = True
        self._folded[node] = dict(node.kernel.names.view)

    # --- joining ---

    def _mesh(self, node: Node, seeds: Iterable[Seed]) -> list[Node]:
        """Every node that a joiner hears of from these seeds, if nothing happens to anybody.

        One that is joining itself does not count: it finds the joiner, but perhaps later. Whom a member has met since
        it gave its list to the joiner does not count either, for the same reason.
        """
        world = self.world
        found: list[Node] = []
        hosts = [world.by_address.get(seed.address) for seed in seeds]
        wave = [host.node for host in hosts if host is not None and host.node is not None and host.node is not node]
        while wave:
            member = wave.pop()
            if member in found or self.joining[member] or not world.can_meet(node.host, member.host):
                continue
            found.append(member)
            session = member.kernel.session_of(node.name)
            listed = inf if session is None else member.ends[session].opened
            for other in world.running():
                there = None if other is node else world.link(member, other)
                if there is not None and there.opened < listed:
                    wave.append(other)
        return found

    def _check_joined(self, order: Order) -> None:
        """Guarantee 11."""
        node, names = order.node, order.node.kernel.names
        for member, claims in order.mesh:
            if not member.alive:
                continue
            mirror = names.mirrors.get(member.name)
            if mirror is None or not mirror.complete:
                self.violation(f"{node} has joined, but not {member}")
                continue
            for record in claims:
                if record.gone == inf and mirror.claims.get(record.claim.name) != record.claim:
                    self.violation(f"{node} has joined without {record}")

    # --- the end ---

    def unsettled(self) -> str | None:
        """What has yet to happen until nothing is left to happen; None if all is quiet and equal."""
        world = self.world
        nodes = world.running()
        for order in self.orders.values():
            if not order.answers:
                return f"the {order.kind} of {order.node} is unanswered"
        for node in nodes:
            names = node.kernel.names
            if names.unsettled:
                return f"{node} is busy with slices"
            if names.rivals:
                return f"{node} knows several claims: {names.rivals}"
            for name, own in names.own.items():
                if not own.confirmed:
                    return f"{node} waits for the confirmation of {name!r}"
            met = {other.name for other in nodes if other is not node and world.can_meet(node.host, other.host)}
            if node.kernel.peers().keys() != met:
                return f"{node} has sessions with {sorted(node.kernel.peers())} instead of {sorted(met)}"
            for end in node.ends.values():
                if end.state is not State.DIALLING and node.kernel.session_of(_other(end).name) != end.number:
                    return f"{node} has a connection to {_other(end)} beside the session"
            for other in nodes:
                if other.name not in met:
                    continue
                if world.link(node, other) is None:
                    return f"{node} and {other} disagree about their session"
                mirror = other.kernel.names.mirrors.get(node.name)
                if mirror is None or not mirror.complete:
                    return f"{other} has not synced {node}"
                if mirror.claims != {name: own.claim for name, own in names.own.items()}:
                    return f"{other} mirrors {list(mirror.claims.values())} of {node}, which has {list(names.own)}"
                if any(not mirror.is_confirmed(own.claim) for own in names.own.values()):
                    return f"{other} mirrors claims of {node} without their confirmation"
                if mirror.position != names.ledger.position or mirror.held:
                    return f"{other} mirrors {node} at {mirror.position}, and has yet to acknowledge {mirror.held}"
                if mirror.members.keys() != names.memberships.keys() or mirror.digest != names.digest:
                    return f"{other} mirrors {list(mirror.members)} of {node}, which has {list(names.memberships)}"
        if not world.strangers:
            for node in nodes[1:]:
                if node.kernel.names.view != nodes[0].kernel.names.view:
                    return f"{nodes[0]} and {node} have different tables"
                if _groups(node) != _groups(nodes[0]):
                    return f"{nodes[0]} and {node} have different groups"
        else:
            owners: dict[str, Node] = {}
            for node in nodes:
                for name in node.kernel.names.own:
                    if owners.setdefault(name, node) is not node:
                        return f"{node} and {owners[name]}, who share a neighbour, both hold {name!r}"
        return None

    def _check_remote(self, live: Collection[tuple[str, int, int]]) -> None:
        """A process of another node has the name for which it was registered if the asker was told so.

        It has none if the asker was not told; but an answer can be lost with its session, and then the name stays.
        """
        for (name, pid), order in self._remote.items():
            made = [record for record in self.records.values() if (record.claim.name, record.claim.pid) == (name, pid)]
            kept = any(_key(record) in live for record in made)
            if order.abandoned or order.error is not None or not order.answers:
                if kept and not self.partitions:
                    self.violation(f"{name!r} is left with {pid}, for which {order.node} got {order.error!r}")
            elif not kept and not any(r.unwanted or r.doomed or r.lost_to or r.moved for r in made):
                self.violation(f"{order.node} was told that {pid} has {name!r}, which has vanished")

    def finish(self) -> None:
        """Check what must hold when all is quiet."""
        self._check_removed()
        waiting = self.unsettled()
        if waiting is not None:
            self.violation(f"never quiet: {waiting}")
        live = {
            (node.name, node.kernel.creation, own.claim.position): node
            for node in self.world.running()
            for own in node.kernel.names.own.values()
        }
        for key, record in self.records.items():
            if record.unwanted and key in live:
                self.violation(f"{record} is still claimed, though given up")
            if record.unwanted and record.lost_to is None:
                if record.told:
                    self.violation(f"{record} was given up, and told of a loss")
            elif record.lost_to is not None:
                if not record.moved and record.told != (record.lost_confirmed or record.standing):
                    self.violation(f"{record} was lost to {record.lost_to} and told {record.told} times")
            elif (
                key not in live
                and not record.doomed
                and not record.moved
                and (record.claim.name, record.claim.pid) not in self._remote
            ):
                self.violation(f"{record} has vanished: nobody gave it up, nobody was told")
        self._check_remote(live.keys())
        for node in self.world.running():
            names = node.kernel.names
            if self._folded[node] != names.view:
                self.violation(f"{node}: the changes add up to {self._folded[node]}, the table is {names.view}")
            up = {peer: creation for peer, (creation, _) in self._up[node].items()}
            if up != node.kernel.peers():
                self.violation(f"{node}: the events add up to {up}, the peers are {node.kernel.peers()}")
            for name, pid in names.view.items():
                host = self.world.by_address[Seed.parse(pid.node).address]
                alive = host.node is not None and host.node.kernel.creation == pid.creation
                if not (alive and host.node is not None and pid.local in host.node.processes):
                    self.violation(f"{node}: {name!r} still names the dead {pid}")


def _groups(node: Node) -> dict[str, set[Pid]]:
    groups = node.kernel.names.groups
    return {group: set(groups.view(group)) for group in groups}


def _key(record: Record) -> tuple[str, int, int]:
    return record.node.name, record.claim.pid.creation, record.claim.position


def _other(end: End) -> Node:
    assert end.other is not None, "it is past the handshake"
    return end.other.node
