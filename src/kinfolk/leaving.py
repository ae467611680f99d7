"""Leaving well: what a node does between "no more" and its goodbye.

`Drain.STEPS` is all of it, in order. Whatever is done by the end of the time is done; then the node closes, stops what
it supervises in good order, and tells its peers that it leaves.

What counts as work is what can be seen of it: messages that wait in a mailbox, and calls that wait for an answer. A
process that has neither does nothing but wait, as far as anybody can tell. Each wait is for what had come *before it
began*, never for what comes meanwhile, so that a steady load cannot keep a node for ever.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from kinfolk.logs import fields
from kinfolk.messages import Call
from kinfolk.process import Process, is_call
from kinfolk.server import Started
from kinfolk.supervisor import Supervising

if TYPE_CHECKING:
    from kinfolk.node import Node

_log = logging.getLogger("kinfolk")

_LOOK_AGAIN = 0.02  # seconds
_FOR_EVER = 1e9  # seconds; not every loop has a timer for infinity
_SHOWN = 10  # processes that the log names


class Undone(Struct, frozen=True):
    """Work of one process that is not done."""

    process: Process
    messages: int
    calls: int

    def __str__(self) -> str:
        return f"{self.process.pid} ({self.process.function}): {self.messages} messages, {self.calls} calls"


class Backlog:
    """What has come for some processes up to now, and is to be done."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._messages: dict[Process, dict[int, Any]] = {}  # by their identities; those that wait are not freed
        self._calls: dict[Process, list[Call[Any]]] = {}
        for process in processes:
            self._messages[process] = {id(message): message for message in process.mailbox.messages}
            self._calls[process] = list(process.open_calls or ())

    def is_done(self) -> bool:
        """Whether it has all been done, or its processes are dead."""
        for process in list(self._messages):
            if process.exit_reason is not None or not (self._has_calls(process) or self._waits(process)):
                del self._messages[process], self._calls[process]
        return not self._messages

    def undone(self) -> list[Undone]:
        """What is left of it."""
        self.is_done()
        return [
            Undone(process, sum(not is_call(message) for message in self._waiting(process)), len(calls))
            for process, calls in self._calls.items()
        ]

    def _has_calls(self, process: Process) -> bool:
        self._calls[process] = [call for call in self._calls[process] if not _is_over(call)]
        return bool(self._calls[process])

    def _waits(self, process: Process) -> bool:
        return next((True for _ in self._waiting(process)), False)

    def _waiting(self, process: Process) -> Iterable[Any]:
        """Messages of it that are still in the mailbox: whichever are taken first, they are before all others."""
        known = self._messages[process]
        waiting = takewhile(lambda message: id(message) in known, process.mailbox.messages)
        return (message for message in waiting if not (is_call(message) and _is_over(message)))


