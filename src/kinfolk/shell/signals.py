"""Exit signals, and what ends with a process or with a node: the rim of `core.relations`.

What an event changes waits in one queue, and each change is carried out before the next: a chain of a thousand linked
processes dies in a loop, not in a recursion. If the kernel is in the middle of a step, the queue waits for its end; so
the names of a dead process are free before anybody hears of its death.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from kinfolk.core import relations as core
from kinfolk.core.relations import OUTSIDE, Fate, Name, Relations
from kinfolk.errors import NodeClosed
from kinfolk.ids import Pid, check_name, check_node_name
from kinfolk.logs import fields
from kinfolk.messages import Down, Exit, PeerDown, PeerResumed, PeerStalled, PeerUp, Ref
from kinfolk.reasons import KILL, Reason, heard, told
from kinfolk.seconds import check_seconds
from kinfolk.shell.tasks import Processes
from kinfolk.wire import frames
from kinfolk.wire.fragments import ANYBODY

_log = logging.getLogger("kinfolk")


class Peer(Protocol):
    """A link to another node, as signals need it."""

    name: str
    creation: int

    def post(self, operation: frames.Operation) -> None:
        """Append to the outbox."""
        ...

    def post_ahead(self, operation: frames.Operation) -> None:
        """Append to the outbox what leaves with what those say to it whose turn has come. See `Link.post_ahead`."""
        ...

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        """Append to the outbox, after what one process has said to another. See `Link.post_from`."""
        ...


class Signals:
    """Links, monitors and exit signals of one node's processes.

    Args:
        relations: the table of who is to hear of whose end.
        processes: those of the node.
        whereis: who holds which name of the cluster.
        local_names: who holds which name on this node alone.
        afterwards: does something once no step of the kernel is under way.
    """

    def __init__(
        self,
        relations: Relations,
        processes: Processes,
        whereis: Callable[[str], Pid | None],
        local_names: Callable[[str], Pid | None],
        afterwards: Callable[[Callable[[], None]], None],
    ) -> None:
        self.relations = relations
        self._processes = processes
        self._whereis = whereis
        self._local_names = local_names
        self._afterwards = afterwards
        self._peers: dict[str, Peer] = {}
        self._changes: deque[core.Change] = deque()
        self._busy = False
        self._waiting: dict[int, asyncio.Future[Reason]] = {}

    # --- for processes ---

    def link(self, own: int, other: Pid) -> None:
        """See `Process.link`."""
        self._do(self.relations.link(own, _checked(other)))

    def unlink(self, own: int, other: Pid) -> None:
        """See `Process.unlink`."""
        self._do(self.relations.unlink(own, _checked(other)))

    def adopt(self, own: int, other: Pid) -> None:
        """Our process was linked to this one of a peer by the peer itself: by spawning it, or by being spawned."""
        self._do(self.relations.adopt(own, other))

    def expect(self, own: int, node: str) -> Ref:
        """Watch the process that a connected node is about to start for us. Its end must call `adopt_watcher`."""
        return Ref(self.relations.expect(own, node))

    def adopt_watcher(self, node: str, ref: int, own: int) -> None:
        """Our process, just started for a peer, is watched by it with this reference of the peer's."""
        self._do(self.relations.peer_watches(node, ref, own))

    def monitor(self, own: int, target: Pid | Name) -> Ref:
        """See `Process.monitor`."""
        pid, name = self._find(target)
        ref, changes = self.relations.monitor(own, pid, name)
        self._do(changes)
        return Ref(ref)

    def demonitor(self, own: int, ref: Ref) -> None:
        """See `Process.demonitor`."""
        self._do(self.relations.demonitor(own, ref))

    def exit(self, sender: int, target: Pid, reason: Reason) -> None:
        """Send an exit signal. See `Process.exit`."""
        _checked(target)
        me = self.relations
        if target.node == me.name:
            if target.creation == me.creation:
                self._do([core.Signal(target.local, Pid(me.name, me.creation, sender), reason, linked=False)])
            return
        peer = self._peers.get(target.node)
        if peer is not None and peer.creation == target.creation:
            word, detail = told(reason)
            peer.post_from(frames.ExitSignal(target.local, sender or None, word, False, detail), sender, target.local)

    def watch_node(self, own: int, node: str | None, stalls: bool = False) -> None:
        """See `Process.monitor_node`."""
        self._do(self.relations.watch_node(own, self._checked_node(node), stalls))

    def unwatch_node(self, own: int, node: str | None) -> None:
        """See `Process.demonitor_node`."""
        self.relations.unwatch_node(own, self._checked_node(node))

    # --- for others ---

    async def wait_exit(self, pid: Pid, timeout: float | None) -> Reason:
        """See `Node.wait_exit`."""
        _checked(pid)
        if timeout is not None:
            check_seconds(timeout)
        ref, changes = self.relations.monitor(OUTSIDE, pid)
        future: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._waiting[ref] = future
        self._do(changes)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await future
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"{pid} has not ended within {timeout:g} s") from None
        finally:
            self._waiting.pop(ref, None)
            self._do(self.relations.demonitor(OUTSIDE, Ref(ref)))

    def kill(self, pid: Pid) -> None:
        """See `Node.kill`."""
        self.exit(OUTSIDE, pid, KILL)

    def exited(self, own: int, reason: Reason) -> None:
        """A process of this node is dead: whoever is linked to it or watches it is told."""
        self._do(self.relations.exited(own, reason))

    def close(self, error: NodeClosed) -> None:
        """Nobody outside of processes waits for an end any longer."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    def _find(self, target: Pid | Name) -> tuple[Pid | None, Name | None]:
        """Who a monitor is to watch: a process, if it is known here, and the name that was given."""
        if isinstance(target, Pid):
            return target, None
        if isinstance(target, tuple):
            name, node = check_name(target[0]), check_node_name(target[1])
            return self._local_names(name) if node == self.relations.name else None, (name, node)
        if isinstance(target, str):
            target = check_name(target)
            return self._whereis(target), target
        raise TypeError(f"cannot monitor a {type(target).__name__}: give a pid, a name, or (name, node)")

    def _checked_node(self, node: str | None) -> str | None:
        if node == self.relations.name:
            raise ValueError(f"{node} is this node itself: nobody on it can see it go")
        return None if node is None else check_node_name(node)

    # --- what peers say ---

    def receive(self, peer: Peer, operation: frames.Operation) -> None:
        """Take in an operation about the end of processes."""
        if self._peers.get(peer.name) is peer:
            self._do(self.OPERATIONS[type(operation)](self, peer.name, operation))

    def peer_up(self, peer: Peer) -> None:
        """A session with the peer is open."""
        self._peers[peer.name] = peer
        self._do(self.relations.peer_up(peer.name, peer.creation))

    def peer_down(self, name: str, reason: str) -> None:
        """The session with the peer is over."""
        self._peers.pop(name, None)
        self._do(self.relations.peer_down(name, reason))

    def peer_stalled(self, name: str, seconds: float) -> None:
        """The peer's loop stands still."""
        self._do(self.relations.peer_stalled(name, seconds))

    def peer_resumed(self, name: str, seconds: float) -> None:
        """The peer's loop turns again."""
        self._do(self.relations.peer_resumed(name, seconds))

    def _linked(self, node: str, operation: frames.LinkMade) -> list[core.Change]:
        return self.relations.peer_linked(node, operation.sender, operation.target)

    def _unlinked(self, node: str, operation: frames.LinkUndone) -> list[core.Change]:
        return self.relations.peer_unlinked(node, operation.sender, operation.target, operation.number)

    def _unlink_seen(self, node: str, operation: frames.UnlinkAcknowledged) -> list[core.Change]:
        return self.relations.peer_saw_unlink(node, operation.sender, operation.target, operation.number)

    def _exit(self, node: str, operation: frames.ExitSignal) -> list[core.Change]:
        sender, reason = operation.sender or OUTSIDE, heard(operation.reason, operation.detail)
        if operation.linked:
            return self.relations.peer_exited(node, sender, operation.target, reason)
        return [core.Signal(operation.target, Pid(node, self._peers[node].creation, sender), reason, linked=False)]

    def _monitored(self, node: str, operation: frames.MonitorMade) -> list[core.Change]:
        if isinstance(operation.target, int):
            return self.relations.peer_watches(node, operation.reference, operation.target)
        holder = self._local_names(operation.target)
        return self.relations.peer_watches(node, operation.reference, None if holder is None else holder.local)

    def _demonitored(self, node: str, operation: frames.MonitorUndone) -> list[core.Change]:
        return self.relations.peer_watches_no_longer(node, operation.reference)

    def _fired_there(self, node: str, operation: frames.MonitorFired) -> list[core.Change]:
        return self.relations.peer_ended(
            node, operation.reference, operation.process, heard(operation.reason, operation.detail)
        )

    OPERATIONS: ClassVar[dict[type[frames.Operation], Callable[..., list[core.Change]]]] = {
        frames.ExitSignal: _exit,
        frames.LinkMade: _linked,
        frames.LinkUndone: _unlinked,
        frames.UnlinkAcknowledged: _unlink_seen,
        frames.MonitorMade: _monitored,
        frames.MonitorUndone: _demonitored,
        frames.MonitorFired: _fired_there,
    }

    # --- what has changed ---

    def _do(self, changes: Sequence[core.Change]) -> None:
        if not changes:
            return
        self._changes += changes
        if not self._busy:
            self._busy = True
            self._afterwards(self._carry_out)

    def _carry_out(self) -> None:
        try:
            while self._changes:
                change = self._changes.popleft()
                try:
                    self._CHANGES[type(change)](self, change)
                except Exception:  # noqa: BLE001
                    # Those after it concern others, who must not be left waiting.
                    _log.exception(
                        "could not carry out %r: this is a bug in kinfolk, please report it",
                        change,
                        extra=fields(self._processes.name),
                    )
        finally:
            self._busy = False

    def _signal(self, change: core.Signal) -> None:
        process = self._processes.get(change.own)
        if process is None:
            return
        fate, reason = self.relations.fate(change)
        if fate is Fate.DEATH:
            self._processes.kill(change.own, reason)
        elif fate is Fate.MESSAGE:
            process.mailbox.put_always(Exit(change.sender, reason))

    def _fired(self, change: core.Fired) -> None:
        if change.own == OUTSIDE:
            future = self._waiting.get(change.ref)
            if future is not None and not future.done():
                future.set_result(change.reason)
            return
        self._put(change.own, Down(Ref(change.ref), change.pid, change.reason, change.name))

    def _node_seen(self, change: core.NodeSeen) -> None:
        lost = change.lost
        self._put(change.own, PeerUp(change.node) if lost is None else PeerDown(change.node, lost))

    def _stall_seen(self, change: core.StallSeen) -> None:
        kind = PeerResumed if change.over else PeerStalled
        self._put(change.own, kind(change.node, change.seconds))

    def _put(self, own: int, message: object) -> None:
        process = self._processes.get(own)
        if process is not None:
            process.mailbox.put_always(message)

    def _post(self, peer: str, operation: frames.Operation) -> None:
        link = self._peers.get(peer)
        if link is not None:  # else the session has ended since, and its end says it all
            link.post(operation)

    def _post_end(self, peer: str, operation: frames.Operation, own: int, other: int | None) -> None:
        """Tell of the end of a process, after all that it has sent there."""
        link = self._peers.get(peer)
        if link is not None:
            link.post_from(operation, own, other)

    def _say_linked(self, change: core.Linked) -> None:
        self._post(change.peer, frames.LinkMade(change.other, change.own))

    def _say_unlinked(self, change: core.Unlinked) -> None:
        self._post(change.peer, frames.LinkUndone(change.other, change.own, change.number))

    def _say_unlink_seen(self, change: core.UnlinkSeen) -> None:
        self._post(change.peer, frames.UnlinkAcknowledged(change.other, change.own, change.number))

    def _say_exited(self, change: core.Exited) -> None:
        word, detail = told(change.reason)
        exited = frames.ExitSignal(change.other, change.own, word, True, detail)
        self._post_end(change.peer, exited, change.own, change.other)

    def _say_watched(self, change: core.Watched) -> None:
        self._post(change.peer, frames.MonitorMade(change.ref, change.target))

    def _say_unwatched(self, change: core.Unwatched) -> None:
        self._post(change.peer, frames.MonitorUndone(change.ref))

    def _say_ended(self, change: core.Ended) -> None:
        word, detail = told(change.reason)
        fired = frames.MonitorFired(change.ref, change.own, word, detail)
        self._post_end(change.peer, fired, change.own or OUTSIDE, ANYBODY)  # whose monitor it is, only the peer knows

    _CHANGES: ClassVar[dict[type, Callable[..., None]]] = {
        core.Signal: _signal,
        core.Fired: _fired,
        core.NodeSeen: _node_seen,
        core.StallSeen: _stall_seen,
        core.Linked: _say_linked,
        core.Unlinked: _say_unlinked,
        core.UnlinkSeen: _say_unlink_seen,
        core.Exited: _say_exited,
        core.Watched: _say_watched,
        core.Unwatched: _say_unwatched,
        core.Ended: _say_ended,
    }


def _checked(pid: Pid) -> Pid:
    if not isinstance(pid, Pid):
        raise TypeError(f"give a pid, not a {type(pid).__name__}: names are looked up with names.whereis()")
    return pid
