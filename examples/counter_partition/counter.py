"""A counter that every node has a copy of: it counts on both sides of a partition, and the sides agree once it is over.

Each copy tells the others what was added at it, again and again until they have confirmed that they have heard it. A
confirmation can be lost, so something may be told twice. The first version of this program (``remembers=False``) did
not think of that: it counts what it hears. Nobody notices before a connection breaks between the two messages.
`test_counter.py`, beside this file, finds it.

    kinfolk run examples.counter_partition.counter:main
"""

import kinfolk
from kinfolk import Call, Node, Pid, Process

GROUP = "counter"
AGAIN = 0.5
"""Seconds after which what nobody has confirmed is told again."""


async def counter(me: Process, remembers: bool = True) -> None:
    """One copy: answers ``["add", n]`` and ``"total"``."""
    total = 0
    added: list[int] = []  # at this copy
    confirmed: set[tuple[Pid, int]] = set()  # who has heard of which of them
    heard: set[tuple[Pid, int]] = set()  # what was added at others, and is counted here

    def tell() -> None:
        for peer in me.groups.members(GROUP):
            for number, amount in enumerate(added):
                if peer != me.pid and (peer, number) not in confirmed:
                    me.send(peer, ["added", me.pid, number, amount])

    await me.groups.join(GROUP)
    me.send_interval(AGAIN, "again")
    while True:
        message = await me.receive()
        match message:
            case Call(body=["add", int(amount)]):
                total += amount
                added.append(amount)
                tell()
                message.reply(total)
            case Call(body="total"):
                message.reply(total)
            case ["added", Pid() as peer, int(number), int(amount)]:
                if not remembers or (peer, number) not in heard:
                    total += amount
                    heard.add((peer, number))
                me.send(peer, ["confirmed", me.pid, number])
            case ["confirmed", Pid() as peer, int(number)]:
                confirmed.add((peer, number))
            case _:  # "again"
                tell()


async def main(node: Node, remembers: bool = True) -> None:
    """What each node runs."""
    pid = node.spawn(counter, remembers)
    node.names.local.register("counter", pid)
    await node.wait_exit(pid)


if __name__ == "__main__":

    async def alone() -> None:
        async with Node() as node:
            node.names.local.register("counter", node.spawn(counter))
            await node.call(("counter", node.name), ["add", 2])
            print("the total is", await node.call(("counter", node.name), ["add", 3]))

    kinfolk.run(alone)
