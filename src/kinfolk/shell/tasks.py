"""The tasks of a node's processes: every one is owned here from its start to its very end.

A process dies in one step, seen by nobody half-way: it leaves the table, its mailbox is emptied, the node is told (so
its names are gone, then whoever is linked to it or watches it hears), its open calls are answered. Only then can its
task be seen as done. A killed process dies in the step of the kill; its task, which no longer can do anything as that
process, is cancelled until it ends.

    alive    -- the body returns, raises or is cancelled -->  gone
    alive    -- kill, close -->  dying    -- the task ends -->  gone
                                 dying    -- the task swallows the cancellation -->  lingering, cancelled again
"""

import asyncio
import inspect
import itertools
import logging
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextvars import Context, copy_context
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any

import msgspec

from kinfolk.errors import KinfolkError, NodeClosed
from kinfolk.ids import Pid
from kinfolk.logs import fields
from kinfolk.mailbox import Mailbox
from kinfolk.messages import Call
from kinfolk.process import PRUNE_FROM, Body, Process
from kinfolk.reasons import KILLED, NORMAL, SHUTDOWN, Crash, Reason, Stop, text_of
from kinfolk.server import is_server, serve
from kinfolk.tracing import TracedMailbox, Tracer
from kinfolk.wire import codec

if TYPE_CHECKING:
    from kinfolk.node import Node

_log = logging.getLogger("kinfolk")

LINGER_AFTER = 1.0
"""Seconds after which a cancelled task that still runs is reported, and cancelled again."""
MAX_BACKOFF = 60.0
TELL_OVERFLOW = 10.0
"""Seconds in which the log tells of one process at most once that its mailbox is full."""

_Coroutine = Coroutine[Any, Any, object]


class _Unborn(msgspec.Struct, frozen=True):
    """A process that was spawned before the node has started: what it is to run, after what, and in which context."""

    coroutine: _Coroutine
    gate: "asyncio.Future[None] | None"
    context: Context


class _Dying(msgspec.Struct):
    """A cancelled task that has not ended: when to cancel it again (loop time), and how long to wait after that."""

    process: Process
    due: float
    backoff: float
    reported: bool = False


