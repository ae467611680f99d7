"""Links and monitors: who of this node's processes is to hear of whose end.

Each method takes one event in and returns the changes it caused, in order; the caller carries them out before the next
event of the same node. Local and remote processes share one table. It is indexed by own process and by peer, so that an
exit and a lost node cost what concerns them, and a process without relations costs nothing.

**Links.** One end's view of a link to a process of another node:

| state     | event                      | new state | what is said or done                                   |
| --------- | -------------------------- | --------- | ------------------------------------------------------ |
| none      | link()                     | active    | LINK; or a signal: noproc, noconnection                |
| none      | LINK                       | active    | EXIT noproc instead, if our process is dead            |
| active    | link(), LINK               | active    |                                                        |
| active    | unlink()                   | unlinking | UNLINK with a new number                               |
| active    | UNLINK                     | none      | UNLINK_ACK with the same number                        |
| active    | EXIT, session lost         | none      | a signal with its reason, or noconnection              |
| active    | our process exits          | none      | EXIT                                                   |
| unlinking | UNLINK_ACK, same number    | none      |                                                        |
| unlinking | UNLINK_ACK, another number | unlinking | it is for an unlink before the last link()             |
| unlinking | link()                     | active    | LINK                                                   |
| unlinking | LINK                       | unlinking | said before our UNLINK came there, which ends it       |
| unlinking | UNLINK                     | unlinking | UNLINK_ACK with the same number                        |
| unlinking | EXIT, session lost         | none      | nothing: this is what unlink() promises                |
| unlinking | our process exits          | none      |                                                        |
| none      | UNLINK                     | none      | UNLINK_ACK with the same number                        |
| none      | unlink(), UNLINK_ACK, EXIT | none      |                                                        |

Whatever crosses on the way, both ends agree once all has arrived: a LINK counts at the other end unless an UNLINK is
under way to it, and then that UNLINK, which comes later than whatever the LINK met, removes the link there as well.

**Monitors** have one state, at both ends: there, until the target exits, the watcher exits or demonitors, or the
session is lost. The watcher's end removes it in the step that reports it, so it fires at most once; a monitor of what
is not there fires at once.

Source: links and exit signals as in Erlang; the numbered unlink is that of OTP 23 (erl_dist_protocol, "Link Protocol").
"""

from collections.abc import Callable
from enum import Enum

from msgspec import Struct, field

from kinfolk.ids import Pid
from kinfolk.reasons import KILL, KILLED, NOCONNECTION, NOPROC, NORMAL, Reason

OUTSIDE = 0
"""The local id of the node itself: it watches for whoever is no process, and sends what no process has sent."""

Name = str | tuple[str, str]
"""What a monitor was set on, if that was no pid: a name of the cluster, or (name, node)."""

# --- changes: what an event caused ---


class Signal(Struct, frozen=True):
    """An exit signal for a process of this node; `fate` says what comes of it."""

    own: int
    sender: Pid
    reason: Reason
    linked: bool
    """Whether it comes over a link; else somebody has called `exit`."""


class Fired(Struct, frozen=True):
    """A monitor of a process of this node, or of the node itself (OUTSIDE), has come to its end."""

    own: int
    ref: int
    pid: Pid | None
    name: Name | None
    reason: Reason


class NodeSeen(Struct, frozen=True):
    """A process that watches the node is to be told that it is connected, or (with a reason) that it is not."""

    own: int
    node: str
    lost: str | None = None


class StallSeen(Struct, frozen=True):
    """A process that watches the node's stalls is to be told that its loop stands still, or that it turns again."""

    own: int
    node: str
    seconds: float
    over: bool = False


class Linked(Struct, frozen=True):
    """Tell the peer that our process is linked to its."""

    peer: str
    own: int
    other: int


class Unlinked(Struct, frozen=True):
    """Tell the peer that our process takes back its link, and wants to know when that is known there."""

    peer: str
    own: int
    other: int
    number: int


class UnlinkSeen(Struct, frozen=True):
    """Tell the peer that what it takes back is known here."""

    peer: str
    own: int
    other: int
    number: int


class Exited(Struct, frozen=True):
    """Tell the peer's process, which is linked to ours, that ours has ended."""

    peer: str
    own: int
    other: int
    reason: Reason


class Watched(Struct, frozen=True):
    """Tell the peer that we watch a process of it, by its local id or by a name that it knows."""

    peer: str
    ref: int
    target: int | str


