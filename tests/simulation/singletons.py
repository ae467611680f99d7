"""Supervised singletons on top of the kernels: on every node somebody competes for one name, and one of them runs.

A competitor is what a supervisor does for a singleton: it registers a new process where the name is free, runs when
that is confirmed, and else stands by until the name falls free or a pause is over; when its process ends,
`core.restarts` says what comes next. A seed determines everything.

losses   one fault at a time, always of the one that runs: its process exits, its node crashes, or is cut off
storms   cuts, partitions, silence, stopped and restarted nodes, and processes that exit
"""

import sys
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from kinfolk import effects as fx
from kinfolk.core import restarts as core
from kinfolk.core.names import Names
from kinfolk.ids import Pid
from tests.simulation.by_hand import run_by_hand
from tests.simulation.judge import Judge, Order
from tests.simulation.mutants import Mutant
from tests.simulation.schedules import DOWN_AFTER, HEARTBEAT, LONG_ENOUGH, Schedule
from tests.simulation.world import Host, Node, World

NAME, CHILD = "job", "child"
IN_TIME = DOWN_AFTER + 2 * HEARTBEAT + core.LONGEST_PAUSE
"""Within so many seconds after the one that runs is lost another runs: a failure detection, and the longest pause."""


class Rules(NamedTuple):
    """How competitors behave, and on top of which names; a mutant, for example."""

    network: str = "storms"
    names: type[Names] = Names
    waits: bool = True
    """It runs only when its name is confirmed."""
    yields: bool = True
    """It ends when its name is lost."""
    returns: bool = True
    """It stands by after a loss."""
    tries_again: bool = True
    """It stands by only until the name falls free, or a pause is over."""


SOUND = Rules()


class SingletonJudge(Judge):
    """Watches who runs, besides names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.competitors: dict[Node, Competitor] = {}
        self.counts = Counter[str]()

    def _succeed(self, node: Node, effect: fx.Succeed) -> None:
        super()._succeed(node, effect)
        self._answers(node, effect.ref)

    def _fail(self, node: Node, effect: fx.Fail) -> None:
        super()._fail(node, effect)
        self._answers(node, effect.ref)

    def _answers(self, node: Node, ref: int) -> None:
        order = self.orders.get(ref)
        if order is not None and order.kind == "register":
            self.world.at(self.world.now, node, self.competitors[node].answered, order)

    def _name_removed(self, node: Node, effect: fx.NameRemoved) -> None:
        super()._name_removed(node, effect)
        if node in self.competitors:
            self.world.at(self.world.now, node, self.competitors[node].name_falls_free)

    def stopped(self, node: Node, crashed: bool) -> None:
        """See `Judge.stopped`."""
        super().stopped(node, crashed)
        del self.competitors[node]

    def running(self) -> list["Competitor"]:
        """Those that run."""
        return [competitor for competitor in self.competitors.values() if competitor.runs]

    def begins(self, competitor: "Competitor", since: float) -> None:
        """One begins to run that has competed since then: nobody else may run whom it has known since before."""
        self.counts["runs"] += 1
        for other in self.running():
            if other is not competitor and self._steady(competitor.node, other.node, since):
                self.violation(f"{competitor.node} begins while {other.node} runs, and they have been connected")

    def unsettled(self) -> str | None:
        """See `Judge.unsettled`."""
        running = [competitor.node for competitor in self.running()]
        return super().unsettled() or (None if len(running) == 1 else f"{running} run")

    def finish(self) -> None:
        """See `Judge.finish`."""
        super().finish()
        for competitor in self.running():
            for node in self.world.running():
                if node.kernel.names.whereis(NAME) != competitor.pid:
                    self.violation(f"{competitor.node} runs, but {node} knows {node.kernel.names.whereis(NAME)}")


class SingletonWorld(World):
    """A world in which competitors hear of the end of their processes."""

    def process_exits(self, node: Node, local: int) -> None:
        """See `World.process_exits`."""
        alive = local in node.processes
        super().process_exits(node, local)
        assert isinstance(self.watch, SingletonJudge), "its judge knows who runs"
        if alive and node in self.watch.competitors:
            self.watch.competitors[node].ended(local)


class Competitor:
    """The singleton's supervisor on one node."""

    def __init__(self, schedule: "Singletons", node: Node) -> None:
        self.node = node
        self.runs = False
        self.pid: Pid | None = None
        self._judge, self._world, self._rng, self._rules = schedule.judge, schedule.world, schedule.rng, schedule.rules
        self._restarts = core.Restarts([(CHILD, "permanent")], "one_for_one", 10**9, 1.0)
        self._order: Order | None = None
        self._began = inf
        self._wait = 0
        """The number of the present wait."""
        self._waiting = self._freed = False
        self._attempt = 0

    def do(self, actions: list[core.Action]) -> None:
        """Carry out what `core.restarts` wants."""
        for action in actions:
            match action:
                case core.Start():
                    self._attempt, self._freed = 0, False
                    self._compete()
                case core.Pause(attempt=attempt):
                    seconds = core.pause(attempt, self._rng.random())
                    self._world.at(self._world.now + seconds, self.node, lambda _: self.do(self._restarts.due(CHILD)))
                case _:
                    self._judge.violation(f"the supervisor on {self.node} does {action}")

    def begin(self, _: object = None) -> None:
        """Start."""
        self.do(self._restarts.begin())

    def _compete(self) -> None:
        if self.node.kernel.names.whereis(NAME) is not None:
            self._stand_by()
            return
        self.pid, self._began = self.node.spawn(), self._world.now
        on_lost: fx.OnLost = "exit" if self._rules.yields else "message"
        self._order = self._judge.register(
            self.node, NAME, self.pid, wait=self._rules.waits, timeout=LONG_ENOUGH, on_lost=on_lost
        )

    def answered(self, order: Order) -> None:
        """The order to register is carried out, or not."""
        if order is not self._order or self.pid is None:
            return
        self._order = None
        if order.error is None:
            self.runs = True
            self._judge.begins(self, self._began)
            self.do(self._restarts.started(CHILD))
        else:
            pid, self.pid = self.pid, None
            self._world.process_exits(self.node, pid.local)
            self._stand_by()

    def _stand_by(self) -> None:
        self.do(self._restarts.stands_by(CHILD))
        self._attempt += 1
        self._wait += 1
        self._waiting = True
        if not self._rules.tries_again:
            return
        if self._freed:  # meanwhile
            self._freed = False
            self._world.at(self._world.now, self.node, self._again, (self._wait, True))
        else:
            seconds = core.pause(self._attempt, self._rng.random())
            self._world.at(self._world.now + seconds, self.node, self._again, (self._wait, False))

    def _again(self, wait: tuple[int, bool]) -> None:
        number, freed = wait
        if self._waiting and number == self._wait:
            self._waiting = False
            if freed:
                self._attempt = 0
            self._compete()

    def name_falls_free(self, _: object = None) -> None:
        """Somebody has the name no longer here."""
        if self._waiting and self._rules.tries_again:
            self._again((self._wait, True))
        else:
            self._freed = True

    def ended(self, local: int) -> None:
        """A process has ended; perhaps its own."""
        if self.pid is None or self.pid.local != local:
            return
        lost = self.node.kernel.names.whereis(NAME) not in (None, self.pid)
        self.pid, self.runs = None, False
        end = core.End.TROUBLE if lost else core.End.CRASH
        self._judge.counts["names lost" if lost else "ends"] += 1
        if self._order is not None:
            self._order = None
            self._stand_by()
        elif self._rules.returns or not lost:
            self.do(self._restarts.ended(CHILD, end, self._world.now))


