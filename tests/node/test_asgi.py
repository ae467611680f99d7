"""A node within a web application: it leaves before the server ends, whoever tells which of them to end."""

import asyncio
import signal
from collections.abc import Iterator
from threading import Thread
from types import FrameType
from typing import Any

import pytest

from kinfolk import Process
from kinfolk.asgi import lifespan
from tests.node.nodes import Nodes, echo, until


class Server:
    """What a server does with signals, and the state that the node was in then."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.node: Any = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.told.append((number, repr(self.node).rpartition(" ")[2]))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has taken the signals of this program."""
    server = Server()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [(number, signal.signal(number, server.handle)) for number in numbers]
    yield server
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in before:
        signal.signal(number, handler)
    assert after == [server.handle, server.handle], "they were given back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_is_for_the_node_and_then_for_the_server(nodes: Nodes, server: Server, number: int):
    order: list[str] = []

    async def stream(me: Process) -> None:
        try:
            await me.receive()
        finally:
            order.append("the stream has ended")

    async def then() -> None:
        order.append("the node has closed" if "(closed)" in repr(node) else "too early")

    async with lifespan(nodes.make("ada"), then) as node:
        server.node = node
        node.spawn(stream)
        await asyncio.sleep(0)
        signal.raise_signal(number)
        assert server.told == []
        await until(lambda: server.told)
        assert server.told == [(number, "(closed)>")]
        assert order == ["the stream has ended", "the node has closed"]
    assert len(server.told) == 1 and len(order) == 2


async def test_when_somebody_else_lets_the_node_leave_the_server_is_told(nodes: Nodes, server: Server):
    async with lifespan(nodes.make("ada")) as node:
        server.node = node
        await node.drain()
        await until(lambda: server.told)
    assert server.told == [(signal.SIGTERM, "(closed)>")]


async def test_a_second_signal_is_for_the_server_at_once(nodes: Nodes, server: Server):
    async def stuck(me: Process) -> None:
        await me.receive()
        await asyncio.Event().wait()

    async with lifespan(nodes.make("ada", drain_timeout=0.5)) as node:
        server.node = node
        pid = node.spawn(stuck)
        node.send(pid, "first")
        node.send(pid, "this one waits")
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: node.draining)
        signal.raise_signal(signal.SIGINT)
        assert server.told == [(signal.SIGINT, "(draining)>")]


async def test_when_the_server_ends_the_node_drains_and_nobody_is_told(nodes: Nodes, server: Server):
    ada, bob = await nodes.mesh("ada", "bob")
    closed: list[str] = []

    async def then() -> None:
        closed.append("then")

    async with lifespan(nodes.make("carl", ada), then) as node:
        await node.names.register("echo", node.spawn(echo))
        await until(lambda: bob.names.whereis("echo"))
    assert node.draining is not None and closed == ["then"] and server.told == []


async def test_what_fails_in_the_application_closes_the_node(nodes: Nodes, server: Server):
    ada = nodes.make("ada")
    with pytest.raises(RuntimeError, match="its own"):
        async with lifespan(ada):
            raise RuntimeError("its own")
    assert "(closed)" in repr(ada)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert server.told == []


async def test_what_ends_streams_is_called_also_when_the_application_fails_and_awaited(nodes: Nodes, server: Server):
    ended: list[str] = []

    async def then() -> None:
        await asyncio.sleep(0.01)
        ended.append("then")

    with pytest.raises(RuntimeError, match="its own"):
        async with lifespan(nodes.make("ada"), then):
            raise RuntimeError("its own")
    assert ended == ["then"] and server.told == []


async def test_the_server_is_told_although_what_comes_before_fails(
    nodes: Nodes, server: Server, caplog: pytest.LogCaptureFixture
):
    called: list[str] = []

    async def fails() -> None:
        raise RuntimeError("boom")

    async def then() -> None:
        called.append("then")

    async with lifespan(nodes.make("ada"), fails, then) as node:
        server.node = node
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: server.told)
    assert server.told == [(signal.SIGTERM, "(closed)>")] and called == ["then"]
    (record,) = [record for record in caplog.records if "once its node has closed" in record.message]
    assert (getattr(record, "node"), getattr(record, "reason")) == (node.name, "RuntimeError('boom')")  # noqa: B009


def test_outside_of_the_main_thread_no_signal_is_taken(server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path))
    seen: list[object] = []

    async def main() -> None:
        nodes = Nodes()
        async with lifespan(nodes.make("ada")) as node:
            seen.append(signal.getsignal(signal.SIGTERM))
            await node.drain()
            await asyncio.sleep(0.05)
        seen.append(repr(node).rpartition(" ")[2])

    thread = Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(30)
    assert seen == [server.handle, "(closed)>"] and server.told == []
