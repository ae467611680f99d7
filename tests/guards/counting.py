"""Counts what the code does, so that tests can bound it: nothing here looks at a clock."""

import asyncio
import gc
import socket
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from kinfolk.wire import frames, reader, session

_KINDS = {kind.TAG: kind.__name__ for kind in frames.FRAMES}
SENDING = ("send", "sendmsg", "sendto", "sendall")
RECEIVING = ("recv", "recv_into")


class Traffic:
    """What all sockets of this program do.

    Attributes:
        calls: of the system, by name. A try that would block counts as well.
        sent: bytes, with what TLS adds.
        frames: that have come, by their class.
        operations: that have come, by their class.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reset()
        for name in SENDING + RECEIVING:
            monkeypatch.setattr(socket.socket, name, self._counted(name, getattr(socket.socket, name)), raising=False)
        read = reader.read_operations

        def counted(tag: int, payload: memoryview) -> Any:
            operations = read(tag, payload)
            kind = _KINDS[tag]
            self.frames[kind] += 1
            self.operations[kind] += len(operations or ())
            return operations

        monkeypatch.setattr(session, "read_operations", counted)

    def reset(self) -> None:
        """Begin to count anew."""
        self.calls: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.sent = 0

    @property
    def sends(self) -> int:
        """Calls of the system that send."""
        return sum(self.calls[name] for name in SENDING)

    @property
    def receives(self) -> int:
        """Calls of the system that receive."""
        return sum(self.calls[name] for name in RECEIVING)

    def _counted(self, name: str, original: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            done = original(*arguments)
            if name in SENDING:
                self.sent += done
            return done

        return call


@contextmanager
def tasks_counted() -> Generator[Counter[str], None, None]:
    """Counts the tasks that the running loop makes meanwhile, by what they run."""
    loop, made = asyncio.get_running_loop(), Counter[str]()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        made[coroutine.__qualname__] += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


async def blocks_left(work: Callable[[], Awaitable[object]]) -> int:
    """Blocks of memory that are there after some work and were not before, cycles of garbage among them."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        await work()
        return sys.getallocatedblocks() - before
    finally:
        gc.enable()


async def bytes_kept(work: Callable[[], Awaitable[object]]) -> int:
    """Bytes of memory that are kept after some work, garbage not counted."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def bytes_at_once(work: Callable[[], object]) -> int:
    """The most memory in bytes that some work takes at any moment; the least of five tries, for threads take some."""
    tracemalloc.start()
    try:
        taken: list[int] = []
        for _ in range(5):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            work()
            taken.append(tracemalloc.get_traced_memory()[1] - before)
        return min(taken)
    finally:
        tracemalloc.stop()
