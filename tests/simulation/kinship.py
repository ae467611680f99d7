"""What processes may expect of links, monitors, exit signals and messages, checked at every step and when all is quiet.

The judge keeps its own account. A link has two ends, each active or not, and what crosses on the way is settled by
counting: a LINK counts unless its target has taken the link back, not made it anew, and the sender had not seen that
UNLINK when it said the LINK. A monitor is open until it has fired, was taken back, or its watcher has died. From what
processes do and from what arrives, the judge knows which signals and messages a step has to cause, and there must be
no others.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kinfolk import effects as fx
from kinfolk.core import relations as core
from kinfolk.core.relations import OUTSIDE, Name
from kinfolk.ids import Pid
from kinfolk.messages import Down, Exit, PeerDown, PeerUp
from kinfolk.reasons import KILL, KILLED, NOCONNECTION, NOPROC, NORMAL, Reason, heard
from kinfolk.wire import frames
from tests.simulation.judge import Judge
from tests.simulation.world import End, Node, State

if TYPE_CHECKING:
    from tests.simulation.relatives import Kin

Pair = tuple[int, int]
"""Own and other local id."""


class Half:
    """A session as one of its nodes sees it."""

    def __init__(self, node: Node, end: End, peer: str, creation: int) -> None:
        self.node, self.end, self.peer, self.creation = node, end, peer, creation
        self.unlinks = Counter[Pair]()
        """How often our process has said UNLINK to the peer's."""
        self.bars = dict[Pair, int]()
        """The last of them, unless our process has linked itself anew: the peer's must have seen it to link itself."""
        self.unlinks_seen = Counter[Pair]()
        """How often the peer's process has said UNLINK to ours."""
        self.sent = Counter[Pair]()
        self.got = Counter[Pair]()
        """Messages of our process for the peer's, and those that came from there."""
        self.exits = defaultdict[Pair, deque[int]](deque)
        """For each `exit` of our process, or of the node, how many messages its sender had sent before."""


class Monitor:
    """A monitor, from the outside."""

    def __init__(self, node: Node, own: Pid, ref: int, target: Pid | None, name: Name | None) -> None:
        self.node, self.own, self.ref, self.target, self.name = node, own, ref, target, name
        self.half: Half | None = None
        """The session over which it watches, if its target is of another node."""
        self.accepted: Pid | None = None
        """Whom it watches, once it has come there."""
        self.open = True


