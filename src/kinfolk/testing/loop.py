"""An event loop that is deterministic: one seed, one order of events.

Time is virtual. It passes a little with each step, and jumps when nothing is ready, so an hour of waiting costs
nothing. What is ready lies in one queue for each *program* (a run of a node, or whatever else is given one): within a
program the order is asyncio's, first come, first served; between programs the seed decides, as it would be with
machines of their own. Nothing real is there: no sockets, no threads, no signals, no processes of the system.

The seed decides the same on every machine and in every version of Python, and no order depends on hashes: tasks and
futures are hashed by the number of their making, and not by their addresses.
"""

import asyncio
import heapq
import logging
import random
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context, ContextVar, copy_context
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, TypeVarTuple

_log = logging.getLogger("kinfolk")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What is not simulated is not written out, but made to refuse at the end of this file: type checkers would miss it.
if TYPE_CHECKING:
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = asyncio.AbstractEventLoop

EPOCH = 1_767_225_600
"""When simulations begin, on the wall clock: 2026, in seconds since 1970."""
_EPOCH_NS = EPOCH * 10**9
STEP = 20e-6
"""Seconds that a step takes at most."""
CLEARED_FROM = 256  # timers that lie in the heap although they were cancelled, from which on it is cleared
_LAST_STEPS = 100_000  # in which cancelled tasks must end when a simulation is over


class NotSimulated(RuntimeError):
    """Something of the real world was wanted, and a simulation has none of it."""


class Stuck(RuntimeError):
    """Nothing is ready and nothing will ever be: everybody waits for somebody else."""


class Program:
    """Whatever runs and dies together: a run of a node, with all its tasks, callbacks and timers.

    What a program starts belongs to it. Of a program that is dead nothing runs any longer, not even its ``finally``:
    it has been killed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.ready: deque[_Handle] = deque()

    def __repr__(self) -> str:
        return f"<program {self.name}{'' if self.alive else ', dead'}>"

    def context(self) -> Context:
        """A copy of the current context, in which everything that is started belongs to this program."""
        context = copy_context()
        context.run(PROGRAM.set, self)
        return context


PROGRAM: ContextVar[Program] = ContextVar("kinfolk_program")
"""The program that the running code belongs to; unset for what belongs to none."""


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number  # goes first: a task puts itself into a set as it is made
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class _Handle(asyncio.Handle):
    """asyncio's, made with fewer calls: a simulation does hardly anything as often."""

    __slots__ = ()
    if TYPE_CHECKING:
        _loop: "SimulatedLoop"
        _context: Context
        _callback: Any
        _repr: str | None
        _source_traceback: object

    def __init__(
        self, callback: Callable[..., object], args: Sequence[Any], loop: "SimulatedLoop", context: Context
    ) -> None:
        if loop._debug:  # then it keeps where it was made
            asyncio.Handle.__init__(self, callback, args, loop, context)
            return
        self._loop, self._context = loop, context
        self._callback, self._args = callback, args
        self._cancelled = False
        self._repr = self._source_traceback = None


class _Timer(_Handle, asyncio.TimerHandle):
    """The same for a timer. It tells the loop if it is cancelled before its time."""

    __slots__ = ()
    if TYPE_CHECKING:
        _when: float
        _scheduled: bool

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: "SimulatedLoop",
        context: Context,
    ) -> None:
        _Handle.__init__(self, callback, args, loop, context)
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        """As asyncio's."""
        if self._cancelled:
            return
        loop = self._loop
        if self._scheduled:
            loop._timer_cancelled()
        self._cancelled = True
        if loop._debug:
            self._repr = repr(self)
        self._callback, self._args = None, ()  # what they hold is let go


