"""The driver: gives the kernel one input, carries out all its effects in order, and only then gives the next.

A step is a plain function: without an ``await`` nothing can slip in between. An input that is born of an effect waits
in the queue until the step is over. There is one timer, for the kernel's next deadline.

Source: the run loop contract of algesten/str0m.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kinfolk import effects as fx
from kinfolk.kernel import Kernel
from kinfolk.logs import fields

_log = logging.getLogger("kinfolk")


class Driver:
    """Runs one kernel.

    Args:
        kernel: whose effects are carried out.
        performers: by class of effect, what carries one out, without waiting and without raising.
        wall_clock: nanoseconds since 1970, as far as anybody knows; only goes into stamps.
        monotonic: the seconds before there is a loop, and after.
        failed: told, in a turn of its own, that an input ended in an exception. The kernel is somewhere in the middle
            of it then, and takes nothing more: a node that goes on with half a table tells others what is not so.
    """

    def __init__(
        self,
        kernel: Kernel,
        performers: Mapping[type, Callable[[Any], None]],
        wall_clock: Callable[[], int],
        monotonic: Callable[[], float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._kernel = kernel
        self._performers = performers
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._failed = failed
        self._inputs: deque[fx.Input] = deque()
        self._actions: deque[Callable[[], None]] = deque()
        self._running = False
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None  # when it fires; uvloop's handles do not tell

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the kernel's deadlines from now on, on this loop. Inputs are taken before that as well."""
        if self._timer is not None:
            self._timer.cancel()  # it may be of another loop
            self._timer = None
        self._loop = loop
        self._arm()

    def stop(self) -> None:
        """Keep no more deadlines."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def submit(self, happened: fx.Input) -> None:
        """Give the kernel an input; its effects are carried out before this returns, unless a step is under way.

        Raises:
            BaseException: the kernel has failed; see `failed` above.
        """
        inputs = self._inputs
        inputs.append(happened)
        if self._running:
            if self._error is not None:
                self._give_up(self._error)
            return
        self._running = True
        performers = self._performers
        try:
            while inputs:
                for effect in self._kernel.handle(inputs.popleft(), self.now()):
                    try:
                        performers[type(effect)](effect)
                    except (RecursionError, MemoryError):
                        raise  # the next effect would fare no better
                    except Exception:  # noqa: BLE001
                        # The effects after it are of the same step: without them the kernel is wrong about the world.
                        with suppress(Exception):  # a handler of the program's may raise
                            _log.exception(
                                "could not carry out %r: this is a bug in kinfolk, please report it",
                                effect,
                                extra=fields(self._kernel.name),
                            )
        except BaseException as error:
            if self._loop is None:
                self._running = False  # nobody has been told anything yet
            else:
                self._error = error  # and until the node has ended, this step is not over
                self._give_up(error)
            raise
        self._running = False
        while self._actions and not self._running:
            self._actions.popleft()()
        self._arm()

    def _give_up(self, error: BaseException) -> None:
        """Not here and now, for this may be the end of the stack; if not even this can be done, with the next input."""
        if self._loop is not None:
            self._loop.call_soon(self._failed, error)

    @property
    def idle(self) -> bool:
        """Whether no step is under way and no input waits: the kernel knows all that has happened."""
        return not (self._running or self._inputs)

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something that must not lie within a step: at once, or as soon as the inputs that wait are taken.

        Args:
            action: may submit inputs, whose effects are then carried out before `submit` returns; must not raise.
        """
        if self._running:
            self._actions.append(action)
        else:
            action()

    def clock(self) -> float:
        """The time in seconds that deadlines are on, from any thread."""
        return self._monotonic() if self._loop is None else self._loop.time()

    def now(self) -> fx.Now:
        """The time, as the kernel is told it."""
        mono = self._monotonic() if self._loop is None else self._loop.time()
        return fx.Now(mono, self._wall_clock() // 1_000_000)

    def _arm(self) -> None:
        deadline = self._kernel.next_deadline()
        if self._loop is None:
            return
        if self._timer is not None:
            if self._due == deadline:
                return
            self._timer.cancel()
        self._due = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self.submit(fx.TimePassed())
