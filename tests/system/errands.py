"""What workers start on each other."""

import asyncio
import os

from kinfolk import Process


async def echo(me: Process, *prefix: object) -> None:
    """Answers with its OS process, what it was started with, and what it was asked."""
    async for call in me.calls():
        call.reply([os.getpid(), *prefix, call.body])


async def wait(me: Process) -> None:
    """Lives until it is ended."""
    await asyncio.Event().wait()


async def crash(me: Process, text: str) -> None:
    """Dies at once."""
    raise LookupError(text)


def plain(me: Process) -> None:
    """No process, but something that somebody might try to have called."""
    os._exit(3)
