"""Attacks on real sockets, by an adversary who uses nothing of kinfolk's own."""

import asyncio
import itertools
import os
import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kinfolk import AuthenticationFailed, Node, Pid, Process
from kinfolk.cookie import Cookie, new_cookie
from kinfolk.wire.frames import FRAMES, HANDSHAKE
from kinfolk.wire.session import OBSERVER_TAGS
from tests.attacks.adversary import (
    ACK,
    ANSWER,
    CALL,
    CHALLENGE,
    GLOBAL_SYNC,
    GOODBYE,
    NAME,
    PEER_LIST,
    PING,
    PONG,
    REFUSED,
    REPLY,
    SEND,
    SPAWN,
    SPAWN_REPLY,
    Heard,
    Keys,
    Papers,
    Wire,
    frame,
    hello,
    in_the_middle,
    raw_frame,
    reply_to,
)
from tests.authority import Authority
from tests.node.nodes import Nodes, echo, until
from tests.system.fleet import free_port
from tests.wire.vectors import VECTORS

MALLORY = "aa-mallory@127.0.0.1:9"  # sorts first: no dial of the nodes to it goes before its own
PATIENT = 1.0
"""Seconds between heartbeats: nobody is to be lost for being slow."""


class Scene:
    """Bob, who is attacked, with a name and a process; and an adversary who may know the cookie."""

    def __init__(self, nodes: Nodes, bob: Node, pid: Pid, cookie: str) -> None:
        self.nodes, self.bob, self.pid = nodes, bob, pid
        self.keys = Keys(cookie)
        self.papers = Papers.of(self.keys)
        self._starts = itertools.count(1)

    async def start(self, word: str, *join: Node, **settings: Any) -> Node:
        """Another node with the cookie, patient with a busy machine."""
        return await self.nodes.start(word, *join, heartbeat=PATIENT, **settings)

    @property
    def port(self) -> int:
        """Where bob listens."""
        return port_of(self.bob)

    async def insider(self, name: str = MALLORY, **said: object) -> tuple[Wire, Heard | None]:
        """One that knows the cookie, up to the answer to its proof."""
        wire = await Wire.dial(self.port, self.papers)
        named = hello(name, **{"creation": next(self._starts), **said})
        _, answer = await reply_to(wire, self.keys, self.papers.fingerprint, named)
        return wire, answer

    async def peer(self) -> Wire:
        """A peer in good standing, so far: it has listed its peers and synced its ledger, which is empty."""
        wire, answer = await self.insider()
        assert answer is not None and answer.tag == ACK, answer
        await wire.say(frame(PEER_LIST, [[], 0, 0]))
        await wire.say(frame(GLOBAL_SYNC, [next(self._starts) - 1, 0, True, [], [], [], [], [], [], []]))
        return wire

    async def is_unharmed(self) -> None:
        """Bob has the one name, the one process, and no peer."""
        await until(lambda: not self.bob.peers() and not self.bob.kernel.members.candidates)
        assert self.bob.names.snapshot() == {"db": self.pid}
        assert await self.bob.call("db", "hi") == "hi"
        assert len(self.bob.processes()) == 2, "that with the name, and the node's service"


def port_of(node: Node) -> int:
    """Where it listens."""
    return int(node.name.rpartition(":")[2])


@pytest.fixture
async def scene(nodes: Nodes) -> Scene:
    """Bob alone, with a name."""
    cookie = new_cookie()
    nodes.cookie = Cookie(cookie)
    bob = await nodes.start("bob", heartbeat=PATIENT)
    pid = bob.spawn(echo)
    await bob.names.register("db", pid)
    return Scene(nodes, bob, pid, cookie)


def refused(heard: Heard | None) -> str:
    """The code with which the listener has refused."""
    assert heard is not None and heard.tag == REFUSED, heard
    return str(heard.operations[0][0])


