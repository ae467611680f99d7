"""Scenarios with five nodes on loopback. Each is found by its number; `index.py` has all of them."""

import asyncio
import random
import re
import signal
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from kinfolk.wire import frames
from kinfolk.wire.frames import encode_frame
from tests.faults.five import GROWTH, MIB, WORDS, D, Five, H, calls_undisturbed, five_nodes, taken, within
from tests.system.chaos import Network
from tests.system.fleet import SLACK, Fleet, Raised, Worker, agreed, always, check_agreement, resident, states, until
from tests.system.stranger import Stranger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def test_d01_who_joins_one_is_connected_with_all(fleet: Fleet):
    async with five_nodes(fleet) as five:
        assert {len(state.peers) for state in await states(five.workers)} == {4}
        assert fleet.connections() == 10


async def test_d02_a_registered_name_is_the_same_everywhere_at_once(fleet: Fleet):
    async with five_nodes(fleet) as five:
        with within(1, "register and what follows"):
            pid = await five[3].ask("register", name="db")
            assert await five.everywhere("db") == {pid}
        with within(1, "a call from everywhere"):
            answers = await asyncio.gather(*(w.ask("call", target="db", request=["echo", 1]) for w in five.workers))
        assert answers == [[pid, 1]] * 5


async def test_d03_a_held_name_is_refused_and_nothing_changes(fleet: Fleet):
    async with five_nodes(fleet) as five:
        pid = await five[3].ask("register", name="db")
        await asyncio.gather(*(worker.ask("watch") for worker in five.workers))
        for worker in five.but(3):
            with within(1, "the refusal"):
                assert taken(await worker.attempt("register", name="db")) == pid
        await always(partial(check_agreement, five.workers, {"db": pid}), 2 * H)
        for worker in five.workers:
            assert [event[1:] for event in await worker.ask("events")] == [["+", "db", pid]]


async def test_d04_of_five_that_register_at_once_one_succeeds_in_each_of_200_rounds(fleet: Fleet):
    async with five_nodes(fleet) as five:
        won: Counter[int] = Counter()
        for number in range(200):
            name, at = f"race/{number}", time.monotonic() + 0.02
            with within(4, "a round"):
                ends = await asyncio.gather(*(w.attempt("register", name=name, at=at) for w in five.workers))
                winners = [end for end in ends if not isinstance(end, Raised)]
                assert len(winners) == 1, ends
                assert [taken(end) for end in ends if isinstance(end, Raised)] == winners * 4
                assert await five.everywhere(name) == set(winners)
            won[ends.index(winners[0])] += 1
            await five.workers[ends.index(winners[0])].ask("unregister", name=name)
        assert len(won) > 1, "always the same has won, so there was no race"
        assert sum(state.counters.get("names_lost", 0) for state in await states(five.workers)) == 0


async def test_d05_a_name_given_up_is_gone_and_can_be_had_elsewhere(fleet: Fleet):
    async with five_nodes(fleet) as five:
        await five[2].ask("register", name="db")
        with within(1, "unregister"):
            await five[2].ask("unregister", name="db")
            assert await five.everywhere("db") == {None}
        with within(1, "register elsewhere"):
            pid = await five[4].ask("register", name="db")
            assert await five.everywhere("db") == {pid}


async def test_d06_a_name_is_given_up_for_others_by_its_owner(fleet: Fleet):
    async with five_nodes(fleet) as five:
        for owner, asker in ((2, 5), (1, 3), (4, 1)):
            pid = await five[owner].ask("register", name="db")
            with within(1, "unregister by another"):
                await five[asker].ask("unregister", name="db")
                assert await five.everywhere("db") == {None}
            assert await five[owner].ask("exit_reason", pid=pid) is None, "its process lives on"


async def test_d07_an_old_handle_is_told_so_and_changes_nothing(fleet: Fleet):
    async with five_nodes(fleet) as five:
        old = await five[2].ask("register", name="db")
        # The handle is that of the first registration; the second is made under the same name, by another order.
        await five[2].ask("unregister", name="db")
        for owner in (2, 4):
            new = await five[owner].ask("register_nowait", name="db", keep=False)
            await five.resolve("db", new, 1)
            with within(1, "the refusal"):
                stale = await five[2].attempt("release", name="db")
            assert isinstance(stale, Raised) and stale.error == "NameUnknown", stale
            await always(partial(check_agreement, five.workers, {"db": new}), H)
            await five[owner].ask("kill", pid=new)
            await five.resolve("db", None, 1)
        assert await five[2].ask("exit_reason", pid=old) is None


