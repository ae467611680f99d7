"""Processes of several OS processes: called, sent to, ended, and closed down."""

import asyncio
from functools import partial

from tests.system.fleet import Fleet, Raised, agreed, until


async def test_processes_elsewhere_are_called_and_sent_to_by_pid_by_name_and_by_the_name_they_have_there(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob")
    pid = await bob.ask("register", name="db")
    await bob.ask("register_locally", name="only here", pid=pid)
    targets = [pid, "db", ["only here", bob.name]]
    for target in targets:
        assert await ada.ask("call", target=target, request=["echo", "hi"]) == [pid, "hi"]
        await ada.ask("send", target=target, message=f"to {target}")
    await until(partial(bob.has_seen, pid, [f"to {target}" for target in targets]), "all three have come")
    # From process to process, and back: ada's actor calls bob's, which calls ada's other one.
    mine, other = await ada.ask("spawn"), await ada.ask("spawn")
    relayed = ["relay", pid, ["relay", other, ["echo", 7]]]
    assert await ada.ask("call", target=mine, request=relayed) == [other, 7]


async def test_a_call_ends_in_time_with_what_became_of_it(fleet: Fleet):
    fleet.expected_mishaps += ["ERROR", "Traceback"]
    ada, bob = await fleet.mesh("ada", "bob")
    for request, error, words in (
        (["fail", "not today"], "Refused", "not today"),
        (["keep", 1], "CallTimeout", "0.2 s"),
        (["return"], None, ""),
    ):
        pid = await bob.ask("spawn")
        outcome = await ada.attempt("call", target=pid, request=request, timeout=0.2)
        if error is None:
            assert outcome == "bye"
            await until(partial(bob.has_ended, pid), "it has ended")
            outcome, error = await ada.attempt("call", target=pid, request=["echo", 1]), "NoProcess"
        assert isinstance(outcome, Raised) and outcome.error == error and words in outcome.text
    pid = await bob.ask("register", name="crashing")
    outcome = await ada.attempt("call", target="crashing", request=["raise", "out of paper"])
    assert isinstance(outcome, Raised) and outcome.error == "CallFailed" and "out of paper" in outcome.text
    crashes = [line for line in bob.log() if line.startswith("ERROR")]
    assert len(crashes) == 1 and pid in crashes[0] and "out of paper" in crashes[0]
    assert await ada.ask("whereis", name="crashing") is None
    # Its node dies while the call waits.
    pid = await bob.ask("spawn")
    waiting = asyncio.create_task(ada.attempt("call", target=pid, request=["keep", 2], timeout=None))
    await until(partial(bob.has_seen, pid, [2]), "the call has come")
    await bob.kill()
    outcome = await waiting
    assert isinstance(outcome, Raised) and outcome.error == "NodeLost"


async def test_a_closing_node_raises_node_closed_for_all_that_waits_and_says_goodbye(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob")
    pid = await bob.ask("spawn")
    await ada.ask("watch")
    await ada.ask("register", name="db")
    waiting = [
        asyncio.create_task(ada.attempt("call", target=pid, request=["keep", 1], timeout=None)),
        asyncio.create_task(ada.attempt("wait_for", name="nobody")),
    ]
    await until(partial(bob.has_seen, pid, [1]), "the call has come")
    assert await ada.ask("close") == []
    for outcome in await asyncio.gather(*waiting):
        assert isinstance(outcome, Raised) and outcome.error == "NodeClosed"
    assert [event[1:3] for event in await ada.ask("events")] == [["+", "db"], ["-", "db"], ["closed", ""]]
    raised = await ada.attempt("whereis", name="db")
    assert raised is None
    await agreed([bob], {})
    assert [line for line in bob.log() if f"{ada.name} is down" in line and "closed" in line]


async def test_names_taken_before_the_start_are_everywhere_after_it(fleet: Fleet):
    ada = await fleet.start("ada")
    bob = await fleet.enter("bob")
    await bob.ask("start", name=bob.name, join=[ada.name], early=["one", "two"])
    table = await agreed([ada, bob])
    assert sorted(table) == ["one", "two"]
    assert await ada.ask("call", target="two", request=["echo", 1]) == [table["two"], 1]
