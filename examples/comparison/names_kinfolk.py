"""Two nodes of kinfolk register one name at the same moment, one lets go of it, and one registers 20,000 more.

The same steps as in names_lapinbeam.py.
"""

import asyncio

import kinfolk
from kinfolk import NameTaken, Node, Pid, Process, Registration

PAUSES = (0, 1, 9, 20)  # seconds between one look and the next
MANY = 20_000


async def worker(me: Process) -> None:
    await me.receive()


async def main() -> None:
    async with Member("ada") as ada, Member("bob") as bob:
        await ada.node.names.register("first", ada.worker)
        assert bob.node.names.whereis("first") == ada.worker
        print("they are connected: bob sees a name of ada's")

        for member, error in zip((ada, bob), await asyncio.gather(ada.register(), bob.register()), strict=True):
            print(f"{member.word} registers db: {error or 'done'}")
        passed = 0
        for pause in PAUSES:
            await asyncio.sleep(pause)
            passed += pause
            print(f"after {passed} s: ada finds db at {ada.finds()}, bob at {bob.finds()}")

        (holder,) = (member for member in (ada, bob) if member.claim)
        await holder.release()
        await asyncio.sleep(1)
        print(f"{holder.word} lets go: ada finds db at {ada.finds()}, bob at {bob.finds()}")

        for number in range(MANY):
            ada.node.names.register_nowait(f"name {number}", ada.worker)
            if number % 1000 == 0:
                await asyncio.sleep(0)  # let the loop turn
        await asyncio.sleep(10)
        known = sum(bob.node.names.whereis(f"name {number}") is not None for number in range(MANY))
        print(f"ada registers {MANY} more: after 10 s bob knows {known} of them")


class Member:
    """A node, its worker, and what it knows."""

    def __init__(self, word: str) -> None:
        self.node = Node(word)
        self.word = word
        self.claim: Registration | None = None

    async def __aenter__(self) -> "Member":
        await self.node.start()
        self.worker: Pid = self.node.spawn(worker)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.node.close()

    async def register(self) -> Exception | None:
        try:
            self.claim = await self.node.names.register("db", self.worker)
        except NameTaken as error:
            return error
        return None

    async def release(self) -> None:
        assert self.claim is not None
        await self.claim.release()

    def finds(self) -> str:
        found = self.node.names.whereis("db")
        return "nobody's" if found is None else found.node.partition("@")[0]


kinfolk.run(main)
