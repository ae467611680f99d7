"""What the service of a node does for those who watch its names: batches, waiting, and forgetting."""

import asyncio
import gc

import pytest

from kinfolk import CallTimeout, Cookie, Node, NodeLost, Refused, new_cookie, watches
from kinfolk.observer import Observer

COOKIE = Cookie(new_cookie())


@pytest.fixture
async def node():
    async with Node("ada", cookie=COOKIE, join=[]) as node:
        yield node


@pytest.fixture
async def seen(node):
    async with Observer(node.name, cookies=[COOKIE], cluster=node.cluster) as seen:
        yield seen


async def idle(me):
    await me.receive()


async def registered(node: Node, *names: str) -> dict[str, str]:
    """Register names, each for a process of its own."""
    return {name: str((await node.names.register(name, node.spawn(idle))).pid) for name in names}


def open_watches(node: Node) -> int:
    gc.collect()
    return len(node.names._watches)


async def until_forgotten(node: Node) -> None:
    async with asyncio.timeout(10):
        while open_watches(node):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_first_comes_what_is_there_then_every_change_in_order(node, seen):
    pids = await registered(node, "svc/a", "svc/b", "other")
    watch = await seen.call(["watch", "svc/*"])
    assert await seen.call(["events", watch, 5]) == [["added", name, pids[name]] for name in ("svc/a", "svc/b")]
    await node.names.unregister("svc/a")
    again = await registered(node, "svc/a", "other/2", "svc/c")
    assert await seen.call(["events", watch, 5]) == [
        ["removed", "svc/a", pids["svc/a"]],
        ["added", "svc/a", again["svc/a"]],
        ["added", "svc/c", again["svc/c"]],
    ]


async def test_an_event_ends_the_wait_and_others_are_answered_meanwhile(node, seen):
    watch = await seen.call(["watch", "db"])
    waiting = asyncio.create_task(seen.call(["events", watch, 60], timeout=60))
    async with Observer(node.name, cookies=[COOKIE], cluster=node.cluster) as other:
        assert await other.call(["whereis", "db"]) is None
        assert not waiting.done()
        pids = await registered(node, "db")
        assert await waiting == [["added", "db", pids["db"]]]


async def test_without_events_the_answer_is_empty_after_the_wait(node, seen):
    watch = await seen.call(["watch", "*"])
    assert await seen.call(["events", watch, 0]) == []
    assert await seen.call(["events", watch, 0.01]) == []
    assert await seen.call(["events", watch, -1]) == []


async def test_an_answer_holds_a_bounded_number_of_events(node, seen, monkeypatch):
    monkeypatch.setattr(watches, "BATCH", 4)
    pids = await registered(node, *map(str, range(10)))
    watch = await seen.call(["watch", "*"])
    batches = [await seen.call(["events", watch, 5]) for _ in range(3)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert {name: pid for batch in batches for _, name, pid in batch} == pids


async def test_who_lags_gets_a_resync_and_the_table_in_parts_then_what_has_changed_since(node, seen, monkeypatch):
    monkeypatch.setattr(watches, "BATCH", 4)
    monkeypatch.setattr(watches, "MAX_EVENTS", 5)
    watch = await seen.call(["watch", "*"])
    pids = await registered(node, *map(str, range(6)))
    events = await seen.call(["events", watch, 5])
    assert events[0] == ["resync"] and len(events) == 4
    await node.names.unregister("5")
    events += await seen.call(["events", watch, 5])
    assert events[1:7] == [["added", name, pid] for name, pid in pids.items()], "the table as it was at the resync"
    assert events[7:] == [["removed", "5", pids["5"]]]
    assert await seen.call(["events", watch, 0]) == []


async def test_a_watch_that_nobody_asks_is_forgotten(node, seen, monkeypatch):
    monkeypatch.setattr(watches, "FORGET_AFTER", 0.05)
    watch = await seen.call(["watch", "*"])
    assert await seen.call(["events", watch, 0.2]) == [], "who waits is not forgotten"
    assert open_watches(node) == 1
    await until_forgotten(node)
    assert await seen.call(["events", watch, 5]) is None
    assert await seen.call(["events", 4711, 5]) is None


async def test_a_watch_whose_events_came_too_late_is_forgotten(node, seen):
    watch = await seen.call(["watch", "*"])
    with pytest.raises(CallTimeout):
        await seen.call(["events", watch, 0.1], timeout=0.02)
    await until_forgotten(node)
    assert await seen.call(["events", watch, 5]) is None


async def test_too_many_watches_are_refused_until_some_are_forgotten(node, seen, monkeypatch):
    monkeypatch.setattr(watches, "MAX_WATCHES", 3)
    monkeypatch.setattr(watches, "FORGET_AFTER", 0.05)
    for _ in range(3):
        await seen.call(["watch", "*"])
    with pytest.raises(Refused, match="3 watches are open"):
        await seen.call(["watch", "*"])
    await until_forgotten(node)
    await seen.call(["watch", "*"])


async def test_only_one_may_wait_for_the_events_of_a_watch(node, seen):
    watch = await seen.call(["watch", "*"])
    waiting = asyncio.create_task(seen.call(["events", watch, 5], timeout=5))
    async with Observer(node.name, cookies=[COOKIE], cluster=node.cluster) as other:
        await other.call(["info"])
        with pytest.raises(Refused, match="being waited for already"):
            await other.call(["events", watch, 5])
    await registered(node, "db")
    assert len(await waiting) == 1


@pytest.mark.parametrize("request_", [["watch"], ["watch", 1], ["watch", "a*b"], ["events", 1], ["events", 1, "soon"]])
async def test_what_is_no_watch_is_refused_and_the_service_lives_on(node, seen, request_):
    with pytest.raises(Refused):
        await seen.call(request_)
    assert await seen.call(["whereis", "db"]) is None


async def test_a_node_that_closes_ends_the_wait_and_leaves_nothing_behind(node, seen):
    tasks = asyncio.all_tasks()
    watch = await seen.call(["watch", "*"])
    waiting = asyncio.create_task(seen.call(["events", watch, 60], timeout=60))
    async with Observer(node.name, cookies=[COOKIE], cluster=node.cluster) as other:
        await other.call(["info"])
    await node.close()
    with pytest.raises(NodeLost, match=f"{node.name} has closed"):
        await waiting
    assert open_watches(node) == 0
    assert asyncio.all_tasks() <= tasks


async def test_whoever_watches_changes_hears_nothing_of_what_is_there_not_even_after_a_resync(node, seen, monkeypatch):
    monkeypatch.setattr(watches, "MAX_EVENTS", 5)
    pids = await registered(node, "there")
    watch = await seen.call(["watch", "*", "changes"])
    assert await seen.call(["events", watch, 0]) == []
    await node.names.unregister("there")
    assert await seen.call(["events", watch, 5]) == [["removed", "there", pids["there"]]]
    pid = node.spawn(idle)
    for number in range(10):
        node.names.register_nowait(f"name {number}", pid)
    assert await seen.call(["events", watch, 5]) == [["resync"]]
    node.names.register_nowait("last", pid)
    assert await seen.call(["events", watch, 5]) == [["added", "last", str(pid)]]