async def connecting(node: Node, port: int) -> str:
    """Connect to an address; why that was refused."""
    with pytest.raises(AuthenticationFailed) as caught:
        await node.connect(f"127.0.0.1:{port}")
    assert node.peers() == []
    return caught.value.reason


# --- the adversary can do what an honest end can, so what fails below fails for its own reason ---


async def test_an_end_made_after_the_document_alone_becomes_a_peer(scene: Scene):
    async with await scene.peer() as wire:
        await wire.say(frame(PING, [7, 0, 0]))
        heard = await wire.hear_until(PONG)
        assert heard is not None and heard.operations == [[7]]
        assert scene.bob.peers() == [MALLORY]
    await scene.is_unharmed()


async def test_a_middle_that_touches_nothing_is_harmless(scene: Scene):
    ada = await scene.start("ada")
    async with in_the_middle(scene.port) as middle:
        await ada.connect(f"127.0.0.1:{middle.port}")
        assert await ada.call("db", "secret words") == "secret words"
        assert b"secret words" not in middle.said and b"bob@" not in middle.heard
        await ada.close()


# --- in the middle ---


async def test_a_man_in_the_middle_without_the_cookie_gets_nowhere(scene: Scene):
    ada = await scene.start("ada")
    async with in_the_middle(scene.port, Papers.of(Keys(new_cookie()))) as middle:
        assert await connecting(ada, middle.port) == "cookie"
        assert not middle.said, "ada has told it something"
    async with in_the_middle(scene.port, Papers.of(Keys(new_cookie()))) as middle:
        wire = await Wire.dial(middle.port, scene.papers)  # someone who does not care who is there
        async with wire:
            await wire.say(hello(MALLORY))
            assert await wire.hear() is None
        await until(lambda: middle.failures or not middle.heard)
        assert not middle.heard, "bob has told it something"
    await scene.is_unharmed()


async def test_a_handshake_relayed_by_one_with_the_cookie_is_worthless(scene: Scene):
    """It can be a member itself; but it cannot sit between two others, for each proof names both certificates."""
    ada = await scene.start("ada")
    async with in_the_middle(scene.port, scene.papers) as middle:
        assert await connecting(ada, middle.port) == "cookie"
        assert middle.said and middle.heard, "they did speak through it"
    await scene.is_unharmed()


async def test_a_connection_led_to_another_member_is_refused(scene: Scene):
    ada, carl = await scene.start("ada"), await scene.start("carl")
    there = free_port()
    async with in_the_middle(port_of(carl), port=there):
        with pytest.raises(AuthenticationFailed, match=f"it is {carl.name} that listens there") as caught:
            await ada.connect(f"dora@127.0.0.1:{there}")
        assert caught.value.reason == "name"
    assert ada.peers() == carl.peers() == []


async def test_a_connection_led_back_to_its_dialler_is_refused(scene: Scene):
    ada = await scene.start("ada")
    async with in_the_middle(port_of(ada)) as middle:
        assert await connecting(ada, middle.port) == "self"


async def test_a_byte_changed_on_the_way_ends_the_session_and_changes_nothing_else(scene: Scene):
    ada = await scene.start("ada")
    async with in_the_middle(scene.port) as middle:
        await ada.connect(f"127.0.0.1:{middle.port}")
        heard = len(middle.said)
        middle.alter = lambda data: data[:-1] + bytes((data[-1] ^ 1,))
        ada.send("db", ["not", "to", "arrive", "altered"])
        await until(lambda: len(middle.said) > heard)
        await until(lambda: scene.bob.counters["peers_lost"])
        middle.alter = bytes
        await until(lambda: ada.counters["peers_lost"])
        await ada.names.wait_for("db", timeout=10)
        assert await ada.call("db", "again") == "again"
        await ada.close()
    await scene.is_unharmed()


# --- replay and reflection ---


