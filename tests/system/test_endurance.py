"""The same again and again, and everything at once: what takes minutes."""

import asyncio
import random
import signal
import time
from functools import partial

import msgspec
import pytest

from kinfolk.wire import frames
from tests.system.chaos import Network
from tests.system.fleet import (
    Fleet,
    Raised,
    Worker,
    agreed,
    check_agreement,
    connections,
    resident,
    states,
    until,
)
from tests.system.stranger import Stranger
from tests.wire.vectors import VECTORS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORDS = ("ada", "bob", "carl", "dora", "eve")
HEARTBEAT = 0.2


async def test_fifty_simultaneous_starts_end_with_ten_sessions_each(fleet: Fleet):
    workers = await asyncio.gather(*map(fleet.enter, WORDS))
    chance = random.Random(29)
    for number in range(50):
        began = time.monotonic() + 0.03

        async def start(worker: Worker, began: float = began) -> None:
            join = [fleet.name(word) for word in WORDS if word != worker.word]
            await worker.ask("start", at=began + chance.random() / 100, name=worker.name, join=join)

        await asyncio.gather(*map(start, workers))
        await agreed(workers, {})
        await until(lambda: connections(fleet.ports.values()) == 10, f"round {number} ends with ten connections")
        assert await asyncio.gather(*(worker.ask("close") for worker in workers)) == [[]] * 5


async def test_a_hundred_failovers_end_with_one_holder_each(fleet: Fleet):
    workers = await fleet.mesh(*WORDS[:4], heartbeat=HEARTBEAT)
    *survivors, victim = workers
    for number in range(100):
        held = await victim.ask("register", name="leader")
        attempts = [asyncio.create_task(_succeed(worker, held)) for worker in survivors]
        await victim.kill()
        outcomes = await asyncio.gather(*attempts)
        winners = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert len(winners) == 1, f"round {number}: {outcomes}"
        assert {outcome.error for outcome in outcomes if isinstance(outcome, Raised)} <= {"NameTaken"}
        await check_agreement(survivors, {"leader": winners[0]})
        victim = await fleet.start(victim.word, join=[survivors[0].word], heartbeat=HEARTBEAT)
        workers = [*survivors, victim]
        await agreed(workers, {"leader": winners[0]})
        await survivors[outcomes.index(winners[0])].ask("unregister", name="leader")


