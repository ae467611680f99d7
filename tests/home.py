"""The least that processes need of a node: a table of them, a codec, and messages between them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from kinfolk.ids import Pid
from kinfolk.messages import Call
from kinfolk.node import Node
from kinfolk.process import Body, Process
from kinfolk.reasons import Reason
from kinfolk.shell.tasks import Processes
from kinfolk.wire import codec
from kinfolk.wire.codec import Codec

NAME = "ada@127.0.0.1:4370"


class Home:
    """A node without a network. It is its own data plane, too."""

    def __init__(self, linger_after: float = 1.0) -> None:
        self.codec = Codec()
        self.counters: Counter[str] = Counter()
        self.exits: list[tuple[int, Reason]] = []
        self.processes = Processes(NAME, 1, self._exited, linger_after=linger_after)
        self.names = object()
        self.senders: list[int | None] = []
        self.checked = 0
        self.thread: int | None = None
        self.direct: dict[object, Process] = {}  # so all goes through `send` and `call`

    @property
    def dataplane(self) -> "Home":
        return self

    def _exited(self, process: Process, reason: Reason) -> None:
        assert self.processes.get(process.pid.local) is None, "it has left the table before anybody is told"
        assert not process.mailbox.take_all(), "its mailbox is gone before anybody is told"
        self.exits.append((process.pid.local, reason))

    def start(self, body: Body, *args: object, max_mailbox: int | None = None) -> Process:
        """Spawn, and return the Process itself."""
        return self.processes.spawn(body, args, node=cast("Node", self), max_mailbox=max_mailbox)

    def spawn(self, body: Body, *args: object, max_mailbox: int | None = None) -> Pid:
        return self.start(body, *args, max_mailbox=max_mailbox).pid

    def start_process(self, body: Body, args: Sequence[object], max_mailbox: int | None) -> Process:
        return self.start(body, *args, max_mailbox=max_mailbox)

    def check_open(self) -> None:
        self.checked += 1

    def send(self, target: Pid, message: object, sender: int | None = None) -> None:
        self.senders.append(sender)
        process = self.processes.get(target.local)
        if process is not None:
            process.mailbox.put(message)

    async def call(self, target: Pid, request: object, timeout: float | None = 5.0, sender: int | None = None) -> Any:
        self.senders.append(sender)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def heard(outcome: str, value: object) -> None:
            if answer.done():
                return
            if outcome == codec.OK:
                answer.set_result(value)
            else:
                answer.set_exception(codec.error_of(outcome, str(value)))

        process = self.processes.get(target.local)
        assert process is not None, "these tests call the living"
        self.processes.take_call(process, Call(request, None, heard), timeout)
        return await answer

    def arrive(self, process: Process, message: object) -> None:
        """A message comes in from a node that knows all types."""
        process.mailbox.put(self.codec.decode(Codec().encode(message)))

    def arrive_as_call(self, process: Process, request: object, heard: list[tuple[str, object]]) -> None:
        """A call comes in from a node that knows all types."""
        body = self.codec.decode(Codec().encode(request))
        self.processes.take_call(process, Call(body, None, lambda *answer: heard.append(answer)), None)


async def ended(process: Process) -> None:
    """Wait until the task of a process is done."""
    if process.task is not None:  # else it is
        await asyncio.wait([process.task])


async def settled() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)