async def test_a_recorded_connection_cannot_be_played_again(scene: Scene):
    ada = await scene.start("ada")
    async with in_the_middle(scene.port) as middle:
        await ada.connect(f"127.0.0.1:{middle.port}")
        assert await ada.call("db", 1) == 1
        await ada.close()
    await until(lambda: not scene.bob.peers())
    up = scene.bob.counters["peers_lost"]
    async with await Wire.dial(scene.port, None) as wire:
        await wire.say(bytes(middle.said))
        await wire.ended()
    assert scene.bob.counters["peers_lost"] == up, "there was a session"
    await scene.is_unharmed()


async def test_proofs_of_another_connection_are_worthless_in_this_one(scene: Scene):
    named = hello(MALLORY)
    async with await Wire.dial(scene.port, scene.papers) as wire:
        reply, answer = await reply_to(wire, scene.keys, scene.papers.fingerprint, named)
        assert answer is not None and answer.tag == ACK
    async with await Wire.dial(scene.port, scene.papers) as wire:
        await wire.say(named)
        assert (await wire.hear_until(CHALLENGE)) is not None
        await wire.say(reply)
        assert refused(await wire.hear()) == "cookie"
    await scene.is_unharmed()


class Employee:
    """Has a certificate of the company's authority, as all nodes have, and does not know the cookie."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self._names = itertools.count()
        tls = self.authority.issue("mallory", f"kinfolk://kinfolk/{MALLORY}")
        self.papers = Papers.load(Path(tls.certificate), Path(tls.key), self.authority.file)

    async def start(self, nodes: Nodes, word: str) -> Node:
        """A node with a certificate of its own."""
        name = f"{word}@127.0.0.1:{free_port()}"
        return await nodes.start(name, tls=self.authority.issue(word, f"kinfolk://kinfolk/{name}"))


async def test_a_challenge_reflected_to_its_sender_is_worthless(nodes: Nodes, tmp_path: Path):
    """With a certificate that is good, and without the cookie: what the dialler proves is no proof of the listener."""
    employee = Employee(tmp_path)
    ada = await employee.start(nodes, "ada")
    said: list[bytes] = []

    async def mallory(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with Wire(reader, writer) as wire:
            named = await wire.hear()
            assert named is not None and named.tag == NAME
            nonce = named.operations[0][-1]  # that of the dialler itself
            await wire.say(frame(CHALLENGE, [1, [], "kinfolk", MALLORY, 1, nonce]))
            reply = await wire.hear()
            assert reply is not None and reply.tag == REPLY
            await wire.say(frame(ACK, reply.operations[0]))
            said.append(reply.frame)
            assert await wire.hear() is None, "ada says something to it"

    server = await asyncio.start_server(mallory, "127.0.0.1", 0, ssl=employee.papers.server)
    async with server:
        assert await connecting(ada, server.sockets[0].getsockname()[1]) == "cookie"
        await until(lambda: said)
    await ada.close()


async def test_a_handshake_relayed_by_an_employee_is_worthless(nodes: Nodes, tmp_path: Path):
    employee = Employee(tmp_path)
    ada, bob = await employee.start(nodes, "ada"), await employee.start(nodes, "bob")
    async with in_the_middle(port_of(bob), employee.papers) as middle:
        assert await connecting(ada, middle.port) == "cookie"
        assert middle.said and middle.heard
    assert bob.peers() == []


async def test_an_employee_without_the_cookie_proves_nothing(nodes: Nodes, tmp_path: Path):
    employee = Employee(tmp_path)
    bob = await employee.start(nodes, "bob")
    async with await Wire.dial(port_of(bob), employee.papers) as wire:
        _, answer = await reply_to(wire, Keys(new_cookie()), employee.papers.fingerprint, hello(MALLORY))
        assert refused(answer) == "cookie"
    assert bob.peers() == []


# --- downgrade ---


async def test_no_older_tls_is_spoken_by_either_end(scene: Scene):
    old = Papers.of(scene.keys, version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, OSError)):
        await Wire.dial(scene.port, old)
    ada = await scene.start("ada")
    async with in_the_middle(scene.port, old) as middle:
        await connecting(ada, middle.port)
        assert not middle.said
    await scene.is_unharmed()


@pytest.mark.parametrize("version", [0, 2])
async def test_no_other_version_of_the_protocol_is_spoken_by_either_end(scene: Scene, version: int):
    wire, answer = await scene.insider(version=version)
    async with wire:
        assert refused(answer) == "version"
        assert await wire.hear() is None
    ada = await scene.start("ada")

    async def older(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with Wire(reader, writer) as wire:
            await wire.hear()
            await wire.say(frame(CHALLENGE, [version, [], "kinfolk", MALLORY, 1, os.urandom(32)]))
            assert await wire.hear() is None

    async with await asyncio.start_server(older, "127.0.0.1", 0, ssl=scene.papers.server) as server:
        assert await connecting(ada, server.sockets[0].getsockname()[1]) == "version"
    await scene.is_unharmed()


# --- names of others ---


async def test_a_stolen_name_is_refused_while_its_owner_is_there(scene: Scene):
    ada = await scene.start("ada", scene.bob)
    for name, said, code in (
        (scene.bob.name, {}, "name"),
        (scene.bob.name, {"creation": scene.bob.creation}, "self"),
        (ada.name, {"creation": ada.creation - 1}, "stale"),
        (MALLORY, {"expects": ada.name}, "name"),
        (MALLORY, {"cluster": "elsewhere"}, "cluster"),
        (MALLORY, {"purpose": "master"}, "purpose"),
    ):
        wire, answer = await scene.insider(name, **said)
        async with wire:
            assert refused(answer) == code, name
    assert scene.bob.peers() == [ada.name] and ada.peers() == [scene.bob.name]
    assert scene.bob.counters["peers_lost"] == ada.counters["peers_lost"] == 0
    await ada.close()
    await scene.is_unharmed()


# --- frames out of their place ---


@pytest.mark.parametrize("after", ["TLS", "NAME", "a wrong proof"])
async def test_what_is_said_before_the_proof_is_not_heard(scene: Scene, after: str):
    for kind in FRAMES:
        if kind.TAG in HANDSHAKE:
            continue
        async with await Wire.dial(scene.port, scene.papers) as wire:
            if after != "TLS":
                await wire.say(hello(MALLORY))
                assert (await wire.hear_until(CHALLENGE)) is not None
            if after == "a wrong proof":
                await wire.say(frame(REPLY, [bytes(32)]))
            await wire.say(VECTORS[kind].frame)
            while (heard := await wire.hear()) is not None:
                assert heard.tag == REFUSED
    await scene.is_unharmed()


async def test_an_observer_does_nothing_that_only_a_peer_may(scene: Scene):
    for kind in FRAMES:
        if kind.TAG in OBSERVER_TAGS | HANDSHAKE:
            continue
        wire, answer = await scene.insider("cli", purpose="observer")
        async with wire:
            assert answer is not None and answer.tag == ACK
            await wire.say(VECTORS[kind].frame)
            goodbye = await wire.hear_until(GOODBYE)
            assert goodbye is not None and goodbye.operations[0][0] == "protocol", kind
    for target in ("db", scene.pid.local):
        wire, _ = await scene.insider("cli", purpose="observer")
        async with wire:
            await wire.say(frame(CALL, [target, None, 1, 1000, "hi"]))
            assert (await wire.hear_until(ANSWER, GOODBYE) or Heard(0, [], b"")).tag == GOODBYE
    await scene.is_unharmed()


# --- bombs ---

DEEP = 200_000
BOMBS = {
    "four billion items": b"\xdd\xff\xff\xff\xff",
    "four billion entries": b"\xdf\xff\xff\xff\xff",
    "four gigabytes of text": b"\xdb\xff\xff\xff\xff",
    "four gigabytes of bytes": b"\xc6\xff\xff\xff\xff",
    "an extension of four gigabytes": b"\xc9\xff\xff\xff\xff\x02",
    "lists in lists": b"\x91" * DEEP + b"\xc0",
    "maps in maps": b"\x81\xa0" * DEEP + b"\xc0",
    "messages in messages": msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"\x92\xa1x" * 5000 + b"\xc0")),
    "a number of a million digits": msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"9" * 1_000_000)),
    "a number with a giant exponent": msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"1E999999999")),
    "a span of a billion years": msgspec.msgpack.encode(msgspec.msgpack.Ext(3, b"P999999999999D")),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_costs_neither_time_nor_memory(scene: Scene, bomb: str):
    before, began = _memory(), time.process_time()
    async with await scene.peer() as wire:
        for target in (scene.pid.local, "nobody"):
            await wire.say(
                raw_frame(CALL, b"\x91\x95" + msgspec.msgpack.encode(target) + b"\xc0\x01\x64" + BOMBS[bomb])
            )
        await wire.say(frame(PING, [7, 0, 0]))
        heard = await wire.hear_until(PONG, GOODBYE)
        assert heard is not None, "it is told why the session ends, or it goes on"
    assert time.process_time() - began < 2.0
    assert _memory() - before < 50_000_000
    await scene.is_unharmed()


async def test_announced_lengths_take_no_memory_before_they_come(scene: Scene):
    before = _memory()
    wires = [await Wire.dial(scene.port, scene.papers) for _ in range(20)]
    for wire in wires:
        await wire.say((4096).to_bytes(4, "little") + b"\x01")  # as long as it may be, and never complete
    assert _memory() - before < 20_000_000
    for wire in wires:
        async with wire:
            pass
    for length in (0, 4097, 2**24 + 1, 2**32 - 1):
        async with await Wire.dial(scene.port, scene.papers) as wire:
            await wire.say(length.to_bytes(4, "little") + b"\x01")
            assert await wire.hear() is None
    for length in (0, 2**24 + 1, 2**32 - 1):
        async with await scene.peer() as wire:
            await wire.say(length.to_bytes(4, "little") + bytes((SEND,)))
            assert (await wire.hear_until(GOODBYE)) is not None
    await scene.is_unharmed()


def _memory() -> int:
    """The bytes of memory that this program takes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- what is not allowed ---


