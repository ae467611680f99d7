"""Nodes that find each other by a lookup, on loopback, with a resolver that the test holds."""

import asyncio
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from kinfolk import Node
from kinfolk.discovery import plan, sources
from kinfolk.ids import Address
from kinfolk.shell.machine import RealMachine
from tests.node.nodes import Nodes, echo, until

EVERY = 0.05


class Zone(RealMachine):
    """A machine on which one name of DNS means what the test says."""

    def __init__(self) -> None:
        self.hosts: set[Address] = set()
        self.broken: str | None = None
        self.asked = 0

    def add(self, *nodes: Node) -> None:
        self.hosts |= {sources.seeds_of([node.name]).pop().address for node in nodes}

    def drop(self, *nodes: Node) -> None:
        self.hosts -= {sources.seeds_of([node.name]).pop().address for node in nodes}

    async def resolve(self, host: str, port: int) -> set[Address]:
        if host != "kin.example":
            return await super().resolve(host, port)
        self.asked += 1
        if self.broken is not None:
            raise OSError(self.broken)
        return set(self.hosts)


@pytest.fixture
def zone() -> Zone:
    return Zone()


def make(nodes: Nodes, zone: Zone, word: str, **settings: Any) -> Node:
    return nodes.make(word, machine=zone, **{"join": ["dns://kin.example:4370"], "discover_every": EVERY, **settings})


@contextmanager
def nobody() -> Generator[Address]:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", sock.getsockname()[1])


async def looked(zone: Zone, times: int = 3) -> None:
    """Wait until lookups that began from now on have been acted upon."""
    before = zone.asked
    await until(lambda: zone.asked >= before + times)


async def test_three_nodes_find_each_other_by_one_name_and_one_more_that_comes(nodes: Nodes, zone: Zone):
    three = [make(nodes, zone, word) for word in ("ada", "bob", "cyd")]
    zone.add(*three)
    await asyncio.gather(*(node.start() for node in three))
    await until(lambda: all(len(node.peers()) == 2 for node in three))
    await three[0].names.register("x", three[0].spawn(echo))
    dora = await nodes.start("dora")  # looks for nobody itself
    zone.add(dora)
    await until(lambda: len(dora.peers()) == 3)
    await until(lambda: dora.names.whereis("x"))
    assert await dora.call("x", "hi") == "hi"


async def test_the_start_waits_for_whom_a_lookup_has_found(nodes: Nodes, zone: Zone):
    ada = await nodes.start("ada")
    await ada.names.register("x", ada.spawn(echo))
    zone.add(ada)
    bob = make(nodes, zone, "bob")
    await bob.start()
    assert bob.peers() == [ada.name] and bob.names.whereis("x") == ada.names.whereis("x")


async def test_an_address_that_goes_is_dialled_no_longer_and_one_with_a_session_is_kept(nodes: Nodes, zone: Zone):
    bob = await nodes.start("bob")
    with nobody() as silent:
        zone.hosts = {silent}
        zone.add(bob)
        ada = make(nodes, zone, "ada", join_timeout=0.2)
        await ada.start()
        targets = ada.kernel.members.targets
        assert silent in targets and ada.peers() == [bob.name]
        zone.hosts = set()
        await until(lambda: silent not in targets)
        await looked(zone)
        assert ada.peers() == [bob.name]
    bob.abandon()
    await until(lambda: not ada.peers())
    await until(lambda: not targets)


async def test_who_has_left_by_a_drain_is_not_dialled_until_it_has_rested(
    nodes: Nodes, zone: Zone, monkeypatch: pytest.MonkeyPatch
):
    bob = await nodes.start("bob")
    zone.add(bob)
    ada = make(nodes, zone, "ada")
    await ada.start()
    assert ada.peers() == [bob.name]
    name = bob.name
    await looked(zone)
    await bob.drain()
    await until(lambda: not ada.peers())
    await looked(zone)
    assert not ada.kernel.members.targets, "it has left, and is found all the same"
    again = await nodes.start(name)
    await looked(zone)
    assert not ada.peers()
    now = asyncio.get_running_loop().time()
    assert ada._finder is not None
    ada._finder._sought = dict.fromkeys(ada._finder._sought, now - plan.REST)
    await until(lambda: ada.peers() == [again.name])


async def test_its_own_address_is_skipped(nodes: Nodes, zone: Zone, monkeypatch: pytest.MonkeyPatch):
    ada = make(nodes, zone, "ada")
    zone.add(ada)
    zone.add(await nodes.start("bob"))
    dialled: list[Any] = []
    submit = ada.submit

    def listen(order: Any) -> None:
        dialled.append(order)
        submit(order)

    monkeypatch.setattr(ada, "submit", listen)
    await ada.start()
    await looked(zone)
    own = sources.seeds_of([ada.name]).pop().address
    assert own not in ada.kernel.members.targets
    assert all(own != seed.address for order in dialled for seed in getattr(order, "seeds", ()))


async def test_a_lookup_that_fails_keeps_the_last_set_and_tells_once(
    nodes: Nodes, zone: Zone, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "kinfolk")
    zone.broken = "the server is away"
    ada = make(nodes, zone, "ada")
    await ada.start()
    bob = await nodes.start("bob")
    with nobody() as silent:
        zone.hosts = {silent}
        zone.add(bob)
        zone.broken = None
        await until(lambda: ada.peers() == [bob.name])
        zone.broken = "it is away again"
        await looked(zone, 4)
        assert ada.peers() == [bob.name]
        assert silent in ada.kernel.members.targets, "it was found last, and is dialled on"
        zone.hosts.discard(silent)
    told = [record.getMessage() for record in caplog.records if "cannot look up" in record.getMessage()]
    assert [("the server is away" in text, "kinfolk doctor" in text) for text in told] == [(True, True), (False, True)]
    assert caplog.text.count("can look up dns://kin.example:4370 again: it yields 2") == 1
    zone.broken = None
    zone.add(await nodes.start("cyd"))
    await until(lambda: len(ada.peers()) == 2)


class Yellow:
    """What another package could bring."""

    made: list[str]
    pages: set[Address | str]
    closed = False

    def __init__(self, text: str) -> None:
        self.text = text

    async def addresses(self) -> set[Address | str]:
        if "broken" in self.text:
            raise RuntimeError("out of paper")
        return self.pages

    async def close(self) -> None:
        type(self).closed = True


async def test_a_source_of_another_package(
    nodes: Nodes, zone: Zone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    point = EntryPoint("yellow", f"{__name__}:Yellow", sources.GROUP)

    def points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point] if group == sources.GROUP and name in (None, point.name) else []

    monkeypatch.setattr(sources, "entry_points", points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Yellow)
    bob = await nodes.start("bob")
    Yellow.pages = {bob.name}
    ada = make(nodes, zone, "ada", join=["yellow://pages", "yellow://broken"])
    await ada.start()
    assert ada.peers() == [bob.name] and "out of paper" in caplog.text
    Yellow.pages = {bob.name, "this is no address"}
    await until(lambda: "cannot look up yellow://pages: " in caplog.text)
    assert ada.peers() == [bob.name]
    await ada.close()
    assert Yellow.closed
    with pytest.raises(ValueError, match=r"nothing here finds nodes by blue://; known are dns, dns\+srv, etcd, yellow"):
        make(nodes, zone, "ada", join=["blue://sky"])
