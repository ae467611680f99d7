"""The mailbox: what has been sent to a process and not been received yet.

A deque, and one Future while the process waits. A message stays in the deque until the very step in which `receive`
returns it: cancelling a receive can lose nothing.

Source: selective receive, and that a waiting receive looks at each new message once, as in Erlang.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from kinfolk.compiled import mypyc_attr
from kinfolk.errors import MailboxFull
from kinfolk.reasons import Reason
from kinfolk.wire.codec import Traced

Match = Callable[[Any], object]
"""Says whether a message is wanted: a predicate."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Mailbox:
    """Messages in the order of their arrival.

    Args:
        limit: messages that may wait; None for no bound.

    Attributes:
        messages: what waits, oldest first. Only the one who receives may take from it.
        ready: the same, if whoever wants any message may take the first just so; else empty.
        taken: how many were received so far.
        dropped: how many messages it had no room for whose senders could not be told.
        report_after: loop time after which the log may tell of that again.

    Raises:
        ValueError: the limit is less than 1.
    """

    __slots__ = (
        "_examined",
        "_limit",
        "_loop",
        "_waits",
        "_wake",
        "dropped",
        "messages",
        "ready",
        "report_after",
        "taken",
    )

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"max_mailbox={limit}: a mailbox must have room for at least 1 message (None: no bound)")
        self._limit = sys.maxsize if limit is None else limit
        self.messages: deque[Any] = deque()
        self.ready: deque[Any] | tuple[()] = self.messages
        self.taken = 0
        self.dropped = 0
        self.report_after = 0.0
        self._waits = False  # whether a receive does
        self._wake: asyncio.Future[None] | None = None  # what it waits for, until the next message
        self._loop: asyncio.AbstractEventLoop | None = None  # of that receive: to ask each time costs a system call
        self._examined = 0  # so many, the oldest, do not match what that receive wants

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self.messages)

    def put(self, message: object) -> None:
        """Add a message.

        Raises:
            MailboxFull: it is at its bound; nothing was added.
        """
        messages = self.messages
        if len(messages) >= self._limit:
            raise MailboxFull(
                f"the mailbox is full ({self._limit} messages wait): send more slowly, or raise max_mailbox"
            )
        messages.append(message)
        wake = self._wake
        if wake is not None:  # as in put_always; written out, since every message goes through here
            self._wake = None
            if not wake.done():
                wake.set_result(None)

    def put_traced(self, message: Traced) -> None:
        """Add a message that came with its trace.

        Raises:
            MailboxFull: as `put`.
        """
        self.put(self.kept(message))

    def kept(self, message: object) -> object:
        """What is kept of a message that may have come with its trace: this mailbox has no use for that."""
        return message.body if type(message) is Traced else message

    def put_always(self, message: object) -> None:
        """Add a message whatever the bound: for what the node itself has to say."""
        self.messages.append(message)
        self._wake_up()

    def put_first(self, messages: Sequence[object]) -> None:
        """Add messages before all others, in their order, whatever the bound."""
        self.messages.extendleft(map(self.kept, reversed(messages)))
        self._examined = 0
        self._wake_up()

    async def receive(self, match: Match | None = None) -> Any:
        """Wait for the oldest message that matches, and take it out. The others stay, in their order.

        Args:
            match: whether a message is wanted; called once with each message. None wants any.

        Raises:
            RuntimeError: another receive is waiting.
            Exception: what `match` raises; no message was taken.
        """
        if self._waits:
            raise RuntimeError("two receives at once on one mailbox: let one task receive, and hand out the work")
        messages = self.messages
        if match is None:
            if not messages:
                self._waits = True
                try:
                    while not messages:
                        await self._arrival()
                finally:
                    self._waits, self._wake = False, None
            self.taken += 1
            return messages.popleft()
        # What is there already, in portions that grow: the first match costs little, and a long backlog is walked once.
        examined, portion = 0, 16
        while examined < len(messages):
            for message in list(islice(messages, examined, examined + portion)):
                if match(message):
                    del messages[examined]
                    self.taken += 1
                    return message
                examined += 1
            portion *= 2
        # Then each new one, as it comes. Meanwhile only `discard` takes messages out, and it keeps the count right.
        self._examined, self._waits = examined, True
        try:
            while True:
                while self._examined >= len(messages):
                    await self._arrival()
                message = messages[self._examined]
                if match(message):
                    del messages[self._examined]
                    self.taken += 1
                    return message
                self._examined += 1
        finally:
            self._waits, self._wake = False, None

    def discard(self, match: Match) -> None:
        """Take out every message that matches, and keep the others in their order. Allowed while a receive waits."""
        for position in range(len(self.messages) - 1, -1, -1):
            if match(self.messages[position]):
                del self.messages[position]
                self._examined -= position < self._examined

    def take_all(self) -> list[Any]:
        """Take out every message."""
        if not self.messages:  # of most that end
            return []
        taken = list(self.messages)
        self.messages.clear()
        return taken

    def end(self, reason: Reason) -> list[Any]:
        """Its process has ended. Take out every message."""
        return self.take_all()

    def _arrival(self) -> "asyncio.Future[None]":
        """Done when something has been put since."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        wake = self._wake = loop.create_future()
        return wake

    def _wake_up(self) -> None:
        """Something has been put: the first wakes who waits, and those after it find nobody to wake."""
        wake = self._wake
        if wake is not None:
            self._wake = None
            if not wake.done():
                wake.set_result(None)