ENDS = {
    "returns": ("call", ["return"], "normal"),
    "raises": ("call", ["raise", "on purpose"], "Crash LookupError: on purpose, raised in run"),
    "is killed": ("kill", None, "killed"),
    "its task is cancelled": ("cancel_task", None, "killed"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_d08_the_end_of_a_named_process_frees_its_name_and_is_told_once_with_its_reason(fleet: Fleet, how: str):
    fleet.expected_mishaps += ["crashed: LookupError", "Traceback", "LookupError: on purpose"]
    order, request, reason = ENDS[how]
    async with five_nodes(fleet) as five:
        pid = await five[3].ask("register", name="db")
        watchers = [await worker.ask("spawn") for worker in five.workers]
        for worker, watcher in zip(five.workers, watchers, strict=True):
            await worker.ask("call", target=watcher, request=["echo", 1])
            await worker.ask("act", pid=watcher, verb="monitor", what=[pid])
        await asyncio.gather(*(w.ask("call", target=pid, request=["echo", 1]) for w in five.workers))  # they stand
        at_its_end = [asyncio.create_task(w.ask("whereis_at_its_end", name="db", pid=pid)) for w in five.workers]
        await five[3].ask("state")
        with within(1, "the end"):
            if request is None:
                await five[3].ask(order, pid=pid)
            else:
                await five[3].attempt(order, target=pid, request=request)
            assert await five[3].ask("whereis", name="db") is None, "gone at home at once"
            await five.resolve("db", None, 1)
        assert await asyncio.gather(*at_its_end) == [None] * 5, "who hears of the end finds no name any more"
        told = [["Down", pid, reason]]
        for worker, watcher in zip(five.workers, watchers, strict=True):
            await until(partial(worker.has_seen, watcher, told), "the monitor is told")
        await asyncio.sleep(2 * H)
        assert [await w.ask("seen", pid=p) for w, p in zip(five.workers, watchers, strict=True)] == [told] * 5


async def test_d09_a_supervised_name_moves_to_the_new_process_through_500_crashes(fleet: Fleet):
    """Also the story of the respawn: an exit and the registration after it never overtake each other."""
    fleet.expected_mishaps += ["crashed: LookupError", "Traceback", "LookupError: on purpose"]
    async with five_nodes(fleet) as five:
        await five[2].ask("supervise_named", name="db")
        holder = await five[2].ask("whereis", name="db")
        await five.resolve("db", holder, 1)
        await asyncio.gather(*(worker.ask("watch", pattern="db") for worker in five.workers))
        for number in range(500):
            with within(2, f"restart {number}"):
                await five.workers[number % 5].attempt("call", target="db", request=["raise", "on purpose"])
                old, holder = holder, await _renewed(five, holder)
            assert holder != old
        for worker in five.workers:
            signs: list[tuple[str, str]] = [(sign, pid) for _, sign, _, pid in await worker.ask("events")]
            pids = [pid for sign, pid in signs if sign == "+"]
            assert len(set(pids)) == len(pids) == 501, "a pid has come back"
            assert [int(pid.rpartition("/")[2]) for pid in pids] == sorted(int(p.rpartition("/")[2]) for p in pids)
            assert signs[1:] == [step for old, new in pairwise(pids) for step in (("-", old), ("+", new))]
        await five[2].ask("stop_tree")
        await five.resolve("db", None, 1)


async def _renewed(five: Five, old: str) -> str:
    """Wait until all nodes resolve the same new pid."""

    async def new() -> str | None:
        (pid, *others) = await five.everywhere("db")
        return pid if not others and pid not in (None, old) else None

    pid: str = await until(new, "the name is the new process's everywhere")
    return pid


async def test_d16_who_was_stopped_for_long_wakes_declares_nobody_dead_and_is_whole_again(fleet: Fleet):
    """Also the story of the sleepers."""
    async with five_nodes(fleet) as five:
        names = await five.own_names()
        last = five[5]
        last.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        others = {name: pid for name, pid in names.items() if name != "eve/own"}
        await agreed(five.but(5), others, D + H * SLACK)
        await asyncio.sleep(max(0.0, stopped + 4 * D - time.monotonic()))
        meanwhile = await five[1].ask("register", name="meanwhile")
        last.signal(signal.SIGCONT)
        await five.agree({**names, "meanwhile": meanwhile}, 12)
        assert not [line for line in last.log() if "is down: heard nothing" in line], "it was it that had slept"
        assert await five.lost(1, 2, 3, 4) == [1, 1, 1, 1]


async def test_d17_who_was_stopped_for_a_moment_loses_nothing(fleet: Fleet):
    async with five_nodes(fleet) as five:
        names = await five.own_names()
        five[5].signal(signal.SIGSTOP)
        stopped = time.monotonic()
        for number in range(200):
            await five[1 + number % 4].ask("send", target="eve/own", message=[1 + number % 4, number])
        await asyncio.sleep(max(0.0, stopped + D / 2 - time.monotonic()))
        five[5].signal(signal.SIGCONT)

        async def have_come() -> bool:
            seen = await five[5].ask("seen", pid=names["eve/own"])
            assert len(seen) == 200
            for sender in range(1, 5):
                numbers = [number for who, number in seen if who == sender]
                assert numbers == sorted(numbers), f"not in the order in which {sender} sent them"
            return True

        with within(2, "delivery"):
            await until(have_come, "all messages have come")
        await five.agree(names, 2)
        assert await five.lost(1, 2, 3, 4, 5) == [0] * 5


async def test_d20_who_does_not_read_50_mb_disturbs_no_other(fleet: Fleet):
    async with five_nodes(fleet, max_outbox=8 * MIB) as five:
        names = await five.own_names()
        size = resident(five[1])
        five[5].signal(signal.SIGSTOP)
        refused: set[str] = set()
        async with calls_undisturbed(five[1], "bob/own"), calls_undisturbed(five[3], "ada/own"):
            for _ in range(200):
                raised = await five[1].attempt("send_bytes", target=names["eve/own"], size=250_000)
                if isinstance(raised, Raised):
                    refused.add(raised.error)
                await asyncio.sleep(0.002)
            assert resident(five[1]) - size < 40 * MIB
            await until(lambda: five[1].has_lost(1), "node 5 is dropped", (D + H) * SLACK)
        assert refused <= {"LinkCongested"}
        five[5].signal(signal.SIGCONT)
        await five.agree(names, 6 + D / H)


async def test_d21_a_hundred_thousand_names_are_complete_when_a_join_returns_and_disturb_nobody(fleet: Fleet):
    async with five_nodes(fleet, heartbeat=1.0, growth=128 * MIB) as five:
        names = await five.own_names()
        holder = None  # in portions: whoever does all of it in one turn of the loop has blocked it, and is down
        for first in range(0, 100_000, 2_000):
            holder = await five[1].ask("fill", count=2_000, prefix="many", first=first, pid=holder)
        await five.resolve("many/99999", holder, 60)
        await five[1].ask("churn", prefix="changing", size=100)
        async with calls_undisturbed(five[1], names["bob/own"], 2), calls_undisturbed(five[3], names["dora/own"], 2):
            six = await fleet.enter("frank")
            with within(20, "the join"):
                await six.ask("start", name=six.name, join=[five[1].name], heartbeat=1.0, join_timeout=60)
            assert await six.ask("missing", prefix="many", count=100_000) == 0
            assert await six.ask("missing", prefix="changing", count=100) <= 2, "one is on its way"
        assert await five.lost(1, 2, 3, 4, 5) == [0] * 5
        await five[1].ask("rest")
        tables = {await worker.ask("fingerprint") for worker in (*five.workers, six)}
        assert len(tables) == 1
        assert await six.ask("close") == []
        # Given up, so that what is measured in the end is what has leaked, and what tables that were large still take.
        await five[1].ask("kill", pid=holder)
        await until(partial(_none_have, five), "all are gone", 60)


async def _none_have(five: Five) -> bool:
    return await five.everywhere("many/0") == {None} and await five.everywhere("many/99999") == {None}


async def test_d25_what_may_not_be_spawned_is_not_run(fleet: Fleet):
    async with five_nodes(fleet, allow_spawn=["errands:wait", "errands:crash"]) as five:
        for body in ("errands:echo", "errands:plain", "errands:nothing", "nowhere:nothing", "os:system"):
            with within(1, "the refusal"):
                raised = await five[1].attempt("spawn_on", node=five[2].name, body=body, args=["true"])
            assert isinstance(raised, Raised) and raised.error == "NotAllowed", (body, raised)
        with within(1, "the error"):
            raised = await five[1].attempt("spawn_on", node=five[2].name, body="errands:crash", args=[1, 2, 3])
        assert isinstance(raised, Raised) and raised.error == "SpawnFailed" and "argument" in raised.text
        assert await five[2].ask("running", module="errands") == []
        fleet.expected_mishaps += ["crashed: LookupError", "Traceback", "LookupError: at once"]
        ended = await five[1].attempt("spawn_linked", node=five[2].name, body="errands:crash", args=["at once"])
        if isinstance(ended, Raised):  # who has linked itself may have ended before it could tell us of it
            assert ended.error == "NoProcess" and ended.text.endswith("LookupError: at once"), ended
        else:
            await until(partial(five[1].has_ended, ended[0]), "who linked itself is told")
            assert (await five[1].ask("exit_reason", pid=ended[0])).startswith("Crash LookupError: at once")
        await until(partial(_runs_nothing, five[2]), "it has ended")


async def _runs_nothing(worker: Worker) -> bool:
    return not await worker.ask("running", module="errands")


async def test_d26_with_defaults_a_node_listens_on_loopback_at_its_own_port_alone(fleet: Fleet):
    async with five_nodes(fleet) as five:
        for worker in five.workers:
            assert _bound(worker.pid, "tcp", "0A") == {f"0100007F:{fleet.ports[worker.word]:04X}"}
            (reports,) = _bound(worker.pid, "udp", "07")
            assert reports.startswith("0100007F:")


def _bound(pid: int, protocol: str, state: str) -> set[str]:
    """Where an OS process can be reached by who is not connected."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", str(link)))}
    tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in (protocol, f"{protocol}6")]
    rows = [row.split() for table in tables for row in table.splitlines()]
    return {row[1] for row in rows if row[3] == state and row[9] in inodes}


async def test_d32_what_is_cancelled_at_any_moment_hangs_nothing_and_leaks_nothing(fleet: Fleet):
    chance = random.Random(32)
    async with five_nodes(fleet, growth=2 * GROWTH) as five:  # node 1 has had two hundred more in its process
        db = await five[2].ask("register", name="db")
        await five.answer({"db": db})
        before = [await worker.ask("census") for worker in five.workers]
        kept = 0
        for number in range(200):
            name, worker = f"n{number}", five.workers[number % 5]
            with within(3, "a cancelled register"):
                # Where processors are busy, others take more turns of this loop to answer.
                turns = chance.choice((*range(14), 1000, 10_000))
                pid = await worker.ask("register_cancelled", name=name, turns=turns)
                await five.resolve(name, pid, 3)
            if pid is not None:
                kept += 1
                assert await five[1].ask("call", target=name, request=["echo", 1]) == [pid, 1]
                await worker.ask("kill", pid=pid)
        assert 0 < kept < 200, "the moments tell nothing"

        answered = 0
        for number in range(200):
            with within(3, "a cancelled call"):
                turns = chance.randrange(14)
                answer = await five[1].ask("call_cancelled", target="db", request=["echo", number], turns=turns)
            assert answer in (None, [db, number])
            answered += answer is not None
        assert await five[1].ask("call", target="db", request=["echo", "last"]) == [db, "last"]

        for number in range(200):
            guest = f"guest{number}@127.0.0.1:0"
            with within(3 + 10, "a cancelled connect, and another"):  # and the other's join of the whole mesh
                turns = chance.randrange(60)
                held = await five[1].ask("connect_cancelled", name=guest, to=five[2].name, turns=turns)
            assert held == ["db"]
        for worker, census in zip(five.workers, before, strict=True):
            await until(partial(_census_is, worker, census), "nothing is left over", 15)


async def _census_is(worker: Worker, census: dict[str, int]) -> bool:
    now = await worker.ask("census")
    assert now == census, {what: (now[what], census[what]) for what in census if now[what] != census[what]}
    return True


# --- stories that broke others ---


async def test_a_name_given_up_by_another_while_a_third_was_cut_off_does_not_come_back(fleet: Fleet):
    async with Network(fleet, WORDS) as network, five_nodes(fleet) as five:
        for how in ("stalled", "cut"):
            pid = await five[1].ask("register", name="x")
            await five[3].ask("watch", pattern="x")
            past = len(await five[3].ask("events"))
            if how == "stalled":
                network.part(["bob"], ["carl"])
            else:
                await network.cut(["bob"], ["carl"])
            await five[2].ask("unregister", name="x")
            await five.resolve("x", None, 6)
            network.heal()
            await agreed(five.workers, {}, 12 * H * SLACK)
            await always(partial(check_agreement, five.workers, {}), 4 * H)
            assert await five[1].ask("exit_reason", pid=pid) is None
            signs = [event[1] for event in (await five[3].ask("events"))[past:]]
            assert "+" not in signs, "x has come back at 3"
            await five[1].ask("kill", pid=pid)


async def test_a_survivor_takes_the_dead_nodes_name_before_another_has_noticed_the_death(fleet: Fleet):
    async with Network(fleet, WORDS) as network, five_nodes(fleet) as five:
        for number in range(5):
            old = await five[3].ask("register", name="leader")
            network.freeze(["carl"], ["bob"])
            await five[3].kill()
            await until(partial(_free_at, five, old), "node 1 knows of the death", H * SLACK)
            assert await five[2].ask("whereis", name="leader") == old, "node 2 does not"
            with within(D / H + 3, "the failover"):
                new = await five[1].ask("register", name="leader")
            await five.resolve("leader", new, 1, 3)
            network.heal()
            five.workers[2] = await fleet.start("carl", join=["ada"], heartbeat=H)
            await five.agree({"leader": new}, 12)
            assert await five[1].ask("exit_reason", pid=new) is None, f"round {number}: lost to the dead"
            await five[1].ask("kill", pid=new)
            await five.resolve("leader", None, 1)


async def _free_at(five: Five, old: str) -> bool:
    return bool(await five[1].ask("whereis", name="leader") != old)


async def test_a_frame_of_which_only_the_length_has_come_keeps_its_place(fleet: Fleet):
    """Each record of TLS arrives as a whole: so it is the sender who pauses between the length and the rest."""
    ada = await fleet.start("ada", heartbeat=H)
    mallory = "aa-mallory@127.0.0.1:9"
    async with await Stranger.peer(fleet.ports["ada"], fleet.cookie, name=mallory) as peer:
        await peer.open([frames.Peers([]), frames.LedgerSynced(1, 0, True, [], [], [], [], [])])
        assert peer.session is not None
        for number in range(4):
            frame = encode_frame([frames.Ping(1000 + number)])
            for cut in (2, 4, 5, 6):
                await peer.say(frame[:cut])
                await asyncio.sleep(2 * H)
                await peer.say(frame[cut:] + encode_frame([frames.Ping(1)]))
                async with asyncio.timeout(D):
                    while not _heard(peer, frames.Pong(1000 + number)):
                        assert await peer.turn(), "ada has ended the session"
        assert (await ada.state()).peers == [mallory]


def _heard(peer: Stranger, operation: frames.Operation) -> bool:
    return any(operation in getattr(event, "operations", ()) for event in peer.events)


async def test_two_that_write_into_full_buffers_at_once_both_get_through(fleet: Fleet):
    async with five_nodes(fleet, max_outbox=64 * MIB, heartbeat=1.0, growth=2 * GROWTH) as five:
        names = await five.own_names()
        both = [(five[1], names["ada/own"], "bob/own"), (five[2], names["bob/own"], "ada/own")]
        before = [await worker.ask("count_seen", pid=pid) for worker, pid, _ in both]
        # Each says in one turn of its loop, in which it reads nothing, more than all the buffers between them hold.
        await asyncio.gather(*(w.ask("send_bytes", target=to, size=250_000, count=80) for w, _, to in both))

        async def have_come() -> bool:
            return [await worker.ask("count_seen", pid=pid) for worker, pid, _ in both] == [n + 80 for n in before]

        await until(have_come, "all has come", 60)
        await five.agree(names, 12)
        assert await five.lost(1, 2, 3, 4, 5) == [0] * 5
        for worker, pid, _ in both:
            await worker.ask("kill", pid=pid)  # it has kept what it got


# --- the operating system gives out ---


async def test_a_node_without_descriptors_keeps_its_sessions_and_accepts_again_when_it_has_some(fleet: Fleet):
    fleet.expected_mishaps.append("cannot accept connections")
    async with five_nodes(fleet) as five:
        names = await five.own_names()
        await five[1].ask("limit_descriptors", spare=0)
        strangers = [await Stranger.tcp(fleet.ports["ada"]) for _ in range(20)]
        await until(partial(_cannot_accept, five), "it has run out of descriptors")
        async with calls_undisturbed(five[2], names["ada/own"]):
            await always(partial(check_agreement, five.workers, names), D + 2 * H)
        for stranger in strangers:
            stranger.writer.transport.abort()
        await five[1].ask("limit_descriptors", spare=None)
        with within(6 + 4, "a join"):  # it tries again once a second
            six = await fleet.start("frank", join=["ada"], heartbeat=H)
        assert (await six.state()).names == names
        assert await six.ask("close") == []
        assert await five.lost(1, 2, 3, 4, 5) == [1] * 5, "six alone has gone"


async def _cannot_accept(five: Five) -> bool:
    return (await five[1].state()).counters.get("accept_errors", 0) > 0