class SimulatedLoop(_Loop):
    """See the head of this file.

    Args:
        seed: decides everything that is left open.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.rng = random.Random(f"kinfolk {seed}")  # noqa: S311 - repeatable is what it has to be
        """Where everything of this simulation gets its random numbers from."""
        self.steps = 0
        """How many have been taken."""
        self.log: list[str] | None = None
        """What happens, a line each, if it is to be kept."""
        self._now = 0.0
        self._others = Program("the simulation")  # of what belongs to no program
        self._runnable: list[Program] = []  # those that live, with something ready
        self._dead: list[Program] = []
        self._timers: list[tuple[float, int, _Timer]] = []
        self._set = 0  # how many timers were set
        self._cancelled = 0  # of those in the heap
        self._made = 0  # tasks
        self._tasks: list[asyncio.Task[Any]] = []  # those that have not ended, and some that have
        self._clear_at = 64
        self._thread = threading.get_ident()
        self._running = self._stopping = self._closed = self._over = False
        self._debug = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._factory: Any = None
        self.errors: list[dict[str, Any]] = []
        """What nobody has caught, as told to the exception handler."""

    def __repr__(self) -> str:
        return f"<simulated loop, seed {self.seed}, {self._now:.6f} s>"

    # --- time ---

    def time(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._now

    def wall_clock(self) -> int:
        """Virtual nanoseconds since 1970."""
        return _EPOCH_NS + int(self._now * 1e9)

    def note(self, *words: object) -> None:
        """Something has happened, for the log: with the moment before it."""
        if self.log is not None:
            self.log.append(f"{self._now:.6f} {' '.join(map(str, words))}")

    # --- what is to run ---

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's."""
        if context is None:
            context = copy_context()
        handle = _Handle(callback, args, self, context)
        program = context.get(PROGRAM, self._others)  # as in _put; written out, since hardly anything is done as often
        ready = program.ready
        if not ready and (program.alive or self._over):
            self._runnable.append(program)
        ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`: there are no threads."""
        if threading.get_ident() != self._thread:
            _refuse("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        handle = _Timer(when, callback, args, self, copy_context() if context is None else context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, handle))
        return handle

    def _timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > CLEARED_FROM and 2 * self._cancelled > len(self._timers):
            # In place: while steps are taken, they go by this very list.
            self._timers[:] = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _put(self, handle: _Handle) -> None:
        program = handle._context.get(PROGRAM, self._others)
        ready = program.ready
        if not ready and (program.alive or self._over):
            self._runnable.append(program)
        ready.append(handle)  # of the dead as well: their tasks have to end when all is over

    def _take_steps(self, most: float = inf) -> None:
        """Run one callback after the other, until the loop is stopped or so many have run."""
        timers, runnable, random = self._timers, self._runnable, self.rng.random
        last = self.steps + most
        while not self._stopping and self.steps < last:
            while not runnable:
                if not timers:
                    raise Stuck("nothing will ever happen any more, and the simulation is not over")
                self._now = max(self._now, timers[0][0])
                self._ring()
            count = len(runnable)
            at = int(random() * count) if count > 1 else 0
            ready = runnable[at].ready
            handle = ready.popleft()
            if not ready:
                runnable[at] = runnable[-1]
                runnable.pop()
            if not handle._cancelled:
                self.steps += 1
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio does
                    self._failed(handle, error)
                self._now += STEP * random()
            if timers and timers[0][0] <= self._now:
                self._ring()

    def _failed(self, handle: _Handle, error: BaseException) -> None:
        text = f"Exception in callback {handle!r}"
        self.call_exception_handler({"message": text, "exception": error, "handle": handle})

    def _ring(self) -> None:
        """Put what is due where it is ready."""
        timers = self._timers
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if handle._cancelled:
                self._cancelled -= 1
            else:
                self._put(handle)

    def kill(self, program: Program) -> None:
        """Run nothing of this program any longer."""
        program.alive = False
        self._dead.append(program)
        if program in self._runnable:
            self._runnable.remove(program)

    # --- tasks and futures ---

    def create_future(self) -> asyncio.Future[Any]:
        """As asyncio's."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """As asyncio's."""
        self._made += 1
        number = self._made
        if self._factory is not None:
            made: asyncio.Task[T] = self._factory(self, coro, context=context, **options)
            if name is not None:
                made.set_name(str(name))
            return made
        task: asyncio.Task[T] = _Task(
            number, coro, loop=self, name=name or f"task {number}", context=context, **options
        )
        if len(self._tasks) >= self._clear_at:
            self._tasks = [other for other in self._tasks if not other.done()]
            self._clear_at = max(64, 2 * len(self._tasks))
        self._tasks.append(task)
        return task

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio's."""
        self._factory = factory

    def get_task_factory(self) -> Any:
        """As asyncio's."""
        return self._factory

    # --- its life ---

    def run_forever(self) -> None:
        """As asyncio's."""
        if self._closed:
            raise RuntimeError("the simulated loop is closed")
        if self._running or events._get_running_loop() is not None:
            raise RuntimeError("a loop is running already: a simulation runs its own, so start it outside of any")
        self._running = True
        events._set_running_loop(self)
        try:
            self._take_steps()
        finally:
            self._stopping = self._running = False
            events._set_running_loop(None)

    def run_until_complete(self, future: Any) -> Any:
        """As asyncio's.

        Raises:
            Stuck: it waits for something that will never happen.
        """
        task: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        task.add_done_callback(self._done)
        try:
            self.run_forever()
        finally:
            task.remove_done_callback(self._done)
        return task.result()

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._stopping = True

    def stop(self) -> None:
        """As asyncio's."""
        self._stopping = not self._over  # then nothing waits for it, and what is left has to end

    def is_running(self) -> bool:
        """As asyncio's."""
        return self._running

    def is_closed(self) -> bool:
        """As asyncio's."""
        return self._closed

    def end(self) -> list[asyncio.Task[Any]]:
        """The simulation is over: let every task end, also those of dead programs. Returns those that do not."""
        self._over = True
        self._runnable += [program for program in self._dead if program.ready]
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        self._stopping, self._running = False, True
        events._set_running_loop(self)
        try:
            self._take_steps(_LAST_STEPS)
        except Stuck:
            pass  # everybody has ended, or waits in spite of being cancelled
        finally:
            self._running = False
            events._set_running_loop(None)
        return [task for task in tasks if not task.done()]

    def close(self) -> None:
        """As asyncio's."""
        if self._running:
            raise RuntimeError("a running loop cannot be closed")
        self._closed = True
        self._timers.clear()
        self._runnable.clear()
        # They hold on to the loop, and to all that has run on it: what is in no circle goes without a search.
        self._tasks.clear()
        self._dead.clear()

    async def shutdown_asyncgens(self) -> None:
        """There is nothing to do."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # --- errors ---

    def set_exception_handler(self, handler: Any) -> None:
        """As asyncio's."""
        self._handler = handler

    def get_exception_handler(self) -> Any:
        """As asyncio's."""
        return self._handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Note it, for whoever runs the simulation, and log it."""
        self.errors.append(context)
        _log.error("%s", context.get("message"), exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's."""
        if self._handler is None:
            self.default_exception_handler(context)
        else:
            self._handler(self, context)

    def get_debug(self) -> bool:
        """Whether asyncio is to look more closely."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """As asyncio's."""
        self._debug = enabled

    # --- what is not there ---

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """There are no signals."""
        _refuse("add_signal_handler")

    def remove_signal_handler(self, sig: int) -> bool:
        """There was none."""
        return False


def _refuse(what: str) -> NoReturn:
    raise NotSimulated(
        f"{what}: a simulation has no sockets, threads, signals or processes of the system, since what they do cannot"
        " be repeated; give the code something in their place, or test it on a real loop"
    )


def _refusing(name: str, *, later: bool) -> Callable[..., Any]:
    """A method that refuses: at once, or when it is awaited, as the loop's own would be."""

    async def refused_later(*_: object, **__: object) -> NoReturn:
        _refuse(name)

    def refused(*_: object, **__: object) -> NoReturn:
        _refuse(name)

    return refused_later if later else refused


for _name in (
    "getaddrinfo", "getnameinfo", "create_connection", "create_server", "create_unix_connection", "create_unix_server",
    "create_datagram_endpoint", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe", "start_tls",
    "sendfile", "subprocess_shell", "subprocess_exec", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into",
    "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_sendfile",
):  # fmt: skip
    setattr(SimulatedLoop, _name, _refusing(_name, later=True))
for _name in (
    "run_in_executor", "set_default_executor", "add_reader", "remove_reader", "add_writer", "remove_writer",
):  # fmt: skip
    setattr(SimulatedLoop, _name, _refusing(_name, later=False))
