"""Links, monitors and messages: beside each kernel its node's data plane, with the same connections.

What a node says about processes travels in the stream of its kernel's frames. A process here is a mailbox that the
judge reads (`tests.simulation.kinship`); what it wants is drawn at random, mostly about a few pairs of processes and
faster than frames travel, so that whatever may cross does. A seed determines everything.

quiet    no faults: links and monitors of the living, the dead, and those who are about to die
torn     cuts, partitions, silence, stopped and restarted nodes besides
"""

import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from kinfolk import effects as fx
from kinfolk.core import relations as core
from kinfolk.core.relations import OUTSIDE, Name, Relations
from kinfolk.errors import NodeClosed
from kinfolk.ids import Pid
from kinfolk.messages import Ref
from kinfolk.reasons import KILL, NORMAL, SHUTDOWN, Crash, Reason
from kinfolk.shell.dataplane import DataPlane, Waiting
from kinfolk.shell.gate import Gate
from kinfolk.shell.signals import Signals
from kinfolk.shell.spawns import Spawns
from kinfolk.shell.tasks import Processes
from kinfolk.wire import frames
from kinfolk.wire.codec import Codec
from tests.simulation.by_hand import run_by_hand
from tests.simulation.kinship import KinshipJudge
from tests.simulation.schedules import DOWN_AFTER, Schedule
from tests.simulation.world import End, Host, Node, Run, State, World

LOCAL_NAMES = ("left", "right")
REASONS: tuple[Reason, ...] = (NORMAL, SHUTDOWN, KILL, "bad", Crash("ValueError", "bad", "in work"))


class Rules(NamedTuple):
    """What stands beside every kernel; a mutant, for example."""

    network: str = "torn"
    relations: type[Relations] = Relations
    signals: type[Signals] = Signals
    late: tuple[type[frames.Operation], ...] = ()
    """Operations that the others of a step overtake."""


SOUND = Rules()


class Process:
    """A process, and its mailbox."""

    def __init__(self, kin: "Kin", pid: Pid) -> None:
        self.kin, self.pid = kin, pid
        self.mailbox = self

    def put(self, message: object) -> None:
        """It gets a message."""
        self.kin.world.judge.delivered(self.kin.node, self.pid, message)

    put_always = put


class Line:
    """A session with another node, as the data plane needs it."""

    def __init__(self, kin: "Kin", conn: int, name: str, creation: int) -> None:
        self.kin, self.conn, self.name, self.creation = kin, conn, name, creation
        self.calls: dict[int, Waiting] = {}
        self.congested, self.gate, self.waiting = False, Gate(), 0

    @property
    def is_open(self) -> bool:
        """Whether anything posted has a chance to arrive."""
        end = self.kin.node.ends.get(self.conn)
        return end is not None and end.state is State.OPEN

    def post(self, operation: frames.Operation) -> None:
        """Append to the outbox."""
        if self.is_open:
            self.kin.world.say(self.kin.node, self.conn, operation)

    def post_ahead(self, operation: frames.Operation) -> None:
        """Append to the outbox: each step is a turn of its own here."""
        self.post(operation)

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        """Append to the outbox: nothing is large here."""
        self.post(operation)

    def post_fields(
        self, tag: int, fields: tuple[object, ...], sender: int, target: int | None, max_message: int
    ) -> bool:
        """Everything is encoded before."""
        return False

    def post_encoded_from(self, tag: int, operation: bytes, sender: int, target: int | None) -> None:
        """Append to the outbox what was encoded before."""
        raise AssertionError("nobody broadcasts here")


class NoSpawns:
    """Nobody spawns from afar here."""

    def peer_up(self, peer: object) -> None: ...
    def peer_down(self, name: str, reason: str) -> None: ...
    def close(self, error: NodeClosed) -> None: ...