class Singletons(Schedule):
    """One run of one network. Args as of `Schedule`, with `rules` for `mutant`."""

    judge_type = SingletonJudge
    world_type = SingletonWorld
    sizes = (2, 3, 3, 4)
    judge: SingletonJudge

    def __init__(
        self, network: str, seed: int, rules: Rules = SOUND, trace: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(f"singletons/{network}", seed, Mutant(names=rules.names), trace)
        self.network, self.rules = network, rules
        self.names = [NAME]
        self.judge.partitions = True

    def run(self) -> list[str]:
        """Run it. Returns the violations."""
        self.mesh()
        self.judge.steady = False
        SINGLETONS[self.network](self)
        self.settle()
        self.judge.finish()
        return self.judge.violations

    def start(self, host: Host) -> None:
        """See `Schedule.start`."""
        super().start(host)
        node = host.node
        assert node is not None, "it has just started"
        competitor = self.judge.competitors[node] = Competitor(self, node)
        self.world.at(self.world.now + self.rng.random() * self.rng.choice((0.01, 0.5)), node, competitor.begin)

    def _exit(self) -> None:
        """The one that runs exits."""
        running = [competitor for competitor in self.judge.running() if competitor.node.wakes <= self.world.now]
        if running:
            competitor = self.rng.choice(running)
            assert competitor.pid is not None, "it runs"
            self.world.process_exits(competitor.node, competitor.pid.local)

    # --- the networks ---

    def losses(self) -> None:
        rng, world, judge = self.rng, self.world, self.judge
        if rng.random() < 0.3:
            self.slow_link(0.5)
        for _ in range(rng.randint(1, 3)):
            self.settle()
            waiting = judge.unsettled()
            if waiting is not None:
                judge.violation(f"never quiet: {waiting}")
            if judge.violations:
                return
            [competitor] = judge.running()
            node, kind = competitor.node, rng.choice(("exit", "crash", "cut off"))
            hosts = [host for host in self.hosts if host is not node.host]
            if kind == "exit":
                self._exit()
            elif kind == "crash":
                world.crash(node, [host.name for host in hosts if rng.random() < 0.5])
                self.start_later(node.host, 2 * IN_TIME)
            else:
                noticed = rng.random() < 0.5
                for host in hosts:
                    self._part(node.host.address.host, host.address.host, 1.5 * IN_TIME, noticed, both=True)
            judge.counts[kind] += 1
            world.run(world.now + IN_TIME)
            if not any(other.runs and (kind == "exit" or other.node is not node) for other in judge.running()):
                judge.violation(f"nobody runs {IN_TIME} s after {node} was lost ({kind})")
            world.run(world.now + IN_TIME)

    def storms(self) -> None:
        rng = self.rng
        self.slow_link(1.0)
        brisk = rng.random() < 0.5
        mean, longest = (0.1, 1.0) if brisk else (0.5, 2.5 * DOWN_AFTER)
        kinds: list[Callable[[float], None]] = [lambda _: self.cut()] * 2 + [self.part] * 2 + [self.split, self.restart]
        if not brisk:
            kinds += [self.pause]

        def act() -> None:
            if rng.random() < 0.5:
                self._exit()
            else:
                rng.choice(kinds)(longest)

        self.spread(rng.randint(8, 22), mean, act)
        self.world.run(self.world.now + longest)
        self.heal()


SINGLETONS: dict[str, Callable[[Singletons], None]] = {"losses": Singletons.losses, "storms": Singletons.storms}


if __name__ == "__main__":
    sys.exit(run_by_hand("tests.simulation.singletons", SINGLETONS, lambda *of: Singletons(of[0], of[1], trace=of[2])))
