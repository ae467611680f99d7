"""A job queue: workers on every node, one scheduler for all of them. Kill any program: no job is lost.

Start a few nodes, and give them something to do, in terminals of their own:

    python examples/jobs.py                 # as many of these as you like; Ctrl-C or kill -9 them as you like
    python examples/jobs.py submit 100

Every node supervises the scheduler as a singleton: one runs it, and when that is gone another starts it within moments.
It keeps nothing on disk. Whoever submits a job waits for its result, and submits it again if the scheduler is gone: so
a job is done at least once, and now and then twice.
"""

import asyncio
import sys
from collections import deque

import msgspec

from kinfolk import (
    Call,
    CallFailed,
    Child,
    Down,
    NameUnknown,
    Node,
    NodeLost,
    NoProcess,
    Pid,
    Process,
    Request,
    Server,
    run,
)

SCHEDULER = "jobs/scheduler"
GONE = (NameUnknown, NoProcess, NodeLost, CallFailed)
"""What a call raises when the scheduler is gone, or has just moved."""


class Submit(Request[str], frozen=True, tag="jobs.submit"):
    """Do this job; the answer is its result."""

    job: int


class Fetch(Request[int], frozen=True, tag="jobs.fetch"):
    """Give me something to do; the answer is a job."""


class Done(msgspec.Struct, frozen=True, tag="jobs.done"):
    """A job is done."""

    job: int
    result: str


class Scheduler(Server):
    """Hands jobs to workers that ask for one. Both kinds of calls are answered later: when there is an answer."""

    async def init(self) -> None:
        self.submitted: dict[int, list[Call[Submit]]] = {}
        self.waiting: deque[int] = deque()
        self.idle: deque[Call[Fetch]] = deque()
        self.busy: dict[Pid, int] = {}
        self.watched: set[Pid] = set()
        print(f"the scheduler runs on {self.node.name}", flush=True)

    async def submit(self, call: Call[Submit]) -> None:
        job = call.body.job
        if job not in self.submitted:
            self.waiting.append(job)
        self.submitted.setdefault(job, []).append(call)
        self._hand_out()

    async def fetch(self, call: Call[Fetch]) -> None:
        assert call.sender is not None, "workers are processes"
        if call.sender not in self.watched:
            self.watched.add(call.sender)
            self.me.monitor(call.sender)
        self.idle.append(call)
        self._hand_out()

    async def done(self, message: Done) -> None:
        for call in self.submitted.pop(message.job, []):
            call.reply(message.result)

    async def down(self, message: Down) -> None:
        """A worker is dead, or its node: somebody else does its job."""
        assert message.pid is not None, "workers are watched by their pids"
        self.watched.discard(message.pid)
        self.idle = deque(call for call in self.idle if call.sender != message.pid)
        job = self.busy.pop(message.pid, None)
        if job in self.submitted:
            self.waiting.appendleft(job)
            self._hand_out()

    def _hand_out(self) -> None:
        while self.waiting and self.idle:
            call, job = self.idle.popleft(), self.waiting.popleft()
            assert call.sender is not None, "workers are processes"
            self.busy[call.sender] = job
            call.reply(job)


async def worker(me: Process) -> None:
    """Fetch a job, do it, tell; again and again, from whichever scheduler there is."""
    while True:
        await me.names.wait_for(SCHEDULER)
        try:
            job = await me.call(SCHEDULER, Fetch(), timeout=None)
            await asyncio.sleep(0.05)  # the work
            me.send(SCHEDULER, Done(job, f"{job} squared is {job * job}, says {me.pid.node}"))
        except GONE:
            await asyncio.sleep(0.1)  # another one is about to start


async def submit(node: Node, job: int) -> str:
    """Have a job done, whatever happens to the scheduler meanwhile."""
    while True:
        await node.names.wait_for(SCHEDULER)
        try:
            return await node.call(SCHEDULER, Submit(job), timeout=None)
        except GONE:
            await asyncio.sleep(0.1)


async def main() -> None:
    """Be a node with workers; or submit jobs, and print their results as they come."""
    async with Node() as node:
        if sys.argv[1:2] == ["submit"]:
            for result in asyncio.as_completed([submit(node, job) for job in range(int(sys.argv[2]))]):
                print(await result, flush=True)
            return
        children = [Child(Scheduler, name=SCHEDULER, singleton=True), Child(worker), Child(worker)]
        await node.supervise(children)
        print(f"{node.name} is ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