class Drain:
    """A node on its way out.

    Args:
        node: the node.
        timeout: seconds for all steps together.

    Attributes:
        step: the name of the step that it is at.
        spared: processes that are not waited for, for they wait for the drain.
        late: whether the time was up before all steps were done.
        caller: the task that waits for it, if it is to go on after the close though it is a process of this node.
    """

    def __init__(self, node: "Node", timeout: float) -> None:
        self._node = node
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + min(timeout, _FOR_EVER)
        self._backlog = Backlog(())
        self._outcome: tuple[bool, list[Undone]] | None = None
        self._listeners: list[Callable[[bool, list[Undone]], None]] = []
        self.step = ""
        self.late = False
        self.spared: set[Process] = set()
        self.caller: asyncio.Task[Any] | None = None

    async def run(self) -> bool:
        """Go through all steps; returns whether they were done in time. What is left undone is logged and counted."""
        _log.info(
            "%s drains, for at most %.3g s",
            self._node.name,
            self._timeout,
            extra=fields(self._node.name, seconds=self._timeout),
        )
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with limit:
                for step, take in self.STEPS.items():
                    self.step = step
                    await take(self)
        except TimeoutError:
            if not limit.expired():
                raise
        self.late, undone = limit.expired(), []
        if self.late:
            undone = Backlog(self._workers()).undone()
            self._report(undone)
        self._outcome = not self.late, undone
        for tell in self._listeners:
            tell(not self.late, undone)
        return not self.late

    def when_over(self, tell: Callable[[bool, list[Undone]], None]) -> None:
        """Be told how it has gone, before the node closes: whether it was done in time, and what was left undone."""
        if self._outcome is None:
            self._listeners.append(tell)
        else:
            tell(*self._outcome)

    def undone(self) -> list[Undone]:
        """What the step that it is at waits for."""
        return self._backlog.undone()

    # --- the steps ---

    async def _hand_over(self) -> None:
        """Singletons go to other nodes, with their state if they have one; plain names go with their processes."""
        found = [(each, name) for each in self._node.supervisors.values() for name in each.singletons()]
        self._backlog = Backlog(filter(None, (process for each, _ in found for process in each.singletons().values())))
        await asyncio.gather(*(self._release(each, name) for each, name in found))

    async def _release(self, supervising: Supervising, name: str) -> None:
        """One singleton is handed over, in half of the time at most; or takes nothing new, does what it has, ends."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout((self._deadline - now) / 2):
                if await supervising.hand_over(name):
                    return
        except TimeoutError:
            _log.warning(
                "%s: %r was not handed over in time, and is released",
                self._node.name,
                name,
                extra=fields(self._node.name, registered=name),
            )
        process = supervising.singletons().get(name)
        if process is not None:
            self._node.dataplane.turn_away(process)
            await _until(Backlog([process]).is_done)
        if supervising.me.exit_reason is None and name in supervising.slots:
            await supervising.stop_child(name)

    async def _finish(self) -> None:
        """What had come before is done, while everything works as ever. This takes half of the time that is left."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout((self._deadline - now) / 2):
                await self._done()
        except TimeoutError:
            pass  # what is left belongs to the next step

    async def _run_dry(self) -> None:
        """Calls of other nodes are refused, so that none is cut off in its middle, and what is here is done."""
        self._node.dataplane.refuses_calls_of_peers = True
        await self._done()

    STEPS: ClassVar[dict[str, Callable[["Drain"], Awaitable[None]]]] = {
        "hands names over": _hand_over,
        "finishes what has come": _finish,
        "runs dry": _run_dry,
    }
    """By what is said of the node meanwhile. Before the first, the node ceases to be ready and to start processes for
    others; after the last, it closes, and leaves."""

    # --- inside ---

    async def _done(self) -> None:
        self._backlog = Backlog(self._workers())
        await _until(self._backlog.is_done)

    def _workers(self) -> list[Process]:
        """The processes that are waited for: all but the node's own service, and those that wait themselves."""
        processes = self._node.processes()
        return [each for each in processes if not (each in self.spared or self._node.is_service(each))]

    def _report(self, undone: list[Undone]) -> None:
        self._node.counters["undrained_messages"] += sum(each.messages for each in undone)
        self._node.counters["undrained_calls"] += sum(each.calls for each in undone)
        more = f", and {len(undone) - _SHOWN} more processes" if len(undone) > _SHOWN else ""
        _log.warning(
            "%s leaves although it is not done within %g s (it %s): %s%s",
            self._node.name,
            self._timeout,
            self.step,
            "; ".join(map(str, undone[:_SHOWN])) or "no message or call waits any more",
            more,
            extra=fields(self._node.name, seconds=self._timeout, number=len(undone)),
        )


def _is_over(call: Call[Any]) -> bool:
    """Whether nobody waits for it; nor is it work to say that one has started."""
    return call.answered or call.expired or isinstance(call.body, Started)


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until this holds. Nothing tells when a process takes a message: that must cost nothing."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_AGAIN)
