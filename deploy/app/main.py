"""What the manifests run until your own program takes its place: a counter of which the cluster has one."""

import asyncio

from kinfolk import Child, Node, Process


async def counter(me: Process) -> None:
    """Adds up the numbers that it is called with."""
    total = 0
    async for call in me.calls():
        total += int(call.body)
        call.reply(total)


async def main(node: Node) -> None:
    """Stand by for the counter, as every node does, and serve until told to end."""
    await node.supervise([Child(counter, name="counter", singleton=True)])
    await asyncio.Event().wait()
