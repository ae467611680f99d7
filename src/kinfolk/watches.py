"""What observers watch at a node's service: for each a `NameWatch`, whose events they fetch in batches.

An observer asks for events, and is answered as soon as there are some, or after the seconds that it is willing to wait.
What has not been fetched waits here: a bounded number of events, after that the table as it is (see `NameWatch`). So
an observer that does not ask holds up nobody, and one that has not asked for a while is forgotten.
"""

import asyncio
import itertools
from collections.abc import Iterator

from kinfolk.effects import NameAdded, NameRemoved
from kinfolk.errors import KinfolkError, NodeClosed
from kinfolk.ids import Pid
from kinfolk.messages import Call
from kinfolk.registry import Names, NameWatch, Resync

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

Event = tuple[str, ...]
"""``("added", name, pid)`` or ``("removed", name, pid)``; or ``("resync",)``: changes are missing, so forget all names;
those that are there follow as if they had just been added."""


class Watches:
    """The watches of one node.

    Args:
        names: of the node.
        tasks: in which observers wait; its end is the end of all watches.
    """

    def __init__(self, names: Names, tasks: asyncio.TaskGroup) -> None:
        self._names = names
        self._tasks = tasks
        self._watches: dict[int, _Watch] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._watches)

    def open(self, pattern: str) -> int:
        """Begin to watch the names that match a pattern, as `Names.watch` does. Returns the number of the watch.

        Raises:
            ValueError: not a pattern, or there are too many watches.
        """
        if len(self._watches) >= MAX_WATCHES:
            raise ValueError(f"{MAX_WATCHES} watches are open at this node: end one, or watch at another node")
        watch = _Watch(self._names.watch(pattern, max_events=MAX_EVENTS))
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
            watch.forgetting.cancel()
            watch.forgetting = None
            self._tasks.create_task(self._answer(call, number, watch, min(max(seconds, 0.0), MAX_WAIT)))

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

    def close(self) -> None:
        """Forget all."""
        for number in list(self._watches):
            self._forget(number)


class _Watch:
    """One watch."""

    def __init__(self, events: NameWatch) -> None:
        self.forgetting: asyncio.TimerHandle | None = None
        """Set while nobody waits for events."""
        self._events = events
        self._rows: Iterator[tuple[str, Pid]] = iter(())

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
        row = next(self._rows, None)
        if row is not None:
            return "added", row[0], str(row[1])
        match await anext(self._events):
            case NameAdded(name=name, pid=pid):
                return "added", name, str(pid)
            case NameRemoved(name=name, pid=pid):
                return "removed", name, str(pid)
            case Resync(names=names):
                self._rows = iter(names.items())
                return ("resync",)
