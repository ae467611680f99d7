"""A program of `kinfolk run` is told to end while others give it work: one node of a rolling restart."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.system.fleet import Fleet, Worker, until

SERVICE = """
import asyncio
import sys
from kinfolk import Call, Child
sys.path.insert(0, {plants!r})
import plants

async def work(me):
    me.trap_exit = True
    begun = answered = 0
    while isinstance(call := await me.receive(), Call):
        begun += 1
        await asyncio.sleep(0.005)
        call.reply("done")
        answered += 1
    print("worked", begun, answered, flush=True)

async def serve(node):
    await node.supervise([Child(work, name="work"), Child(plants.chief, {history!r}, name="chief", singleton=True)])
    print("ready", node.creation, flush=True)
"""


class Program:
    """`kinfolk run` with the service, as a member of a fleet."""

    def __init__(self, fleet: Fleet, join: str) -> None:
        plants, history = Path(__file__).parent, fleet.directory / "history"
        (fleet.directory / "service.py").write_text(SERVICE.format(plants=str(plants), history=str(history)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kinfolk", "run", "service:serve", "--name", fleet.name("bob"), "--join", join],
            cwd=fleet.directory,
            env={**os.environ, "KINFOLK_COOKIE_FILE": os.fspath(fleet.directory / "cookie")},
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, word: str) -> list[int]:
        """Wait for its next line, which begins with this word; the numbers after it."""
        assert self._process.stdout is not None
        found, *numbers = self._process.stdout.readline().split()
        assert found == word
        return [int(number) for number in numbers]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self.end()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Those that a test has started; none is left over."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


async def has_answers(worker: Worker, count: int) -> bool:
    return bool((await worker.ask("loaded")).get("answered", 0) >= count)


async def holds(worker: Worker, name: str, node: str) -> bool:
    return str(await worker.ask("whereis", name=name)).startswith(node)


async def test_a_drain_under_load_loses_no_call_and_peers_see_it_leave_at_once(fleet: Fleet, programs: list[Program]):
    workers = ada, _ = await fleet.mesh("ada", "carl")  # with the usual heartbeat: silence is noticed after 5 s
    programs.append(bob := Program(fleet, ada.name))
    (creation,) = bob.says("ready")
    await ada.ask("supervise_chief", history=str(fleet.directory / "history"))
    for worker in workers:
        await until(partial(holds, worker, "work", "bob@"), f"{worker} knows the name")
        await worker.ask("watch", pattern="work")
        await worker.ask("load", target="work", clients=4)
    for worker in workers:
        await until(partial(has_answers, worker, 20), f"the load of {worker} runs")

    bob.signal(signal.SIGTERM)
    begun, answered = bob.says("worked")
    assert bob.end() == 0
    ended = time.monotonic()
    for worker in workers:
        await until(partial(holds, worker, "chief", "ada@"), "the next chief runs")
    loads = [Counter(await worker.ask("unload")) for worker in workers]
    total = sum(loads, Counter[str]())
    assert begun == answered == total.pop("answered"), "each call that was begun has its answer"
    assert set(total) <= {"NoProcess", "NodeLost", "NameUnknown"}, "all others were told the truth at once"
    for worker in workers:
        when, sign, *_ = (await worker.ask("events"))[-1]
        assert sign == "-" and when < ended + 1
        assert any(line.endswith(f"{fleet.name('bob')} is down: left") for line in worker.log())

    programs.append(again := Program(fleet, ada.name))
    assert again.says("ready")[0] > creation
    for worker in workers:
        await until(partial(holds, worker, "work", "bob@"), "its next start is welcome")
    again.signal(signal.SIGTERM)
    assert again.says("worked") == [0, 0] and again.end() == 0
