"""Processes that one OS process starts in another: over TLS, with nodes that are killed."""

import asyncio
import random
import signal
from functools import partial

import pytest

from tests.system.fleet import Fleet, Raised, Worker, until

ERRANDS = ["errands.*"]


async def runs_nothing(worker: Worker) -> bool:
    return not await worker.ask("running", module="errands")


async def runs_something(worker: Worker) -> bool:
    return bool(await worker.ask("running", module="errands"))


async def test_a_process_is_started_in_another_program_and_answers_from_there(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", allow_spawn=ERRANDS)
    pids = [await ada.ask("spawn_on", node=bob.name, body="errands:echo", args=[number]) for number in range(10)]
    assert await bob.ask("running", module="errands") == pids
    for number, pid in enumerate(pids):
        assert pid.startswith(bob.name + "/")
        assert await ada.ask("call", target=pid, request="hi") == [bob.pid, number, "hi"]
    # It is like any other process: it can have a name, and be ended from anywhere.
    await bob.ask("register", name="echo", pid=pids[0])
    assert await ada.ask("call", target="echo", request="ho") == [bob.pid, 0, "ho"]
    for pid in pids:
        await ada.ask("kill", pid=pid)
    await until(partial(runs_nothing, bob), "all are gone")


@pytest.mark.parametrize(
    "body",
    [
        "errands:plain",
        "errands:os.system",
        "errands:os._exit",
        "os:system",
        "errands.os:system",
        "builtins:exec",
        "worker:main",
    ],
)
async def test_what_is_not_listed_is_not_started_whatever_it_is_called(fleet: Fleet, body: str):
    ada = await fleet.start("ada")
    bob = await fleet.start("bob", join=["ada"], allow_spawn=ERRANDS)
    for target in (ada, bob):
        other = bob if target is ada else ada
        raised = await other.attempt("spawn_on", node=target.name, body=body, args=["true"])
        assert isinstance(raised, Raised) and raised.error == "NotAllowed" and target.name in raised.text
        assert (await target.state()).counters["spawns_refused"] == 1
        assert [line for line in target.log() if line.startswith("WARNING") and body in line]
    raised = await bob.attempt("spawn_on", node=ada.name, body="errands:echo")
    assert isinstance(raised, Raised) and raised.error == "NotAllowed", "ada lists nothing"


async def test_wrong_arguments_and_unreachable_nodes_are_told_with_what_was_wrong(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", allow_spawn=ERRANDS)
    raised = await ada.attempt("spawn_on", node=bob.name, body="errands:crash")
    assert isinstance(raised, Raised) and raised.error == "SpawnFailed" and "argument: 'text'" in raised.text
    bob.signal(signal.SIGSTOP)
    raised = await ada.attempt("spawn_on", node=bob.name, body="errands:wait", timeout=0.2)
    assert isinstance(raised, Raised) and raised.error == "CallTimeout"
    bob.signal(signal.SIGCONT)
    await until(partial(was_unwanted, ada), "the answer has come, too late")
    await until(partial(runs_nothing, bob), "what was started too late is ended")
    await bob.kill()
    raised = await ada.attempt("spawn_on", node=bob.name, body="errands:wait")
    assert isinstance(raised, Raised) and raised.error == "NodeLost"


async def was_unwanted(worker: Worker) -> bool:
    return (await worker.state()).counters.get("unwanted_spawns", 0) == 1


async def test_a_linked_process_dies_with_its_callers_node_and_takes_its_caller_along(fleet: Fleet):
    ada, bob, carl = await fleet.mesh("ada", "bob", "carl", allow_spawn=ERRANDS)
    _, started = await ada.ask("spawn_linked", node=bob.name, body="errands:wait")
    other, _ = await carl.ask("spawn_linked", node=bob.name, body="errands:wait")
    alone = await ada.ask("spawn_on", node=bob.name, body="errands:wait")
    await ada.kill()
    await until(partial(runs_but, bob, started), "who was linked has ended")
    assert alone in await bob.ask("running", module="errands"), "who was not lives on"
    assert not await carl.has_ended(other)
    await bob.kill()
    await until(partial(carl.has_ended, other), "the link told carl's actor of the loss")
    assert await carl.ask("exit_reason", pid=other) == "noconnection"


async def runs_but(worker: Worker, pid: str) -> bool:
    return pid not in await worker.ask("running", module="errands")


async def test_callers_that_are_killed_while_they_ask_leave_no_orphan(fleet: Fleet):
    """By SIGKILL of their whole node, at any moment of the way there and back."""
    chance = random.Random(7)
    bob = await fleet.start("bob", allow_spawn=ERRANDS)
    for number in range(6):
        ada = await fleet.start("ada", join=["bob"])
        asking = [
            asyncio.create_task(ada.attempt("spawn_linked", node=bob.name, body="errands:wait")) for _ in range(30)
        ]
        if number % 2:
            await until(partial(runs_something, bob), "some are started, and the others on their way")
        else:
            await asyncio.sleep(chance.random() * 0.02)
        await ada.kill()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(partial(has_no_peers, bob), "bob has noticed")
        assert await runs_nothing(bob)
    started = int((await bob.ask("spawn")).rpartition("/")[2]) - 2  # but its service, and this last one
    assert started >= 3


async def has_no_peers(worker: Worker) -> bool:
    return (await worker.state()).peers == []
