"""Crowds and bad links: whatever happens to one connection, nobody else is slowed, and nothing is left over."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
from msgspec import Raw

from kinfolk.cookie import Cookie
from kinfolk.shell.tls import SERVER_NAME, Credentials
from kinfolk.wire.frames import Called, encode_frame
from tests.system.chaos import Network
from tests.system.fleet import SLACK, Fleet, Raised, Worker, agreed, connections, free_port, resident, states, until
from tests.system.stranger import Stranger

HEARTBEAT = 1.0
MIB = 1024 * 1024


async def census_is(worker: Worker, wanted: dict[str, int]) -> bool:
    """Whether there is as much of everything as there was."""
    now = await worker.ask("census")
    assert now == wanted, {what: (now[what], wanted[what]) for what in wanted if now[what] != wanted[what]}
    return True


async def censuses(workers: list[Worker]) -> list[dict[str, int]]:
    """How much there is of everything, once all handshakes are over."""

    async def quiet(worker: Worker) -> bool:
        return bool((await worker.ask("census"))["handshakes"] == 0)

    for worker in workers:
        await until(partial(quiet, worker), "all handshakes are over")
    return [await worker.ask("census") for worker in workers]


@asynccontextmanager
async def calls_stay_quick(caller: Worker, target: str) -> AsyncGenerator[None]:
    """Calls that go on all the while take no longer than a heartbeat."""
    over = asyncio.Event()
    slowest = 0.0

    async def call() -> None:
        nonlocal slowest
        while not over.is_set():
            began = time.monotonic()
            await caller.ask("call", target=target, request=["echo", 1])
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.01)

    calling = asyncio.create_task(call())
    try:
        yield
    finally:
        over.set()
        await calling
    assert 0 < slowest < HEARTBEAT, f"a call took {slowest:.2f} s"


# --- links ---


async def are_connected(worker: Worker, other: Worker) -> bool:
    """Whether this one has a session with the other."""
    return other.name in (await worker.state()).peers


@pytest.mark.slow
async def test_a_link_that_is_cut_fifty_times_leaves_nothing_behind(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT)
        ada, bob, carl = workers
        names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
        before = await censuses(workers)
        sizes = [resident(worker) for worker in workers]
        async with calls_stay_quick(carl, names["ada/own"]):
            for number in range(50):
                lost = (await ada.state()).counters.get("peers_lost", 0)
                await network.drop(["ada"], ["bob"])
                await until(partial(ada.has_lost, lost + 1), "ada notices")
                if number % 2:
                    await agreed(workers, names)
                else:  # cut again while they still sync
                    await until(partial(are_connected, ada, bob), "they are connected again")
            await agreed(workers, names)
        for worker, census in zip(workers, before, strict=True):
            await until(partial(census_is, worker, census), f"{worker} is as it was")
        assert all(resident(worker) - size < 20 * MIB for worker, size in zip(workers, sizes, strict=True))
        assert (await carl.state()).counters.get("peers_lost", 0) == 0


async def is_refused(worker: Worker, target: str) -> Raised | None:
    """What 250 KB more come to, if there is no room for them."""
    raised = await worker.attempt("send_bytes", target=target, size=250_000)
    return raised if isinstance(raised, Raised) else None


async def stall(network: Network) -> None:
    network.stall(["ada"], ["bob"])


async def trickle(network: Network) -> None:
    network.trickle(["ada"], ["bob"], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [stall, trickle], ids=["reads nothing", "reads a byte a second"])
async def test_a_peer_that_hardly_reads_slows_nobody_and_costs_a_bounded_outbox(
    fleet: Fleet, spoil: Callable[[Network], Awaitable[None]]
):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = await fleet.mesh(
            "ada", "bob", "carl", heartbeat=HEARTBEAT, max_outbox=3 * MIB, high_water=2 * 300_000
        )
        ada, _, carl = workers
        names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
        before = await censuses(workers)
        size = resident(ada)
        await spoil(network)
        async with calls_stay_quick(carl, names["ada/own"]):
            refused = await until(partial(is_refused, ada, names["bob/own"]), "ada is told that bob does not read")
            assert refused.error == "LinkCongested" and "bob@" in refused.text
            assert not await ada.has_lost(1)
            fillers: list[str] = []
            while not await ada.has_lost(1) and len(fillers) < 300:  # bob must be told of names, whatever waits for him
                fillers.append(await ada.ask("fill", count=100, prefix=f"{len(fillers)}/{'x' * 200}"))
            assert await ada.has_lost(1), "ada still keeps what nobody reads"
            assert resident(ada) - size < 60 * MIB
        for filler in fillers:
            await ada.ask("kill", pid=filler)
        network.heal()
        await agreed(workers, names)
        for worker, census in zip(workers, before, strict=True):
            await until(partial(census_is, worker, census), f"{worker} is as it was")
        assert (await carl.state()).counters.get("peers_lost", 0) == 0


async def test_an_observer_that_reads_nothing_slows_nobody_and_is_sent_away(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT, max_outbox=MIB)
    target = await ada.ask("register", name="ada/own")
    await ada.ask("register_many", names=[f"{number}/{'x' * 200}" for number in range(500)])
    names = await agreed([ada, bob])
    before = await censuses([ada, bob])
    size = resident(ada)
    asked = encode_frame([Called("kinfolk", None, 1, 60_000, Raw(msgspec.msgpack.encode(["names", "", "", 500])))])
    port = fleet.ports["ada"]
    async with await Stranger.peer(port, fleet.cookie, name="cli", purpose="observer") as observer:
        async with calls_stay_quick(bob, target):
            observer.writer.write(asked * 2000)  # and never looks at the answers
            await until(partial(has_sent_away, ada), "ada has enough of it")
        assert resident(ada) - size < 40 * MIB
    (line,) = [line for line in ada.log() if line.startswith("WARNING")]
    assert "the session with an observer ends" in line and "does not read" in line
    await agreed([ada, bob], names)
    for worker, census in zip((ada, bob), before, strict=True):
        await until(partial(census_is, worker, census), f"{worker} is as it was")


async def has_sent_away(worker: Worker) -> bool:
    """Whether too much has waited for somebody."""
    return (await worker.state()).counters.get("outbox_overflows", 0) > 0


# --- joins ---


async def test_twenty_nodes_that_join_at_once_are_a_mesh_and_leave_nothing_behind(fleet: Fleet):
    ada = await fleet.start("ada")
    others = await asyncio.gather(*map(fleet.enter, ("bob", "carl", "dora")))
    await asyncio.gather(*(other.ask("start", name=other.name, join=[ada.name]) for other in others))
    workers = [ada, *others]
    await agreed(workers)
    before = await censuses(workers)
    size = resident(ada)
    crowd = {worker: [f"{worker}{number}@127.0.0.1:{free_port()}" for number in range(5)] for worker in workers}
    began = time.monotonic() + 0.05
    await asyncio.gather(
        *(worker.ask("start_more", nodes=nodes, at=began, join=[ada.name]) for worker, nodes in crowd.items())
    )
    everybody = {worker.name for worker in workers} | {name for nodes in crowd.values() for name in nodes}
    assert len(everybody) == 24

    async def is_whole() -> bool:
        tables = []
        for worker in workers:
            for state in await worker.ask("states"):
                assert {state["name"], *state["peers"]} == everybody, f"{state['name']}: {len(state['peers'])} peers"
                tables.append(state["names"])
        assert len(tables[0]) == 20 and all(table == tables[0] for table in tables)
        return True

    await until(is_whole, "all are connected with all, and know the same names")
    await asyncio.gather(*(worker.ask("close_more") for worker in workers))
    await agreed(workers, {})
    for worker, census in zip(workers, before, strict=True):
        await until(partial(census_is, worker, census), f"{worker} is as it was")
    assert resident(ada) - size < 60 * MIB
    assert all(state.counters.get("protocol_errors", 0) == 0 for state in await states(workers))


# --- handshakes that never end ---


async def silent(port: int, context: ssl.SSLContext) -> Stranger:
    """Connects and says nothing."""
    return await Stranger.tcp(port)


async def half_a_hello(port: int, context: ssl.SSLContext) -> Stranger:
    """Says the first half of what TLS begins with."""
    stranger = await Stranger.tcp(port)
    hello = client_hello(context)
    await stranger.say(hello[: len(hello) // 2])
    return stranger


async def nameless(port: int, context: ssl.SSLContext) -> Stranger:
    """Knows the cookie, and says nothing inside TLS."""
    return await Stranger.tls(port, context)


def client_hello(context: ssl.SSLContext) -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("comes", [silent, half_a_hello, nameless])
async def test_five_hundred_half_open_connections_keep_nobody_from_joining(
    fleet: Fleet, comes: Callable[[int, ssl.SSLContext], Awaitable[Stranger]]
):
    ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in (ada, bob)}
    (before,) = await censuses([ada])
    context = Credentials.from_cookies([Cookie(fleet.cookie)]).client
    strangers: list[Stranger] = []
    carl = await fleet.enter("carl")
    try:
        async with calls_stay_quick(bob, names["ada/own"]):
            while len(strangers) < 500:
                strangers.append(await comes(fleet.ports["ada"], context))
            assert (await ada.ask("census"))["handshakes"] > 100
            began = time.monotonic()
            await carl.ask("start", name=carl.name, join=[ada.name], heartbeat=HEARTBEAT)
            took = time.monotonic() - began
            assert took < min(2.0 * SLACK, 5.0), "carl had to wait, at worst until the strangers were gone"
        await agreed([ada, bob, carl], names)
    finally:
        for stranger in strangers:
            stranger.writer.transport.abort()
    await carl.end()
    await agreed([ada, bob], names)
    await until(partial(census_is, ada, before), "nothing is left over")
    await until(lambda: connections([fleet.ports["ada"]]) <= 1, "no connection is left over")


@pytest.mark.slow
async def test_a_handshake_that_comes_byte_by_byte_ends_in_time(fleet: Fleet):
    ada = await fleet.start("ada")
    hello = client_hello(Credentials.from_cookies([Cookie(fleet.cookie)]).client)
    async with await Stranger.tcp(fleet.ports["ada"]) as stranger:
        began = time.monotonic()

        async def trickle() -> None:
            for byte in hello[:-1]:
                await stranger.say(bytes([byte]))
                await asyncio.sleep(0.05)

        saying = asyncio.create_task(trickle())
        await stranger.ended()
        assert 4.5 < time.monotonic() - began < 8
        saying.cancel()
        await asyncio.wait([saying])
    (line,) = [line for line in ada.log() if line.startswith("WARNING")]
    assert "no handshake within 5 s" in line


# --- oneself, and one's double ---


async def test_a_node_that_dials_itself_by_another_name_of_its_host_leaves_it_at_that(fleet: Fleet):
    ada = await fleet.start("ada")
    (before,) = await censuses([ada])
    raised = await ada.attempt("connect", node=f"localhost:{fleet.ports['ada']}")
    assert isinstance(raised, Raised) and raised.error == "AuthenticationFailed" and "itself" in raised.text
    await until(partial(census_is, ada, before), "nothing is left over")
    lines = len(ada.log())
    await asyncio.sleep(1.0)  # it would dial again in a tenth of that
    assert len(ada.log()) == lines
    bob = await fleet.start("bob", join=["ada"])
    await agreed([ada, bob], {})


async def test_a_second_node_of_one_name_is_told_and_harms_nobody(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob")
    names = {"bob/own": await bob.ask("register", name="bob/own")}
    double = await fleet.enter("double")
    elsewhere, there = f"127.0.0.1:{free_port()}", f"localhost:{fleet.ports['bob']}"
    raised = await double.attempt("start", name=bob.name, listen=elsewhere, join=[there])
    assert isinstance(raised, Raised) and raised.error == "AuthenticationFailed" and "in use" in raised.text
    await agreed([ada, bob], names)
    assert [line for line in bob.log() if line.startswith("WARNING") and "in use" in line]
    assert (await ada.state()).counters.get("peers_lost", 0) == 0
