"""A watch of names: whatever happens while it looks through a table, who follows it ends with the table."""

import asyncio
import random

import pytest

from kinfolk import NameAdded, NameRemoved, NameWatch, NodeClosed, Pid, Resync, events


class Table:
    """Names that change, and those who watch them."""

    def __init__(self) -> None:
        self.view: dict[str, Pid] = {}
        self.watches: list[NameWatch] = []
        self._locals = iter(range(1, 1_000_000))

    def watch(self, pattern: str = "*", max_events: int = 1000) -> NameWatch:
        self.watches.append(NameWatch(self.view, pattern, max_events))
        return self.watches[-1]

    def add(self, name: str) -> None:
        self.view[name] = Pid("ada@127.0.0.1:1", 1, next(self._locals))
        self._tell(NameAdded(name, self.view[name]))

    def remove(self, name: str) -> None:
        self._tell(NameRemoved(name, self.view.pop(name)))

    def _tell(self, change: NameAdded | NameRemoved) -> None:
        for watch in self.watches:
            watch.changed(change)


class Follower:
    """Folds the events of a watch, in a task of its own."""

    def __init__(self, watch: NameWatch) -> None:
        self.table: dict[str, Pid] = {}
        self.resyncs = 0
        self._watch = watch
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in self._watch:
            match event:
                case NameAdded(name=name, pid=pid):
                    assert name not in self.table
                    self.table[name] = pid
                case NameRemoved(name=name, pid=pid):
                    assert self.table.pop(name) == pid
                case Resync(names=names):
                    self.resyncs += 1
                    self.table = dict(names)


async def settled() -> None:
    for _ in range(500):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(40))
async def test_who_follows_ends_with_the_table_however_small_the_slices(seed: int, monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(seed)
    monkeypatch.setattr(events, "_SLICE", chance.randint(1, 4))
    table = Table()
    for number in range(chance.randrange(20)):
        table.add(f"{chance.choice('ab')}/{number}")
    followers = {
        pattern: Follower(table.watch(pattern, max_events=chance.randint(0, 6))) for pattern in ("*", "a/*", "a/1")
    }
    for _ in range(150):
        name = f"{chance.choice('ab')}/{chance.randrange(20)}"
        if name in table.view:
            table.remove(name)
        else:
            table.add(name)
        for _ in range(chance.choice((0, 0, 0, 1, 2, 5))):
            await asyncio.sleep(0)
    await settled()
    assert sum(follower.resyncs for follower in followers.values()) > 0
    for pattern, follower in followers.items():
        expected = {
            name: pid
            for name, pid in table.view.items()
            if (name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern)
        }
        assert follower.table == expected
        follower.task.cancel()


@pytest.mark.parametrize("resync", [False, True], ids=["at first", "after a lag"])
async def test_others_get_their_turn_while_many_names_are_looked_at(resync: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_SLICE", 10)
    table = Table()
    for number in range(300):
        table.add(f"a/{number}")
    watch = table.watch("b*", max_events=0)
    if resync:
        table.add("b/1")
    turns = 0
    waiting = asyncio.ensure_future(anext(watch))
    while not waiting.done() and turns < 30:
        await asyncio.sleep(0)
        turns += 1
    if resync:
        assert isinstance(await waiting, Resync)
    else:
        table.add("b/1")
        assert isinstance(await waiting, Resync)  # with no room for events, any change is too much
    assert turns >= 30


async def test_a_watch_that_ends_while_it_looks_through_the_table_still_gives_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_SLICE", 2)
    table = Table()
    watch = table.watch("a*", max_events=0)
    for number in range(10):
        table.add(f"a/{number}")
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    known = dict(table.view)
    watch.fail(NodeClosed("the node is closed"))
    table.view.clear()
    assert await waiting == Resync(known)
    with pytest.raises(NodeClosed):
        await anext(watch)


async def test_cancelling_a_wait_loses_no_event(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_SLICE", 1)
    table = Table()
    for number in range(5):
        table.add(f"a/{number}")
    watch = table.watch()
    seen: list[object] = []
    for turns in range(200):
        waiting = asyncio.ensure_future(anext(watch))
        for _ in range(turns % 3):
            await asyncio.sleep(0)
        if turns == 100:
            table.add("b")
        waiting.cancel()
        try:
            seen.append(await waiting)
        except asyncio.CancelledError:
            pass
    assert [event.name for event in seen if isinstance(event, NameAdded)] == [*(f"a/{n}" for n in range(5)), "b"]
