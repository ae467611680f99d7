"""What the nodes of the browser tests run: copied to where `kinfolk run` finds it."""

import asyncio
import json
import os
import sys

from kinfolk import Child, Node, Process, Supervisor


async def idle(me: Process) -> None:
    await asyncio.Event().wait()


async def sink(me: Process) -> None:
    while True:
        await me.receive()


async def talk(me: Process, own: str) -> None:
    """Send to all others, in bursts, so that there is something to see."""
    turn = 0
    while True:
        await asyncio.sleep(0.1)
        turn += 1
        for member in me.groups.members("desks"):
            if member.node != me.pid.node:
                me.send(member, own * (40 + 30 * (turn // 30 % 4)))


async def obey(node: Node) -> None:
    """Do as the lines on the standard input say."""
    pids = {}
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print("ready", node.name, flush=True)
    while line := await reader.readline():
        match json.loads(line):
            case ["add", *names]:
                for name in names:
                    pids[name] = node.spawn(idle)
                    await node.names.register(name, pids[name])
            case ["remove", *names]:
                for name in names:
                    node.kill(pids.pop(name))
            case ["crowd", count]:
                pid = node.spawn(idle)
                for number in range(count):
                    node.names.register_nowait(f"user/{number:06}", pid)
                    if number % 500 == 0:
                        await asyncio.sleep(0)
            case ["churn", every]:
                node.spawn(churn, every)
            case unknown:
                raise ValueError(f"{unknown} is no order")
        print("done", flush=True)


async def churn(me: Process, every: float) -> None:
    """Names come and go."""
    turn = 0
    while True:
        await asyncio.sleep(every)
        turn += 1
        pid = me.node.spawn(idle)
        me.node.names.register_nowait(f"visit/{turn:05}", pid)
        await asyncio.sleep(every)
        me.node.kill(pid)


async def shop(node: Node) -> None:
    """A shop's node: desks and carts, what supervises them, and some traffic."""
    word = node.name.partition("@")[0]
    for number in range(6 + 5 * ("ada", "bob", "cyd", "dan", "eve").index(word)):
        await node.names.register(f"cart/{word}/{1000 + number * 37}", node.spawn(sink))
    for _ in range(3):
        await node.groups.join("desks", node.spawn(sink))
    for room in ("orders", "stock", "returns"):
        await node.groups.join(f"room/{room}", node.spawn(sink))
    node.spawn(talk, word)
    if word == os.environ.get("CITY_FIRST", "ada"):
        workers = Supervisor([Child(sink, name=f"worker/{kind}") for kind in ("mail", "invoices", "images")])
        children = [Child(sink, name="prices"), Child(sink, name="stock"), Child(workers), Child(idle)]
        await node.supervise(children, strategy="rest_for_one")
        await obey(node)
    else:
        print("ready", node.name, flush=True)
        await asyncio.Event().wait()
