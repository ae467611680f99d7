"""Metrics for Prometheus, and the two pages that tell an orchestrator how a node is.

``/metrics``   what the node counts and measures, in Prometheus' text format
``/healthz``   200 as long as the node's loop turns: restart the program if it does not answer
``/readyz``    200 while the node takes work; 503 before it has started, while it drains, and when it is closed. It says
               so, and stays 200, when a node has no lease from etcd: else an etcd that is away for a while would take
               every node out of service

A scrape costs the same however many names there are: it walks peers and counters, never their tables. Processes it
walks for their mailboxes, in slices, so that it holds up nobody. Needs the extra ``kinfolk[metrics]``.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import kinfolk
from kinfolk import looking
from kinfolk.counters import DROPPED, HAPPENED
from kinfolk.ids import Address
from kinfolk.shell.transport import Traffic
from kinfolk.web import serving

if TYPE_CHECKING:
    from kinfolk.node import Node

_LAG_EVERY = 1.0  # seconds between two looks at how late the loop is


class NodeCollector(Collector):
    """What one node tells Prometheus. Register it with a `CollectorRegistry` of your own, or use `app`.

    Args:
        node: a node of this program; `collect` must run on its loop.
        lag: what measures the loop, if something does.
    """

    def __init__(self, node: "Node", lag: "LoopLag | None" = None) -> None:
        self._node = node
        self._lag = lag
        self._mailboxes: looking.Mailboxes | None = None

    async def prepare(self) -> None:
        """Look into all mailboxes, bit by bit, for the next `collect`; which else does it at once."""
        self._mailboxes = await looking.mailboxes(self._node)

    def describe(self) -> list[Metric]:
        """Nothing, so that nothing is collected before the node has started."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are at this moment."""
        node = self._node
        about = {"name": node.name, "cluster": node.cluster, "version": kinfolk.__version__}
        yield InfoMetricFamily("kinfolk_node", "The node.", value=about)
        names = node.kernel.tenure or node.kernel.names
        processes, waiting, longest = self._take_mailboxes()
        for name, text, value in (
            ("ready", "1 while the node takes work.", float(node.ready)),
            ("peers", "Nodes that this one can reach, as far as it knows.", len(node.peers())),
            ("sessions", "Peers that a session is open with.", len(node.connected())),
            ("names", "Names in the cluster, as this node knows them.", len(node.names)),
            ("claims", "Claims of names that this node has made and not withdrawn.", names.own_claims),
            ("names_disputed", "Names that more than one claim is known of, here and now.", names.disputed),
            ("processes", "Living processes of this node.", processes),
            ("mailbox_messages", "Messages that wait in all mailboxes of this node.", waiting),
            ("mailbox_longest", "Messages that wait in the fullest mailbox of this node.", longest),
        ):
            yield GaugeMetricFamily(f"kinfolk_{name}", text, value=value)
        lease = node.names.lease()
        if lease is not None:
            text = "1 while the node has its lease from etcd; 0: its names are lost."
            yield GaugeMetricFamily("kinfolk_registry_leased", text, value=float(lease > 0))
            text = "How old the node's view of the names in etcd may be."
            yield GaugeMetricFamily("kinfolk_registry_staleness_seconds", text, value=node.names.staleness())
        if self._lag is not None:
            text = "The latest that a timer was since the last scrape."
            yield GaugeMetricFamily(
                "kinfolk_loop_lag_seconds", text, value=self._lag.take(asyncio.get_running_loop().time())
            )
        yield from self._of_peers()
        dropped = CounterMetricFamily("kinfolk_dropped", "Messages that nobody got, by reason.", labels=["reason"])
        for name in DROPPED:
            dropped.add_metric([name], node.counters[name])
        yield dropped
        for name, text in HAPPENED.items():
            metric = f"kinfolk_{name.removesuffix('_total')}"
            yield CounterMetricFamily(metric, f"{text[0].upper()}{text[1:]}.", value=node.counters[name])

    def _take_mailboxes(self) -> looking.Mailboxes:
        ready, self._mailboxes = self._mailboxes, None
        if ready is not None:
            return ready
        lengths = [len(process.mailbox) for process in self._node.processes()]
        return looking.Mailboxes(len(lengths), sum(lengths), max(lengths, default=0))

    def _of_peers(self) -> Iterator[Metric]:
        traffic, stalled = self._node.traffic(), self._node.stalled()
        for family, text, name, read in _OF_PEERS:
            metric = family(f"kinfolk_peer_{name}", text, labels=["peer"])
            for peer, gone in traffic.items():
                value = read(gone)
                if value is not None:
                    metric.add_metric([peer], value)
            yield metric
        metric = GaugeMetricFamily(
            "kinfolk_peer_stalled", "1 while the peer's event loop stands still.", labels=["peer"]
        )
        for peer in traffic:
            metric.add_metric([peer], float(peer in stalled))
        yield metric


