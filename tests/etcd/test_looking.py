"""What a node with names in etcd tells of them: why they are where they are, how old that is, its lease."""

import httpx
import pytest

from kinfolk.metrics import app
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import idle, until

pytestmark = pytest.mark.slow


async def test_why_tells_by_which_lease_since_which_revision_and_how_old_that_is(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    held = await ada.names.register("x", ada.spawn(idle))
    await until(lambda: bob.names.whereis("x") and bob.names.staleness() < 1)
    for node, text in ((ada, "under the lease of this node, good for"), (bob, f"under the lease of {ada.name}, which")):
        told = node.explain("x")
        (claim,) = told.claims
        assert (told.holder, told.rule, claim.pid, claim.epoch) == (held.pid, "authority", held.pid, held.epoch)
        assert f"written at revision {held.epoch}" in claim.text and text in claim.text
        assert 0 <= told.staleness < 5 and "s ago" in told.because and "no lease" not in told.because
        assert f"epoch {held.epoch}" in str(told) and "stamp" not in str(told)
    assert not bob.explain("nobody's").claims and bob.explain("nobody's").holder is None
    client, tenure = ada._parts.client, ada.kernel.tenure
    assert client is not None and tenure is not None
    client._closed = True  # it asks etcd nothing more
    wanted = ada.names.register_nowait("y", ada.spawn(idle))
    assert [(claim.pid, claim.state, claim.epoch) for claim in ada.explain("y").claims] == [
        (wanted.pid, "waiting", None)
    ]
    ada.kill(held.pid)
    assert [claim.state for claim in ada.explain("x").claims] == ["leaving"] and ada.explain("x").holder is None
    await until(lambda: not ada.names.lease())
    assert "this node has no lease" in ada.explain("x").because


async def test_pages_tell_of_the_lease_and_the_age_of_the_view_and_stay_ready(nodes: EtcdNodes):
    ada = await nodes.start("ada")
    await until(lambda: ada.names.staleness() < 1)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app(ada)), base_url="http://ada") as pages:

        async def value(name: str) -> float:
            lines = (await pages.get("/metrics")).text.splitlines()
            return float(next(line.partition(" ")[2] for line in lines if line.startswith(f"kinfolk_{name} ")))

        assert (await pages.get("/readyz")).text == "ready\n"
        assert await value("registry_leased") == 1 and await value("registry_staleness_seconds") < 5
        lease = ada.names.lease()
        assert lease is not None and 0 < lease <= 2
        client = ada._parts.client
        assert client is not None
        client._closed = True  # it asks etcd nothing more
        await until(lambda: ada.names.lease() == 0.0)
        page = await pages.get("/readyz")
        assert page.status_code == 200 and "without a lease" in page.text
        assert await value("registry_leased") == 0 and await value("sessions") == 0
        client._closed = False  # or it would take itself for closed when the node closes
