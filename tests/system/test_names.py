"""Names in five OS processes over TLS: everybody knows all of them, one wins, and the dead are not named."""

import asyncio
import time
from collections import Counter

from tests.system.fleet import Fleet, Raised, Worker, agreed, check_agreement, states, until

WORDS = ("ada", "bob", "carl", "dora", "eve")


async def test_a_thousand_names_of_five_nodes_are_known_everywhere_and_a_killed_node_takes_exactly_its_own_along(
    fleet: Fleet,
):
    workers = await fleet.mesh(*WORDS)
    tables = await asyncio.gather(
        *(worker.ask("register_many", names=[f"{worker.word}/{number}" for number in range(200)]) for worker in workers)
    )
    owned = dict(zip(workers, tables, strict=True))
    everything = {name: pid for table in tables for name, pid in table.items()}
    assert len(everything) == 1000
    assert all(pid.startswith(worker.name + "/") for worker, table in owned.items() for pid in table.values())
    # At once: register has returned, so there is nothing left to wait for.
    await check_agreement(workers, everything)
    answers = await asyncio.gather(
        *(workers[0].ask("call", target=name, request=["echo", 1]) for name in list(everything)[::50])
    )
    assert [pid for pid, _ in answers] == list(everything.values())[::50]

    *survivors, victim = workers
    await asyncio.gather(*(worker.ask("watch") for worker in survivors))
    before = await asyncio.gather(*(worker.ask("events") for worker in survivors))
    await victim.kill()
    lost = owned.pop(victim)
    rest = {name: pid for table in owned.values() for name, pid in table.items()}
    await agreed(survivors, rest)
    for worker, past in zip(survivors, before, strict=True):
        events = (await worker.ask("events"))[len(past) :]
        assert Counter((sign, name, pid) for _, sign, name, pid in events) == Counter(
            ("-", name, pid) for name, pid in lost.items()
        )
        assert max(at for at, *_ in events) - victim.killed_at < 1.0
    for state in await states(survivors):
        assert state.counters["peers_lost"] == 1


async def test_of_nodes_that_race_for_a_name_exactly_one_wins_and_everybody_agrees_at_once(fleet: Fleet):
    workers = await fleet.mesh(*WORDS)
    won: Counter[str] = Counter()
    for number in range(200):
        racers = (workers * 2)[number % 5 :][: 2 + number % 4]
        name = f"race/{number}"
        start = time.monotonic() + 0.003
        outcomes = await asyncio.gather(*(worker.attempt("register", name=name, at=start) for worker in racers))
        winners = [outcome for outcome in outcomes if not isinstance(outcome, Raised)]
        assert len(winners) == 1, f"{name}: {outcomes}"
        losers = [outcome for outcome in outcomes if isinstance(outcome, Raised)]
        assert [(loser.error, loser.holder) for loser in losers] == [("NameTaken", winners[0])] * len(losers)
        holders = await asyncio.gather(*(worker.ask("whereis", name=name) for worker in workers))
        assert holders == winners * 5, name
        winner = racers[outcomes.index(winners[0])]
        await winner.ask("unregister", name=name)
        assert await asyncio.gather(*(worker.ask("whereis", name=name) for worker in workers)) == [None] * 5
        won[winner.word] += 1
    assert len(won) == 5, f"always the same have won, so there was no race: {won}"
    counters = [state.counters for state in await states(workers)]
    assert sum(counter.get("names_contested", 0) for counter in counters) > 0, "no two claims ever crossed"
    assert sum(counter.get("names_lost", 0) for counter in counters) == 0


async def test_a_name_goes_everywhere_with_its_registration_its_handle_or_its_process(fleet: Fleet):
    ada, bob, carl = workers = await fleet.mesh("ada", "bob", "carl")

    async def everywhere(name: str) -> list[str | None]:
        return list(await asyncio.gather(*(worker.ask("whereis", name=name) for worker in workers)))

    pid = await bob.ask("spawn")
    for name in ("one", "two", "three"):
        await bob.ask("register", name=name, pid=pid)
    assert await check_agreement(workers) == {"one": pid, "two": pid, "three": pid}
    await bob.ask("unregister", name="one")
    assert await everywhere("one") == [None] * 3
    taken = await carl.ask("register", name="one")
    assert await everywhere("one") == [taken] * 3
    stale = await bob.attempt("release", name="one")
    assert isinstance(stale, Raised) and stale.error == "NameUnknown"
    assert await everywhere("one") == [taken] * 3
    refused = await ada.attempt("register", name="two")
    assert isinstance(refused, Raised) and (refused.error, refused.holder) == ("NameTaken", pid)
    # The end of the process takes the rest along, whatever its end is.
    assert await ada.ask("call", target="two", request=["return"]) == "bye"
    assert await bob.ask("whereis", name="three") is None
    await until(lambda: _gone(workers, "two", "three"), "both names are gone")
    killed = await carl.ask("register", name="two")
    await ada.ask("kill", pid=killed)
    await until(lambda: _gone(workers, "two"), "the killed process has no name")


async def _gone(workers: list[Worker], *names: str) -> bool:
    tables = [state.names for state in await states(workers)]
    return not any(name in table for name in names for table in tables)