async def test_a_hundred_drops_of_one_link_cost_third_nodes_nothing(fleet: Fleet):
    async with Network(fleet, WORDS) as network:
        workers = await fleet.mesh(*WORDS, heartbeat=HEARTBEAT)
        names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in workers}
        thirds = workers[2:]
        await asyncio.gather(*(worker.ask("watch") for worker in thirds))
        for _ in range(100):
            lost = (await workers[0].state()).counters.get("peers_lost", 0)
            await network.drop(["ada"], ["bob"])
            await until(partial(workers[0].has_lost, lost + 1), "ada notices")
            await agreed(workers, names, 20 * HEARTBEAT)
        for worker in thirds:
            assert [event[1] for event in await worker.ask("events")] == ["+"] * 5
        assert all(state.counters.get("peers_lost", 0) == 0 for state in await states(thirds))


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_all_nodes_agree_afterwards_and_every_name_is_held_by_who_lives(fleet: Fleet, seed: int):
    chance = random.Random(seed)
    async with Network(fleet, WORDS) as network:
        workers = {worker.word: worker for worker in await fleet.mesh(*WORDS, heartbeat=HEARTBEAT)}
        stopped: set[str] = set()
        ending = asyncio.Event()

        async def use(word: str) -> None:
            """Register and give up names, whatever else happens."""
            own = random.Random(f"{seed}{word}")
            while not ending.is_set():
                worker = workers[word]
                await asyncio.sleep(own.random() * 0.05)
                name = f"name/{own.randrange(12)}"
                try:
                    if own.random() < 0.7:
                        await worker.attempt("register", name=name, timeout=1.0, on_lost="message")
                    else:
                        await worker.attempt("unregister", name=name, timeout=1.0)
                except (ConnectionError, TimeoutError):
                    await asyncio.sleep(0.2)

        users = [asyncio.create_task(use(word)) for word in WORDS]
        for _ in range(25):
            some = chance.sample(WORDS, chance.randrange(1, 3))
            others = [word for word in WORDS if word not in some]
            match chance.randrange(7):
                case 0:
                    network.part(some, others)
                case 1:
                    await network.cut(some, others)
                case 2:
                    network.stall(some, others[:1])
                case 3:
                    await network.drop(some, others)
                case 4:
                    victim = workers[some[0]]
                    await victim.kill()
                    stopped.discard(victim.word)
                    join = [fleet.name(word) for word in others]
                    again = await fleet.enter(victim.word)
                    workers[victim.word] = again
                    settings = {"name": again.name, "join": join, "heartbeat": HEARTBEAT, "join_timeout": 0.5}
                    await again.ask("start", **settings)
                case 5:
                    workers[some[0]].signal(signal.SIGSTOP)
                    stopped.add(some[0])
                case _:
                    network.freeze(some, others[:1])
            await asyncio.sleep(chance.random() * 1.5)
            if chance.random() < 0.6:
                network.heal()
                for word in stopped:
                    workers[word].signal(signal.SIGCONT)
                stopped.clear()
        network.heal()
        for word in stopped:
            workers[word].signal(signal.SIGCONT)
        ending.set()
        await asyncio.gather(*users)
        everybody = list(workers.values())
        table = await agreed(everybody, within=60)
        await asyncio.sleep(8 * HEARTBEAT)
        table = await agreed(everybody)
        for name, pid in table.items():
            assert await everybody[0].ask("call", target=name, request=["echo", 1]) == [pid, 1], name
        for name in [f"name/{number}" for number in range(12)]:
            if name not in table:
                table[name] = await everybody[chance.randrange(5)].ask("register", name=name)
        await check_agreement(everybody, table)
        for state in await states(everybody):
            assert state.counters.get("protocol_errors", 0) == 0


