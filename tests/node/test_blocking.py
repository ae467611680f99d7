"""A thread that waits for a node is told when the node's loop ends, whatever it was doing."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable

import pytest

from kinfolk import Node, NodeClosed, new_cookie
from kinfolk.blocking import Blocking


@pytest.fixture
def node() -> Node:
    return Node("ada@127.0.0.1:0", cookie=new_cookie(), join=[])


def raised(question: Callable[[], object], until: Callable[[], object]) -> BaseException | None:
    """What a question raises that is asked in another thread, and cannot be answered."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(question)
        until()
        return asked.exception(timeout=10)


def test_a_loop_that_ends_before_it_has_begun_with_the_question(node: Node, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.new_event_loop()
    given = threading.Event()
    schedule = loop.call_soon_threadsafe

    def taken(*args, **kwargs):
        handle = schedule(*args, **kwargs)
        given.set()
        return handle

    monkeypatch.setattr(loop, "call_soon_threadsafe", taken)

    def end() -> None:
        assert given.wait(10)
        loop.close()

    error = raised(lambda: Blocking(node, lambda: loop).call("db", 1), end)
    assert isinstance(error, NodeClosed) and "before this was done" in str(error)


def test_a_loop_that_is_closed_between_the_look_and_the_question(node: Node, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(loop, "is_closed", lambda: False)
    error = raised(lambda: Blocking(node, lambda: loop).call("db", 1), lambda: None)
    assert isinstance(error, NodeClosed) and "ended with its loop" in str(error)
    monkeypatch.undo()


def test_a_loop_that_ends_in_the_midst_of_the_answer(node: Node, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.new_event_loop()
    asking = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        asking.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(node, "call", never)

    def end() -> None:
        loop.run_until_complete(asking.wait())
        tasks = asyncio.all_tasks(loop)
        loop.close()
        for task in tasks:  # asyncio reports what was thrown away with a loop
            monkeypatch.setattr(task, "_log_destroy_pending", False)

    error = raised(lambda: Blocking(node, lambda: loop).call("db", 1), end)
    assert isinstance(error, NodeClosed) and "before this was done" in str(error)


def test_an_answer_may_take_longer_than_a_look_at_the_loop(node: Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.blocking._LOOK", 0.01)
    loop = asyncio.new_event_loop()

    async def slow(*_: object, **__: object) -> str:
        await asyncio.sleep(0.1)
        loop.call_soon(loop.stop)
        return "answer"

    monkeypatch.setattr(node, "call", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: Blocking(node, lambda: loop).call("db", 1))
        loop.run_forever()
        loop.run_until_complete(asyncio.wrap_future(asked, loop=loop))
    assert asked.result() == "answer"
    loop.close()
