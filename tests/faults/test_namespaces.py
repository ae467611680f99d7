"""Scenarios with five nodes in namespaces of the network, between which links break in every way. Need root."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.faults.five import WORDS, D, Five, H, five_nodes, within
from tests.faults.switch import Switch, missing
from tests.system.fleet import SLACK, Fleet, Nursery, Raised, agreed, always, check_agreement, states, until

MISSING = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

LOSSY_SECONDS = float(os.environ.get("KINFOLK_FAULTS_LOSSY_SECONDS", "30"))
"""How long D19 lasts; the scenario says ten minutes."""
NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}


class Cables:
    """The switch, with a nursery in each namespace."""

    def __init__(self, switch: Switch, directory: Path) -> None:
        self.switch = switch
        self.nurseries: dict[str, Nursery] = {}
        for word, number in NUMBERS.items():
            home = directory / word
            home.mkdir()
            within = ["ip", "netns", "exec", switch.ports[number].namespace]
            self.nurseries[word] = Nursery(home, within)


class WiredFleet(Fleet):
    """A fleet whose workers live each in its own namespace."""

    def __init__(self, directory: Path, nurseries: Mapping[str, Nursery], switch: Switch) -> None:
        super().__init__(directory, nurseries[WORDS[0]])
        self.switch = switch
        self._nurseries = nurseries

    def host(self, word: str) -> str:
        """The address of its namespace."""
        return f"10.77.0.{NUMBERS[word]}"

    def nursery_of(self, word: str) -> Nursery:
        """The one in its namespace."""
        return self._nurseries[word]

    def connections(self) -> int:
        """How many TCP connections there are to its nodes, as the listeners' kernels see it."""
        count = 0
        for worker in self.workers.values():
            here = f"{NUMBERS[worker.word]:02X}004D0A:{self.ports[worker.word]:04X}"
            rows = [row.split() for row in Path(f"/proc/{worker.pid}/net/tcp").read_text().splitlines()[1:]]
            count += sum(row[1] == here and row[3] == "01" for row in rows)
        return count


@pytest.fixture(scope="module")
def cables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cables]:
    """Five namespaces, with a nursery in each."""
    switch = Switch(len(WORDS))
    try:
        cables = Cables(switch, tmp_path_factory.mktemp("cables"))
        yield cables
        for nursery in cables.nurseries.values():
            nursery.close()
    finally:
        switch.close()


@pytest.fixture
async def wired(tmp_path: Path, cables: Cables) -> AsyncIterator[WiredFleet]:
    """An empty fleet on these cables."""
    async with cables.switch, WiredFleet(tmp_path, cables.nurseries, cables.switch) as fleet:
        yield fleet


async def monitors(five: Five, names: dict[str, str], number: int) -> dict[int, str]:
    """On each other node a process that monitors the named one of this node."""
    watched = names[f"{five[number]}/own"]
    watchers: dict[int, str] = {}
    for other in range(1, 6):
        if other != number:
            pid = watchers[other] = await five[other].ask("spawn")
            await five[other].ask("call", target=pid, request=["echo", 1])
            await five[other].ask("act", pid=pid, verb="monitor", what=[watched])
            assert await five[other].ask("call", target=watched, request=["echo", 1]) == [watched, 1]
    return watchers


async def are_told(five: Five, watchers: dict[int, str], watched: str) -> bool:
    """Each of them has got its one message."""
    for number, pid in watchers.items():
        assert await five[number].ask("seen", pid=pid) == [["Down", watched, "noconnection"]]
    return True


async def start_again(five: Five, number: int) -> None:
    """Start a killed node again, under its name."""
    word = WORDS[number - 1]
    others = [other for other in WORDS if other != word]
    five.workers[number - 1] = await five.fleet.start(word, join=others, heartbeat=H)


def but(names: dict[str, str], *words: str) -> dict[str, str]:
    """The names of all other nodes."""
    return {name: pid for name, pid in names.items() if name.partition("/")[0] not in words}


