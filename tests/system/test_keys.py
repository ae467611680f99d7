"""A cookie is exchanged on a live cluster, and no secret gets out on the way."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.observer import Observer
from tests.secrecy import secrets_in
from tests.system.fleet import Fleet, Raised, Worker, agreed, states, until

WORDS = ("ada", "bob", "carl", "dora", "eve")
HEARTBEAT = 0.2


async def test_a_cookie_is_exchanged_in_three_steps_and_no_connection_is_dropped(fleet: Fleet):
    texts = {"old": fleet.cookie, "new": new_cookie()}
    files = {word: str(fleet.write_cookie(word, text)) for word, text in texts.items()}
    workers = await fleet.mesh(*WORDS, heartbeat=HEARTBEAT, cookie_file=[files["old"]])
    await workers[0].ask("debug")
    names = {worker.word: await worker.ask("register", name=worker.word) for worker in workers}
    sessions = connected(fleet.ports.values())
    assert len(sessions) == 10

    async with asyncio.TaskGroup() as tasks:
        calls = Calls(workers, tasks)
        before = ["old"]
        for step in (["old", "new"], ["new", "old"], ["new"]):
            for worker, other in zip(workers, workers[1:] + workers[:1], strict=True):
                await worker.ask("rekey", cookie_file=[files[word] for word in step])
                # Whatever the other nodes have by now, who comes with the keys of this step or the last is let in.
                await ask(other, [texts[word] for word in step])
                await ask(worker, [texts[word] for word in before])
            await calls.some_more()
            before = step
        await asyncio.sleep(2 * HEARTBEAT)
        calls.end()

    assert connected(fleet.ports.values()) == sessions, "the very same connections"
    assert await agreed(workers, names) == names
    assert [state.counters.get("peers_lost", 0) for state in await states(workers)] == [0] * 5

    newcomer = await fleet.start("fay", join=["ada"], heartbeat=HEARTBEAT, cookie_file=[files["new"]])
    await agreed([*workers, newcomer], names)
    fleet.expected_mishaps.append("Traceback")  # of the TLS handshake that fails: asyncio shows it at this level
    late = await fleet.enter("greta")
    await late.ask("debug")
    refused = await late.attempt("start", name=late.name, join=[workers[0].name], cookie_file=[files["old"]])
    assert isinstance(refused, Raised) and refused.error == "AuthenticationFailed"
    assert "give both nodes the same one" in refused.text
    await until(
        lambda: any("did not become a session" in line for line in workers[0].log()), "it is told there as well"
    )

    everybody = [*workers, newcomer, late]
    seen = [refused.text, *(line for worker in everybody for line in worker.log()), *map(command_line, everybody)]
    assert any(line.startswith("DEBUG") for line in seen)
    for text in texts.values():
        assert not secrets_in("\n".join(seen), text)


class Calls:
    """Each worker calls one after the other of all, again and again; none of the calls may fail."""

    def __init__(self, workers: Sequence[Worker], tasks: asyncio.TaskGroup) -> None:
        self._made = {worker.word: 0 for worker in workers}
        self._done = False
        for worker in workers:
            tasks.create_task(self._call(worker))

    async def some_more(self) -> None:
        """Wait until each has called everybody once more."""
        goal = {word: made + len(self._made) for word, made in self._made.items()}
        await until(lambda: all(self._made[word] >= goal[word] for word in goal), "calls are made")

    def end(self) -> None:
        """Make no more."""
        self._done = True

    async def _call(self, worker: Worker) -> None:
        for number, name in zip(itertools.count(), itertools.cycle(self._made)):
            if self._done:
                return
            _, answer = await worker.ask("call", target=name, request=["echo", number], timeout=2.0)
            assert answer == number
            self._made[worker.word] += 1
            await asyncio.sleep(0.005)


async def ask(worker: Worker, cookies: Sequence[str]) -> None:
    """Connect with these cookies, and ask something."""
    async with Observer(worker.name, cookies=[Cookie(text) for text in cookies], cluster="kinfolk") as seen:
        assert (await seen.call(["info"]))["name"] == worker.name


def connected(ports: Iterable[int]) -> set[tuple[str, str]]:
    """The TCP connections between listeners on these ports of loopback and whoever dialled, by both their ends."""
    listening = {f"0100007F:{port:04X}" for port in ports}
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(local, remote) for _, local, remote, state, *_ in table if local in listening and state == "01"}


def command_line(worker: Worker) -> str:
    """What everybody on the machine can see."""
    return Path(f"/proc/{worker.pid}/cmdline").read_text()
