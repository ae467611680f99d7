"""The registry as users see it: waiting for names, watching them, and the handle of a registration.

The node is a small stand-in around a real kernel: an order goes in, its effects are carried out, one input at a time.
"""

import asyncio
import contextlib
import gc
import random
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk import effects as fx
from kinfolk.effects import NameAdded, NameRemoved, Now
from kinfolk.errors import (
    KinfolkError,
    NameTaken,
    NameUnknown,
    NameWaitTimeout,
    NodeClosed,
    NodeLost,
    NoProcess,
    NotConfirmed,
)
from kinfolk.ids import Pid
from kinfolk.kernel import Kernel
from kinfolk.node import Node
from kinfolk.registry import Names, NameWatch, Registration, Resync
from kinfolk.tempo import Settings
from kinfolk.wire import frames

ADA, BOB = "ada@h:1", "bob@h:2"


class FakeNode:
    """A node without processes, sockets or time: what Names asks of a Node."""

    def __init__(self) -> None:
        self.name = ADA
        self.kernel = Kernel(ADA, 1, Settings(), random.Random(1))
        self.names = Names(self, self.kernel.names, 7.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.dead: set[Pid] = set()
        self.closed = False
        self.inputs: list[fx.Input] = []
        self.sent: list[frames.Operation] = []
        self.time = 0.0
        self._refs = 0
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._late: dict[int, object] = {}
        self._immediate: dict[int, Any] = {}

    def check_open(self) -> None:
        if self.closed:
            raise NodeClosed(f"{self.name} is closed")

    def is_alive(self, pid: Pid) -> bool:
        return pid not in self.dead

    def _ref(self) -> int:
        self._refs += 1
        return self._refs

    def order(self, make):
        ref = self._ref()
        future = self._answers[ref] = asyncio.get_running_loop().create_future()
        self.submit(make(ref))
        return ref, future

    async def ordered(self, make):
        return await Node.ordered(cast("Node", self), make)

    def give_up(self, ref: int, answer: asyncio.Future[object]) -> object | None:
        return Node.give_up(cast("Node", self), ref, answer)

    def order_now(self, make):
        ref = self._ref()
        self._immediate[ref] = None
        self.submit(make(ref))
        answer = self._immediate.pop(ref)
        if isinstance(answer, KinfolkError):
            raise answer
        return answer

    def order_unheard(self, make) -> None:
        self.submit(make(self._ref()))

    def submit(self, happened: fx.Input) -> None:
        self.inputs.append(happened)
        for effect in self.kernel.handle(happened, Now(self.time, 0)):
            match effect:
                case fx.NameAdded() | fx.NameRemoved():
                    self.names.changed(effect)
                case fx.Send(_, operation):
                    self.sent.append(operation)
                case fx.Succeed(ref, value):
                    self._answer(ref, value)
                case fx.Fail(ref, error):
                    self._answer(ref, error)
                case _:
                    pass

    def _answer(self, ref: int, value: object) -> None:
        if ref in self._immediate:
            self._immediate[ref] = value
            return
        future = self._answers.pop(ref, None)
        if future is not None and not future.done():
            future.set_exception(value) if isinstance(value, KinfolkError) else future.set_result(value)
        elif future is not None and not isinstance(value, KinfolkError):
            self._late[ref] = value

    # the world around it

    def peer_opens(self, *claims: tuple[str, int]) -> int:
        conn = self.kernel.new_connection()
        self.submit(fx.Opened(conn, BOB, 1, False))
        names, stamps = [name for name, _ in claims], [stamp for _, stamp in claims]
        positions = list(range(1, len(claims) + 1))
        sync = frames.LedgerSynced(
            1, len(claims), True, names, positions, positions, stamps, confirmed=[True] * len(claims)
        )
        self.submit(fx.Received(conn, [frames.Peers([]), sync]))
        return conn

    def peer_acknowledges(self, conn: int, *positions: int) -> None:
        self.submit(fx.Received(conn, [frames.Acknowledged(list(positions))]))

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.submit(fx.TimePassed())

    def close(self) -> None:
        self.submit(fx.Shutdown())
        self.names.close(NodeClosed(f"{self.name} is closed"))
        self.closed = True
        self.kernel.names.view.clear()


def pid(local: int = 1) -> Pid:
    return Pid(ADA, 1, local)


@pytest.fixture
def node():
    return FakeNode()


async def started(coroutine: Awaitable[Any]) -> asyncio.Future[Any]:
    """A task that has run to its first wait."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


# --- register, release, unregister ---


async def test_register_returns_a_handle_when_every_peer_knows(node):
    conn = node.peer_opens()
    task = await started(node.names.register("db", pid()))
    assert not task.done() and node.names.whereis("db") == pid()
    node.peer_acknowledges(conn, 1)
    registration = await task
    assert (registration.name, registration.pid, registration.epoch) == ("db", pid(), None)
    assert repr(registration) == f"<registration of 'db' for {pid()}>"


async def test_the_same_pid_under_its_own_name_again_is_the_same_registration(node):
    first = await node.names.register("db", pid())
    second = await node.names.register("db", pid())
    assert first == second == node.names.register_nowait("db", pid()) and hash(first) == hash(second)
    await second.release()
    third = await node.names.register("db", pid())
    assert third != first, "another claim of the same name"
    assert first != "db"


async def test_a_name_that_is_held_is_refused_with_its_holder(node):
    await node.names.register("db", pid(1))
    with pytest.raises(NameTaken) as caught:
        await node.names.register("db", pid(2))
    assert caught.value.holder == pid(1)
    with pytest.raises(NameTaken):
        node.names.register_nowait("db", pid(2))


async def test_a_register_that_peers_do_not_answer_names_them_and_withdraws(node):
    node.peer_opens()
    task = await started(node.names.register("db", pid(), timeout=2.0))
    node.passes(2.0)
    with pytest.raises(NotConfirmed) as caught:
        await task
    assert caught.value.missing == (BOB,)
    assert node.names.whereis("db") is None


async def test_without_a_timeout_register_waits_long_enough_to_count_a_dying_peer_out(node):
    node.peer_opens()
    task = await started(node.names.register("db", pid()))
    assert node.inputs[-1].timeout == 7.0
    task.cancel()


async def test_cancelling_register_withdraws_the_claim(node):
    conn = node.peer_opens()
    task = await started(node.names.register("db", pid()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert node.names.whereis("db") is None
    assert isinstance(node.sent[-1], frames.NamesWithdrawn)
    node.peer_acknowledges(conn, 1)
    assert node.names.whereis("db") is None


async def test_a_register_cancelled_in_the_moment_of_its_success_withdraws_as_well(node):
    conn = node.peer_opens()
    task = await started(node.names.register("db", pid()))
    node.peer_acknowledges(conn, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert node.names.whereis("db") is None, "nobody has the handle: the name would be held for ever"


async def test_but_not_what_another_register_of_the_same_is_about_to_get(node):
    conn = node.peer_opens()
    first = await started(node.names.register("db", pid()))
    second = await started(node.names.register("db", pid()))
    node.peer_acknowledges(conn, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    registration = await second
    assert node.names.whereis("db") == pid()
    releasing = await started(registration.release())
    assert node.names.whereis("db") is None
    releasing.cancel()


async def test_but_not_what_was_registered_before(node):
    first = node.names.register_nowait("db", pid())
    task = await started(node.names.register("db", pid()))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert node.names.whereis("db") == pid()
    await first.release()


async def test_release_removes_exactly_its_own_claim(node):
    stale = await node.names.register("db", pid(1))
    await stale.release()
    assert node.names.whereis("db") is None
    later = await node.names.register("db", pid(2))
    with pytest.raises(NameUnknown, match=r"this registration has ended.*nothing was changed"):
        await stale.release()
    assert node.names.whereis("db") == pid(2)
    await later.release()


async def test_unregister_takes_the_name_whoever_holds_it_here(node):
    node.names.register_nowait("db", pid())
    await node.names.unregister("db")
    assert node.names.whereis("db") is None
    with pytest.raises(NameUnknown, match="no process is registered under it"):
        await node.names.unregister("db")


async def test_unregistering_a_pending_claim_ends_its_register(node):
    node.peer_opens()
    task = await started(node.names.register("db", pid()))
    leaving = await started(node.names.unregister("db", timeout=1.0))
    with pytest.raises(NameUnknown, match="unregistered before it was confirmed"):
        await task
    assert not leaving.done()
    node.passes(1.0)
    await leaving  # silent peers are no error: they hear it in order


async def test_what_cannot_be_registered_is_refused_at_once_and_changes_nothing(node):
    node.dead.add(pid(9))
    wrong = [
        ("", pid(), ValueError, "must not be empty"),
        ("x" * 256, pid(), ValueError, "at most 255"),
        (b"db", pid(), TypeError, "must be a str"),
        ("db", "ada", TypeError, r"expected a Pid, as spawn\(\) returns it, not str"),
        ("db", pid(9), NoProcess, "cannot register 'db': .* is dead"),
    ]
    for name, who, error, says in wrong:
        with pytest.raises(error, match=says):
            await node.names.register(name, who)
        with pytest.raises(error, match=says):
            node.names.register_nowait(name, who)
    assert node.inputs == [] and len(node.names) == 0


async def test_a_process_of_a_node_that_is_not_connected_cannot_be_registered(node):
    with pytest.raises(NodeLost, match="not connected"):
        await node.names.register("db", Pid(BOB, 1, 1))
    with pytest.raises(ValueError, match="another node"):
        node.names.register_nowait("db", Pid(BOB, 1, 1))
    assert len(node.names) == 0


async def test_a_closed_node_refuses_everything_but_lookups(node):
    registration = await node.names.register("db", pid())
    node.close()
    for refused in (
        node.names.register("a", pid()),
        node.names.unregister("db"),
        node.names.wait_for("db"),
        registration.release(),
    ):
        with pytest.raises(NodeClosed):
            await refused
    with pytest.raises(NodeClosed):
        node.names.register_nowait("a", pid())
    with pytest.raises(NodeClosed):
        node.names.watch()
    assert node.names.whereis("db") is None and node.names.snapshot() == {}


# --- lookups ---


async def test_the_snapshot_is_a_copy(node):
    node.names.register_nowait("db", pid())
    snapshot = node.names.snapshot()
    assert snapshot == {"db": pid()} and len(node.names) == 1
    snapshot.clear()
    assert node.names.whereis("db") == pid()


# --- wait_for ---


async def test_wait_for_returns_at_once_what_is_there(node):
    node.names.register_nowait("db", pid())
    assert await node.names.wait_for("db", timeout=0) == pid()


async def test_wait_for_returns_the_holder_as_soon_as_there_is_one(node):
    waiting = [await started(node.names.wait_for("db", timeout=60)) for _ in range(3)]
    node.names.register_nowait("other", pid(1))
    assert not any(task.done() for task in waiting)
    node.names.register_nowait("db", pid(2))
    assert await asyncio.gather(*waiting) == [pid(2)] * 3
    assert node.names._waiters == {}


async def test_wait_for_sees_a_name_that_came_and_went(node):
    waiting = await started(node.names.wait_for("db"))
    node.names.register_nowait("db", pid())
    node.submit(fx.ProcessExited(1))
    assert await waiting == pid()


async def test_wait_for_gives_up_at_its_deadline(node):
    with pytest.raises(NameWaitTimeout, match=r"no process registered it within 0\.001 s") as caught:
        await node.names.wait_for("db", timeout=0.001)
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, NameUnknown)
    assert node.names._waiters == {}


async def test_a_cancelled_wait_leaves_the_others_alone(node):
    gone, stays = await started(node.names.wait_for("db")), await started(node.names.wait_for("db"))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    node.names.register_nowait("db", pid())
    assert await stays == pid()


async def test_wait_for_ends_when_the_node_closes(node):
    waiting = await started(node.names.wait_for("db"))
    node.close()
    with pytest.raises(NodeClosed):
        await waiting


async def test_wait_for_refuses_what_is_no_name(node):
    with pytest.raises(ValueError, match="must not be empty"):
        await node.names.wait_for("")


# --- watch ---


async def taken(watch: NameWatch, count: int) -> list[Any]:
    return [await anext(watch) for _ in range(count)]


async def nothing_waits(watch: NameWatch) -> bool:
    task = await started(anext(watch))
    await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return not done


async def test_watch_begins_with_what_is_there_and_goes_on_with_every_change_in_order(node):
    node.names.register_nowait("a", pid(1))
    node.names.register_nowait("b", pid(2))
    watch = node.names.watch()
    node.submit(fx.ProcessExited(1))  # after the watch began, before it was asked
    node.names.register_nowait("a", pid(3))
    assert await taken(watch, 4) == [
        NameAdded("a", pid(1)),
        NameAdded("b", pid(2)),
        NameRemoved("a", pid(1)),
        NameAdded("a", pid(3)),
    ]
    assert await nothing_waits(watch)
    next_event = await started(anext(watch))
    node.names.register_nowait("c", pid(4))
    assert await next_event == NameAdded("c", pid(4))


@pytest.mark.parametrize(
    ("pattern", "sees"),
    [
        ("*", ["svc", "svc/a", "svc/b", "x"]),
        ("svc/*", ["svc/a", "svc/b"]),
        ("svc", ["svc"]),
        ("svc*", ["svc", "svc/a", "svc/b"]),
    ],
)
async def test_a_trailing_star_is_the_only_pattern(node, pattern, sees):
    before, after = node.names.watch(pattern), None
    for name in ("svc", "svc/a", "x", "svc/b"):
        node.names.register_nowait(name, pid())
    after = node.names.watch(pattern)
    for watch in (before, after):
        assert sorted(event.name for event in await taken(watch, len(sees))) == sees
        assert await nothing_waits(watch)


@pytest.mark.parametrize("pattern", ["", "a*b", "*a", "**", "a**"])
async def test_any_other_star_is_refused(node, pattern):
    with pytest.raises(ValueError, match="the only wildcard"):
        node.names.watch(pattern)


async def test_a_watcher_that_lags_gets_the_table_once_instead_of_what_it_missed(node):
    watch = node.names.watch(max_events=3)
    for local in range(1, 10):
        node.names.register_nowait(f"n{local}", pid(local))
    node.submit(fx.ProcessExited(1))
    assert await anext(watch) == Resync(node.names.snapshot())
    assert await nothing_waits(watch)
    node.submit(fx.ProcessExited(2))
    assert await anext(watch) == NameRemoved("n2", pid(2))


async def test_a_resync_holds_only_what_matches(node):
    watch = node.names.watch("a*", max_events=1)
    for name in ("a1", "b1", "a2", "b2"):
        node.names.register_nowait(name, pid())
    assert await anext(watch) == Resync({"a1": pid(), "a2": pid()})


async def test_what_a_watch_of_few_names_does_not_match_never_makes_it_lag(node):
    watch = node.names.watch("db", max_events=1)
    for local in range(100):
        node.names.register_nowait(f"n{local}", pid(local))
    node.names.register_nowait("db", pid())
    assert await anext(watch) == NameAdded("db", pid())


async def test_a_watcher_that_has_not_read_what_was_there_may_lag_as_well(node):
    node.names.register_nowait("a", pid(1))
    watch = node.names.watch(max_events=1)
    node.submit(fx.ProcessExited(1))
    node.names.register_nowait("b", pid(2))
    assert await anext(watch) == Resync({"b": pid(2)})
    assert await nothing_waits(watch)


async def test_a_resync_in_the_midst_of_one_step_fits_the_changes_that_follow(node):
    for name in "abcdef":
        node.names.register_nowait(name, pid(1))
    watch = node.names.watch(max_events=2)
    await taken(watch, 6)
    node.submit(fx.ProcessExited(1))  # six changes of one step; the table is ahead of each while they are told
    assert await anext(watch) == Resync({})
    assert await nothing_waits(watch)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.booleans()), max_size=20), st.integers(0, 4))
def test_whoever_follows_a_watch_ends_with_the_table(steps, max_events):
    async def follow():
        node = FakeNode()
        watch, table = node.names.watch(max_events=max_events), {}

        def see(event):
            match event:
                case NameAdded(name, holder):
                    assert name not in table
                    table[name] = holder
                case NameRemoved(name, holder):
                    assert table.pop(name) == holder
                case Resync(names):
                    table.clear()
                    table.update(names)
                case _:
                    raise AssertionError(event)

        for name, local, read in steps:
            if node.names.whereis(name) is None:
                node.names.register_nowait(name, pid(local))
            else:
                node.submit(fx.ProcessExited(local))
            if read and (watch._events or watch._lags):
                see(await anext(watch))
        final = node.names.snapshot()
        node.close()
        with contextlib.suppress(NodeClosed):
            while True:
                see(await anext(watch))
        assert table == final

    asyncio.run(follow())


async def test_a_watch_tells_what_happened_before_the_node_closed_and_then_raises(node):
    lagging, waiting, behind = node.names.watch(max_events=0), node.names.watch(), node.names.watch()
    blocked = await started(anext(waiting))
    node.names.register_nowait("a", pid())
    assert await blocked == NameAdded("a", pid())
    blocked = await started(anext(waiting))
    node.close()
    with pytest.raises(NodeClosed):
        await blocked
    assert await anext(behind) == NameAdded("a", pid())
    assert await anext(lagging) == Resync({"a": pid()}), "the table as it was when the node closed"
    for watch in (lagging, waiting, behind):
        for _ in range(2):
            with pytest.raises(NodeClosed):
                await anext(watch)


async def test_a_closed_watch_ends(node):
    node.names.register_nowait("a", pid())
    watch = node.names.watch()
    events = [await anext(watch)]
    blocked = await started(anext(watch))
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await blocked
    node.names.register_nowait("b", pid())
    assert [event async for event in watch] == [] and len(events) == 1
    watch.close()


async def test_a_watch_that_is_dropped_is_forgotten(node):
    watch = node.names.watch()
    assert len(node.names._watches) == 1
    del watch
    gc.collect()
    assert len(node.names._watches) == 0


async def test_a_wait_for_the_next_event_may_be_cancelled_and_repeated(node):
    watch = node.names.watch()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.001)
    node.names.register_nowait("a", pid())
    assert await anext(watch) == NameAdded("a", pid())


async def test_names_of_a_peer_are_watched_like_our_own(node):
    watch = node.names.watch()
    conn = node.peer_opens(("db", 5))
    assert await anext(watch) == NameAdded("db", Pid(BOB, 1, 1))
    node.submit(fx.Closed(conn, "the socket closed"))
    assert await anext(watch) == NameRemoved("db", Pid(BOB, 1, 1))


# --- names of one node ---


def test_a_local_name_belongs_to_one_living_process_of_this_node(node):
    local = node.names.local
    local.register("logger", pid(1))
    local.register("logger", pid(1))
    with pytest.raises(NameTaken) as caught:
        local.register("logger", pid(2))
    assert caught.value.holder == pid(1)
    assert local.whereis("logger") == pid(1) and local.snapshot() == {"logger": pid(1)}
    assert node.names.whereis("logger") is None and node.inputs == [], "no other node hears of it"


def test_what_cannot_have_a_local_name_is_refused(node):
    node.dead.add(pid(9))
    local = node.names.local
    with pytest.raises(ValueError, match="must not be empty"):
        local.register("", pid())
    with pytest.raises(ValueError, match="is a process of another node"):
        local.register("logger", Pid(BOB, 1, 1))
    with pytest.raises(NoProcess, match="is dead"):
        local.register("logger", pid(9))
    with pytest.raises(TypeError, match="expected a Pid"):
        local.register("logger", "ada")
    assert local.snapshot() == {}


def test_a_local_name_goes_with_its_process_or_when_it_is_taken_away(node):
    local = node.names.local
    for name, holder in [("a", pid(1)), ("b", pid(1)), ("c", pid(2)), ("d", pid(2))]:
        local.register(name, holder)
    local.process_exited(pid(1))
    assert local.snapshot() == {"c": pid(2), "d": pid(2)}
    local.unregister("c")
    assert local.whereis("c") is None
    with pytest.raises(NameUnknown, match="no process of this node has it"):
        local.unregister("c")


def test_registrations_of_different_claims_differ(node):
    async def both():
        first = await node.names.register("a", pid())
        second = await node.names.register("b", pid())
        return {first, second, await node.names.register("a", pid())}

    registrations = asyncio.run(both())
    assert len(registrations) == 2 and all(isinstance(item, Registration) for item in registrations)
