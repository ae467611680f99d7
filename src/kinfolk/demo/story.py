"""The story that the demo tells: what is done, and what must be true after it, on every node."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from kinfolk.demo.checks import Broken, differences, failed, winner
from kinfolk.demo.stage import PATIENCE, Member, Stage, stage

_RACES = 30
_QUIET = 0.3
"""Seconds in which what is gone is watched for not coming back."""
_WIDTH = 66
"""Characters of an outcome, before the time that it took."""


class _Console(Console):
    """Leaves to the command line what becomes of a pipe that nobody reads: rich would end the program with 1."""

    def on_broken_pipe(self) -> None:
        """Called while that error is handled."""
        raise BrokenPipeError


class Step:
    """One step, while it is under way."""

    outcome = ""
    """What to tell when it is over."""


class Story:
    """The cluster as it ought to be, and what happens to it."""

    def __init__(self, here: Stage, console: Console) -> None:
        self._here = here
        self._console = console
        self._members: list[Member] = []  # whose nodes are up, each to be connected to all others
        self._names: dict[str, str] = {}  # who must have which name, on every node
        self._steps = 0
        self._soon = PATIENCE if here.etcd else 0.0  # on the mesh all nodes have agreed when a register returns

    async def tell(self) -> None:
        """Everything, in order.

        Raises:
            Broken: something was not as promised.
        """
        ada, bob, carl = await self._here.enter("ada", "bob", "carl")
        await self._meet(ada, bob, carl)
        await self._share(ada, bob, carl)
        await self._call(carl)
        await self._race()
        await self._exit()
        former_db = self._names["db"]
        await self._die(bob)
        (bob,) = await self._here.enter("bob")
        await self._return(bob, ada)
        await self._stay_gone(former_db)
        await self._start_anew(bob)

    async def _meet(self, ada: Member, bob: Member, carl: Member) -> None:
        with self._step("ada starts; bob and carl start, knowing nothing but her address") as step:
            await ada.start()
            await asyncio.gather(bob.start(join=ada), carl.start(join=ada))
            self._members = [ada, bob, carl]
            await self._agreed(within=PATIENCE)
            met = "know each other, from etcd" if self._here.etcd else "are connected"
            step.outcome = f"they find each other: all three {met}"

    async def _share(self, ada: Member, bob: Member, carl: Member) -> None:
        with self._step("ada registers clock, bob registers db and cache, carl registers mail") as step:
            owners = {"clock": ada, "db": bob, "cache": bob, "mail": carl}
            pids = await asyncio.gather(*(owner.do("register", name) for name, owner in owners.items()))
            self._names = dict(zip(owners, pids, strict=True))
            await self._agreed()
            step.outcome = "every node knows all four names"

    async def _call(self, carl: Member) -> None:
        with self._step("carl looks up clock, which is on ada, and calls it") as step:
            answer = await carl.do("greet", "clock")
            if answer != f"hello carl, I am {self._names['clock']}":
                raise Broken(f"carl was answered {answer!r}")
            step.outcome = f"“{answer}”"

    async def _race(self) -> None:
        with self._step(f"all three register captain at the same moment, {_RACES} times") as step:
            won: Counter[str] = Counter()
            for _ in range(_RACES):
                replies = await asyncio.gather(*(member.attempt("register", "captain") for member in self._members))
                number = winner(replies)
                self._names["captain"] = str(replies[number].value)
                await self._agreed()
                await self._members[number].do("unregister", "captain")
                del self._names["captain"]
                won[self._members[number].word] += 1
            score = ", ".join(f"{member} {won[member.word]}" for member in self._members)
            step.outcome = f"one gets it each time ({score}), the others learn who"

    async def _exit(self) -> None:
        with self._step("the process named mail exits") as step:
            await self._members[0].do("dismiss", "mail")
            del self._names["mail"]
            await self._agreed(within=PATIENCE)
            step.outcome = "its name is gone everywhere"

    async def _die(self, bob: Member) -> None:
        with self._step("bob is killed with SIGKILL") as step:
            await bob.kill()
            self._members.remove(bob)
            del self._names["db"], self._names["cache"]
            await self._agreed(within=PATIENCE)
            await asyncio.gather(*(member.do("greet", "clock") for member in self._members))
            step.outcome = "db and cache are gone everywhere; ada, carl and clock stay"

    async def _return(self, bob: Member, ada: Member) -> None:
        with self._step("bob comes back, under the same name on the same port, knowing ada's address") as step:
            await bob.start(join=ada)
            self._members.append(bob)
            await self._agreed(within=PATIENCE)
            step.outcome = "he is connected to both, and knows the names they know"

    async def _stay_gone(self, former_db: str) -> None:
        with self._step("do his old names come back with him?") as step:
            await self._agreed(throughout=_QUIET)
            for member in self._members:
                failed(await member.attempt("call", former_db, ["greet", "ghost"]), "NoProcess")
            step.outcome = "no; and a call to his old process raises NoProcess everywhere"

    async def _start_anew(self, bob: Member) -> None:
        with self._step("bob registers db again") as step:
            self._names["db"] = await bob.do("register", "db")
            await self._agreed()
            step.outcome = "every node knows the new process"

    # --- telling and checking ---

    @contextmanager
    def _step(self, what: str) -> Generator[Step]:
        self._steps += 1
        self._print((f"{self._steps:>2}  ", "cyan"), (what, "bold"))
        step, since = Step(), time.perf_counter()
        try:
            yield step
        except Broken as error:
            self._print(("    ✗ ", "bold red"), (str(error), "red"))
            raise
        took = f"{(time.perf_counter() - since) * 1000:.0f} ms"
        self._print(("    ✓ ", "bold green"), (f"{step.outcome:<{_WIDTH}}", ""), (f"{took:>7}", "dim"))

    def _print(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    async def _agreed(self, *, within: float = 0, throughout: float = 0) -> None:
        """Wait until all nodes are as they ought to be; `within=0` seconds: now, as far as the registry can promise
        that. Then they must stay so `throughout`.

        Raises:
            Broken: they are not; the message says in what.
        """
        loop = asyncio.get_running_loop()
        deadline, until = loop.time() + max(within, self._soon), loop.time() + throughout
        while True:
            states = await asyncio.gather(*(member.state() for member in self._members))
            wrong = differences(states, self._names)
            if wrong and loop.time() >= deadline:
                raise Broken("; ".join(wrong))
            if not wrong and loop.time() >= until:
                return
            await asyncio.sleep(0.002 if wrong else 0.02)


def run(*, with_etcd: bool = False) -> int:
    """Tell the story. Returns the exit code: 0, or 1 if anything was not as promised.

    Args:
        with_etcd: names are in an etcd, which is started for it.
    """
    console = _Console(highlight=False)
    setting = ": three nodes in three OS processes, TLS 1.3, a fresh cookie"
    heading = setting + (", names in etcd\n" if with_etcd else "\n")
    console.print(Text.assemble(("kinfolk demo", "bold"), heading), soft_wrap=True)
    try:
        return asyncio.run(_run(console, with_etcd))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


async def _run(console: Console, with_etcd: bool) -> int:
    task = asyncio.current_task()
    assert task is not None, "asyncio.run awaits us in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that nobody is left on the stage
    since = time.perf_counter()
    async with stage(with_etcd) as here:
        try:
            await Story(here, console).tell()
        except Broken:
            for member in here.members.values():
                for line in member.last_words():
                    console.print(Text(f"     {member}: {line}", style="dim"), soft_wrap=True)
            console.print("\nNot as promised.", style="bold red")
            return 1
    console.print(Text(f"\nAll as promised, in {time.perf_counter() - since:.1f} s.", style="bold green"))
    return 0