class Kin:
    """What stands beside the kernel of one node. It is also the table of its processes, as the shell needs that."""

    def __init__(self, world: "KinWorld", node: Node) -> None:
        self.world, self.node = world, node
        self.processes: dict[int, Process] = {}
        self.get = self.processes.get
        self.local_names: dict[str, Pid] = {}
        self.lines: dict[int, Line] = {}
        self.late: list[tuple[int, frames.Operation]] = []
        self.stepping = False
        self.actions: deque[Callable[[], None]] = deque()
        creation = node.kernel.creation
        self.relations = world.rules.relations(node.name, creation, node.processes.__contains__)
        processes = cast("Processes", self)
        names = node.kernel.names
        self.signals = world.signals_type(
            self.relations, processes, names.whereis, self.local_names.get, self._afterwards
        )
        self.signals_of_judge()
        self.dataplane = DataPlane(
            node.name,
            creation,
            processes,
            self.signals,
            cast("Spawns", NoSpawns()),
            names.whereis,
            self.local_names.get,
            names.groups,
            Codec(),
            Counter(),
            strict=False,
        )

    def signals_of_judge(self) -> None:
        """Let the judge see each signal."""
        cast("Any", self.signals).watch = lambda change: self.world.judge.signalled(self.node, change)

    def _afterwards(self, action: Callable[[], None]) -> None:
        """As the driver does it."""
        if self.stepping:
            self.actions.append(action)
        else:
            action()

    def pids(self) -> list[Pid]:
        """The living processes."""
        return [process.pid for process in self.processes.values()]

    def spawn(self) -> Pid:
        """A new process."""
        pid = self.node.spawn()
        self.processes[pid.local] = Process(self, pid)
        return pid

    def end(self, local: int, reason: Reason) -> None:
        """A process of the node ends, unless it has."""
        self.kill(local, reason)

    def kill(self, local: int, reason: Reason) -> bool:
        """A process of the node ends."""
        if self.processes.pop(local, None) is None:
            return False
        node, world = self.node, self.world
        pid = Pid(node.name, node.kernel.creation, local)
        node.processes.discard(local)
        for name in [name for name, holder in self.local_names.items() if holder == pid]:
            del self.local_names[name]
        world.judge.died(node, pid, reason)
        world.feed(node, fx.ProcessExited(local))
        self.signals.exited(local, reason)
        return True


def watched_signals(signals_type: type[Signals]) -> type[Signals]:
    """The same signals, with a report of each."""

    def _signal(self: Any, change: core.Signal) -> None:
        outcome = self.watch(change)
        inner(self, change)
        outcome()

    inner = signals_type._CHANGES[core.Signal]
    table = {**signals_type._CHANGES, core.Signal: _signal}
    return type(f"Watched{signals_type.__name__}", (signals_type,), {"_CHANGES": table})


