"""What `kinfolk run` tells systemd: that the node is ready, that it leaves, and that its event loop turns.

systemd says in the environment whether it wants to hear, and where; without that, nothing is told.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kinfolk.logs import fields

_log = logging.getLogger("kinfolk")


def tell(node: str, *facts: str) -> None:
    """Tell systemd of a node, by its name, if systemd listens. A node that cannot tell goes on."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return
    if where.startswith("@"):
        where = "\0" + where[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(where)
            sock.send("\n".join(facts).encode())
    except OSError as error:
        about = fields(node, address=where, reason=error)
        _log.warning("systemd could not be told %s: %s", " ".join(facts), error, extra=about)


def watchdog() -> float | None:
    """Seconds within which systemd wants to hear again and again; None if it does not, or not from this program."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1e6 or None
    except (KeyError, ValueError):
        return None


@asynccontextmanager
async def watched(node: str) -> AsyncGenerator[None]:
    """Tell systemd, while the block lasts and as often as it wants to hear, that the event loop of a node turns."""
    within = watchdog()
    turning = (
        None if within is None else asyncio.create_task(_turns(node, within / 3), name="kinfolk: systemd's watchdog")
    )
    try:
        yield
    finally:
        if turning is not None:
            turning.cancel()


async def _turns(node: str, every: float) -> None:
    """From the loop itself, never from a thread: a loop that stands still tells nothing, and systemd restarts it."""
    while True:
        tell(node, "WATCHDOG=1")
        await asyncio.sleep(every)