class KinshipJudge(Judge):
    """Watches processes, besides names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kin: dict[Node, Kin] = {}
        """What stands beside each kernel."""
        self.living: set[Pid] = set()
        self.counts = Counter[str]()
        """What has come up, so that nobody believes in what never happens."""
        self._deaths: dict[Pid, Reason] = {}
        self._leaves_in_slices: set[Pid] = set()
        """The dead that had so many names that other nodes see them go one slice after the other."""
        self._links = defaultdict[Pid, dict[Pid, None]](dict)
        """The active ends."""
        self._traps: set[Pid] = set()
        self._nodes = defaultdict[Pid, dict[str | None, None]](dict)
        self._monitors: dict[tuple[str, int, int], Monitor] = {}
        self._watching = defaultdict[Pid, dict[int, Monitor]](dict)
        """The open monitors of each process."""
        self._watchers = defaultdict[Pid, dict[Monitor, None]](dict)
        """Who watches each process, as its node knows."""
        self._halves: dict[tuple[Node, str], Half] = {}
        self._half_of: dict[End, Half] = {}
        self._ways = defaultdict[End, deque[tuple[frames.Operation, int]]](deque)
        """What is under way to each end, and what was seen of unlinks when it was said."""
        self._messages: dict[int, tuple[Pid, Pid]] = {}
        self._last: dict[tuple[Pid, Pid], int] = {}
        self._told_dead: set[tuple[Pid, Pid]] = set()
        """Who has been told of whose death."""
        self._expected: list[tuple[Any, ...]] = []
        self._observed: list[tuple[Any, ...]] = []
        self._ends_with: dict[str, list[tuple[Any, ...]]] = {}
        """What ends with each session that was lost in this step."""
        self._touched: dict[Pid, None] = {}
        self._signalled: Pid | None = None
        self._outcome: tuple[Any, ...] | None = None

    # --- what processes do ---

    def born(self, node: Node, pid: Pid) -> None:
        """A process has started."""
        self.living.add(pid)

    def died(self, node: Node, pid: Pid, reason: Reason) -> None:
        """A process has ended; who hears of it on its own node hears of it in this step."""
        self.living.discard(pid)
        self._deaths[pid] = reason
        names = node.kernel.names
        if len(names._by_process.get(pid.local, ())) > names.step:
            self._leaves_in_slices.add(pid)
        if pid == self._signalled:
            self._outcome = ("death", reason)
        for other in self._links.pop(pid, {}):
            if other.node == pid.node:
                self._links[other].pop(pid)
                self._touched[other] = None
                self._expected.append(("signal", other, pid, reason, True))
        for monitor in self._watching.pop(pid, {}).values():
            monitor.open = False
            if monitor.half is None and monitor.target is not None:
                self._watchers[monitor.target].pop(monitor, None)
        for monitor in self._watchers.pop(pid, {}):
            if monitor.half is None:
                self._fires(monitor, pid, reason)
        self._traps.discard(pid)
        self._nodes.pop(pid, None)

    def links(self, node: Node, own: Pid, other: Pid) -> None:
        """A process links itself."""
        if own == other:
            return
        missing = self._missing(node, other)
        self._touched[own] = None
        if missing is not None:
            self._expected.append(("signal", own, other, missing, True))
            return
        self._links[own][other] = None
        if other.node == own.node:
            self._links[other][own] = None
        else:
            self._halves[node, other.node].bars.pop((own.local, other.local), None)

    def unlinks(self, node: Node, own: Pid, other: Pid) -> None:
        """A process takes its link back."""
        self._touched[own] = None
        if self._links[own].pop(other, self) is self:
            return
        if other.node == own.node:
            del self._links[other][own]
        else:
            half, pair = self._halves[node, other.node], (own.local, other.local)
            half.unlinks[pair] += 1
            half.bars[pair] = half.unlinks[pair]

    def monitors(self, node: Node, own: Pid, target: Pid | Name, ref: int) -> None:
        """A process has set a monitor."""
        pid, name = (target, None) if isinstance(target, Pid) else (None, target)
        missing: Reason | None
        if isinstance(name, str):
            pid = node.kernel.names.whereis(name)
        elif name is not None and name[1] == node.name:
            pid = self.kin[node].local_names.get(name[0])
        monitor = Monitor(node, own, ref, pid, name)
        there = pid.node if pid is not None else name[1] if isinstance(name, tuple) else node.name
        if pid is not None:
            missing = self._missing(node, pid)
        elif there == node.name:
            missing = NOPROC
        else:
            missing = None if (node, there) in self._halves else NOCONNECTION
        if missing is not None:
            self._fires(monitor, pid, missing)
        elif pid != own:
            if there != node.name:
                monitor.half = self._halves[node, there]
            else:
                assert pid is not None, "the name is known here"
                self._watchers[pid][monitor] = None
            self._watching[own][ref] = self._monitors[node.name, own.creation, ref] = monitor

    def refs(self, own: Pid) -> list[int]:
        """The open monitors of a process."""
        return list(self._watching[own])

    def demonitors(self, node: Node, own: Pid, ref: int) -> None:
        """A process takes a monitor back."""
        monitor = self._watching[own].pop(ref)
        monitor.open = False
        if monitor.half is None and monitor.target is not None:
            del self._watchers[monitor.target][monitor]

    def exits(self, node: Node, sender: int, other: Pid, reason: Reason) -> None:
        """Somebody sends an exit signal."""
        if other.node == node.name:
            if other.creation == node.kernel.creation:
                self._expected.append(("signal", other, Pid(node.name, other.creation, sender), reason, False))
            return
        half = self._halves.get((node, other.node))
        if half is not None and half.creation == other.creation:
            pair = sender, other.local
            half.exits[pair].append(half.sent[pair])

    def sends(self, node: Node, own: Pid, other: Pid, serial: int) -> None:
        """A process sends a message."""
        self._messages[serial] = own, other
        if other.node == node.name:
            if other in self.living:
                self._expected.append(("message", other, serial))
            return
        half = self._halves.get((node, other.node))
        if half is not None and half.creation == other.creation:
            half.sent[own.local, other.local] += 1

    def traps(self, own: Pid) -> bool:
        """Whether a process traps exits."""
        return own in self._traps

    def sets_trap(self, own: Pid, on: bool) -> None:
        """A process traps exits from now on, or no longer."""
        (self._traps.add if on else self._traps.discard)(own)

    def watches_node(self, node: Node, own: Pid, watched: str | None) -> None:
        """A process wants to know how a node is, or all."""
        if watched in self._nodes[own]:
            return
        self._nodes[own][watched] = None
        up = [half.peer for half in self._halves.values() if half.node is node]
        if watched is None:
            self._expected += [("node", own, peer, None) for peer in up]
        else:
            self._expected.append(("node", own, watched, None if watched in up else NOCONNECTION))

    def unwatches_node(self, own: Pid, watched: str | None) -> None:
        """A process does not want to know it any longer."""
        self._nodes[own].pop(watched, None)

    # --- what nodes say ---

    def meets(self, node: Node, effect: fx.PeerUp) -> None:
        """A session has opened at one end."""
        end = node.ends[effect.conn]
        self._halves[node, effect.peer] = self._half_of[end] = Half(node, end, effect.peer, effect.creation)
        for own in self._watchers_of(node, effect.peer):
            self._expected.append(("node", own, effect.peer, None))

    def loses(self, node: Node, effect: fx.PeerDown) -> None:
        """A session is over at one end: whatever went over it ends there."""
        half = self._halves.pop((node, effect.peer))
        before = len(self._expected)
        for own in sorted(self._of(node)):
            for other in [other for other in self._links[own] if other.node == half.peer]:
                del self._links[own][other]
                self._touched[own] = None
                self._expected.append(("signal", own, other, NOCONNECTION, True))
                self.counts["links lost"] += 1
            for monitor in [monitor for monitor in self._watching[own].values() if monitor.half is half]:
                self._fires(monitor, monitor.target, NOCONNECTION)
            for monitor in [monitor for monitor in self._watchers[own] if monitor.node.name == half.peer]:
                del self._watchers[own][monitor]
        self._ends_with[effect.peer] = self._expected[before:]
        for own in self._watchers_of(node, effect.peer):
            self._expected.append(("node", own, effect.peer, effect.reason))

    def stopped(self, node: Node, crashed: bool) -> None:
        """A node has died or closed, and its processes with it."""
        super().stopped(node, crashed)
        for pid in self._of(node):
            self.living.discard(pid)
        for key in [key for key in self._halves if key[0] is node]:
            del self._halves[key]

    def said(self, end: End, operations: list[frames.Operation]) -> None:
        """The data plane of a node says this; it arrives in this order, up to where the connection breaks."""
        other = end.other
        if other is None or other.state is State.CLOSED:
            return
        half = self._half_of[end] if operations else None
        for operation in operations:
            seen = 0
            if isinstance(operation, frames.LinkMade):
                assert half is not None, "it is said in a session"
                seen = half.unlinks_seen[operation.sender, operation.target]
            self._ways[other].append((operation, seen))

    def hears(self, end: End, operation: frames.Operation) -> None:
        """The data plane of a node is about to hear this."""
        node = end.node
        said, seen = self._ways[end].popleft()
        if said != operation:
            self.violation(f"{node} hears {operation} instead of {said}")
        half = self._half_of.get(end)
        if half is None or self._halves.get((node, half.peer)) is not half:
            self.violation(f"{node} hears {operation} outside of the session")
            return
        match operation:
            case frames.LinkMade(target=own, sender=other):
                if seen < half.bars.get((own, other), 0):
                    self.counts["links that crossed an unlink"] += 1
                elif self._pid(node, own) in self.living:
                    self._links[self._pid(node, own)][self._there(half, other)] = None
                self._touched[self._pid(node, own)] = None
            case frames.LinkUndone(target=own, sender=other):
                half.unlinks_seen[own, other] += 1
                self._links[self._pid(node, own)].pop(self._there(half, other), None)
                self._touched[self._pid(node, own)] = None
            case frames.ExitSignal(target=own, sender=other, linked=True):
                self._hears_end(half, self._pid(node, own), self._there(half, other or OUTSIDE), operation)
            case frames.ExitSignal(target=own, sender=other):
                reason = heard(operation.reason, operation.detail)
                sender = self._there(half, other or OUTSIDE)
                self._expected.append(("signal", self._pid(node, own), sender, reason, False))
                exits = self._other_half(half).exits[sender.local, own]
                if not exits:
                    self.violation(f"{self._pid(node, own)} gets a signal of {sender} that was not for it")
                    return
                before = exits.popleft()
                if self._pid(node, own) in self.living and half.got[sender.local, own] < before:
                    self.violation(f"a signal of {sender} overtakes a message to {self._pid(node, own)}")
            case frames.MonitorMade(reference=ref, target=target):
                self._hears_monitor(half, ref, target)
            case frames.MonitorUndone(reference=ref):
                monitor = self._monitors.get((half.peer, half.creation, ref))
                if monitor is not None and monitor.accepted is not None:
                    self._watchers[monitor.accepted].pop(monitor, None)
            case frames.MonitorFired():
                self._hears_fired(half, operation)
            case _:
                pass

    def _hears_end(self, half: Half, own: Pid, other: Pid, operation: frames.ExitSignal) -> None:
        reason = heard(operation.reason, operation.detail)
        if other in self.living:
            self.violation(f"{own} hears that {other} has ended, which lives")
        elif self._links[own].pop(other, self) is self:
            self.counts["exits of the unlinked"] += 1
        else:
            self._touched[own] = None
            self._expected.append(("signal", own, other, reason, True))
            if reason not in (NOPROC, self._deaths.get(other)):
                self.violation(f"{own} hears that {other} has ended with {reason}, not with {self._deaths.get(other)}")
            self._check_last_words(half, own, other)

    def _hears_monitor(self, half: Half, ref: int, target: int | str) -> None:
        monitor, node = self._monitors.get((half.peer, half.creation, ref)), half.node
        if monitor is None:
            self.violation(f"{half.peer} watches {target} of {node}, for whom it should not have asked")
            return
        if isinstance(target, str):
            pid = self.kin[node].local_names.get(target)
        else:
            pid = self._pid(node, target)
        if pid is not None and pid in self.living:
            monitor.accepted = pid
            self._watchers[pid][monitor] = None

    def _hears_fired(self, half: Half, operation: frames.MonitorFired) -> None:
        monitor = self._monitors.get((half.node.name, half.node.kernel.creation, operation.reference))
        if monitor is None:
            self.violation(f"{half.node} hears {operation} of {half.peer}, for which it should not have asked")
            return
        reason = heard(operation.reason, operation.detail)
        pid = monitor.target
        if pid is None and operation.process is not None:
            pid = self._there(half, operation.process)
        if monitor.accepted is not None:
            if (pid, reason) != (monitor.accepted, self._deaths.get(monitor.accepted)):
                self.violation(f"the monitor of {monitor.own} says {pid} {reason}, but watched {monitor.accepted}")
        elif reason != NOPROC:
            self.violation(f"{monitor.own} watched nobody, and hears of {pid} {reason}")
        if monitor.open:
            self._fires(monitor, pid, reason)
            if pid is not None:
                self._check_last_words(half, monitor.own, pid)
        else:
            self.counts["answers to monitors taken back"] += 1

    def _check_last_words(self, half: Half, own: Pid, other: Pid) -> None:
        """Whatever the dead has sent in this session has come."""
        sent = self._other_half(half).sent[other.local, own.local]
        if half.got[other.local, own.local] != sent:
            self.violation(f"the end of {other} overtakes a message to {own}")

    def _fires(self, monitor: Monitor, pid: Pid | None, reason: Reason) -> None:
        monitor.open = False
        self._watching[monitor.own].pop(monitor.ref, None)
        self._expected.append(("down", monitor.own, monitor.ref, pid, reason, monitor.name))
        self.counts["monitors fired"] += 1

    # --- what comes of it ---

    def signalled(self, node: Node, change: core.Signal) -> Callable[[], None]:
        """A signal is about to do something to a process. Returns what is to be called afterwards."""
        pid = self._pid(node, change.own)
        self._observed.append(("signal", pid, change.sender, change.reason, change.linked))
        if change.linked:
            self._check_names(node, change.sender, change.reason)
            if change.reason != NOCONNECTION:
                self._told_dead.add((pid, change.sender))
        expected: tuple[Any, ...] | None = None
        if pid not in self.living:
            pass
        elif change.reason == KILL and not change.linked:
            expected = "death", KILLED
        elif pid in self._traps:
            expected = "message", change.sender, change.reason
        elif change.reason != NORMAL or change.sender == pid:
            expected = "death", change.reason
        self._signalled, self._outcome = pid, None

        def check() -> None:
            if self._outcome != expected:
                self.violation(f"{pid} gets {change}: {self._outcome} instead of {expected}")
            self._signalled = None

        return check

    def delivered(self, node: Node, pid: Pid, message: object) -> None:
        """Something is put into the mailbox of a living process."""
        match message:
            case int():
                self._message(node, pid, message)
            case Exit():
                if self._signalled != pid or self._outcome is not None:
                    self.violation(f"{pid} gets {message} without a signal")
                self._outcome = "message", message.pid, message.reason
            case Down():
                self._observed.append(("down", pid, message.ref, message.pid, message.reason, message.name))
                if message.pid is not None:
                    self._check_names(node, message.pid, message.reason)
                    if message.reason != NOCONNECTION:
                        self._told_dead.add((pid, message.pid))
            case PeerUp():
                self._observed.append(("node", pid, message.node, None))
            case PeerDown():
                self._observed.append(("node", pid, message.node, message.reason))
                for entry in self._ends_with.get(message.node, ()):
                    if entry[1] == pid and entry not in self._observed:
                        self.violation(f"{pid} hears that {message.node} is gone before it hears {entry}")
            case _:
                pass  # a loss of a name

    def _message(self, node: Node, pid: Pid, serial: int) -> None:
        sender, target = self._messages[serial]
        if pid != target:
            self.violation(f"{pid} gets the message {serial} for {target}")
        if self._last.get((sender, pid), 0) >= serial:
            self.violation(f"{pid} gets the message {serial} of {sender} out of order or twice")
        self._last[sender, pid] = serial
        if (pid, sender) in self._told_dead:
            self.violation(f"{pid} gets a message of {sender} after it was told of its end")
        if sender.node == node.name:
            self._observed.append(("message", pid, serial))
        else:
            self._halves[node, sender.node].got[sender.local, pid.local] += 1
            self.counts["messages between nodes"] += 1

    def _check_names(self, node: Node, dead: Pid, reason: Reason) -> None:
        """The names of the dead are free before anybody hears of the end."""
        names = node.kernel.names
        if reason == NOCONNECTION or (dead in self._leaves_in_slices and dead.node != node.name):
            return
        if any(names.whereis(name) == dead for name in names.view):
            self.violation(f"{node} tells of the end of {dead}, which still has a name there")

    def step_is_over(self) -> None:
        """Everything that a step was to cause has been caused, and nothing else."""
        if self._expected or self._observed:
            # A process that has died meanwhile gets no messages.
            missing, extra = Counter(self._expected), Counter(self._observed)
            missing, extra = missing - extra, extra - missing
            missing = Counter(entry for entry in missing if entry[0] == "signal" or entry[1] in self.living)
            if missing:
                self.violation(f"did not happen: {list(missing)}")
            if extra:
                self.violation(f"was not to happen: {list(extra)}")
            self._expected.clear()
            self._observed.clear()
            self._ends_with.clear()
        if self._touched:
            for pid in self._touched:
                if pid in self.living:
                    self._check_links(pid)
            self._touched.clear()

    def _check_links(self, pid: Pid) -> None:
        node = next(node for node in self.kin if node.name == pid.node and node.alive)
        found = set(self.kin[node].relations.links(pid.local))
        if found != self._links[pid].keys():
            self.violation(f"{pid} is linked to {found} instead of {set(self._links[pid])}")

    # --- the end ---

    def unsettled(self) -> str | None:
        """See `Judge.unsettled`."""
        waiting = super().unsettled()
        if waiting is None:
            for end, way in self._ways.items():
                if way and end.state is not State.CLOSED and end.node.alive:
                    return f"{way[0][0]} is under way to {end.node}"
        return waiting

    def finish(self) -> None:
        """See `Judge.finish`."""
        super().finish()
        for pid in sorted(self.living):
            self._check_quiet(pid)
        for node in self.world.running():
            self._check_table(node)

    def _check_quiet(self, pid: Pid) -> None:
        self._check_links(pid)
        for other in self._links[pid]:
            self.counts["links at the end"] += 1
            if other not in self.living:
                self.violation(f"{pid} was never told of the end of {other}, to which it is linked")
            elif pid not in self._links[other]:
                self.violation(f"{pid} is linked to {other}, which is not linked to it")
        for monitor in self._watching[pid].values():
            watched = monitor.target if monitor.half is None else monitor.accepted
            if watched not in self.living:
                self.violation(f"{pid} was never told of the end of {watched or monitor.name}, which it watches")
        for monitor in self._watchers[pid]:
            if not monitor.open:
                self.violation(f"{monitor.own} watches {pid} no longer, which its node does not know")

    def _check_table(self, node: Node) -> None:
        """No entry is left of the dead, or of what is over."""
        relations = self.kin[node].relations
        living = self._of(node)
        for pid in living:
            account = [*self._links[pid], *self._watching[pid], *self._watchers[pid], *self._nodes[pid]]
            size = len(account) + (pid in self._traps)
            record = relations._own.get(pid.local)
            found = 0 if record is None else len(record)
            if found != size or (record is not None and not size):
                self.violation(f"the table has {record} for {pid}, which has {size} entries: {account}")
        dead = relations._own.keys() - {pid.local for pid in living}
        if dead:
            self.violation(f"the table of {node} has entries for {sorted(dead)}, which are dead")
        halves = {peer: half for (at, peer), half in self._halves.items() if at is node}
        if relations._peers.keys() != halves.keys():
            self.violation(f"the table of {node} has {sorted(relations._peers)}, its sessions are {sorted(halves)}")
            return
        for peer, half in halves.items():
            record_of = relations._peers[peer]
            found_sizes = len(record_of.links), len(record_of.watching), len(record_of.watchers)
            sizes = (
                sum(other.node == peer for pid in living for other in self._links[pid]),
                sum(monitor.half is half for pid in living for monitor in self._watching[pid].values()),
                sum(monitor.node.name == peer for pid in living for monitor in self._watchers[pid]),
            )
            if found_sizes != sizes:
                self.violation(f"the table of {node} has {found_sizes} entries about {peer} instead of {sizes}")

    # --- small things ---

    def _missing(self, node: Node, pid: Pid) -> Reason | None:
        """Why a process cannot be linked to or watched from this node."""
        if pid.node == node.name:
            return None if pid in self.living else NOPROC
        half = self._halves.get((node, pid.node))
        if half is None or half.creation < pid.creation:
            return NOCONNECTION
        return NOPROC if half.creation > pid.creation else None

    def _pid(self, node: Node, local: int) -> Pid:
        return Pid(node.name, node.kernel.creation, local)

    def _there(self, half: Half, local: int) -> Pid:
        return Pid(half.peer, half.creation, local)

    def _other_half(self, half: Half) -> Half:
        assert half.end.other is not None, "a session has two ends"
        return self._half_of[half.end.other]

    def _of(self, node: Node) -> list[Pid]:
        """The living processes of a node."""
        return [pid for pid in self.kin[node].pids() if pid in self.living]

    def _watchers_of(self, node: Node, peer: str) -> list[Pid]:
        return [pid for pid in self._of(node) if peer in self._nodes[pid] or None in self._nodes[pid]]