async def test_ten_joins_of_a_cluster_with_a_hundred_thousand_names_that_change_all_the_time(fleet: Fleet):
    count, changing = 100_000, 500
    ada, bob = await fleet.mesh("ada", "bob")
    await ada.ask("fill", count=count // 2, prefix="ada")
    await bob.ask("fill", count=count // 2, prefix="bob")
    await bob.ask("churn", prefix="changing", size=changing)

    async def join(number: int) -> Worker:
        joiner = await fleet.start(f"joiner{number}", join=["ada"])
        for owner in ("ada", "bob"):
            assert await joiner.ask("missing", prefix=owner, count=count // 2) == 0
        assert await joiner.ask("missing", prefix="changing", count=changing) <= 2, "one is always on its way"
        return joiner

    for number in range(9):
        assert await (await join(number)).ask("close") == []
    joiner = await join(9)
    await bob.ask("rest")
    workers = [ada, bob, joiner]

    async def equal() -> bool:
        return len({await worker.ask("fingerprint") for worker in workers}) == 1

    await until(equal, "all tables are equal", 30)
    assert await joiner.ask("missing", prefix="changing", count=changing) == 0
    for counters in [(await worker.ask("state"))["counters"] for worker in (ada, bob)]:
        assert not any(
            counters.get(bad) for bad in ("protocol_errors", "registry_divergence_total", "outbox_overflows")
        )


async def test_a_thousand_strangers_keep_no_node_from_joining_and_cost_little(fleet: Fleet):
    ada = await fleet.start("ada")
    before = resident(ada)
    port, chance = fleet.ports["ada"], random.Random(23)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]

    async def noise(number: int) -> None:
        async with await Stranger.tcp(port) as stranger:
            await stranger.say(b"\xff\xff\xff\xff" if number % 3 == 0 else chance.randbytes(chance.randrange(1, 3000)))
            if number % 2:
                await stranger.ended()

    strangers = [asyncio.create_task(noise(number)) for number in range(1000)]
    bob = await fleet.start("bob", join=["ada"])
    await agreed([ada, bob], {})
    await asyncio.gather(*strangers)
    began = time.monotonic()
    for reader, writer in silent:
        async with asyncio.timeout(10):
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass
        writer.transport.abort()
    assert time.monotonic() - began < 8
    assert resident(ada) - before < 20_000_000
    await until(lambda: connections([port]) <= 1, "no connection is left over")


async def test_ten_thousand_mutated_frames_of_a_peer_end_its_session_at_most(fleet: Fleet):
    fleet.expected_mishaps.append("are not what it told")  # a ping with another digest is as good as damaged memory
    ada, bob = await fleet.mesh("ada", "bob")
    names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in (ada, bob)}
    local = int(names["ada/own"].rpartition("/")[2])
    chance = random.Random(24)
    body = b"\xa3abc"
    valid = [
        frames.Peers(["eve@127.0.0.1:9"]),
        frames.Ping(1),
        frames.Pong(1),
        frames.NameClaimed(1, "mine", 1, 5),
        frames.NamesWithdrawn(1, ["mine"], [1]),
        frames.NameConfirmed(1, "mine", 1),
        frames.Acknowledged([1]),
        frames.Sent(local, None, msgspec.Raw(body)),
        frames.SentToName("kinfolk", None, msgspec.Raw(body)),
        frames.Called(local, None, 1, 100, msgspec.Raw(body)),
        frames.Answered(1, "ok", msgspec.Raw(body)),
        frames.ExitSignal(10**6, None, "kill"),
        frames.Goodbye("closed", "bye"),
    ]
    # Of every other kind as well, whatever is added.
    valid += [
        VECTORS[kind].operations[0]
        for kind in frames.FRAMES
        if kind.TAG not in frames.HANDSHAKE and kind not in map(type, valid)
    ]
    encoded = [frames.encode_frame([operation]) for operation in valid]
    attacks = [frame[:4] + frame[4:cut] for frame in encoded for cut in range(5, len(frame))]
    attacks = [(len(attack) - 4).to_bytes(4, "little") + attack[4:] for attack in attacks]
    while len(attacks) < 10_000:
        frame = bytearray(chance.choice(encoded))
        for _ in range(chance.randrange(1, 4)):
            frame[chance.randrange(4, len(frame))] = chance.randrange(256)
        attacks.append(bytes(frame))
    creation = 0
    name = "aa-mallory@127.0.0.1:9"  # sorts first: no dial of the nodes to it goes before its own
    while attacks:
        creation += 1
        async with await Stranger.peer(fleet.ports["ada"], fleet.cookie, name=name, creation=creation) as mallory:
            sync = frames.LedgerSynced(creation, 0, True, [], [], [], [], [])
            await mallory.open([frames.Peers([]), sync])
            # As many as it takes: each session lives until the first that it cannot bear.
            while attacks:
                try:
                    await mallory.say(attacks.pop() + frames.encode_frame([frames.Ping(9)]))
                    if not await asyncio.wait_for(mallory.turn(), 5):
                        break
                except Exception:
                    break
    await until(partial(_unharmed, ada, bob, names), "nothing has changed")
    assert (await bob.state()).counters.get("peers_lost", 0) == 0


async def _unharmed(ada: Worker, bob: Worker, names: dict[str, str]) -> bool:
    known = await states([ada, bob])
    assert [state.names for state in known] == [names, names]
    return known[0].peers == [bob.name] and known[1].peers == [ada.name]


async def _succeed(worker: Worker, held: str) -> object:
    await until(partial(_free, worker, held), "the name is free")
    return await worker.attempt("register", name="leader")


async def _free(worker: Worker, held: str) -> bool:
    return bool(await worker.ask("whereis", name="leader") != held)
