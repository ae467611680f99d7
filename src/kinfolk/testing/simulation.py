"""Run an async function on a simulated loop."""

import gc
import logging
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kinfolk.testing.loop import SimulatedLoop

T = TypeVar("T")

_log = logging.getLogger("kinfolk")


class _Lines(logging.Handler):
    """Puts what is logged into the log of a simulation."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(logging.DEBUG)
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.note("log", record.levelname, record.getMessage())


def simulate(seed: int, main: Callable[[], Coroutine[Any, Any, T]], *, log: Callable[[str], object] | None = None) -> T:
    """Run an async function to its end on a simulated loop, and return its result. No time passes but virtual time.

    Args:
        seed: decides latencies, the order of what is ready, and everything else that is left open. The same seed gives
            the same run, on every machine.
        main: makes its nodes with `cluster`.
        log: gets what happened, line by line, when it is over, whether it went well or not.

    Raises:
        NotSimulated: something of the real world was wanted.
        Stuck: it waited for what will never happen.
        RuntimeError: a loop is running already.
        Whatever `main` raises; and ExceptionGroup for errors that nobody caught, as asyncio would only log them.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError(
            "a loop is running here, and a simulation runs its own: call simulate() from a plain function"
        )
    loop = SimulatedLoop(seed)
    lines, level = _Lines(loop), _log.level
    if log is not None:
        loop.log = []
        _log.addHandler(lines)
        _log.setLevel(logging.DEBUG)
    collecting = gc.isenabled()
    gc.disable()  # when it comes depends on what has been before, and it ends what nobody holds any more
    try:
        try:
            result: T = loop.run_until_complete(main())
        finally:
            _log.removeHandler(lines)
            _log.setLevel(level)
            said, loop.log = loop.log, None
            loop.end()
            loop.close()
            if log is not None:
                for line in said or ():
                    log(line)
    finally:
        if collecting:
            gc.enable()
    errors = [context["exception"] for context in loop.errors if isinstance(context.get("exception"), Exception)]
    if errors:
        raise ExceptionGroup("errors that nobody caught", errors)
    return result