class Unwatched(Struct, frozen=True):
    """Tell the peer that we do not watch any longer."""

    peer: str
    ref: int


class Ended(Struct, frozen=True):
    """Tell the peer that a process it watches has ended; `own` is None if no process had the name."""

    peer: str
    ref: int
    own: int | None
    reason: Reason


Change = Signal | Fired | NodeSeen | StallSeen | Linked | Unlinked | UnlinkSeen | Exited | Watched | Unwatched | Ended


class Fate(Enum):
    """What an exit signal does to the process that gets it."""

    IGNORED = "ignored"
    MESSAGE = "message"
    """It arrives in the mailbox: the process traps exits."""
    DEATH = "death"


_ACTIVE = 0  # the state of a link; any other number is that of the unlink whose acknowledgement is awaited


class _Watch(Struct, frozen=True):
    """A monitor, at the watcher's end."""

    node: str
    pid: Pid | None
    name: Name | None


class _Own(Struct):
    """What one process of this node has to do with others."""

    links: dict[Pid, int] = field(default_factory=dict[Pid, int])
    watching: dict[int, _Watch] = field(default_factory=dict[int, _Watch])
    watchers: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    """Who watches it, by the watcher's node and reference; the watcher's local id if it is of this node."""
    nodes: dict[str | None, None] = field(default_factory=dict[str | None, None])
    traps: bool = False

    def __len__(self) -> int:
        return len(self.links) + len(self.watching) + len(self.watchers) + len(self.nodes) + self.traps


class _Peer(Struct):
    """What is under way with one connected node."""

    creation: int
    links: dict[tuple[int, int], None] = field(default_factory=dict[tuple[int, int], None])
    """Own and other local id of each link, those that are being taken back included."""
    watching: dict[int, int] = field(default_factory=dict[int, int])
    """Our monitors of its processes: reference and own watcher."""
    watchers: dict[int, int] = field(default_factory=dict[int, int])
    """Its monitors of our processes: its reference and own target."""
    stalled: float | None = None
    """For how long its loop had stood still when that was noticed, while it does."""