async def test_d10_d18_a_killed_node_takes_its_own_names_along_and_comes_back_as_another(wired: WiredFleet):
    async with five_nodes(wired) as five:
        names = await five.own_names()
        watchers = await monitors(five, names, 4)
        old = names["dora/own"]
        with within(1, "the end of node 4"):
            await five[4].kill()
            await agreed(five.but(4), but(names, "dora"), H * SLACK)
        await until(partial(are_told, five, watchers, old), "each monitor is told", H * SLACK)
        with within(6, "the restart"):
            await start_again(five, 4)
            await agreed(five.workers, but(names, "dora"), 6 * H * SLACK)
        names["dora/own"] = await five[4].ask("register", name="dora/own")
        await five.agree(names, 1)
        assert names["dora/own"] != old
        for worker in five.workers:
            raised = await worker.attempt("call", target=old, request=["echo", 1])
            assert isinstance(raised, Raised) and raised.error == "NoProcess", raised
        assert await are_told(five, watchers, old), "once"
        assert await five.lost(1, 2, 3, 5) == [1] * 4


async def test_d11_an_isolated_node_is_dropped_and_drops_the_others(wired: WiredFleet):
    async with five_nodes(wired) as five:
        names = await five.own_names()
        watchers = await monitors(five, names, 4)
        wired.switch.part([4], [1, 2, 3, 5])
        await agreed(five.but(4), but(names, "dora"), D + H * SLACK)
        await agreed([five[4]], {"dora/own": names["dora/own"]}, D + H * SLACK)
        await until(partial(are_told, five, watchers, names["dora/own"]), "each monitor is told", H * SLACK)
        wired.switch.heal()
        await five.agree(names, 12)
        assert await five.lost(1, 2, 3, 4, 5) == [1, 1, 1, 4, 1]
        assert await are_told(five, watchers, names["dora/own"]), "once"


@pytest.mark.parametrize("how", ["by the switch", "by a firewall"])
async def test_d13_a_partition_is_consistent_on_both_sides_and_heals_with_one_loser_told_once(
    wired: WiredFleet, how: str
):
    async with five_nodes(wired) as five:
        names = await five.own_names()
        left, right = five.workers[:2], five.workers[2:]
        if how == "by the switch":
            wired.switch.part([1, 2], [3, 4, 5])
        else:
            for number in (1, 2):
                wall = wired.switch.ports[number]
                wall.run("nft", "add table ip wall; add chain ip wall in { type filter hook input priority 0; }")
                wall.run("nft", "add rule ip wall in ip saddr { 10.77.0.3, 10.77.0.4, 10.77.0.5 } drop")
        parted = time.monotonic()
        here, there = but(names, "carl", "dora", "eve"), but(names, "ada", "bob")
        await asyncio.gather(agreed(left, here, D + H * SLACK), agreed(right, there, D + H * SLACK))
        earlier = await five[2].ask("register", name="x", on_lost="message")
        later = await five[4].ask("register", name="x", on_lost="message")
        while time.monotonic() < parted + 4 * D:
            await check_agreement(left, {**here, "x": earlier})
            await check_agreement(right, {**there, "x": later})
            await asyncio.sleep(H)
        if how == "by the switch":
            wired.switch.heal()
        else:
            for number in (1, 2):
                wired.switch.ports[number].run("nft", "delete table ip wall")
        await five.agree({**names, "x": earlier}, 12)
        await until(partial(five[4].has_seen, later, [["NameLost", "x"]]), "the loser is told", 12 * H * SLACK)
        await always(partial(check_agreement, five.workers, {**names, "x": earlier}), 4 * H)
        assert await five[4].ask("seen", pid=later) == [["NameLost", "x"]], "once"
        assert await five[2].ask("seen", pid=earlier) == []
        assert [state.counters.get("names_lost", 0) for state in await states(five.workers)] == [0, 0, 0, 1, 0]


