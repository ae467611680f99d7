"""Two nodes of lapinbeam register one name at the same moment, one lets go of it, and one registers 20,000 more.

Run it in an environment of its own, made by `pip install lapinbeam==1.3.0`. names_kinfolk.py has the same steps.
"""

import asyncio
import socket

from lapinbeam import Node, Supervisor, actor
from lapinbeam.refs import ActorRef
from lapinbeam.registry import register_name, register_registry, unregister_name, whereis_name

PAUSES = (0, 1, 9, 20)  # seconds between one look and the next
MANY = 20_000


@actor(name="worker")
class Worker:
    async def receive(self, message: object) -> None:
        pass


async def main() -> None:
    ada, bob = await started("ada"), await started("bob")
    await ada.node.connect_peer(bob.node.local_id)
    await register_name(ada.node, "first", ada.worker)
    for _ in range(1000):
        if whereis_name(bob.node, "first"):
            break
        await asyncio.sleep(0.01)
    print("they are connected: bob sees a name of ada's")

    for member, error in zip((ada, bob), await asyncio.gather(ada.register(), bob.register()), strict=True):
        print(f"{member.word} registers db: {error or 'done'}")
    passed = 0
    for pause in PAUSES:
        await asyncio.sleep(pause)
        passed += pause
        print(f"after {passed} s: ada finds db at {ada.finds()}, bob at {bob.finds()}")
    for member in (ada, bob):
        print(f"{member.word} has been told of {member.conflicts} conflict")

    await unregister_name(ada.node, "db", ada.worker)
    await asyncio.sleep(1)
    print(f"ada lets go: ada finds db at {ada.finds()}, bob at {bob.finds()}")

    for number in range(MANY):
        await register_name(ada.node, f"name {number}", ada.worker)
        if number % 1000 == 0:
            await asyncio.sleep(0)  # let the loop turn
    await asyncio.sleep(10)
    known = sum(whereis_name(bob.node, f"name {number}") is not None for number in range(MANY))
    print(f"ada registers {MANY} more: after 10 s bob knows {known} of them")
    for member in (ada, bob):
        await member.node.stop()


class Member:
    """A node, its worker, and what it knows."""

    def __init__(self, word: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.node = Node(f"{word}@127.0.0.1:{free.getsockname()[1]}")
        self.word = word
        self.conflicts = 0
        self.node.on_event(self.hear)

    async def start(self) -> None:
        await self.node.start()
        supervisor = Supervisor(node=self.node)
        self.worker = supervisor.spawn(Worker)
        register_registry(self.node, supervisor)

    async def register(self) -> Exception | None:
        try:
            await register_name(self.node, "db", self.worker)
        except ValueError as error:
            return error
        return None

    def finds(self) -> str:
        found = whereis_name(self.node, "db")
        if found is None:
            return "nobody's"
        return self.word if isinstance(found, ActorRef) else str(found.peer_id).partition("@")[0]

    def hear(self, event: dict[str, object]) -> None:
        self.conflicts += event["kind"] == "registry_conflict"


async def started(word: str) -> Member:
    member = Member(word)
    await member.start()
    return member


asyncio.run(main())