class Relations:
    """The links and monitors of one node's processes.

    Args:
        name, creation: of the node.
        is_alive: whether a process of this node, by its local id, is alive.
    """

    def __init__(self, name: str, creation: int, is_alive: Callable[[int], bool]) -> None:
        self.name, self.creation = name, creation
        self._is_alive = is_alive
        self._own: dict[int, _Own] = {}
        self._peers: dict[str, _Peer] = {}
        self._node_watchers: dict[str | None, dict[int, bool]] = {}
        self._numbers = 0

    def __len__(self) -> int:
        """Entries of own processes in all: links, monitors at either end, watched nodes, trapping processes."""
        return sum(map(len, self._own.values()))

    def between(self, node: str) -> int:
        """How many links and monitors there are with processes of a connected node, those that end included."""
        peer = self._peers.get(node)
        return 0 if peer is None else len(peer.links) + len(peer.watching) + len(peer.watchers)

    def links(self, own: int) -> list[Pid]:
        """The processes that this one is linked to."""
        record = self._own.get(own)
        return [] if record is None else [other for other, state in record.links.items() if state == _ACTIVE]

    # --- what own processes want ---

    def link(self, own: int, other: Pid) -> list[Change]:
        """Link two processes. Linking again, or to itself, does nothing; what is not there answers with a signal."""
        me = self._pid(own)
        if other == me:
            return []
        missing = self._missing(other)
        if missing is not None:
            return [Signal(own, other, missing, linked=True)]
        links = self._of(own).links
        if other.node == self.name:
            links[other] = self._of(other.local).links[me] = _ACTIVE
            return []
        if links.get(other) == _ACTIVE:
            return []
        links[other] = _ACTIVE
        self._peers[other.node].links[own, other.local] = None
        return [Linked(other.node, own, other.local)]

    def adopt(self, own: int, other: Pid) -> list[Change]:
        """The other end has made this link already, and told us so in another way (it was spawned linked)."""
        if not self._is_alive(own):
            return [Exited(other.node, own, other.local, NOPROC)]
        missing = self._missing(other)
        if missing is not None:
            return [Signal(own, other, missing, linked=True)]
        self._of(own).links.setdefault(other, _ACTIVE)
        self._peers[other.node].links[own, other.local] = None
        return []

    def unlink(self, own: int, other: Pid) -> list[Change]:
        """Take back a link. From now on nothing of it can reach this process, unless they are linked anew."""
        record = self._own.get(own)
        if record is None or record.links.get(other) != _ACTIVE:
            return []
        if other.node == self.name:
            self._drop_link(own, other)
            self._drop_link(other.local, self._pid(own))
            return []
        self._numbers += 1
        record.links[other] = self._numbers
        return [Unlinked(other.node, own, other.local, self._numbers)]

    def monitor(self, own: int, target: Pid | None, name: Name | None = None) -> tuple[int, list[Change]]:
        """Watch a process, once; each monitor is one of its own.

        Args:
            own: the watcher, or OUTSIDE.
            target: whom; None for whoever has the name at the node in `name`, or for a name that nobody has.
            name: what was asked for, if that was no pid.

        Returns:
            The monitor's reference, and what it caused.
        """
        self._numbers += 1
        ref = self._numbers
        if target is None:
            return ref, self._monitor_name(own, ref, name)
        missing = self._missing(target)
        if missing is not None:
            return ref, [Fired(own, ref, target, name, missing)]
        if target == self._pid(own):
            return ref, []  # as in Erlang: nobody can hear of its own end
        self._of(own).watching[ref] = _Watch(target.node, target, name)
        if target.node == self.name:
            self._of(target.local).watchers[self.name, ref] = own
            return ref, []
        self._peers[target.node].watching[ref] = own
        return ref, [Watched(target.node, ref, target.local)]

    def _monitor_name(self, own: int, ref: int, name: Name | None) -> list[Change]:
        """Watch whoever has a name at another node, which alone knows who that is."""
        if not isinstance(name, tuple) or name[1] == self.name:
            return [Fired(own, ref, None, name, NOPROC)]
        address, node = name
        if node not in self._peers:
            return [Fired(own, ref, None, name, NOCONNECTION)]
        self._of(own).watching[ref] = _Watch(node, None, name)
        self._peers[node].watching[ref] = own
        return [Watched(node, ref, address)]

    def expect(self, own: int, node: str) -> int:
        """Watch the process that a connected node is about to start for us: it hears of the monitor with that order.

        Returns:
            The monitor's reference. It has no pid before it fires; `demonitor` takes it back if nothing was started.
        """
        self._numbers += 1
        self._of(own).watching[self._numbers] = _Watch(node, None, None)
        self._peers[node].watching[self._numbers] = own
        return self._numbers

    def demonitor(self, own: int, ref: int) -> list[Change]:
        """Watch no longer: this monitor never fires. One that has fired, or is not one's own, is nothing."""
        record = self._own.get(own)
        watch = record.watching.pop(ref, None) if record is not None else None
        if watch is None:
            return []
        self._tidy(own)
        return self._forget_watch(ref, watch)

    def watch_node(self, own: int, node: str | None, stalls: bool = False) -> list[Change]:
        """Tell the process from now on when the node (None: any node) comes and goes; what is now comes first.

        With `stalls`, also when its loop stands still.
        """
        nodes = self._of(own).nodes
        watchers = self._node_watchers.setdefault(node, {})
        changes: list[Change] = []
        if node not in nodes:
            nodes[node] = None
            known = self._peers if node is None else (node,)
            changes += [NodeSeen(own, peer, None if peer in self._peers else NOCONNECTION) for peer in known]
        if stalls and not watchers.get(own):
            stalled = {name: peer.stalled for name, peer in self._peers.items() if node is None or name == node}
            changes += [StallSeen(own, name, seconds) for name, seconds in stalled.items() if seconds is not None]
        watchers[own] = stalls or watchers.get(own, False)
        return changes

    def unwatch_node(self, own: int, node: str | None) -> None:
        """Tell the process no longer."""
        record = self._own.get(own)
        if record is not None and node in record.nodes:
            del record.nodes[node]
            self._forget_node(own, node)
            self._tidy(own)

    def traps(self, own: int) -> bool:
        """Whether exit signals reach the process as messages."""
        record = self._own.get(own)
        return record is not None and record.traps

    def trap(self, own: int, on: bool) -> None:
        """From now on exit signals reach the process as messages, or no longer do."""
        if on or own in self._own:
            self._of(own).traps = on
            self._tidy(own)

    def fate(self, signal: Signal) -> tuple[Fate, Reason]:
        """What an exit signal does to its process, and with which reason.

        | sent by  | reason | the process traps | fate                                         |
        | -------- | ------ | ----------------- | -------------------------------------------- |
        | `exit`   | kill   | or not            | death, with reason killed                    |
        | any      | any    | yes               | message                                      |
        | any      | normal | no                | ignored, unless it has sent it to itself     |
        | any      | other  | no                | death, with that reason                      |
        """
        if signal.reason == KILL and not signal.linked:
            return Fate.DEATH, KILLED
        if self.traps(signal.own):
            return Fate.MESSAGE, signal.reason
        if signal.reason == NORMAL and signal.sender != self._pid(signal.own):
            return Fate.IGNORED, signal.reason
        return Fate.DEATH, signal.reason

    def exited(self, own: int, reason: Reason) -> list[Change]:
        """A process of this node has ended: whoever is linked to it or watches it hears of it, in this order."""
        record = self._own.pop(own, None)
        if record is None:
            return []
        me = self._pid(own)
        changes: list[Change] = []
        for other, state in record.links.items():
            if other.node == self.name:
                self._drop_link(other.local, me)
                changes.append(Signal(other.local, me, reason, linked=True))
            else:
                del self._peers[other.node].links[own, other.local]
                if state == _ACTIVE:
                    changes.append(Exited(other.node, own, other.local, reason))
        for (node, ref), watcher in record.watchers.items():
            if node == self.name:
                watch = self._own[watcher].watching.pop(ref)
                self._tidy(watcher)
                changes.append(Fired(watcher, ref, me, watch.name, reason))
            else:
                del self._peers[node].watchers[ref]
                changes.append(Ended(node, ref, own, reason))
        for ref, watch in record.watching.items():
            changes += self._forget_watch(ref, watch)
        for watched in record.nodes:
            self._forget_node(own, watched)
        return changes

    # --- what peers say ---

    def peer_up(self, node: str, creation: int) -> list[Change]:
        """A session with this start of the node is open."""
        self._peers[node] = _Peer(creation)
        return [NodeSeen(own, node) for own in self._watchers_of(node)]

    def peer_down(self, node: str, reason: str) -> list[Change]:
        """The session is over: what concerned the node ends with noconnection, and then its watchers are told why."""
        peer = self._peers.pop(node, None)
        if peer is None:
            return []
        changes: list[Change] = []
        for own, other in peer.links:
            pid = Pid(node, peer.creation, other)
            if self._drop_link(own, pid) == _ACTIVE:
                changes.append(Signal(own, pid, NOCONNECTION, linked=True))
        for ref, own in peer.watching.items():
            watch = self._own[own].watching.pop(ref)
            self._tidy(own)
            changes.append(Fired(own, ref, watch.pid, watch.name, NOCONNECTION))
        for ref, own in peer.watchers.items():
            del self._own[own].watchers[node, ref]
            self._tidy(own)
        return [*changes, *(NodeSeen(own, node, reason) for own in self._watchers_of(node))]

    def peer_stalled(self, node: str, seconds: float) -> list[Change]:
        """The loop of a connected node stands still, for so many seconds until now."""
        self._peers[node].stalled = seconds
        return [StallSeen(own, node, seconds) for own, stalls in self._watchers_of(node).items() if stalls]

    def peer_resumed(self, node: str, seconds: float) -> list[Change]:
        """The loop of a connected node turns again, after so many seconds."""
        self._peers[node].stalled = None
        return [StallSeen(own, node, seconds, True) for own, stalls in self._watchers_of(node).items() if stalls]

    def peer_linked(self, node: str, other: int, own: int) -> list[Change]:
        """LINK: the peer's process has linked itself to ours."""
        peer = self._peers[node]
        if not self._is_alive(own):
            return [Exited(node, own, other, NOPROC)]
        # While we are unlinking it stays as it is: our UNLINK, still on its way, ends this link there too.
        self._of(own).links.setdefault(Pid(node, peer.creation, other), _ACTIVE)
        peer.links[own, other] = None
        return []

    def peer_unlinked(self, node: str, other: int, own: int, number: int) -> list[Change]:
        """UNLINK: the peer's process takes its link back."""
        record = self._own.get(own)
        pid = Pid(node, self._peers[node].creation, other)
        if record is not None and record.links.get(pid) == _ACTIVE:
            self._end_link(node, other, own)
        return [UnlinkSeen(node, own, other, number)]

    def peer_saw_unlink(self, node: str, other: int, own: int, number: int) -> list[Change]:
        """UNLINK_ACK: the peer knows that our process has taken its link back."""
        record = self._own.get(own)
        pid = Pid(node, self._peers[node].creation, other)
        if number != _ACTIVE and record is not None and record.links.get(pid) == number:
            self._end_link(node, other, own)
        return []

    def peer_exited(self, node: str, other: int, own: int, reason: Reason) -> list[Change]:
        """EXIT over a link: the peer's process has ended."""
        if self._end_link(node, other, own) != _ACTIVE:
            return []  # unlinked meanwhile
        return [Signal(own, Pid(node, self._peers[node].creation, other), reason, linked=True)]

    def peer_watches(self, node: str, ref: int, own: int | None) -> list[Change]:
        """MONITOR: the peer watches a process of ours; None if nobody has the name that it gave."""
        if own is None or not self._is_alive(own):
            return [Ended(node, ref, own, NOPROC)]
        watchers = self._peers[node].watchers
        if ref not in watchers:  # else it breaks the protocol, and harms itself alone
            watchers[ref] = own
            self._of(own).watchers[node, ref] = OUTSIDE
        return []

    def peer_watches_no_longer(self, node: str, ref: int) -> list[Change]:
        """DEMONITOR: the peer watches no longer. It may have ended meanwhile."""
        own = self._peers[node].watchers.pop(ref, None)
        if own is not None:
            del self._own[own].watchers[node, ref]
            self._tidy(own)
        return []

    def peer_ended(self, node: str, ref: int, other: int | None, reason: Reason) -> list[Change]:
        """MONITOR_EXIT: a process of the peer that we watched has ended; we may have demonitored meanwhile."""
        peer = self._peers[node]
        own = peer.watching.pop(ref, None)
        if own is None:
            return []
        watch = self._own[own].watching.pop(ref)
        self._tidy(own)
        pid = watch.pid
        if pid is None and other is not None:
            pid = Pid(node, peer.creation, other)
        return [Fired(own, ref, pid, watch.name, reason)]

    # --- small things ---

    def _pid(self, own: int) -> Pid:
        return Pid(self.name, self.creation, own)

    def _of(self, own: int) -> _Own:
        record = self._own.get(own)
        if record is None:
            record = self._own[own] = _Own()
        return record

    def _tidy(self, own: int) -> None:
        """Keep no record of a process that has nothing to do with others."""
        record = self._own.get(own)
        if record is not None and not len(record):
            del self._own[own]

    def _missing(self, pid: Pid) -> Reason | None:
        """Why there is no process with this pid to link to or to watch, as far as is known here; None if there is."""
        if pid.node == self.name:
            return None if pid.creation == self.creation and self._is_alive(pid.local) else NOPROC
        peer = self._peers.get(pid.node)
        if peer is None or peer.creation < pid.creation:
            return NOCONNECTION
        return NOPROC if pid.creation < peer.creation else None

    def _drop_link(self, own: int, other: Pid) -> int | None:
        """Forget our process's end of a link. Returns the state it was in."""
        record = self._own.get(own)
        if record is None:
            return None
        state = record.links.pop(other, None)
        self._tidy(own)
        return state

    def _end_link(self, node: str, other: int, own: int) -> int | None:
        """Forget a link with a peer's process. Returns the state it was in."""
        peer = self._peers[node]
        peer.links.pop((own, other), None)
        return self._drop_link(own, Pid(node, peer.creation, other))

    def _forget_watch(self, ref: int, watch: _Watch) -> list[Change]:
        """Forget the target's end of a monitor."""
        if watch.node != self.name:
            del self._peers[watch.node].watching[ref]
            return [Unwatched(watch.node, ref)]
        assert watch.pid is not None, "a monitor within a node has a pid"
        del self._own[watch.pid.local].watchers[self.name, ref]
        self._tidy(watch.pid.local)
        return []

    def _forget_node(self, own: int, node: str | None) -> None:
        watchers = self._node_watchers[node]
        del watchers[own]
        if not watchers:
            del self._node_watchers[node]

    def _watchers_of(self, node: str) -> dict[int, bool]:
        """Who watches the node, by itself or with all others: each with whether it watches its stalls."""
        watchers = dict(self._node_watchers.get(node, {}))
        for own, stalls in self._node_watchers.get(None, {}).items():
            watchers[own] = stalls or watchers.get(own, False)
        return watchers
