"""More is said than can be taken: memory stays bounded, nobody else notices, and every message is accounted for."""

import asyncio
import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from tests.system.fleet import Fleet, Raised, Worker, agreed, resident, states, until

HEARTBEAT = 1.0
MIB = 1024 * 1024
SECONDS = float(os.environ.get("KINFOLK_OVERLOAD_SECONDS", "8"))
"""How long an overload lasts."""


async def is_refused(worker: Worker, target: str) -> Raised | None:
    """What 250 KB more come to, if there is no room for them."""
    raised = await worker.attempt("send_bytes", target=target, size=250_000)
    return raised if isinstance(raised, Raised) else None


async def has_counted(worker: Worker, counter: str, least: int = 1) -> bool:
    """Whether this has happened so often."""
    return (await worker.state()).counters.get(counter, 0) >= least


async def is_clear(worker: Worker) -> bool:
    """Whether no link is congested."""
    return not await worker.ask("congested")


async def test_a_peer_that_is_stopped_is_closed_at_the_bound_and_the_sender_keeps_little(fleet: Fleet):
    """It is not closed for its silence: that would take a minute."""
    settings = {"heartbeat": HEARTBEAT, "down_after": 60.0, "max_outbox": 4 * MIB}
    ada, bob, carl = await fleet.mesh("ada", "bob", "carl", **settings)
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in (ada, bob, carl)}
    size = resident(ada)
    bob.signal(signal.SIGSTOP)
    refused = await until(partial(is_refused, ada, names["bob/own"]), "ada is told that there is no room")
    assert refused.error == "LinkCongested"
    assert list(await ada.ask("congested")) == [bob.name]
    assert await carl.ask("call", target=names["ada/own"], request=["echo", 1]) == [names["ada/own"], 1]
    fillers: list[str] = []
    while not await ada.has_lost(1) and len(fillers) < 50:
        fillers.append(await ada.ask("fill", count=1000, prefix=f"{len(fillers)}/{'x' * 200}"))
        assert resident(ada) - size < 60 * MIB
    assert await has_counted(ada, "outbox_overflows")
    assert await carl.ask("call", target=names["ada/own"], request=["echo", 2]) == [names["ada/own"], 2]
    for filler in fillers:
        await ada.ask("kill", pid=filler)
    bob.signal(signal.SIGCONT)
    await agreed([ada, bob, carl], names)
    await until(partial(is_clear, ada), "nothing waits any more")


class Watch:
    """Looks all the while at what an overload costs the others."""

    def __init__(self, caller: Worker, target: str, workers: list[Worker]) -> None:
        self._caller, self._target, self._workers = caller, target, workers
        self._before = {worker: resident(worker) for worker in workers}
        self.slowest = 0.0
        """Seconds that a call took, at most."""
        self.growth = 0
        """Bytes by which one of them has grown, at most."""

    async def look(self) -> None:
        """Call once."""
        began = time.monotonic()
        await self._caller.ask("call", target=self._target, request=["echo", 1])
        self.slowest = max(self.slowest, time.monotonic() - began)
        grown = [resident(worker) - before for worker, before in self._before.items()]
        self.growth = max([self.growth, *grown])

    async def during(self, work: "asyncio.Future[Any]") -> Any:
        """Look until this is done; what comes of it."""
        while not work.done():
            await self.look()
            await asyncio.sleep(0.05)
        return await work


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 100_000], ids=["small messages", "messages in fragments"])
async def test_twice_what_a_process_can_take_is_dropped_and_counted_and_costs_nobody_else(fleet: Fleet, size: int):
    rate = 2000 if size < 1000 else 100  # in a second; the consumer takes half of it
    ada, bob, carl = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT)
    fleet.expected_mishaps.append("is full")
    neighbour = await bob.ask("register", name="bob/own")
    slow = await bob.ask("consume", max_mailbox=100, pace=2 / rate)
    watch = Watch(carl, neighbour, [ada, bob, carl])
    fleet_patience = SECONDS + 60

    async def overload() -> Any:
        parts = []
        left = SECONDS
        while left > 0:  # no order takes as long as an answer is waited for
            parts.append(await ada.ask("overload", target=slow, rate=rate, seconds=min(left, 5.0), size=size))
            left -= 5.0
        return {what: sum(part[what] for part in parts) for what in parts[0]}

    async with asyncio.timeout(fleet_patience):
        counts = await watch.during(asyncio.create_task(overload()))

    async def is_accounted_for() -> bool:
        taken, dropped = await bob.ask("taken", pid=slow), (await bob.state()).counters.get("mailbox_overflows", 0)
        assert taken + dropped == counts["sent"], f"{taken} taken and {dropped} dropped of {counts}"
        return True

    await until(is_accounted_for, "every message has arrived or is counted", within=30)
    dropped = (await bob.state()).counters["mailbox_overflows"]
    assert counts["sent"] / 4 < dropped < counts["sent"] * 3 / 4, "it was no overload of twice what it can take"
    assert watch.growth < 60 * MIB
    assert watch.slowest < 2 * HEARTBEAT
    after = Watch(carl, neighbour, [])
    for _ in range(20):
        await after.look()
    print(f"{SECONDS:g} s of {size} bytes: {counts}, {dropped} dropped, grown by {watch.growth / MIB:.1f} MiB, slowest"
          f" call {watch.slowest * 1000:.0f} ms, then {after.slowest * 1000:.0f} ms")  # fmt: skip
    assert after.slowest < HEARTBEAT
    assert [state.counters.get("peers_lost", 0) for state in await states([ada, bob, carl])] == [0, 0, 0]


@pytest.mark.slow
async def test_more_than_a_link_can_carry_makes_its_senders_wait_and_nobody_else(fleet: Fleet):
    settings = {"heartbeat": HEARTBEAT, "max_outbox": 16 * MIB}
    ada, bob, carl = await fleet.mesh("ada", "bob", "carl", **settings)
    own = await ada.ask("register", name="ada/own")
    sink = await bob.ask("consume", max_mailbox=1_000_000, pace=0.0)
    watch = Watch(carl, own, [ada, carl])
    lasts = min(SECONDS, 10.0)
    pouring = [
        ada.ask("pour", target=sink, size=size, seconds=lasts) for size in (60_000, 60_000, 1_000_000, 5_000_000)
    ]
    sent = sum(await watch.during(asyncio.ensure_future(asyncio.gather(*pouring))))

    async def has_come() -> bool:
        return bool(await bob.ask("taken", pid=sink) == sent)

    await until(has_come, "all has arrived", within=30)
    await until(partial(is_clear, ada), "nothing waits any more")
    counters = (await ada.state()).counters
    print(f"{sent} messages, {counters}, grown by {watch.growth / MIB:.1f} MiB, slowest {watch.slowest * 1000:.0f} ms")
    assert counters["links_congested"] > 0, "that was not more than the link can carry"
    assert counters.get("peers_lost", 0) == counters.get("outbox_overflows", 0) == 0
    assert watch.growth < 120 * MIB
    assert watch.slowest < 2 * HEARTBEAT
