"""A chat with rooms, across any number of programs and machines, without a server.

Everybody in it is a process; a room is the group of those who have joined it. Start one program for each person, in
terminals of their own:

    python examples/chat.py ada
    python examples/chat.py bob lounge

On one machine they find each other. On several, set KINFOLK_NAME, KINFOLK_COOKIE_FILE and KINFOLK_JOIN: see the README.
"""

import asyncio
import sys
import threading

import msgspec

from kinfolk import Node, PeerDown, PeerUp, Pid, Process, Reason, Request, Server, Stop, run

HELP = "/join ROOM, /who, /quit; anything else is said to everybody in the room"


class Said(msgspec.Struct, frozen=True, tag="chat.said"):
    """Somebody has said something in a room."""

    room: str
    nick: str
    text: str


class Typed(msgspec.Struct, frozen=True, tag="chat.typed"):
    """A line from the keyboard."""

    line: str


class AskNick(Request[str], frozen=True, tag="chat.nick"):
    """Who are you?"""


class Person(Server):
    """Somebody at a keyboard: says what is typed, shows what is said."""

    async def init(self, nick: str, room: str) -> None:
        self.nick = nick
        self.room = ""
        self.me.monitor_node()  # to be told of nodes that come and go
        await self._enter(room)

    async def _enter(self, room: str) -> None:
        if self.room:
            self._say("leaves")
            await self.me.groups.leave(group(self.room))
        self.room = room
        await self.me.groups.join(group(room))
        print(f"You are in {room}. {HELP}")
        self._say("joins")

    def _say(self, text: str) -> None:
        # Encoded once, and sent once to each node with members; the sender is left out.
        self.me.groups.broadcast(group(self.room), Said(self.room, self.nick, text))

    async def said(self, message: Said) -> None:
        print(f"[{message.room}] {message.nick}: {message.text}")

    async def typed(self, message: Typed) -> None:
        match message.line.split():
            case ["/join", room]:
                await self._enter(room)
            case ["/who"]:
                # A call takes a while. A process of its own does not keep this person from hearing.
                self.me.spawn(who, self.room)
            case ["/quit"]:
                raise Stop("normal")
            case [word, *_] if word.startswith("/"):
                print(HELP)
            case []:
                pass
            case _:
                self._say(message.line)

    async def asked(self, message: AskNick) -> str:
        return self.nick

    async def nodes(self, message: PeerUp | PeerDown) -> None:
        print(f"-- {message.node} is {'here' if isinstance(message, PeerUp) else 'gone'}")

    async def terminate(self, reason: Reason) -> None:
        self._say("leaves")


async def who(me: Process, room: str) -> None:
    """Ask every member of the room for its name, all at once."""
    calls = [me.call(pid, AskNick(), timeout=2.0) for pid in me.groups.members(group(room))]
    answers = await asyncio.gather(*calls, return_exceptions=True)  # whoever leaves meanwhile does not answer
    print("in the room:", *sorted(answer for answer in answers if isinstance(answer, str)))


def group(room: str) -> str:
    """The group of a room."""
    return f"chat/{room}"


def keyboard(node: Node, person: Pid) -> None:
    """Pass on what is typed. Reading waits for the user, so it has a thread of its own."""
    for line in sys.stdin:
        node.blocking.send(person, Typed(line.strip()))
    node.blocking.send(person, Typed("/quit"))


async def main() -> None:
    """Join the cluster, and stay until the end of the input."""
    nick = sys.argv[1] if len(sys.argv) > 1 else "somebody"
    room = sys.argv[2] if len(sys.argv) > 2 else "lobby"
    async with Node() as node:
        person = node.spawn(Person, nick, room)
        threading.Thread(target=keyboard, args=(node, person), daemon=True).start()
        await node.wait_exit(person)


if __name__ == "__main__":
    run(main)
