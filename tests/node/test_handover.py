"""A singleton goes to another node with its state; the loser of a conflict gives its state to the winner, once."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from kinfolk import Child, Moved, NameLost, Node, NoProcess, Pid, Reason, Request, Server, Supervision, supervisor
from tests.node.nodes import Nodes, ended, holders, until
from tests.node.relay import between
from tests.node.test_singletons import History, alternate, states


class Add(Request[int], tag="ho-add"):
    number: int


class Kept(Request[list[int]], tag="ho-kept"):
    pass


class Note(Request[None], tag="ho-note"):
    number: int


class Ledger(Server):
    """Keeps the numbers it is told, in their order, and gives them to whoever comes after it."""

    async def init(self, history: History, hold: asyncio.Event | None = None) -> None:
        self.history, self.hold = history, hold
        self.numbers: list[int] = []
        self.word = self.node.name.partition("@")[0]

    async def add(self, message: Add) -> int:
        self._run()
        self.numbers.append(message.number)
        if self.hold is not None:
            await self.hold.wait()
        return message.number

    async def note(self, message: Note) -> None:
        self._run()
        self.numbers.append(message.number)

    async def kept(self, message: Kept) -> list[int]:
        self._run()
        return self.numbers

    async def hand_over(self) -> list[int]:
        return self.numbers

    async def take_over(self, state: list[int]) -> None:
        self.numbers += state

    async def terminate(self, reason: Reason) -> None:
        if ("+", self.word) in self.history:
            self.history.append(("-", self.word))

    def _run(self) -> None:
        """Write down the first message of each run."""
        if ("+", self.word) not in self.history[-1:]:
            self.history.append(("+", self.word))


class Fragile(Ledger):
    """Cannot take over."""

    async def take_over(self, state: list[int]) -> None:
        raise ValueError("too much")


class Endless(Ledger):
    """Never comes to the end of taking over."""

    async def take_over(self, state: list[int]) -> None:
        await asyncio.Event().wait()


class Secretive(Ledger):
    """Has a state that no wire carries."""

    async def hand_over(self) -> Any:
        return [lambda: None]


class Reluctant(Ledger):
    """Fails to give its state away."""

    async def hand_over(self) -> list[int]:
        raise ValueError("not now")


class Forgetful(Server):
    """Has no state."""

    async def init(self, history: History) -> None:
        self.history = history

    async def add(self, message: Add) -> int:
        return message.number


async def supervise(
    nodes: list[Node], *bodies: Any, hold: asyncio.Event | None = None
) -> tuple[History, list[Supervision]]:
    history: History = []
    kinds = list(bodies) * (len(nodes) if len(bodies) == 1 else 1)
    trees = [
        await node.supervise([Child(kind, history, *([hold] if hold else []), name="led", singleton=True)])
        for node, kind in zip(nodes, kinds, strict=True)
    ]
    return history, trees


def holder(nodes: list[Node]) -> Pid:
    (pid,) = holders(nodes, "led")
    assert pid is not None
    return pid


async def test_a_drained_singleton_goes_on_elsewhere_with_its_state(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = await nodes.start("bob", ada)
    carl = await nodes.start("carl", ada)
    mesh = [ada, bob, carl]
    history, trees = await supervise(mesh, Ledger)
    assert [await carl.call("led", Add(number=number)) for number in range(5)] == list(range(5))
    old = holder(mesh)
    assert old.node == ada.name
    assert await ada.drain() is True
    await until(lambda: holders([bob, carl], "led") != {old})
    assert holder([bob, carl]).node == carl.name, "the youngest"
    assert await bob.call("led", Kept()) == list(range(5))
    await until(lambda: states(trees) == ["standby", "running"])
    assert history == [("+", "ada"), ("-", "ada"), ("+", "carl")]
    dave = await nodes.start("dave", bob)
    await dave.supervise([Child(Ledger, history, name="led", singleton=True)])
    for leaving in (carl, bob):
        assert await leaving.drain() is True
    assert await dave.call("led", Kept()) == list(range(5)) and alternate(history[:-1])


async def test_what_waits_for_the_old_one_is_done_by_the_new_one_once_and_in_order(nodes: Nodes):
    mesh = ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    hold = asyncio.Event()
    _, _ = await supervise(mesh, Ledger, hold=hold)
    old = holder(mesh)
    begun = asyncio.create_task(carl.call("led", Add(number=0)))
    await until(lambda: any(process.pid == old and process.open_calls for process in ada.processes()))
    waiting = [asyncio.create_task(node.call("led", Add(number=number))) for number, node in enumerate(mesh, 1)]
    for number in range(10, 15):
        carl.send("led", Note(number=number))
    to_a_pid = asyncio.create_task(carl.call(old, Add(number=99)))
    await carl.call(("kinfolk", ada.name), ["info"])  # by now it has arrived
    leaving = asyncio.create_task(ada.drain())
    await until(lambda: ada.draining is not None)
    hold.set()
    assert [await begun, *(await asyncio.gather(*waiting))] == [0, 1, 2, 3]
    assert await leaving is True
    error = await ended(to_a_pid)
    assert isinstance(error, Moved) and isinstance(error, NoProcess) and error.heir == holder([bob, carl])
    kept = await carl.call("led", Kept())
    assert Counter(kept) == Counter([0, 1, 2, 3, *range(10, 15)]), "each was done once"
    assert [number for number in kept if number >= 10] == list(range(10, 15))
    assert kept[0] == 0 and max(map(kept.index, range(10, 15))) < min(map(kept.index, (1, 2, 3))), "sends go before"
    assert carl.counters["calls_sent_again"] == 1 and "late_answers" not in carl.counters


@pytest.mark.parametrize(
    "kinds", [(Ledger, Fragile), (Secretive, Ledger), (Reluctant, Ledger), (Ledger, Forgetful), (Forgetful, Forgetful)]
)
async def test_a_singleton_that_cannot_be_handed_over_is_released(nodes: Nodes, kinds: tuple[Any, Any]):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    await supervise(mesh, *kinds)
    assert await bob.call("led", Add(number=1)) == 1
    assert await ada.drain() is True
    await until(lambda: getattr(bob.names.whereis("led"), "node", None) == bob.name)
    assert await bob.call("led", Add(number=2)) == 2


@pytest.mark.parametrize("told", [True, False], ids=["told", "lost"])
async def test_who_does_not_come_to_an_end_of_taking_over_starts_without_the_state(
    nodes: Nodes, told: bool, monkeypatch: pytest.MonkeyPatch
):
    if not told:
        monkeypatch.setattr(supervisor, "LOADING_TIMEOUT", 0.3)
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    await supervise(mesh, Ledger, Endless)
    assert await bob.call("led", Add(number=1)) == 1
    if told:
        assert await ada.drain(0.4) is True
    else:
        leaving = asyncio.create_task(ada.drain(10.0))
        await until(lambda: len(bob.processes()) == 3)  # the new one, beside the supervisor and the service
        ada.abandon()
        await ended(leaving)
    await until(lambda: getattr(bob.names.whereis("led"), "node", None) == bob.name)
    assert await bob.call("led", Add(number=2)) == 2


async def test_without_a_standby_it_ends_with_its_node(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    history, _ = await supervise([ada], Ledger)
    assert await bob.call("led", Add(number=1)) == 1
    assert await ada.drain() is True
    assert history == [("+", "ada"), ("-", "ada")]
    await until(lambda: bob.names.whereis("led") is None)


async def test_if_the_name_cannot_move_the_old_one_goes_on_with_all_that_waits(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    _, trees = await supervise(mesh, Ledger)
    old = holder(mesh)
    supervising = next(iter(ada.supervisors.values()))
    tried = asyncio.Event()

    async def refuse(name: str, pid: Pid) -> None:
        tried.set()
        await ada.names.register("not this one", pid)  # of a pid elsewhere, which works
        raise NoProcess("in vain")

    monkeypatch.setattr(ada.names, "transfer", refuse)
    trying = asyncio.create_task(supervising.hand_over("led"))
    await tried.wait()
    waiting = asyncio.create_task(bob.call("led", Add(number=7)))
    assert await trying is False
    assert await waiting == 7 and holder(mesh) == old
    await until(lambda: states(trees) == ["running", "standby"] and bob.names.whereis("not this one") is None)
    monkeypatch.undo()
    assert await supervising.hand_over("led") is True
    assert await ada.call("led", Kept()) == [7]


async def test_what_comes_late_for_the_old_pid_finds_the_new_one(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    await supervise(mesh, Ledger)
    old = holder(mesh)
    assert await next(iter(ada.supervisors.values())).hand_over("led") is True
    assert not ada.is_alive(old) and holder(mesh).node == bob.name
    for number, node in enumerate(mesh):
        node.send(old, Note(number=number))
        error = await ended(node.call(old, Add(number=99)))
        assert isinstance(error, Moved) and error.heir == holder(mesh)
    await until(lambda: ada.counters["sends_to_dead_processes"] == 0)
    assert sorted(await ada.call("led", Kept())) == [0, 1]


async def test_the_new_one_handles_nothing_before_the_old_one_has_ended(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    history: History = []
    let, ending = asyncio.Event(), asyncio.Event()

    class Slow(Ledger):
        async def terminate(self, reason: Reason) -> None:
            if self.word == "ada":
                ending.set()
                await let.wait()
            await super().terminate(reason)

    for node in mesh:
        await node.supervise([Child(Slow, history, name="led", singleton=True)])
    assert await bob.call("led", Add(number=1)) == 1
    leaving = asyncio.create_task(ada.drain())
    await ending.wait()
    assert bob.names.whereis("led") == ada.names.whereis("led") and holder(mesh).node == bob.name
    waiting = [asyncio.create_task(node.call("led", Add(number=2))) for node in mesh]
    await bob.call(("kinfolk", bob.name), ["info"])
    await ada.call(("kinfolk", bob.name), ["info"])
    assert not any(call.done() for call in waiting) and history == [("+", "ada")]
    let.set()
    assert await asyncio.gather(*waiting) == [2, 2] and await leaving is True
    assert history == [("+", "ada"), ("-", "ada"), ("+", "bob")]


async def test_of_two_that_drain_at_once_neither_keeps_it(nodes: Nodes):
    carl = await nodes.start("carl")
    ada = await nodes.start("ada", carl)
    bob = await nodes.start("bob", carl)  # the youngest: ada asks it first
    await supervise([ada, bob, carl], Ledger)
    assert await carl.call("led", Add(number=1)) == 1
    waiting = [asyncio.create_task(carl.call("led", Add(number=number))) for number in range(2, 8)]
    first = asyncio.create_task(ada.drain())
    await until(lambda: bob.names.moving("led") or bob.names.whereis("led") != ada.names.whereis("led") or first.done())
    assert await bob.drain() is True and await first is True
    assert await asyncio.gather(*waiting) == list(range(2, 8))
    assert holder([carl]).node == carl.name and sorted(await carl.call("led", Kept())) == list(range(1, 8))


@pytest.mark.slow
async def test_a_new_one_whose_old_node_is_lost_begins_if_it_can_have_the_name(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    await supervise(mesh, Ledger)
    assert await bob.call("led", Add(number=1)) == 1
    loaded = asyncio.Event()

    async def hang(name: str, pid: Pid) -> None:
        loaded.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ada.names, "transfer", hang)
    trying = asyncio.create_task(next(iter(ada.supervisors.values())).hand_over("led"))
    await loaded.wait()
    assert bob.names.whereis("led") == ada.names.whereis("led"), "nobody has it twice"
    await ada.close()
    trying.cancel()
    await until(lambda: getattr(bob.names.whereis("led"), "node", None) == bob.name)
    assert await bob.call("led", Kept()) == [1], "with the state"


async def merge(nodes: Nodes, winner: Any, loser: Any) -> tuple[list[Any], list[Any]]:
    """Two servers take one name in a partition; what they say at the end, and what the loser ended with."""
    async with between(nodes, "ada", "bob") as pair:
        first, second = pair.nodes
        pair.stall()
        await until(lambda: not first.peers() and not second.peers())
        old, new = first.spawn(winner, []), second.spawn(loser, [])
        await first.names.register("led", old)
        await first.call("led", Add(number=1))
        await second.names.register("led", new)
        await second.call("led", Add(number=2))
        end = asyncio.create_task(second.wait_exit(new))
        pair.heal()
        reason = await asyncio.wait_for(end, 10)
        await until(lambda: holders([first, second], "led") == {old})
        assert isinstance(reason, NameLost) and reason.winner == old
        kept: list[Any] = [] if winner is Forgetful else await second.call("led", Kept())
        return kept, [first.is_alive(old)]


@pytest.mark.parametrize(
    ("winner", "loser", "kept"),
    [(Ledger, Ledger, [1, 2]), (Forgetful, Ledger, []), (Ledger, Forgetful, [1]), (Ledger, Reluctant, [1])],
)
async def test_merge_not_murder(nodes: Nodes, winner: Any, loser: Any, kept: list[int]):
    assert await merge(nodes, winner, loser) == (kept, [True])
