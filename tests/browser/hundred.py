"""Serves the dashboard of a hundred nodes that are only told of: ``python -m tests.browser.hundred PORT``."""

import asyncio
import sys

from kinfolk.dashboard import serve
from tests.dashboard.cluster import Told


async def main(port: int) -> None:
    told = Told(*(f"node-{number:02}" for number in range(100)))
    told.stalled = {told.names[17]: 3.2}
    told.draining = {told.names[40]: "finishes calls"}
    told.missing = {frozenset((told.names[60], told.names[71]))}
    async with serve(told, f"127.0.0.1:{port}"):
        print("ready", told.name, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
