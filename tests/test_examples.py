"""The examples do what they say, as a reader would run them: each program in an OS process of its own."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 20.0

T = TypeVar("T")


class Program:
    """An example that runs, and what it has printed so far."""

    def __init__(self, environment: dict[str, str], file: str, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / file), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def type(self, line: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def prints(self, text: str) -> str:
        """Wait until it prints a line with this; the line."""
        return wait(lambda: next((line for line in self.lines if text in line), None), f"{text!r} in {self.lines}")

    def has_printed(self, text: str) -> bool:
        """Whether it has printed a line with this."""
        return any(text in line for line in self.lines)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def wait(condition: Callable[[], T | None], what: str) -> T:
    """Wait until there is something; that."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


@pytest.fixture
def start(environment: dict[str, str]) -> Generator[Callable[..., Program]]:
    """Starts examples, which end with the test."""
    programs: list[Program] = []

    def start(file: str, *arguments: str) -> Program:
        programs.append(Program(environment, file, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def test_people_in_a_room_hear_each_other_and_nobody_else(start: Callable[..., Program]) -> None:
    ada = start("chat.py", "ada")
    ada.prints("You are in lobby")
    bob = start("chat.py", "bob")
    ada.prints("[lobby] bob: joins")
    eve = start("chat.py", "eve", "kitchen")
    eve.prints("You are in kitchen")
    eve.type("is anybody here?")
    bob.type("hello, ada")
    ada.prints("[lobby] bob: hello, ada")
    ada.type("/who")
    ada.prints("in the room: ada bob")
    eve.type("/join lobby")
    ada.prints("[lobby] eve: joins")
    eve.type("now?")
    bob.prints("[lobby] eve: now?")
    assert not [line for program in (ada, bob) for line in program.lines if "is anybody here" in line]
    bob.type("/quit")
    ada.prints("[lobby] bob: leaves")
    assert bob.process.wait(PATIENCE) == 0
    eve.process.send_signal(signal.SIGKILL)
    ada.prints("is gone")
    assert not [line for program in (ada, bob, eve) for line in program.lines if "Traceback" in line]


def test_every_job_is_done_although_schedulers_and_workers_are_killed(start: Callable[..., Program]) -> None:
    def serve() -> Program:
        program = start("jobs.py")
        program.prints("is ready")
        return program

    def scheduler() -> Program:
        told = "the scheduler runs"

        def found() -> Program | None:
            return next((node for node in nodes if node.has_printed(told)), None)

        return wait(found, told)

    def done(number: int) -> None:
        wait(lambda: len(customer.lines) >= number or None, f"{number} jobs are done: {customer.lines}")

    nodes = [serve(), serve(), serve()]
    jobs = 100
    customer = start("jobs.py", "submit", str(jobs))
    for number in (10, 30):  # whoever schedules
        done(number)
        killed = scheduler()
        killed.process.kill()
        nodes.remove(killed)
        scheduler()
        nodes.append(serve())
    done(50)  # somebody who only works
    next(node for node in nodes if node is not scheduler()).process.kill()
    assert customer.process.wait(PATIENCE) == 0
    results = sorted(int(line.split()[0]) for line in customer.lines)
    assert results == list(range(jobs)), customer.lines


@pytest.mark.slow
def test_seeds_find_the_counter_that_counts_twice_and_none_the_one_that_remembers(environment: dict[str, str]) -> None:
    def test(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
        run = subprocess.run(command, cwd=EXAMPLES.parent, env=environment, capture_output=True, text=True)
        return run.stdout

    said = test("examples/counter_partition")
    assert "1 failed, 1 passed" in said, said
    found = re.search(r"with seed \d+; to run it again: pytest '(\S+\[first\])' (--kin-seed=\d+)", said)
    assert found, said
    replayed = test(*found.groups())
    assert "1 failed" in replayed, replayed
    assert re.search(r"^\S+ stall \w+ \w+$", replayed, re.MULTILINE), "what has happened is printed"
