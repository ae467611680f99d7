"""What a node's service tells of long tables: right, bounded, and with others having their turn meanwhile."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kinfolk import Node, Process, looking
from kinfolk.ids import Pid
from tests.node.nodes import Nodes, until


async def idle(me: Process) -> None:
    await me.receive(int)


async def busy(me: Process) -> None:
    await me.receive(int)


@asynccontextmanager
async def counting_turns() -> AsyncGenerator[list[int]]:
    """How often somebody else on the loop had a turn."""
    turns = [0]

    async def count() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    try:
        yield turns
    finally:
        task.cancel()


async def populated(nodes: Nodes, count: int) -> tuple[Node, list[Pid]]:
    """A node with so many processes, of which every second has a name, and each is in a group."""
    ada = await nodes.start("ada")
    pids = [ada.spawn(busy if number % 10 == 0 else idle) for number in range(count)]
    for number, pid in enumerate(pids):
        if number % 2:
            ada.names.register_nowait(f"n{number:04}", pid)
        await ada.groups.join(f"g{number % 7}", pid)
    await until(lambda: len(ada.names) == count // 2)
    return ada, pids


async def test_pages_come_to_all_there_is_in_order(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "_SLICE", 37)
    ada, pids = await populated(nodes, 300)
    listings = looking.Listings(ada)
    names: list[list[str]] = []
    more = True
    while more:
        page = await listings.names("n0", names[-1][0] if names else "", 23)
        names, more = names + page["names"], page["more"]
    assert names == [[f"n{number:04}", str(pids[number])] for number in range(1, 300, 2)]
    members: list[list[str]] = []
    more = True
    while more:
        last = (members[-1][0], Pid.parse(members[-1][1])) if members else None
        page = await listings.groups("g", last, 31)
        members, more = members + page["groups"], page["more"]
    assert members == [[f"g{group}", str(pid)] for group in range(7) for pid in sorted(pids[group::7])]
    rows: list[dict[str, Any]] = []
    more = True
    while more:
        after = int(rows[-1]["pid"].rpartition("/")[2]) if rows else 0
        page = await looking.processes(ada, after, 29)
        rows, more = rows + page["processes"], page["more"]
    assert [row["pid"] for row in rows] == [str(process.pid) for process in ada.processes()]


async def test_a_listing_goes_on_where_it_was_and_begins_anew_where_nobody_was(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    sorts: list[object] = []
    once = looking._sorted

    async def counted(*args: Any) -> Iterator[Any]:
        sorts.append(args)
        return await once(*args)

    monkeypatch.setattr(looking, "_sorted", counted)
    ada, pids = await populated(nodes, 40)
    listings = looking.Listings(ada)

    async def page(after: str, limit: int = 3) -> list[str]:
        told = await listings.names("", after, limit)
        return [name for name, _ in told["names"]]

    assert await page("") == ["n0001", "n0003", "n0005"]
    ada.kill(pids[9])
    assert await page("n0005") == ["n0007", "n0011"], "who has died meanwhile is left out"
    assert await page("n0011", 1) == ["n0013"]
    assert len(sorts) == 1, "nothing is sorted again"
    assert await page("n0002") == ["n0003", "n0005", "n0007"]
    assert len(sorts) == 2
    assert await page("n0007") == ["n0011", "n0013", "n0015"]
    assert len(sorts) == 2
    monkeypatch.setattr(looking, "_FORGET", -1.0)
    assert await page("n0015") == ["n0017", "n0019", "n0021"]
    assert len(sorts) == 3, "nobody has asked for long"
    for number in range(7):
        assert (await listings.groups(f"g{number}", None, 1))["more"]
    assert len(listings._open) == looking._LISTINGS


async def test_listings_at_once_each_come_to_all_there_is(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "_SLICE", 7)
    ada, _ = await populated(nodes, 120)
    listings = looking.Listings(ada)

    async def walk(limit: int) -> list[str]:
        names: list[str] = []
        more = True
        while more:
            page = await listings.names("", names[-1] if names else "", limit)
            names, more = names + [name for name, _ in page["names"]], page["more"]
        return names

    every = sorted(ada.names.snapshot())
    for walked in await asyncio.gather(*(walk(limit) for limit in (7, 7, 7, 14, 5, 60))):
        assert walked == every


async def test_the_top_is_what_sorting_all_would_put_first(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "_SLICE", 19)
    ada, pids = await populated(nodes, 200)
    chance = random.Random(1)
    waiting = {pid: chance.randrange(5) for pid in pids}
    for pid, count in waiting.items():
        for _ in range(count):
            ada.send(pid, "hello")
    every = [process.pid for process in ada.processes()]

    async def order(sort: str, pattern: str = "", limit: int = 15) -> list[str]:
        told = await looking.top(ada, sort, pattern, limit)
        assert (told["processes"], told["waiting"]) == (len(every), sum(waiting.values()))
        return [row["pid"] for row in told["top"]]

    assert await order("waiting") == [str(pid) for pid in sorted(every, key=lambda pid: -waiting.get(pid, 0))[:15]]
    assert await order("age") == [str(pid) for pid in every[:15]]
    named = [pids[number] for number in range(1, 200, 2)]
    service = next(pid for pid in every if pid not in waiting)  # named "kinfolk", before those with an n
    assert await order("name") == [str(pid) for pid in [service, *named][:15]]
    assert await order("waiting", "n019") == [
        str(pid)
        for pid in sorted([pids[number] for number in (191, 193, 195, 197, 199)], key=lambda pid: (-waiting[pid], pid))
    ]
    assert len(await order("age", "busy", 200)) == 20 and len(await order("age", "ada@", 50)) == 50
    assert await order("age", "nowhere") == []
    ada.names.local.register("here/only", pids[1])
    assert await order("age", "here/") == [str(pids[1])], "also by the name that only its node knows"
    assert len((await looking.top(ada, "age", "", 100_000))["top"]) == looking.TOP
    with pytest.raises(ValueError, match="sorted by 'colour'"):
        await looking.top(ada, "colour", "", 1)


async def test_of_a_process_all_is_told_as_long_as_it_lives(nodes: Nodes):
    ada = await nodes.start("ada")

    async def parent(me: Process) -> None:
        child = me.spawn(idle, link=True)
        await ada.names.register("child", child)
        await ada.groups.join("room", child)
        await me.receive()

    above = ada.spawn(parent)
    child = await ada.names.wait_for("child", timeout=10)
    ada.send(child, "hello")
    ada.send(child, [1])
    await until(lambda: (looking.process(ada, child) or {})["at"])
    told = looking.process(ada, child)
    assert told is not None
    assert (told["parent"], told["links"], told["names"]) == (str(above), [str(above)], ["child"])
    await until(lambda: ada.groups.members("room"))
    told = looking.process(ada, child)
    assert told is not None
    assert (told["groups"], told["next"], told["waiting"]) == (["room"], ["str", "list"], 2)
    assert __file__ in told["at"]
    ada.kill(child)
    assert looking.process(ada, child) is None
    assert looking.process(ada, Pid("bob@h:1", 1, 1)) is None


async def test_of_a_process_with_very_many_names_the_oldest_are_told(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    names = [f"n{number:03}" for number in range(150)]
    for name in names:
        ada.names.register_nowait(name, pid)
    await until(lambda: len(ada.names) == len(names))
    (_, listed) = (await looking.processes(ada, 0, 10))["processes"]
    (_, on_top) = (await looking.top(ada, "age", "", 10))["top"]
    told = looking.process(ada, pid)
    assert told is not None
    assert listed["names"] == on_top["names"] == names[:10] and told["names"] == names[:100]


@pytest.mark.parametrize("what", ["names", "groups", "processes", "top", "mailboxes"])
async def test_others_have_their_turn_after_every_slice(nodes: Nodes, monkeypatch: pytest.MonkeyPatch, what: str):
    monkeypatch.setattr(looking, "_SLICE", 20)
    ada, _ = await populated(nodes, 400)
    looks = {
        "names": lambda: looking.Listings(ada).names("", "", 1000),
        "groups": lambda: looking.Listings(ada).groups("", None, 1000),
        "processes": lambda: looking.processes(ada, 0, 1000),
        "top": lambda: looking.top(ada, "waiting", "", 10),
        "mailboxes": lambda: looking.mailboxes(ada),
    }
    async with counting_turns() as turns:
        await looks[what]()
        assert turns[0] >= (200 if what == "names" else 400) // 20


async def test_where_others_have_much_to_do_whoever_looks_rests_in_between():
    done = [0]

    async def hog() -> None:
        while True:
            time.sleep(0.001)  # noqa: ASYNC251 - it keeps the loop
            done[0] += 1
            await asyncio.sleep(0)

    def rows() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.004)  # so long does a slice take
            yield number

    task = asyncio.create_task(hog())
    await asyncio.sleep(0)
    seen = [some async for some in looking.Turns().over(rows(), looking._SLICE)]
    task.cancel()
    assert seen == [[number] for number in range(10)]
    assert done[0] >= 20, "after each slice one turn to see that there is much to do, and others in the rest"


async def test_where_others_have_nothing_to_do_nobody_rests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "_BUSY", 60.0)  # whatever else this machine does
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert len([some async for some in looking.Turns().over(range(10), looking._SLICE)]) == 10
    assert pauses == [0] * 10
