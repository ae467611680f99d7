"""Links and monitors between programs: one is killed, cut off or started anew, and whom it concerns is told, once."""

import asyncio
import random
from functools import partial

from tests.system.chaos import Network
from tests.system.fleet import Fleet, Worker, agreed, until

HEARTBEAT = 0.2


async def spawned(worker: Worker, count: int, *verbs: str) -> list[str]:
    """So many actors of a worker, that have done this."""
    pids = [await worker.ask("spawn") for _ in range(count)]
    for pid in pids:
        for verb in verbs:
            await act(worker, pid, verb)
    return pids


async def act(worker: Worker, pid: str, verb: str, *what: str) -> None:
    """Let an actor do something about others."""
    await worker.ask("act", pid=pid, verb=verb, what=list(what))


async def reason_of(worker: Worker, pid: str) -> str:
    """Why an actor has ended; waits for it."""
    await until(partial(worker.has_ended, pid), f"{pid} has ended")
    return str(await worker.ask("exit_reason", pid=pid))


async def relations(*workers: Worker) -> list[int]:
    return list(await asyncio.gather(*(worker.ask("relations") for worker in workers)))


async def have_relations(workers: list[Worker], counts: list[int]) -> bool:
    return await relations(*workers) == counts


async def test_a_killed_program_ends_its_links_and_monitors_and_its_next_start_is_another_node(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", heartbeat=HEARTBEAT)
    traps, dies, watches = await spawned(ada, 3)
    [there] = await spawned(bob, 1)
    await act(ada, traps, "trap")
    await act(ada, watches, "watch", bob.name)
    for verb, pid in ("link", traps), ("link", dies), ("monitor", watches):
        await act(ada, pid, verb, there)
    waits = asyncio.create_task(ada.ask("wait_exit", pid=there))
    await until(partial(have_relations, [ada, bob], [6, 4]), "both ends know of it")

    await bob.kill()
    assert await waits == "noconnection"
    assert await reason_of(ada, dies) == "noconnection"
    gone = [["PeerUp", bob.name], ["Down", there, "noconnection"], ["PeerDown", bob.name]]
    await until(partial(ada.has_seen, watches, gone), "what was watched there is told before the node's end")
    await until(partial(ada.has_seen, traps, [["Exit", there, "noconnection"]]), "who traps is told")
    assert await relations(ada) == [2], "one traps, one watches a node"

    # Without a connection it is unknown whether it lives; with the next start of its node, it is known to be dead.
    await act(ada, traps, "monitor", there)
    seen = [["Exit", there, "noconnection"], ["Down", there, "noconnection"]]
    await until(partial(ada.has_seen, traps, seen), "not connected")
    bob = await fleet.start("bob", join=["ada"], heartbeat=HEARTBEAT)
    await until(partial(ada.has_seen, watches, [*gone, ["PeerUp", bob.name]]), "it is up again")
    [new] = await spawned(bob, 1)
    assert new.rpartition("/")[2] == there.rpartition("/")[2], "the same number of another start"
    await act(ada, traps, "monitor", there)
    await act(ada, traps, "link", there)
    await act(ada, traps, "exit", there, "kill")
    await act(ada, traps, "monitor", new)
    seen += [["Down", there, "noproc"], ["Exit", there, "noproc"]]
    await until(partial(ada.has_seen, traps, seen), "of an older start")
    assert await ada.ask("wait_exit", pid=there) == "noproc"
    assert await bob.ask("exit_reason", pid=new) is None
    await bob.ask("kill", pid=new)
    await until(partial(ada.has_seen, traps, [*seen, ["Down", new, "killed"]]), "the new one is watched")


async def test_reasons_travel_between_programs(fleet: Fleet):
    fleet.expected_mishaps += ["ERROR", "Traceback"]
    ada, bob = await fleet.mesh("ada", "bob")
    [watcher] = await spawned(ada, 1)
    for request, words in (
        (["return"], "normal"),
        (["raise", "out of paper"], "Crash LookupError: out of paper, raised in run"),
    ):
        [there] = await spawned(bob, 1)
        [linked] = await spawned(ada, 1, "trap")
        waits = asyncio.create_task(ada.ask("wait_exit", pid=there))
        await act(ada, linked, "link", there)
        await act(ada, watcher, "monitor", there)
        await until(partial(have_relations, [bob], [3]), "bob knows of it")
        await bob.attempt("call", target=there, request=request)
        assert await waits == words
        await until(partial(ada.has_seen, linked, [["Exit", there, words]]), "the linked one is told")
    await until(lambda: have_relations([ada, bob], [2, 0]), "two trap; nothing else is left")


async def test_a_partition_ends_links_at_both_sides_once_and_healing_brings_none_back(fleet: Fleet):
    async with Network(fleet, ("ada", "bob", "carl")) as network:
        ada, bob, carl = workers = await fleet.mesh("ada", "bob", "carl", heartbeat=HEARTBEAT, down_after=1.0)
        (here, single), (there, other) = await spawned(ada, 2, "trap"), await spawned(bob, 2, "trap")
        [third] = await spawned(carl, 1, "trap")
        await act(ada, here, "link", there)
        await act(bob, other, "link", here)
        await act(ada, here, "link", third)
        await act(ada, single, "link", there)
        await until(partial(have_relations, workers, [6, 5, 2]), "all ends know of it")
        await act(ada, single, "unlink", there)
        await until(partial(have_relations, workers, [5, 4, 2]), "both ends know of that, too")

        network.part(["ada"], ["bob"])
        lost_here = [["Exit", there, "noconnection"], ["Exit", other, "noconnection"]]
        await until(partial(ada.has_seen, here, lost_here), "ada's side is told")
        await until(partial(bob.has_seen, there, [["Exit", here, "noconnection"]]), "bob's side is told")
        await until(partial(bob.has_seen, other, [["Exit", here, "noconnection"]]), "whoever has linked")
        await until(partial(have_relations, workers, [3, 2, 2]), "the link with carl's is left")
        # Each side goes on: what ends now is no matter of the other any more.
        await bob.ask("kill", pid=there)

        network.heal()
        await agreed(workers)
        await act(ada, here, "link", other)
        await act(ada, here, "monitor", there)
        await until(
            partial(ada.has_seen, here, [*lost_here, ["Down", there, "noproc"]]), "what was asked last is answered"
        )
        await bob.ask("kill", pid=other)
        seen = [*lost_here, ["Down", there, "noproc"], ["Exit", other, "killed"]]
        await until(partial(ada.has_seen, here, seen), "after the partition all is new")
        await carl.ask("kill", pid=third)
        await until(
            partial(ada.has_seen, here, [*seen, ["Exit", third, "killed"]]), "and with carl it was never broken"
        )
        assert await ada.ask("seen", pid=single) == [], "who had unlinked hears nothing"


async def test_after_any_number_of_ends_and_breaks_nothing_is_left_over(fleet: Fleet):
    words = ("ada", "bob", "carl")
    chance = random.Random(7)
    async with Network(fleet, words) as network:
        workers = await fleet.mesh(*words, heartbeat=HEARTBEAT, down_after=1.0)
        actors = {pid: worker for worker in workers for pid in await spawned(worker, 12, "trap")}
        pids = list(actors)
        for round_ in range(6):
            orders = [
                act(actors[pid], pid, verb, other)
                for pid in pids
                for verb in ("link", "monitor", "monitor", "unlink")
                for other in chance.sample(pids, 3)
            ]
            chance.shuffle(orders)
            breaks = [network.drop([words[round_ % 3]], [words[(round_ + 1) % 3]])] if round_ % 2 else []
            outcomes = await asyncio.gather(*orders, *breaks, return_exceptions=True)
            assert not [error for error in outcomes if error is not None]
            for pid in chance.sample(pids, 4):
                pids.remove(pid)
                await actors[pid].ask("kill", pid=pid)
            await agreed(workers, {})
        for pid in pids:
            await actors[pid].ask("kill", pid=pid)
        await until(partial(have_relations, workers, [0, 0, 0]), "nothing is left over")
        for pid, worker in actors.items():
            assert await reason_of(worker, pid) == "killed"
