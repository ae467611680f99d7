"""Nodes of a mesh that find each other in a real etcd."""

import asyncio
from typing import Any

import pytest

from kinfolk import Node
from kinfolk.demo import etcd
from kinfolk.discovery.announced import Announced
from kinfolk.registries.etcd import Etcd
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import echo, until

pytestmark = pytest.mark.slow


def make(nodes: EtcdNodes, word: str, **settings: Any) -> Node:
    return nodes.make(word, **{"registry": "mesh", "join": [nodes.url], "discover_every": 0.2, **settings})


async def announced(nodes: EtcdNodes) -> set[str]:
    """Who is there, as one sees it who only looks."""
    source = Announced(Etcd(nodes.url.removeprefix("etcd://")), nodes.cluster, "", 1.0)
    try:
        return {str(node) for node in await source.addresses()}
    finally:
        await source.close()


async def test_nodes_announce_themselves_find_each_other_and_take_it_back(nodes: EtcdNodes):
    ada, bob, cyd = (make(nodes, word) for word in ("ada", "bob", "cyd"))
    await ada.start()
    await asyncio.gather(bob.start(), cyd.start())
    await until(lambda: all(len(node.peers()) == 2 for node in (ada, bob, cyd)))
    await ada.names.register("x", ada.spawn(echo))
    assert await cyd.call("x", "hi") == "hi"
    assert await announced(nodes) == {ada.name, bob.name, cyd.name}
    await bob.drain()
    assert await announced(nodes) == {ada.name, cyd.name}
    again = make(nodes, bob.name)  # at the same address
    await again.start()
    await until(lambda: len(again.peers()) == 2)
    assert await announced(nodes) == {ada.name, again.name, cyd.name}


async def test_while_etcd_is_away_the_mesh_goes_on_and_afterwards_who_is_new_is_found(
    own_server: etcd.Server, nodes: EtcdNodes, caplog: pytest.LogCaptureFixture
):
    nodes.url = own_server.url
    ada, bob = make(nodes, "ada"), make(nodes, "bob")
    await ada.start()
    await bob.start()
    assert bob.peers() == [ada.name]
    own_server.members[0].kill()
    await until(lambda: "cannot look up etcd at" in caplog.text, 30)
    assert ada.peers() == [bob.name]
    own_server.start()
    await asyncio.to_thread(own_server.wait_until_ready)
    cyd = make(nodes, "cyd")
    await cyd.start()
    await until(lambda: len(cyd.peers()) == 2 and len(ada.peers()) == 2, 30)


async def test_an_announcement_of_a_former_start_is_taken_over(nodes: EtcdNodes):
    again = make(nodes, "ada")
    name = again.name
    former = Announced(Etcd(nodes.url.removeprefix("etcd://")), nodes.cluster, name, 1.0)
    await former.addresses()
    await former._client.close()  # as if it had been killed: its lease lives on for a while
    assert await announced(nodes) == {name}
    await again.start()
    assert await announced(nodes) == {name}
    await again.close()
    assert await announced(nodes) == set()
