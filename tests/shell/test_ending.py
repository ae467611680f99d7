"""That a loop was closed is noticed in the very step, without asking it again and again."""

import asyncio
import gc
import importlib
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from kinfolk.shell import ending
from kinfolk.shell.ending import LoopEnd


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _loop_in_debug_mode() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


@pytest.fixture(params=[_asyncio_loop, _loop_in_debug_mode, _uvloop])
def loop(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoop:
    make: Callable[[], asyncio.AbstractEventLoop] = request.param
    return make()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("turns", [0, 3])
def test_it_tells_within_the_close_and_once(loop: asyncio.AbstractEventLoop, turns: int):
    told: list[bool] = []
    LoopEnd(loop, lambda: told.append(loop.is_closed()))
    for _ in range(turns):
        turn(loop)
    assert told == []
    gc.disable()
    try:
        loop.close()
    finally:
        gc.enable()
    assert told == [True]
    loop.close()
    assert told == [True]


def test_it_goes_on_when_its_timer_has_rung(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ending, "_EVERY", 0.001)
    rung, told = list[int](), list[int]()

    class Counted(LoopEnd):
        def _set(self) -> None:
            rung.append(1)
            super()._set()

    async def until_rung() -> None:
        while len(rung) < 5:  # noqa: ASYNC110 - a real loop, for real timers
            await asyncio.sleep(0.001)

    watch = Counted(loop, lambda: told.append(1))
    loop.run_until_complete(until_rung())
    assert told == []
    loop.close()
    assert told == [1]
    watch.cancel()


def test_cancelled_it_tells_nobody_and_holds_nothing(loop: asyncio.AbstractEventLoop):
    told: list[Any] = []

    class Owner:
        def closed(self) -> None:
            told.append(self)

    owner = Owner()
    watch, seen = LoopEnd(loop, owner.closed), weakref.ref(owner)
    watch.cancel()
    del owner, watch
    turn(loop)
    gc.collect()
    assert seen() is None, "the loop, which goes on, keeps it"
    loop.close()
    assert told == []