async def test_d14_a_cut_between_two_changes_nothing_at_the_others(wired: WiredFleet):
    async with five_nodes(wired) as five:
        names = await five.own_names()
        await asyncio.gather(*(worker.ask("watch") for worker in five.workers))
        wired.switch.part([1], [2])
        cut = time.monotonic()
        await until(partial(_knows, five, 1, but(names, "bob")), "1 has lost 2", D + H * SLACK)
        await until(partial(_knows, five, 2, but(names, "ada")), "2 has lost 1", D + H * SLACK)
        await until(lambda: wired.connections() == 9, "9 of 10 sessions stay", D)
        while time.monotonic() < cut + 4 * D:
            assert await _knows(five, 1, but(names, "bob")) and await _knows(five, 2, but(names, "ada"))
            assert wired.connections() == 9
            await asyncio.sleep(H)
        wired.switch.heal()
        await five.agree(names, 12)
        assert await five.lost(1, 2, 3, 4, 5) == [1, 1, 0, 0, 0]
        for worker in five.workers[2:]:
            assert [event[1] for event in await worker.ask("events")] == ["+"] * 5, "it has noticed"


async def _knows(five: Five, number: int, names: dict[str, str]) -> bool:
    return bool(await five[number].ask("names") == names)


async def test_d15_a_connection_that_drops_a_hundred_times_costs_others_nothing(wired: WiredFleet):
    """Also the story of the blip."""
    async with five_nodes(wired) as five:
        names = await five.own_names()
        await asyncio.gather(*(worker.ask("watch") for worker in five.workers[2:]))
        for number in range(100):
            wired.switch.ports[1].run("ss", "-K", "dst", "10.77.0.2")
            await until(partial(five[1].has_lost, number + 1), "1 notices", 6 * H * SLACK)
            await agreed(five.workers, names, 6 * H * SLACK)
            if number % 10 == 0:
                await five.answer(names)
        for worker in five.workers[2:]:
            assert [event[1] for event in await worker.ask("events")] == ["+"] * 5
        assert await five.lost(3, 4, 5) == [0] * 3


async def test_d19_a_slow_and_lossy_link_loses_no_session_and_registers_confirm(wired: WiredFleet):
    heartbeat = 0.5
    async with five_nodes(wired, heartbeat=heartbeat) as five:
        names = await five.own_names()
        wired.switch.spoil(1, 2, delay=0.2, jitter=0.05, loss=0.05)
        until_then, number = time.monotonic() + LOSSY_SECONDS, 0
        while time.monotonic() < until_then:
            number += 1
            worker, name = five.workers[number % 5], f"n{number}"
            began = time.monotonic()
            pid = await worker.ask("register", name=name)
            assert await five.everywhere(name) == {pid}
            assert time.monotonic() - began < 6 * heartbeat * SLACK
            await worker.ask("kill", pid=pid)
        assert await five.lost(1, 2, 3, 4, 5) == [0] * 5
        assert wired.switch.links[1, 2].carried > number, "it did go through the switch"
        await five.agree(names, 6)


async def test_d30_one_direction_cut_is_noticed_by_both_ends_once_and_heals(wired: WiredFleet):
    async with five_nodes(wired) as five:
        names = await five.own_names()
        await asyncio.gather(*(worker.ask("watch") for worker in five.workers[2:]))
        wired.switch.cut([1], [2])
        cut = time.monotonic()
        await until(partial(five[1].has_lost, 1), "1 notices", D + 2 * H * SLACK)
        await until(partial(five[2].has_lost, 1), "2 notices", D + 2 * H * SLACK)
        while time.monotonic() < cut + 4 * D:
            assert await five.lost(1, 2, 3, 4, 5) == [1, 1, 0, 0, 0], "they flap, or others have noticed"
            await asyncio.sleep(H)
        wired.switch.heal()
        await five.agree(names, 10)
        assert await five.lost(1, 2, 3, 4, 5) == [1, 1, 0, 0, 0]
        for worker in five.workers[2:]:
            assert [event[1] for event in await worker.ask("events")] == ["+"] * 5
