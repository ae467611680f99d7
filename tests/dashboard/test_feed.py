"""What pages hear as it happens: whatever happens, it is bounded, for the node, for this program and for the page."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from kinfolk.dashboard import feed, sampling
from kinfolk.dashboard.feed import Feed, Listener, TooMany
from kinfolk.dashboard.sampling import Look
from kinfolk.dashboard.source import Afar, Here
from kinfolk.observer import Observer
from tests.dashboard.cluster import Told
from tests.node.nodes import Nodes, idle, until

BEAT = 0.02


def read(message: bytes) -> tuple[str, Any]:
    event, data = message.decode().removesuffix("\n\n").split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def fed(source: Any, beat: float = BEAT) -> AsyncGenerator[Feed]:
    made = Feed(source, beat)
    try:
        yield made
    finally:
        await made.close()
        await source.close()


async def heard(messages: AsyncIterator[bytes], wanted: str) -> Any:
    """The next message of a kind."""
    async with asyncio.timeout(10):
        async for message in messages:
            event, data = read(message)
            if event == wanted:
                return data
    raise AssertionError(f"no {wanted} came")


@asynccontextmanager
async def listening(source: Any, beat: float = BEAT) -> AsyncGenerator[AsyncGenerator[bytes]]:
    async with fed(source, beat) as made, aclosing(made.listen()) as messages:
        yield messages


# --- what is heard ---


async def test_a_name_and_a_node_are_told_of_as_they_come_and_go(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    async with listening(Here(ada)) as messages:
        await heard(messages, "pulse")
        await until(lambda: len(ada.names._watches))
        pid = ada.spawn(idle)
        await ada.names.register("db", pid)
        (event,) = (await heard(messages, "events"))["events"]
        assert event[1:] == ["added", "db", str(pid)]
        ada.kill(pid)
        (event,) = (await heard(messages, "events"))["events"]
        assert event[1:] == ["removed", "db", str(pid)]
        await bob.close()
        said: list[Any] = []
        async with asyncio.timeout(10):
            while not said or said[-1][0] != "events":
                said.append(read(await anext(messages)))
        assert [event[1:3] for event in said[-1][1]["events"]] == [["down", bob.name]]
        rows = {row["name"]: row for event, told in said if event == "mesh" for row in told["nodes"]}
        assert rows[bob.name]["state"] == "down" and rows[bob.name]["why"]


async def test_a_page_hears_only_of_changes_not_of_all_names_there_are(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    for number in range(100):
        ada.names.register_nowait(f"name {number}", pid)
    async with listening(Here(ada)) as messages:
        assert (await heard(messages, "pulse"))["names"] == 100
        await until(lambda: len(ada.names._watches))
        await ada.names.unregister("name 7")
        assert [event[1:3] for event in (await heard(messages, "events"))["events"]] == [["removed", "name 7"]]


async def test_whoever_comes_later_hears_first_of_all_that_is_known():
    told = Told("ada", "bob", "cyd")
    async with fed(told) as made, aclosing(made.listen()) as first:
        await heard(first, "pulse")
        told.events.put_nowait([["added", "db", "ada@10.0.0.1:4370/1/1"]])
        await heard(first, "events")
        async with aclosing(made.listen()) as second:
            event, hello = read(await anext(second))
            assert event == "hello" and hello["lost"] == 0 and hello["away"] is None
            assert {node["name"] for node in hello["nodes"]} == set(told.names)
            assert [event[1:3] for event in hello["events"]] == [["added", "db"]]
            assert hello["pulse"]["name"] == told.name


@pytest.mark.parametrize("key", ["creation", "held", "cpu", "peers"])
async def test_a_peer_of_another_version_is_silent_until_it_is_understood(key: str):
    told = Told("ada", "bob", "cyd")
    _, bob, cyd = told.names
    told.strange = {bob: key}
    async with listening(told) as messages:

        async def row_of(node: str, *, silent: bool) -> dict[str, Any]:
            while True:
                rows: list[dict[str, Any]] = (await heard(messages, "mesh"))["nodes"]
                for row in rows:
                    if row["name"] == node and (silent or "held" in row) and (row["state"] == "silent") is silent:
                        return row

        await row_of(cyd, silent=False)
        del told.strange[bob]
        await row_of(bob, silent=False)
        told.strange = {bob: key}
        assert key in (await row_of(bob, silent=True))["why"]


@pytest.mark.parametrize("key", ["creation", "clock", "held", "peers", "stalled"])
async def test_a_node_of_another_version_is_away_until_it_is_understood(key: str):
    told = Told("ada", "bob")
    told.strange = {told.name: key}
    async with listening(told) as messages:
        assert key in (await heard(messages, "away"))["why"]
        told.strange = {}
        assert (await heard(messages, "pulse"))["name"] == told.name


async def test_the_picture_tells_states_and_missing_sessions():
    told = Told("ada", "bob", "cyd", "dan")
    ada, bob, cyd, dan = told.names
    told.stalled, told.draining = {bob: 2.5}, {dan: "finishes calls"}
    told.missing = {frozenset((cyd, dan))}
    async with fed(told) as made, aclosing(made.listen()) as messages:
        rows: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while not (rows.get(cyd, {}).get("missing") and rows.get(dan, {}).get("missing")):
                rows |= {row["name"]: row for row in (await heard(messages, "mesh"))["nodes"]}
    assert rows[ada]["self"] is True and rows[ada]["state"] == "up"
    assert rows[bob]["state"] == "stalled" and "2 s" in rows[bob]["why"]
    assert rows[dan]["state"] == "draining" and rows[dan]["why"] == "finishes calls"
    assert rows[cyd]["missing"] == [dan] and rows[dan]["missing"] == [cyd]
    assert told.pulses[bob] == 0, "it cannot answer, so it is not asked"


async def test_of_many_nodes_only_a_few_are_asked_in_a_beat_and_each_in_its_turn():
    told = Told(*(f"n{number}" for number in range(100)))
    async with fed(told) as made, aclosing(made.listen()) as messages:
        for _ in range(20):
            await heard(messages, "pulse")
        beats, asked = told.pulses[told.name], [told.pulses[name] for name in told.names[1:]]
    assert 0 < sum(asked) <= (beats + 1) * feed._ASKED
    assert max(asked) - min(asked) <= 1


async def test_a_node_that_is_away_is_told_of_until_it_answers_again_and_what_happened_meanwhile_is_missing():
    told = Told("ada")
    async with listening(told) as messages:
        await heard(messages, "pulse")
        told.away = "it is being restarted"
        assert (await heard(messages, "away"))["why"] == "it is being restarted"
        told.events.put_nowait([])  # whoever waited is answered, and then has no luck
        told.away, told.creation = None, told.creation + 5
        pulse = await heard(messages, "pulse")
        assert pulse["counts"] is False, "no rate is computed across a restart"


async def test_an_observer_goes_on_with_a_node_that_was_restarted(nodes: Nodes):
    ada = await nodes.start("ada")
    name, cookie = ada.name, nodes.cookie
    observer = Observer(name, cookies=[cookie], cluster=ada.cluster)
    async with observer, listening(Afar(observer)) as messages:
        first = (await heard(messages, "pulse"))["creation"]
        await ada.close()
        assert name in (await heard(messages, "away"))["why"]
        again = await nodes.start(name)
        assert (await heard(messages, "pulse"))["creation"] == f"{again.creation:x}" != first


async def test_a_question_does_not_suffer_from_a_restart_that_nobody_noticed(nodes: Nodes):
    ada = await nodes.start("ada")
    name = ada.name
    async with Observer(name, cookies=[nodes.cookie], cluster=ada.cluster) as observer:
        source = Afar(observer)
        await asyncio.gather(*(source.ask(["info"]) for _ in range(6)))
        assert len(source._idle) == 4, "no more sessions than these are kept"
        await ada.close()
        again = await nodes.start(name)
        assert (await source.ask(["info"]))["creation"] == again.creation
        await source.close()


# --- bounds ---


async def test_a_listener_that_does_not_read_costs_no_memory_and_hears_of_all_anew():
    listener = Listener()
    for number in range(10_000):
        listener.tell(b"%d" % number)
    assert len(listener._messages) <= feed.WAITING
    assert await listener.take() == 10_000
    listener.tell(b"next")
    assert await listener.take() == b"next"


async def test_a_page_that_was_too_slow_is_told_how_much_it_has_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed, "WAITING", 3)
    told = Told("ada")
    async with listening(told) as messages:
        assert read(await anext(messages))[1]["lost"] == 0
        await until(lambda: told.pulses[told.name] > 10)
        assert (await heard(messages, "hello"))["lost"] > 3


async def test_of_very_many_changes_a_few_are_shown_and_the_others_counted_but_of_nodes_each():
    told = Told("ada")
    async with listening(told) as messages:
        await heard(messages, "pulse")
        pid = "ada@10.0.0.1:4370/1/1"
        storm: list[list[Any]] = [["added", f"name {number}", pid] for number in range(900)]
        told.events.put_nowait([["up", "bob@10.0.0.2:4370", "1"], *storm, ["down", "bob@10.0.0.2:4370", "left"]])
        said = await heard(messages, "events")
    kinds = [event[1] for event in said["events"]]
    assert said["skipped"] == 800 and kinds.count("added") == 100
    assert (kinds[0], kinds[-1], said["events"][-2][2]) == ("up", "down", "name 899")


async def test_only_so_many_pages_listen():
    async with fed(Told("ada")) as made:
        opened = [made.listen() for _ in range(feed.LISTENERS)]
        for each in opened:
            await anext(each)
        with pytest.raises(TooMany):
            await anext(made.listen())
        await opened.pop().aclose()
        last = made.listen()
        await anext(last)
        for each in (*opened, last):
            await each.aclose()


async def test_nobody_is_asked_when_nobody_looks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed, "LINGER", 0.05)
    told = Told("ada")
    async with fed(told) as made:
        assert not made.runs
        async with aclosing(made.listen()) as messages:
            await heard(messages, "pulse")
            assert made.runs
            asking = made._task
        await until(lambda: not made.runs)
        assert asking is not None
        await asyncio.wait([asking])
        asked = told.pulses[told.name]
        await asyncio.sleep(5 * BEAT)
        assert told.pulses[told.name] == asked
        async with aclosing(made.listen()) as messages:
            await heard(messages, "pulse")


async def test_a_closed_feed_ends_what_listens_and_leaves_no_task():
    made = Feed(Told("ada"), BEAT)
    messages = made.listen()
    await anext(messages)
    await made.close()
    async with asyncio.timeout(5):
        assert [each async for each in messages] == []
        assert [each async for each in made.listen()] == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- rates ---


def look(at: float, **peers: list[float | None]) -> Look:
    told = {"creation": 1, "clock": at, "names": 1, "processes": 1, "cpu": at / 10, "counters": {}, "peers": peers}
    return Look(told, at)


def test_rates_are_of_what_came_between_two_looks_and_a_new_session_counts_from_zero():
    old = look(10.0, bob=[1000, 500, 10, 5, 0, None], cyd=[9000, 9000, 90, 90, 0, 0.1])
    new = look(12.0, bob=[3000, 500, 14, 5, 7, 0.2], cyd=[100, 200, 2, 4, 0, 0.1], dan=[50, 50, 1, 1, 0, None])
    assert sampling.peer_rates(new, old) == {
        "bob": [1000.0, 0.0, 2.0, 0.0],
        "cyd": [50.0, 100.0, 1.0, 2.0],
        "dan": [0.0] * 4,
    }
    sample = dict(zip(sampling.SAMPLE, sampling.sample(new, old, sampling.peer_rates(new, old)), strict=True))
    assert (sample["in"], sample["out"], sample["waiting"], sample["trip"], sample["cpu"]) == (1050, 100, 7, 0.2, 0.1)


def test_without_an_earlier_look_there_are_no_rates():
    assert sampling.peer_rates(look(1.0, bob=[9, 9, 9, 9, 0, None]), None) == {"bob": [0.0] * 4}
    assert sampling.totals({}) == [0.0] * 4


class Counted:
    """An observer whose node answers when it is told to.

    Attributes:
        opened: the sessions that were opened.
        answer: set when the node answers.
    """

    name = "ada@10.0.0.1:4370"

    def __init__(self) -> None:
        self.opened = 0
        self.answer = asyncio.Event()

    def another(self) -> "Counted":
        return self

    async def open(self) -> "Counted":
        self.opened += 1
        return self

    async def call(self, request: Sequence[object], *, timeout: float) -> Any:
        await self.answer.wait()
        return ["done", request]

    async def close(self) -> None:
        pass


async def test_however_many_ask_at_once_few_sessions_are_opened_and_whoever_waits_holds_up_nobody():
    counted = Counted()
    observer: Any = counted
    source = Afar(observer)
    waiting: list[list[object]] = [["events", 1, 10.0], ["at", "bob@10.0.0.2:4370", ["drain", None]]]
    waits = [asyncio.create_task(source.ask(request)) for request in waiting * 10]
    await until(lambda: counted.opened == 20)
    asked = [asyncio.create_task(source.ask(["at", "bob@10.0.0.2:4370", ["why", "db"]])) for _ in range(50)]
    await until(lambda: counted.opened == 32)
    for _ in range(20):
        await asyncio.sleep(0)
    assert counted.opened == 32
    counted.answer.set()
    async with asyncio.timeout(10):
        assert len(await asyncio.gather(*waits, *asked)) == 70
