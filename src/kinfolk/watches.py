"""What observers watch at a node's service: for each a watch of names, or of names and nodes, fetched in batches.

An observer asks for events, and is answered as soon as there are some, or after the seconds that it is willing to wait.
What has not been fetched waits here: a bounded number of events, after that the table as it is (see `NameWatch`). So
an observer that does not ask holds up nobody, and one that has not asked for a while is forgotten.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator

from kinfolk.effects import NameAdded, NameRemoved, PeerDown, PeerResumed, PeerStalled, PeerUp
from kinfolk.errors import KinfolkError, NodeClosed
from kinfolk.messages import Call
from kinfolk.registry import ClusterWatch, Names, NameWatch, Resync
from kinfolk.seconds import check_seconds

BATCH = 1000
"""Events in one answer: with the longest names and node names that stays below 1 MiB."""
MAX_EVENTS = 10_000
"""Events that wait for an observer."""
MAX_WATCHES = 100
MAX_WAIT = 60.0
FORGET_AFTER = 60.0
"""Seconds after which a watch whose events nobody has asked for is forgotten."""
GATHER = 0.02
"""Seconds that an event waits for others that come with it."""

Event = tuple[str | float, ...]
"""``("added", name, pid)`` or ``("removed", name, pid)``; or ``("resync",)``: changes are missing, so forget all of it;
what is there follows as if it had just come. If nodes are watched, also ``("up", node, creation in hex)``,
``("down", node, reason)``, ``("stalled", node, seconds)`` and ``("resumed", node, seconds)``."""


class Watches:
    """The watches of one node.

    Args:
        names: of the node.
        peers: the peers that there are, each with its creation.
        tasks: in which observers wait; its end is the end of all watches.
    """

    def __init__(self, names: Names, peers: Callable[[], dict[str, int]], tasks: asyncio.TaskGroup) -> None:
        self._names = names
        self._peers = peers
        self._tasks = tasks
        self._watches: dict[int, _Watch] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._watches)

    def open(self, pattern: str, nodes: bool = False, changes: bool = False) -> int:
        """Begin to watch the names that match a pattern, as `Names.watch` does. Returns the number of the watch.

        Args:
            nodes: watch the peers as well.
            changes: tell nothing of what is there, at first and after a resync: only what changes.

        Raises:
            ValueError: not a pattern, or there are too many watches.
        """
        if len(self._watches) >= MAX_WATCHES:
            raise ValueError(f"{MAX_WATCHES} watches are open at this node: end one, or watch at another node")
        if nodes:
            events = self._names.watch_with_nodes(pattern, max_events=MAX_EVENTS, changes=changes)
            watch = _Watch(events, self._nobody if changes else self._up)
        else:
            watch = _Watch(self._names.watch(pattern, max_events=MAX_EVENTS), self._nobody)
        number = next(self._numbers)
        self._watches[number] = watch
        self._rest(number, watch)
        return number

    def fetch(self, call: Call[object], number: int, seconds: float) -> None:
        """Answer a call with the next events of a watch: a list of them, empty if none came within these seconds.

        None says that there is no such watch: it has been forgotten.
        """
        watch = self._watches.get(number)
        if watch is None:
            call.reply(None)
        elif watch.forgetting is None:
            call.fail(f"the events of watch {number} are being waited for already")
        else:
            try:
                # A NaN would be a time in no order: no timer of the loop would run. What is negative waits for nothing.
                seconds = check_seconds(max(seconds, 0.0), "seconds")
            except (TypeError, ValueError) as error:
                call.fail(str(error))
                return
            watch.forgetting.cancel()
            watch.forgetting = None
            self._tasks.create_task(self._answer(call, number, watch, min(seconds, MAX_WAIT)))

    async def _answer(self, call: Call[object], number: int, watch: "_Watch", seconds: float) -> None:
        try:
            events = await watch.batch(seconds)
        except NodeClosed:
            return  # as does the caller's session
        if call.expired:
            self._forget(number)  # nobody will read these events, and those after them are worth nothing without them
            return
        self._rest(number, watch)
        try:
            call.reply(events)
        except KinfolkError:
            self._forget(number)  # they cannot be sent, which the caller has been told

    def _rest(self, number: int, watch: "_Watch") -> None:
        watch.forgetting = asyncio.get_running_loop().call_later(FORGET_AFTER, self._forget, number)

    def _forget(self, number: int) -> None:
        watch = self._watches.pop(number)
        if watch.forgetting is not None:
            watch.forgetting.cancel()

    def _up(self) -> list[Event]:
        return [("up", peer, f"{creation:x}") for peer, creation in self._peers().items()]

    def _nobody(self) -> list[Event]:
        return []

    def close(self) -> None:
        """Forget all."""
        for number in list(self._watches):
            self._forget(number)


class _Watch:
    """One watch. `up` gives what is there beside the names, as events."""

    def __init__(self, events: NameWatch | ClusterWatch, up: Callable[[], Iterable[Event]]) -> None:
        self.forgetting: asyncio.TimerHandle | None = None
        """Set while nobody waits for events."""
        self._events = events
        self._up = up
        self._there: Iterator[Event] = iter(up())

    async def batch(self, seconds: float) -> list[Event]:
        """The next events, as many as one answer holds. Waits these seconds for the first, and hardly for more."""
        batch: list[Event] = []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds) as limit:
                while len(batch) < BATCH:
                    batch.append(await self._next())
                    if len(batch) == 1:
                        limit.reschedule(loop.time() + GATHER)
        except TimeoutError:
            pass
        return batch

    async def _next(self) -> Event:
        # Cancelling it loses nothing: an event is taken only in the step that returns it.
        there = next(self._there, None)
        if there is not None:
            return there
        match await anext(self._events):
            case NameAdded(name=name, pid=pid):
                return "added", name, str(pid)
            case NameRemoved(name=name, pid=pid):
                return "removed", name, str(pid)
            case Resync(names=names):
                added = (("added", name, str(pid)) for name, pid in names.items())
                self._there = itertools.chain(self._up(), added)
                return ("resync",)
            case PeerUp(peer=peer, creation=creation):
                return "up", peer, f"{creation:x}"
            case PeerDown(peer=peer, reason=reason):
                return "down", peer, reason
            case PeerStalled(peer=peer, seconds=seconds):
                return "stalled", peer, seconds
            case PeerResumed(peer=peer, seconds=seconds):
                return "resumed", peer, seconds
