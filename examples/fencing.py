"""A journal that only the present holder of a name can write, however late an earlier holder's write comes.

A node that stalls, or is cut off from etcd, loses its names. It knows that itself, by its own clock; but a thread, a
disk or a network may still hold a write that it began before. So the store has to know who is the present holder, and
etcd gives what it needs for that: `claim.epoch` grows with every holder. The store keeps the highest epoch that it has
seen, and refuses writes with a lower one, in the same transaction. Start an etcd, then two of these:

    KINFOLK_REGISTRY=etcd://127.0.0.1:2379 python examples/fencing.py journal.db

One of them writes, the other stands by. Stop the one that writes (Ctrl-Z), watch the other take over, and let the first
go on (fg): it has lost the name, and if it still tries to write, that is refused. `sqlite3 journal.db 'select * from
entries'` shows that the epochs never go back.
"""

import asyncio
import sqlite3
import sys
from contextlib import closing

from kinfolk import Child, Node, Process, run

NAME = "journal/writer"


class Deposed(Exception):
    """A write by somebody who is no longer the holder."""


def write(path: str, epoch: int, text: str) -> None:
    """Append to the journal, if nobody with a higher epoch has written to it.

    Raises:
        Deposed: somebody has.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute("create table if not exists entries (epoch integer, text text)")
        journal.execute("begin immediate")  # from here on nobody else writes
        newest = journal.execute("select max(epoch) from entries").fetchone()[0] or 0
        if epoch < newest:
            journal.execute("rollback")
            raise Deposed(f"refused: a holder of epoch {newest} has written, this is epoch {epoch}")
        journal.execute("insert into entries values (?, ?)", (epoch, text))
        journal.execute("commit")


async def writer(me: Process, path: str) -> None:
    """Write a line every half second, for as long as the name is ours."""
    claim = await me.names.register(NAME, me.pid)  # that of our supervisor: the same process, the same registration
    if claim.epoch is None:
        raise SystemExit("the mesh gives no epochs: set KINFOLK_REGISTRY=etcd://127.0.0.1:2379")
    print(f"{me.pid.node} writes, with epoch {claim.epoch}", flush=True)
    for number in range(sys.maxsize):
        # In a thread of its own: it may come to its write at any time, whether or not this process still lives.
        await asyncio.to_thread(write, path, claim.epoch, f"line {number} of {me.pid.node}")
        await asyncio.sleep(0.5)


async def main() -> None:
    """Be a node that writes, or stands by."""
    async with Node() as node:
        await node.supervise([Child(writer, sys.argv[1], name=NAME, singleton=True)])
        print(f"{node.name} is ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