class Processes:
    """The processes of one node.

    Args:
        name, creation: of the node, for the pids.
        on_exit: told of each death, in the step in which it happens; must not raise.
        context: gives what a process begins in; None for the context of whoever starts it.
        linger_after: seconds that a cancelled task may take to end before it is reported and cancelled again.

    Attributes:
        get: ``get(local) -> Process | None``, the living process with this number.
        direct: by pid, the processes into whose mailboxes whatever is sent to them goes just so: all that live, but for
            those that take nothing more.
        loop: where they run; None before `start`.
        tracer: of the node; processes that are spawned while there is one take part in traces.
    """

    get: Callable[[int], Process | None]

    def __init__(
        self,
        name: str,
        creation: int,
        on_exit: Callable[[Process, Reason], None],
        context: Callable[[], Context | None] = lambda: None,
        *,
        linger_after: float = LINGER_AFTER,
    ) -> None:
        self.name = name
        self.renumber(creation)
        self.tracer: Tracer | None = None
        self._on_exit = on_exit
        self._context = context
        self._linger_after = linger_after
        self._locals = itertools.count(1)
        self._alive: dict[int, Process] = {}
        self.get = self._alive.get
        self.direct: dict[object, Process] = {}
        self._unborn: dict[Process, _Unborn] = {}
        self._dying: dict[asyncio.Task[None], _Dying] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._spared: asyncio.Task[Any] | None = None  # the one that closes the node: it goes on

    def __iter__(self) -> Iterator[Process]:
        """The living processes, in the order of their start."""
        return iter(list(self._alive.values()))

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def lingering(self) -> list[Process]:
        """Dead processes whose tasks have swallowed their cancellation and still run."""
        return [dying.process for dying in self._dying.values() if dying.reported]

    # --- birth ---

    def renumber(self, creation: int) -> None:
        """Pids are of this creation from now on."""
        self.creation = creation
        self._prefix = f"{self.name}/{creation:x}/"  # of every pid as text

    def start(self) -> None:
        """The node starts, on the running loop: so do the processes that were spawned before."""
        self.loop = asyncio.get_running_loop()
        unborn, self._unborn = self._unborn, {}
        for process, waits in unborn.items():
            self._run(process, waits.coroutine, waits.gate, waits.context)

    def spawn(
        self,
        body: Body,
        args: Sequence[object] = (),
        *,
        node: "Node",
        max_mailbox: int | None = None,
        gate: "asyncio.Future[None] | None" = None,
    ) -> Process:
        """Start a process; before `start`, it has its pid and its mailbox, and runs later.

        Args:
            body: a coroutine function; it is called with the Process and `args`. Or a Server class.
            max_mailbox: messages that may wait; None for no bound.
            gate: its code begins when this has a result; until then it can be sent to, named and killed.

        Raises:
            TypeError: neither a coroutine function nor a Server class, or not for these arguments.
            ValueError: `max_mailbox` is less than 1.
            NodeClosed: the processes have been closed.
        """
        if self._closed:
            raise NodeClosed(f"{self.name} is closed: it runs no more processes")
        if not callable(body):
            raise TypeError(_not_a_body(body))
        local = next(self._locals)
        mailbox = Mailbox(max_mailbox) if self.tracer is None else TracedMailbox(max_mailbox, self.tracer)
        pid = Pid(self.name, self.creation, local)
        process = Process(pid, node, body, mailbox)
        try:
            begun: object = body(process, *args) if type(body) is FunctionType else _beginning(body, process, args)
        except TypeError as error:
            if not inspect.iscoroutinefunction(body):
                raise
            raise TypeError(f"cannot spawn {body.__qualname__}: {error}; {_ADVICE}") from None  # it has not run
        kind = type(begun)
        if kind is not CoroutineType and not issubclass(kind, Coroutine):
            raise TypeError(_not_a_body(body, begun))
        coroutine: Any = begun
        self._alive[local] = self.direct[pid] = process
        context = self._context()
        if self.loop is None:
            self._unborn[process] = _Unborn(coroutine, gate, context or copy_context())
        else:
            self._run(process, coroutine, gate, context)
        return process

    def _run(
        self,
        process: Process,
        body: _Coroutine,
        gate: "asyncio.Future[None] | None",
        context: Context | None,
    ) -> None:
        assert self.loop is not None, "only after start()"
        life = self._life(process, body, gate)
        life.send(None)  # to its first await, before it is a task's: it sees its end even if that is before its birth
        name = f"{self._prefix}{process.pid.local}"
        task = self.loop.create_task(life, name=name, context=context)
        if not task.done():  # an eager task may have come to its end already
            process.task = task

    async def _life(self, process: Process, body: _Coroutine, gate: "asyncio.Future[None] | None") -> None:
        """The task of a process. Its death is complete before the task is done.

        Args:
            body: what it runs.
            gate: when.
        """
        try:
            # Cancelled before its first step, a task never enters its coroutine. This one is within it by then, so that
            # no callback need watch for its end: that was a turn of the loop for each process, 14 -> 10.9 us.
            await _birth()
            process.begin(process.task or _own_task())
            if type(process.mailbox) is TracedMailbox:
                process.mailbox.begin(process)
            if gate is not None:
                await gate
            await body
        except asyncio.CancelledError as error:
            body.close()  # it may not have begun
            if (process.task or _own_task()).cancelling():
                self._exited(process, KILLED)
                error.__traceback__ = None  # else the task keeps it, and with it all that the frames of the code hold
                raise
            # Nobody has cancelled this task: it has awaited something that was cancelled, and not expected it.
            self._crashed(process, error)
        except GeneratorExit:
            body.close()
            raise  # The loop was thrown away with the task in it: nobody is left to be told.
        except (KeyboardInterrupt, SystemExit) as error:
            self._exited(process, Crash.of(error))
            raise
        except Stop as stop:
            self._exited(process, stop.reason)
        except BaseException as error:  # noqa: BLE001 - whatever a process dies of
            # Of a GeneratorExit, a TaskGroup in the body makes something else.
            if self.loop is None or not self.loop.is_closed():
                self._crashed(process, error)
        else:
            self._exited(process, NORMAL)
        finally:
            if self._dying and process.task is not None:
                self._has_died(process.task)
            # The task has a context, and that has the process as the current one: a cycle, which would wait for the
            # garbage collector with every dead process. Its passes were 3.6 us of 11 for a process that ends at once.
            process.task = None

    def _has_died(self, task: "asyncio.Task[None]") -> None:
        """A task is about to end, which may have been waited for."""
        if self._dying.pop(task, None) is not None and not self._dying and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- calls ---

    def take_call(self, process: Process, call: Call[Any], timeout: float | None, now: float | None = None) -> None:
        """Put a call into the mailbox of a living process, and see to it that it is answered when the process dies.

        Args:
            timeout: seconds after which its caller gives up; None for never.
            now: the loop's time, if it is known.

        Raises:
            MailboxFull: the mailbox is at its bound; the call was not taken.
        """
        process.mailbox.put(call)
        calls = process.open_calls
        if calls is None:
            calls = process.open_calls = {}
        if now is None:
            now = asyncio.get_running_loop().time()
        if len(calls) >= process.prune_at:
            # A process may never answer: those whose callers have given up must not gather for ever.
            for expired in [call for call in calls if call.expired_at(now)]:
                del calls[expired]
            process.prune_at = max(PRUNE_FROM, 2 * len(calls))
        calls[call] = None
        call.opened(None if timeout is None else now + timeout, calls)

    def overflowed(self, process: Process) -> None:
        """A message for a process was dropped, and its sender cannot be told: the log tells, now and then."""
        mailbox, now = process.mailbox, asyncio.get_running_loop().time()
        mailbox.dropped += 1
        if now < mailbox.report_after:
            return
        mailbox.report_after = now + TELL_OVERFLOW
        _log.warning(
            "the mailbox of %s (%s) is full: %d messages have been dropped so far; it is too slow for what it is sent",
            process.pid,
            process.function,
            mailbox.dropped,
            extra=self._about(process, number=mailbox.dropped),
        )

    # --- death ---

    def kill(self, local: int, reason: Reason = KILLED) -> bool:
        """End a process. It is dead when this returns; its task is cancelled until it ends.

        Returns:
            Whether it was alive.
        """
        process = self._alive.get(local)
        if process is None:
            return False
        self._exited(process, reason)
        self._cancel(process)
        return True

    async def close(self, timeout: float, caller: "asyncio.Task[Any] | None" = None) -> list[Process]:
        """End all processes, and wait for their tasks.

        Args:
            timeout: seconds to wait.
            caller: the task that wants it. If it is a process's own, that goes on until it returns, and is not
                waited for. Default: this task.

        Returns:
            The processes whose tasks still run. They are dead, and are cancelled again and again.
        """
        self._closed = True
        own = self._spared = caller or asyncio.current_task()
        for process in self:
            self.kill(process.pid.local, SHUTDOWN)
        tasks = [task for task in self._dying if task is not own]
        if not tasks:
            return []
        _, running = await asyncio.wait(tasks, timeout=timeout)
        left = [self._dying[task].process for task in running]
        if left:
            _log.error(
                "%s closes although %d processes have not ended within %g s: %s",
                self.name,
                len(left),
                timeout,
                ", ".join(f"{process.pid} ({process.function})" for process in left),
                extra=fields(self.name, number=len(left), seconds=timeout),
            )
        return left

    def abandon(self) -> None:
        """Cancel the tasks of all processes, and wait for none: the node is gone as if its program had been killed."""
        self._closed = True
        for waits in self._unborn.values():
            waits.coroutine.close()
        alive = [process.task for process in self if process.task is not None]
        for task in (*alive, *self._dying):
            task.cancel()

    def _crashed(self, process: Process, error: BaseException) -> None:
        shown = text_of(error, repr)
        about = self._about(process, reason=shown)
        if process.exit_reason is None:
            text = "%s (%s) crashed: %s"
        else:
            text = "%s (%s) raised while it was ended: %s"
        try:
            _log.error(text, process.pid, process.function, shown, exc_info=error, extra=about)
        finally:  # a handler of the program's may raise
            if process.exit_reason is None:
                self._exited(process, Crash.of(error), crashed=True)

    def _exited(self, process: Process, reason: Reason, crashed: bool = False) -> None:
        """The one step in which a process dies."""
        if process.exit_reason is not None:
            return
        pid = process.pid
        del self._alive[pid.local]
        self.direct.pop(pid, None)
        process.end(reason)
        self._on_exit(process, reason)
        if not process.open_calls:
            return
        outcome, text = codec.NO_PROCESS, f"{process.pid} ended before it answered: {reason}"
        if crashed:
            outcome, text = codec.FAILED, f"{process.pid} ({process.function}) crashed: {reason}"
        for call in list(process.open_calls):
            try:
                call.abandon(outcome, text)
            except KinfolkError as error:
                _log.warning(
                    "could not tell the caller of %s that it is dead: %s",
                    process.pid,
                    error,
                    extra=self._about(process, reason=error),
                )

    def _about(self, process: Process, *, reason: object = None, number: int | None = None) -> dict[str, object]:
        """The fields of a log record about a process."""
        return fields(self.name, pid=process.pid, runs=process.function, reason=reason, number=number)

    def _cancel(self, process: Process) -> None:
        unborn = self._unborn.pop(process, None)
        if unborn is not None:
            unborn.coroutine.close()
            return
        task, loop = process.task, self.loop
        assert task is not None, "a process of a node that has started has a task"
        assert loop is not None, "a task has a loop"
        if task.done() or task is self._spared:
            return
        task.cancel()
        self._dying[task] = _Dying(process, loop.time() + self._linger_after, self._linger_after)
        if self._timer is None:
            self._timer = loop.call_later(self._linger_after, self._cancel_again)

    def _cancel_again(self) -> None:
        """Report and cancel those of the dying whose time has come. One timer serves all: thousands may die at once."""
        assert self.loop is not None, "only after start()"
        now = self.loop.time()
        late = now - min(dying.due for dying in self._dying.values()) > self._linger_after / 2
        for task, dying in self._dying.items():
            if dying.due > now:
                continue
            if not dying.reported and late:
                # The loop itself was busy: the task has not had its turn to end yet.
                dying.due = now + self._linger_after
                continue
            if not dying.reported:
                dying.reported = True
                _log.warning(
                    "%s (%s) is lingering: it is dead, but its task has swallowed its cancellation, or is slow to clean"
                    " up; it is cancelled again until it ends",
                    dying.process.pid,
                    dying.process.function,
                    extra=self._about(dying.process),
                )
            task.cancel()
            dying.backoff = min(2 * dying.backoff, MAX_BACKOFF)
            dying.due = now + dying.backoff
        next_due = min(dying.due for dying in self._dying.values())
        self._timer = self.loop.call_at(next_due, self._cancel_again)


@types.coroutine
def _birth() -> Generator[None, None, None]:
    """The await before the first step of a process."""
    yield


def _own_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    return task


def _beginning(body: Body, process: Process, args: Sequence[object]) -> object:
    return serve(body, process, tuple(args)) if is_server(body) else body(process, *args)


_ADVICE = "give an async function whose first argument is its Process, and its other arguments after it"


def _not_a_body(body: object, result: object = None) -> str:
    """What is wrong with something that was to be spawned, and what to give instead."""
    if inspect.iscoroutine(body):
        body.close()
        name = body.__qualname__
        return f"cannot spawn {name}(...), which has been called already: {_ADVICE}, as in spawn({name}, ...)"
    if not callable(body):
        return f"cannot spawn {body!r}: {_ADVICE}"
    name = getattr(body, "__qualname__", repr(body))
    if inspect.isasyncgen(result) or inspect.isgenerator(result):
        return f"cannot spawn {name}: it has a 'yield', and so is a generator; {_ADVICE}"
    return f"cannot spawn {name}: it returned {result!r} instead of a coroutine; is it missing its 'async'? {_ADVICE}"
