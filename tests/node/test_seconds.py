"""Whatever is no number of seconds is refused before anything happens, and the message says what to give."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kinfolk import NameWaitTimeout, Node, Pid, Process
from tests.node.nodes import Nodes, echo, ended

TOO_MANY = 10**400
WRONG = [float("nan"), -1, -0.001, float("-inf"), TOO_MANY, "5", [1], True]
Timed = Callable[[Node, Pid, Any], Awaitable[Any]]


async def release(node: Node, pid: Pid, timeout: Any) -> None:
    claim = await node.names.register("released", pid)
    await claim.release(timeout=timeout)


WAYS: dict[str, Timed] = {
    "register": lambda node, pid, timeout: node.names.register("new", pid, timeout=timeout),
    "unregister": lambda node, pid, timeout: node.names.unregister("held", timeout=timeout),
    "release": release,
    "wait_for": lambda node, pid, timeout: node.names.wait_for("held", timeout=timeout),
    "call": lambda node, pid, timeout: node.call(pid, 1, timeout=timeout),
    "call by name": lambda node, pid, timeout: node.call("held", 1, timeout=timeout),
    "wait_exit": lambda node, pid, timeout: node.wait_exit(pid, timeout=timeout),
    "send_when_clear": lambda node, pid, timeout: node.send_when_clear(pid, 1, timeout=timeout),
    "transfer": lambda node, pid, timeout: node.names.transfer("held", pid, timeout=timeout),
    "spawn_on": lambda node, pid, timeout: node.spawn_on("bob@h:1", echo, timeout=timeout),
    "drain": lambda node, pid, timeout: node.drain(timeout),
    "connect": lambda node, pid, timeout: node.connect("127.0.0.1:9", timeout=timeout),
}


def check(error: object, wrong: object, what: str) -> None:
    number = isinstance(wrong, int | float) and not isinstance(wrong, bool)
    assert type(error) is (ValueError if number else TypeError), error
    shown = "that many" if wrong == TOO_MANY else repr(wrong)
    assert what in str(error) and shown in str(error) and "give 0 or more" in str(error)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:10])
async def test_a_wrong_timeout_is_refused_and_changes_nothing(nodes: Nodes, wrong: object):
    ada = await nodes.start("ada")
    pid = ada.spawn(echo)
    await ada.names.register("held", pid)
    for way in WAYS.values():
        check(await ended(way(ada, pid, wrong)), wrong, "timeout")
    assert ada.names.snapshot() == {"held": pid, "released": pid}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:10])
async def test_a_wrong_timeout_of_receive_takes_no_message(nodes: Nodes, wrong: Any):
    ada = await nodes.start("ada")
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def receiver(me: Process) -> None:
        me.send(me.pid, "a message")
        try:
            await me.receive(timeout=wrong)
        except (TypeError, ValueError) as error:
            seen.put_nowait(error)
        seen.put_nowait(await me.receive())

    ada.spawn(receiver)
    check(await seen.get(), wrong, "timeout")
    assert await seen.get() == "a message"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:10])
@pytest.mark.parametrize("what", ["heartbeat", "down_after", "join_timeout"])
async def test_a_node_refuses_wrong_times(nodes: Nodes, what: str, wrong: object):
    with pytest.raises((TypeError, ValueError)) as raised:
        nodes.make("ada", **{what: wrong})
    check(raised.value, wrong, what)


async def test_a_heartbeat_must_be_shorter_than_the_silence_that_ends_a_session(nodes: Nodes):
    for times in ({"heartbeat": 0}, {"heartbeat": 1, "down_after": 1}, {"down_after": 0}, {"heartbeat": float("inf")}):
        with pytest.raises(ValueError, match="heartbeat must be positive"):
            nodes.make("ada", **times)


async def test_zero_looks_once_and_infinity_waits_for_ever(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(echo)
    forever = float("inf")
    with pytest.raises(NameWaitTimeout):
        await ada.names.wait_for("db", timeout=0)
    waiting = asyncio.create_task(ada.names.wait_for("db", timeout=forever))
    await ada.names.register("db", pid, timeout=forever)
    assert await waiting == pid
    assert await ada.call("db", 1, timeout=forever) == 1
    await ada.connect(bob.name, timeout=forever)
    await bob.names.unregister("db", timeout=forever)
