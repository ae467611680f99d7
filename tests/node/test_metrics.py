"""The pages for Prometheus and for orchestrators: what they tell, and to whom."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kinfolk import Process
from kinfolk.counters import DROPPED
from kinfolk.metrics import LoopLag, serve
from tests.node.nodes import Nodes, until

TOKEN = "0123456789abcdef"


async def idle(me: Process) -> None:
    await me.receive()
    await me.receive(str)


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@asynccontextmanager
async def client(where: object) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{where}", trust_env=False) as opened:
        yield opened


async def test_a_scrape_tells_of_the_node_its_peers_and_what_it_counts(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    busy = ada.spawn(idle)
    await ada.names.register("busy", busy)
    for number in range(4):
        ada.send(busy, number)
    dead = ada.spawn(idle)
    ada.kill(dead)
    ada.send(dead, "late")
    await until(lambda: ada.traffic()[bob.name].round_trip is not None)
    async with serve(ada, "127.0.0.1:0") as where, client(where) as web:
        answer = await web.get("/metrics")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
        found = samples(answer.text)
        later = samples((await web.get("/metrics")).text)
    assert found["kinfolk_node_info", (ada.cluster, ada.name, version("kinfolk"))] == 1
    assert found["kinfolk_ready", ()] == found["kinfolk_peers", ()] == found["kinfolk_names", ()] == 1
    assert found["kinfolk_claims", ()] == 1 and found["kinfolk_names_disputed", ()] == 0
    assert found["kinfolk_processes", ()] == 2  # and the service
    assert found["kinfolk_mailbox_messages", ()] == found["kinfolk_mailbox_longest", ()] == 3
    assert found["kinfolk_dropped_total", ("sends_to_dead_processes",)] == 1
    assert {labels[0] for name, labels in found if name == "kinfolk_dropped_total"} == DROPPED.keys()
    assert found["kinfolk_registry_divergence_total", ()] == found["kinfolk_peers_lost_total", ()] == 0
    for name in ("received_bytes_total", "sent_bytes_total", "received_frames_total", "sent_frames_total"):
        assert 0 < found[f"kinfolk_peer_{name}", (bob.name,)] <= later[f"kinfolk_peer_{name}", (bob.name,)]
    assert found["kinfolk_peer_round_trip_seconds", (bob.name,)] > 0
    assert found["kinfolk_peer_stalled", (bob.name,)] == found["kinfolk_peer_waiting_bytes", (bob.name,)] == 0
    assert found["kinfolk_loop_lag_seconds", ()] >= 0


async def test_a_node_is_ready_while_it_takes_work(nodes: Nodes):
    ada = await nodes.start("ada")
    async with serve(ada, "127.0.0.1:0") as where, client(where) as web:
        assert (await web.get("/healthz")).status_code == (await web.get("/readyz")).status_code == 200
        await ada.drain()
        assert (await web.get("/healthz")).status_code == 200
        answer = await web.get("/readyz")
    assert answer.status_code == 503 and "takes no work" in answer.text


async def test_a_page_from_elsewhere_and_a_name_made_to_lead_here_are_turned_away(nodes: Nodes):
    ada = await nodes.start("ada")
    async with serve(ada, "127.0.0.1:0") as where, client(where) as web:
        assert (await web.get("/metrics", headers={"Host": "evil.example"})).status_code == 421
        assert (await web.get("/metrics", headers={"Host": f"localhost:{where.port}"})).status_code == 200
        assert (await web.post("/metrics", headers={"Origin": "http://evil.example"})).status_code == 403


async def test_beyond_loopback_a_token_is_needed_and_must_be_shown(nodes: Nodes):
    ada = await nodes.start("ada")
    with pytest.raises(ValueError, match="give a token"):
        async with serve(ada, "0.0.0.0:0"):
            pass
    with pytest.raises(ValueError, match="at least 16 characters") as caught:
        async with serve(ada, "0.0.0.0:0", token="sesame"):
            pass
    assert "sesame" not in str(caught.value)
    async with serve(ada, "0.0.0.0:0", token=TOKEN) as where, client(f"127.0.0.1:{where.port}") as web:
        assert (await web.get("/metrics")).status_code == 401
        assert (await web.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await web.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200


async def test_a_taken_port_is_an_error_that_says_so(nodes: Nodes):
    ada = await nodes.start("ada")
    async with serve(ada, "127.0.0.1:0") as where:
        with pytest.raises(OSError, match="is another node running there"):
            async with serve(ada, str(where)):
                pass


def test_the_worst_lag_is_told_once():
    lag = LoopLag()
    lag.note(0.2)
    lag.note(0.1)
    assert (lag.take(0.0), lag.take(0.0)) == (0.2, 0.0)