_Read = Callable[[Traffic], float | None]
_OF_PEERS: tuple[tuple[type[CounterMetricFamily] | type[GaugeMetricFamily], str, str, _Read], ...] = (
    (CounterMetricFamily, "Bytes that came in this session, before TLS.", "received_bytes", lambda gone: gone.bytes_in),
    (CounterMetricFamily, "Bytes said in this session, before TLS.", "sent_bytes", lambda gone: gone.bytes_out),
    (CounterMetricFamily, "Frames that came in this session.", "received_frames", lambda gone: gone.frames_in),
    (CounterMetricFamily, "Frames said in this session.", "sent_frames", lambda gone: gone.frames_out),
    (GaugeMetricFamily, "Bytes that wait to be written.", "waiting_bytes", lambda gone: gone.waiting),
    (GaugeMetricFamily, "Time of the last heartbeat's answer.", "round_trip_seconds", lambda gone: gone.round_trip),
)


class LoopLag:
    """How late the loop is: the longest that a timer had to wait since it was last asked, in seconds."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._due: float | None = None

    def note(self, seconds: float) -> None:
        """A timer was so late."""
        self._worst = max(self._worst, seconds)

    def take(self, now: float) -> float:
        """The worst since the last call; a timer that is late at this moment counts."""
        self.note(0.0 if self._due is None else now - self._due)
        worst, self._worst = self._worst, 0.0
        return worst

    async def watch(self) -> None:
        """Look, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            self.note(loop.time() - self._due)


def app(node: "Node", lag: LoopLag | None = None) -> Starlette:
    """The pages as an ASGI application, to be mounted into one of yours on the node's own loop.

    Whoever reaches it sees everything: `serve` guards it, an application of yours must.

    Args:
        lag: what measures the loop, if something does.
    """
    registry = CollectorRegistry(auto_describe=False)
    collector = NodeCollector(node, lag)
    registry.register(collector)

    async def metrics(_: Request) -> Response:
        await collector.prepare()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if node.ready and node.names.lease() == 0.0:
            return PlainTextResponse("ready, but without a lease from etcd: it has no names at present\n")
        if node.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"{node!r} takes no work\n", 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


@asynccontextmanager
async def serve(node: "Node", address: str = "127.0.0.1:9464", *, token: str | None = None) -> AsyncGenerator[Address]:
    """Serve the pages as long as the block lasts. Gives the address, with its real port.

    Args:
        address: where, as host:port; port 0 takes a free one.
        token: what a scrape must show as ``Authorization: Bearer``; needed beyond loopback.

    Raises:
        ValueError: not an address; beyond loopback without a token, or it is too short.
        OSError: the address cannot be bound.
    """
    where = Address.parse(address)
    lag = LoopLag()
    watching = asyncio.create_task(lag.watch(), name="kinfolk: how late the loop is")
    try:
        async with serving(app(node, lag), where, token=token) as bound:
            yield bound
    finally:
        watching.cancel()