class KinWorld(World):
    """A world in which every node has its processes, and the judge hears what is said of them."""

    judge: KinshipJudge

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self.watch, KinshipJudge), "its judge knows processes"
        self.judge = self.watch
        self.rules = SOUND
        self.signals_type = Signals
        self.kin = self.judge.kin
        self._depth = 0
        self._told_up, self._told_down = self._effects[fx.PeerUp], self._effects[fx.PeerDown]
        self._effects[fx.PeerUp], self._effects[fx.PeerDown] = self._peer_up, self._peer_down

    def play(self, rules: Rules) -> None:
        """Every node that starts from now on has these."""
        self.rules, self.signals_type = rules, watched_signals(rules.signals)

    def start(self, host: Host, creation: int | None = None) -> Node:
        """See `World.start`."""
        node = super().start(host, creation)
        self.kin[node] = Kin(self, node)
        return node

    # --- steps ---

    def feed(self, node: Node, happened: fx.Input) -> None:
        """See `World.feed`. What the data plane does about it comes after all its effects."""
        kin = self.kin[node]
        assert not kin.stepping, "no input is born of an effect"
        self._depth += 1
        kin.stepping = True
        super().feed(node, happened)
        kin.stepping = False
        while kin.actions and not kin.stepping:
            kin.actions.popleft()()
        self._leave(kin)

    def received(self, end: End, operations: Run) -> None:
        """See `World.received`."""
        if type(operations[0]) not in DataPlane.FRAMES:
            super().received(end, operations)
            return
        kin = self.kin[end.node]
        for operation in operations:
            if end.state is not State.OPEN:
                return
            if self.trace:
                self.trace(f"{end.node}: hears {_text(operation)}")
            self._depth += 1
            self.judge.hears(end, operation)
            line = kin.lines.get(end.number)
            if line is not None:
                kin.dataplane.receive(line, [operation])
            self._leave(kin)

    def do(self, node: Node, act: Callable[[Kin], None]) -> None:
        """A process of the node, or whoever starts one, does something."""
        kin = self.kin[node]
        self._depth += 1
        act(kin)
        self._leave(kin)

    def _leave(self, kin: Kin) -> None:
        """What was posted leaves; if this was the whole step, the judge looks at what came of it."""
        if kin.late and self._depth == 1:
            for conn, operation in kin.late:
                kin.node.outbox.setdefault(conn, []).append(operation)
            kin.late.clear()
        if kin.node.outbox:
            self._flush(kin.node)
        self._depth -= 1
        if not self._depth:
            self.judge.step_is_over()

    def say(self, node: Node, conn: int, operation: frames.Operation) -> None:
        """The data plane has posted this."""
        if self.trace:
            other = node.ends[conn].other
            self.trace(f"    {node} says {_text(operation)} to {other.node if other else '?'}")
        if isinstance(operation, self.rules.late):
            self.kin[node].late.append((conn, operation))
        else:
            node.outbox.setdefault(conn, []).append(operation)

    def _flush(self, node: Node) -> None:
        outbox, node.outbox = node.outbox, {}
        for number, operations in outbox.items():
            end = node.ends.get(number)
            if end is not None:
                self._post(end, operations)

    def _post(self, end: End, operations: list[frames.Operation]) -> None:
        self.judge.said(end, [operation for operation in operations if type(operation) in DataPlane.FRAMES])
        super()._post(end, operations)

    # --- what happens to nodes and sessions ---

    def _peer_up(self, node: Node, effect: fx.PeerUp) -> None:
        self._told_up(node, effect)
        kin = self.kin[node]
        line = kin.lines[effect.conn] = Line(kin, effect.conn, effect.peer, effect.creation)
        self.judge.meets(node, effect)
        kin.dataplane.link_up(line)

    def _peer_down(self, node: Node, effect: fx.PeerDown) -> None:
        self._told_down(node, effect)
        kin = self.kin[node]
        kin.lines.pop(effect.conn, None)
        self.judge.loses(node, effect)
        kin.dataplane.link_down(effect.peer, effect.conn, effect.reason)

    def process_exits(self, node: Node, local: int) -> None:
        """See `World.process_exits`."""
        if node.alive:
            self.do(node, lambda kin: kin.end(local, "its name is lost"))

    def shut_down(self, node: Node, leaves: bool = False) -> None:
        """See `World.shut_down`. The processes go first."""

        def close(kin: Kin) -> None:
            kin.dataplane.close(NodeClosed(f"{node.name} is closed"))
            for local in list(kin.processes):
                kin.kill(local, SHUTDOWN)

        self.do(node, close)
        super().shut_down(node, leaves)


def _text(operation: frames.Operation) -> str:
    """An operation for people to read, the same in every run."""
    return f"Sent({bytes(operation.body).hex()})" if isinstance(operation, frames.Sent) else repr(operation)