async def listed(me: Process) -> None:
    """May be started by others."""
    await me.receive()


async def test_nothing_is_started_but_what_is_listed(scene: Scene):
    bob = await scene.start("bertha", allow_spawn=[listed])
    scene.bob, before = bob, len(bob.processes())
    module = listed.__module__
    async with await scene.peer() as wire:
        for function in (
            "os:system",
            "os:_exit",
            "builtins:exec",
            "builtins:eval",
            "subprocess:run",
            f"{module}:os.system",
            f"{module}:listed.__globals__",
            f"{module}:listed.__call__",
            f"{module}:Listed",
            f"{module}: listed",
            f"{module}:listed ",
            f"{module}.listed",
            f"/{module}:listed",
            "tests/attacks/test_attacks.py:listed",
            f"{module}:l\u0131sted",
            f"{module}:listed\0",
            "kinfolk.node:Node",
        ):
            await wire.say(frame(SPAWN, [1, function, None, False, None, None, ["true"]]))
            answer = await wire.hear_until(SPAWN_REPLY, GOODBYE)
            assert answer is not None and answer.operations[0][1] == "not_allowed", (function, answer)
        assert len(bob.processes()) == before
        await wire.say(frame(SPAWN, [2, f"{module}:listed", None, False, None, None, []]))
        answer = await wire.hear_until(SPAWN_REPLY)
        assert answer is not None and answer.operations[0][1] == "ok", "what is listed is started, by the same words"
