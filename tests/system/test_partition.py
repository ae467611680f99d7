"""Networks that break: what both sides do meanwhile, and what is true afterwards."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from tests.system.chaos import Network
from tests.system.fleet import Fleet, Worker, agreed, always, check_agreement, states, until

WORDS = ("ada", "bob", "carl", "dora", "eve")
HEARTBEAT = 0.2


async def mesh(fleet: Fleet, *words: str, **settings: Any) -> list[Worker]:
    return await fleet.mesh(*words, heartbeat=HEARTBEAT, **settings)


async def names_of(worker: Worker) -> dict[str, str]:
    return (await worker.state()).names


async def test_every_byte_between_two_nodes_goes_through_the_proxy_that_knows_both(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = await mesh(fleet, "ada", "bob", "carl")
        assert network.connections() == 3, "each pair has one"
        quiet = {pair: lane.bytes for pair, lane in network.lanes.items()}
        pid = await workers[1].ask("spawn")
        await workers[0].ask("send_bytes", target=pid, size=200_000)
        await until(lambda: network.lanes["ada", "bob"].bytes - quiet["ada", "bob"] > 200_000, "ada's bytes go to bob")
        for pair, lane in network.lanes.items():
            assert pair == ("ada", "bob") or lane.bytes - quiet[pair] < 10_000, f"{pair} knows nothing of it"
        network.slow(0.05)
        began = time.monotonic()
        await workers[0].ask("call", target=pid, request=["echo", 1])
        assert time.monotonic() - began >= 0.1, "there and back"
        network.slow(0)
        await network.cut(["ada"], ["bob"])
        await until(partial(parted, workers[:1], workers[1:2]), "ada and bob have lost each other")
        assert (await workers[2].state()).counters.get("peers_lost", 0) == 0
        network.heal()
        await agreed(workers)


@pytest.mark.parametrize("how", ["stalled", "cut"])
async def test_both_sides_of_a_partition_work_and_after_it_the_earlier_holder_stays_and_the_other_is_told_once(
    fleet: Fleet, how: str
):
    async with Network(fleet, WORDS) as network:
        workers = ada, bob, carl, dora, eve = await mesh(fleet, *WORDS)
        left, right = [ada, bob], [carl, dora, eve]
        owned = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
        await agreed(workers, owned)

        if how == "stalled":
            network.part(WORDS[:2], WORDS[2:])
        else:
            await network.cut(WORDS[:2], WORDS[2:])
        here = {name: pid for name, pid in owned.items() if name.startswith(("ada", "bob"))}
        there = {name: pid for name, pid in owned.items() if name not in here}
        await asyncio.gather(agreed(left, here), agreed(right, there))

        # Each side registers "x" and "y", and calls them; who is first differs.
        here["x"] = await ada.ask("register", name="x", on_lost="message")
        there["x"] = await carl.ask("register", name="x", on_lost="message")
        there["y"] = await dora.ask("register", name="y")
        here["y"] = await bob.ask("register", name="y")
        here["new"] = await bob.ask("register", name="new")
        there["gone"] = await eve.ask("register", name="gone")
        await carl.ask("unregister", name="carl/own")
        del there["carl/own"]
        await asyncio.gather(check_agreement(left, here), check_agreement(right, there))
        assert (await bob.ask("call", target="x", request=["echo", 1]))[0] == here["x"]
        assert (await eve.ask("call", target="x", request=["echo", 1]))[0] == there["x"]
        await eve.ask("unregister", name="gone")
        del there["gone"]

        network.heal()
        after = {**here, **there, "x": here["x"], "y": there["y"]}
        await agreed(workers, after)
        await until(partial(carl.has_seen, there["x"], [["NameLost", "x"]]), "the later holder of x is told")
        await until(partial(bob.has_ended, here["y"]), "the later holder of y ends")

        # Told exactly once, also when the conflict has long been over; the winners were told nothing.
        await always(partial(check_agreement, workers, after), 3 * HEARTBEAT)
        assert await carl.ask("seen", pid=there["x"]) == [["NameLost", "x"]]
        assert await ada.ask("seen", pid=here["x"]) == await dora.ask("seen", pid=there["y"]) == []
        assert await bob.ask("exit_reason", pid=here["y"]) == "NameLost"
        assert await carl.ask("exit_reason", pid=there["x"]) is None
        assert [state.counters.get("names_lost", 0) for state in await states(workers)] == [0, 1, 1, 0, 0]
        lost = [line for worker in workers for line in worker.log() if "was lost to" in line]
        assert len(lost) == 2, lost
        assert (await ada.ask("call", target=there["x"], request=["echo", 2]))[0] == there["x"], "it lives on"


async def test_a_break_between_two_nodes_changes_nothing_at_a_third(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = ada, bob, carl = await mesh(fleet, "ada", "bob", "carl")
        tables = await asyncio.gather(
            *(worker.ask("register_many", names=[f"{worker}/{n}" for n in range(20)]) for worker in workers)
        )
        everything = {name: pid for table in tables for name, pid in table.items()}
        await carl.ask("watch")
        for number in range(4):
            past = len(await carl.ask("events"))
            if number % 2:
                network.part(["ada"], ["bob"])
            else:
                await network.cut(["ada"], ["bob"])
            await until(partial(parted, [ada], [bob]), "ada and bob have lost each other")
            assert await names_of(ada) == {**tables[0], **tables[2]}
            assert await names_of(bob) == {**tables[1], **tables[2]}
            # Both share a neighbour, so a name stays single even between them.
            pid = await ada.ask("register", name="shared")
            raised = await bob.attempt("register", name="shared", timeout=0.5)
            assert getattr(raised, "error", raised) in ("NameTaken", "NotConfirmed")
            await ada.ask("unregister", name="shared")
            network.heal()
            await agreed(workers, everything)
            events = [event[1:] for event in (await carl.ask("events"))[past:]]
            assert [event for event in events if event[1] != "shared"] == [], "carl saw names come or go"
            assert ["+", "shared", pid] in events
        assert (await carl.state()).counters.get("peers_lost", 0) == 0


async def test_a_link_that_drops_again_and_again_is_whole_again_each_time(fleet: Fleet):
    async with Network(fleet, ("ada", "bob")) as network:
        ada, bob = workers = await mesh(fleet, "ada", "bob")
        everything = await bob.ask("register_many", names=[f"n{n}" for n in range(50)])
        for number in range(8):
            before = (await ada.state()).counters.get("peers_lost", 0)
            await network.drop(["ada"], ["bob"])
            await until(partial(ada.has_lost, before + 1), "ada notices")
            await agreed(workers, everything, 20 * HEARTBEAT)
            await until(lambda: network.connections() == 1, f"round {number} ends with one session for the pair")


async def test_one_direction_cut_is_noticed_by_both_ends_and_heals(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = ada, bob, carl = await mesh(fleet, "ada", "bob", "carl")
        network.stall(["ada"], ["bob"])
        await until(partial(parted, [ada], [bob]), "ada and bob have lost each other")
        await asyncio.sleep(5 * HEARTBEAT)  # they must not flap meanwhile
        for state in await states([ada, bob]):
            assert state.counters["peers_lost"] == 1, f"{state.name} flaps"
        assert (await carl.state()).counters.get("peers_lost", 0) == 0
        network.heal()
        await agreed(workers, {})


async def test_a_session_that_only_one_end_has_lost_is_replaced(fleet: Fleet):
    # As when a firewall forgets a connection: ada's end is reset, bob still believes in the old session.
    async with Network(fleet, ("ada", "bob")) as network:
        ada, bob = workers = await mesh(fleet, "ada", "bob", down_after=60.0)
        everything = await bob.ask("register_many", names=["one", "two"])
        network.forget("ada", "bob")
        await agreed(workers, everything)
        await until(partial(ada.has_lost, 1), "ada has noticed")
        await until(partial(bob.has_lost, 1), "bob has replaced the session")
        pid = await ada.ask("register", name="three")
        await check_agreement(workers, {**everything, "three": pid})


async def test_registering_while_the_mesh_is_slow_is_confirmed_after_one_round_trip(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        workers = ada, *_ = await mesh(fleet, "ada", "bob", "carl")
        network.slow(0.1)
        began = time.monotonic()
        outcomes = await asyncio.gather(*(worker.attempt("register", name="slow") for worker in workers))
        pids = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert len(pids) == 1 and {o.holder for o in outcomes if not isinstance(o, str)} == set(pids)
        await check_agreement(workers, {"slow": pids[0]})
        assert time.monotonic() - began >= 0.2
        began = time.monotonic()
        await ada.ask("register", name="alone")
        assert 0.2 <= time.monotonic() - began < 0.4, "one round trip, and not two"


async def parted(left: list[Worker], right: list[Worker]) -> bool:
    """No node of one side is connected to one of the other."""
    here, there = await states(left), await states(right)
    sides = [{state.name for state in side} for side in (here, there)]
    return not any(set(s.peers) & sides[1] for s in here) and not any(set(s.peers) & sides[0] for s in there)