class Relatives(Schedule):
    """One run of one network. Args as of `Schedule`, with `rules` for `mutant`."""

    judge_type = KinshipJudge
    world_type = KinWorld
    sizes = (2, 3, 3)
    judge: KinshipJudge
    world: KinWorld

    def __init__(
        self, network: str, seed: int, rules: Rules = SOUND, trace: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(f"relatives/{network}", seed, trace=trace)
        self.network = network
        self.judge.partitions = True
        self.world.play(rules)
        self.pids: list[Pid] = []
        """All that were ever started."""
        self.pairs: list[tuple[Pid, Pid]] = []
        self.serial = 0

    def run(self) -> list[str]:
        """Run it. Returns the violations."""
        try:
            self.mesh()
            RELATIVES[self.network](self)
            self.settle()
            self.judge.finish()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.judge.violation(f"raised {error!r} at {where.name}:{where.lineno}")
        return self.judge.violations

    # --- what processes do ---

    def act(self) -> None:
        """Somebody does something."""
        rng, world = self.rng, self.world
        running = [node for node in world.running() if node.wakes <= world.now]
        if not running:
            return
        node = rng.choice(running)
        kin = world.kin[node]
        while len(kin.processes) < 2 or rng.random() < 0.05:
            self._spawn(node)
        own, other = self._pair(node)
        deed = rng.choices(DEEDS, WEIGHTS)[0]
        world.do(node, lambda kin: deed(self, kin, own, other))

    def _spawn(self, node: Node) -> None:
        kin = self.world.kin[node]
        pid = kin.spawn()
        self.pids.append(pid)
        self.judge.born(node, pid)
        if self.rng.random() < 0.6:
            self._trap(kin, pid, pid)

    def _pair(self, node: Node) -> tuple[Pid, Pid]:
        """A process of the node and another, often one that it knows already."""
        rng, kin = self.rng, self.world.kin[node]
        if rng.random() < 0.7:
            own = [pair for pair in self.pairs if self._lives(pair[0], kin)]
            if own:
                return rng.choice(own)
        pid = kin.processes[rng.choice(list(kin.processes))].pid
        other = (
            self._gone() if rng.random() < 0.1 else rng.choice([pid for pid in self.pids if pid in self.judge.living])
        )
        if len(self.pairs) > 4:
            del self.pairs[:2]
        self.pairs += [(pid, other), (other, pid)]
        return pid, other

    def _gone(self) -> Pid:
        """A process of an earlier start of its node, if there is one; else any, alive or dead."""
        starts = {host.name: host.creation for host in self.hosts}
        earlier = [pid for pid in self.pids if pid.creation < starts[pid.node]]
        return self.rng.choice(earlier if earlier and self.rng.random() < 0.7 else self.pids)

    def _lives(self, pid: Pid, kin: Kin) -> bool:
        return pid.node == kin.node.name and pid in self.judge.living

    def _link(self, kin: Kin, own: Pid, other: Pid) -> None:
        self.judge.links(kin.node, own, other)
        kin.signals.link(own.local, other)

    def _unlink(self, kin: Kin, own: Pid, other: Pid) -> None:
        self.judge.unlinks(kin.node, own, other)
        kin.signals.unlink(own.local, other)

    def _both_waver(self, kin: Kin, own: Pid, other: Pid) -> None:
        """Both ends at almost the same time."""
        self._waver(kin, own, other)
        self._soon(other, own, self._waver)

    def _soon(self, own: Pid, other: Pid, deed: "Callable[[Kin, Pid, Pid], None]") -> None:
        """Before it can have heard of what has been done, perhaps."""
        there = self.world.hosts[own.node.partition("@")[0]].node

        def act(node: Node) -> None:
            if own in self.judge.living:
                self.world.do(node, lambda kin: deed(kin, own, other))

        self.world.at(self.world.now + 0.02 * self.rng.random(), there, act, there)

    def _waver(self, kin: Kin, own: Pid, other: Pid) -> None:
        """Links and unlinks in one breath."""
        for _ in range(self.rng.randint(2, 4)):
            if own in self.judge.living:
                self.rng.choice((self._link, self._unlink))(kin, own, other)

    def _monitor(self, kin: Kin, own: Pid, other: Pid) -> None:
        target: Pid | Name = other
        roll = self.rng.random()
        if roll < 0.2:
            target = self.rng.choice(self.names)
        elif roll < 0.4:
            target = self.rng.choice(LOCAL_NAMES), other.node
        ref = kin.signals.monitor(own.local, target)
        self.judge.monitors(kin.node, own, target, ref)

    def _demonitor(self, kin: Kin, own: Pid, _: Pid) -> None:
        refs = self.judge.refs(own)
        if refs:
            ref = self.rng.choice(refs)
            kin.signals.demonitor(own.local, Ref(ref))
            self.judge.demonitors(kin.node, own, ref)

    def _send(self, kin: Kin, own: Pid, other: Pid) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self.serial += 1
            self.judge.sends(kin.node, own, other, self.serial)
            kin.dataplane.send(other, self.serial, own.local)

    def _exit(self, kin: Kin, own: Pid, other: Pid) -> None:
        reason = self.rng.choice(REASONS)
        if self.rng.random() < 0.3:
            other = self._gone()
        sender = OUTSIDE if self.rng.random() < 0.1 else own.local
        self.judge.exits(kin.node, sender, other, reason)
        kin.signals.exit(sender, other, reason)

    def _die(self, kin: Kin, own: Pid, other: Pid) -> None:
        """Often with last words."""
        if self.rng.random() < 0.3:
            self._send(kin, own, other)
        if self.rng.random() < 0.3:
            self._unlink(kin, own, other)
            self._soon(other, own, self._unlink)
        kin.kill(own.local, self.rng.choice(REASONS))

    def _trap(self, kin: Kin, own: Pid, _: Pid) -> None:
        on = not self.judge.traps(own)
        self.judge.sets_trap(own, on)
        kin.relations.trap(own.local, on)

    def _watch_node(self, kin: Kin, own: Pid, other: Pid) -> None:
        node = None if self.rng.random() < 0.3 or other.node == own.node else other.node
        if self.rng.random() < 0.7:
            self.judge.watches_node(kin.node, own, node)
            kin.signals.watch_node(own.local, node)
        else:
            self.judge.unwatches_node(own, node)
            kin.signals.unwatch_node(own.local, node)

    def _take_name(self, kin: Kin, own: Pid, _: Pid) -> None:
        """A name of the cluster, or of this node."""
        if self.rng.random() < 0.5:
            kin.local_names[self.rng.choice(LOCAL_NAMES)] = own
        else:
            node, name = kin.node, self.rng.choice(self.names)
            self.world.at(self.world.now, node, lambda _: self._register(node, name, own))

    def _register(self, node: Node, name: str, own: Pid) -> None:
        if own in self.judge.living:
            self.judge.register(node, name, own, wait=False, timeout=DOWN_AFTER, on_lost="message")

    # --- the networks ---

    def quiet(self) -> None:
        if self.rng.random() < 0.5:
            self.slow_link(0.3)
        self.spread(self.rng.randint(20, 60), 0.02, self.act)
        self.heal()

    def torn(self) -> None:
        rng = self.rng
        self.judge.steady = False
        self.slow_link(0.5)
        brisk = rng.random() < 0.7
        longest = 1.0 if brisk else 2 * DOWN_AFTER
        kinds: list[Callable[[float], None]] = [lambda _: self.cut()] * 5 + [self.part, self.split, self.restart]
        if not brisk:
            kinds += [self.pause]

        def act() -> None:
            if rng.random() < 0.92:
                self.act()
            else:
                rng.choice(kinds)(longest)

        self.spread(rng.randint(30, 80), 0.03, act)
        self.world.run(self.world.now + rng.random())
        self.heal()


Deed = Callable[[Relatives, Kin, Pid, Pid], None]
_DEEDS: tuple[tuple[Deed, int], ...] = (
    (Relatives._link, 22),
    (Relatives._unlink, 16),
    (Relatives._both_waver, 12),
    (Relatives._monitor, 14),
    (Relatives._demonitor, 7),
    (Relatives._send, 12),
    (Relatives._exit, 6),
    (Relatives._die, 6),
    (Relatives._trap, 4),
    (Relatives._watch_node, 4),
    (Relatives._take_name, 4),
)
DEEDS = [deed for deed, _ in _DEEDS]
WEIGHTS = [weight for _, weight in _DEEDS]

RELATIVES: dict[str, Callable[[Relatives], None]] = {"quiet": Relatives.quiet, "torn": Relatives.torn}


if __name__ == "__main__":
    sys.exit(run_by_hand("tests.simulation.relatives", RELATIVES, lambda *of: Relatives(of[0], of[1], trace=of[2])))
