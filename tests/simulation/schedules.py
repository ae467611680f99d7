"""Random schedules, one kind for each network that shows something of its own. A seed determines everything.

races      a full mesh without faults: all nodes claim one name at once, and one of them gets it
calm       a full mesh without faults: nothing but races, and one direction of one link that is slow
faults     cuts, partitions, silence, stopped and restarted nodes
strangers  two or three nodes that never meet, while all the others see them
apart      strangers, and cuts of the links to their neighbours
moves      names go from process to process, of the same node or another; in half the runs links break, nodes die
deaths     holders die; some survivors see it at once and register the names, some notice late
joins      nodes come one by one or all at once, by one seed or by all, with names of their own
flaps      one link breaks again and again, while its ends and others make entries
churn      slices of one fact: processes with many names come and go while links break, and nothing is ever finished
damage     memory is damaged: it is found within two heartbeats, and repaired without the end of a session
decay      memory is damaged again and again while names change and slices are under way; in the end all is right
"""

import random
from collections.abc import Callable
from typing import ClassVar

from kinfolk import effects as fx
from kinfolk.core.ledger import Claim
from kinfolk.ids import Address, Pid, Seed
from kinfolk.tempo import Settings
from tests.simulation import world as w
from tests.simulation.judge import Judge, Order, watched
from tests.simulation.mutants import SOUND, Mutant
from tests.simulation.world import End, Host, Node, State, World

HEARTBEAT = 1.0
DOWN_AFTER = 3.0
LONG_ENOUGH = DOWN_AFTER + 2 * HEARTBEAT
"""The default timeout of register: a dying peer is counted out first."""
QUIET = 40.0
"""Within so many seconds after the last fault everything must have settled."""


class Schedule:
    """One run of one network.

    Args:
        network: one of `NETWORKS`.
        seed: determines everything.
        mutant: what runs on every host, if not the real thing.
        trace: takes each line of a transcript for people.
    """

    judge_type: ClassVar[type[Judge]] = Judge
    world_type: ClassVar[type[World]] = World
    sizes: ClassVar[tuple[int, ...]] = (3, 3, 3, 3, 3, 4, 4, 5)

    def __init__(
        self, network: str, seed: int, mutant: Mutant = SOUND, trace: Callable[[str], None] | None = None
    ) -> None:
        rng = self.rng = random.Random(f"{network}/{seed}")
        self.network = network
        self.judge = self.judge_type(
            partitions=network in ("faults", "apart", "moves", "joins", "flaps", "churn"),
            prompt=network == "deaths",
            reachable=network in ("calm", "joins"),
        )
        slow = network in ("churn", "decay")
        settings = Settings(
            heartbeat=HEARTBEAT,
            down_after=DOWN_AFTER,
            redial_min=0.05,
            redial_max=1.0,
            sync_part=1 if slow else rng.choice((1, 2, 100)),
            step=1 if slow or network == "flaps" else rng.choice((1, 2, 100)),
            log=rng.choice((5, 10, 20) if slow else (2, 10, 1000)),
            keep_mirrors=rng.choice((0.3, 600.0)),
            room=rng.choice((2, 1000)),
        )
        self.world = self.world_type(
            rng,
            settings,
            self.judge,
            kernel_type=mutant.kernel,
            names_type=watched(mutant.names),  # type: ignore[arg-type]  # mypy takes a class for unhashable
            drain=rng.choice((0.01, 0.05, 0.5)),
            encoded=rng.random() < 0.15,
        )
        self.judge.world = self.world
        if trace is not None:
            self.world.trace = lambda line: trace(f"{self.world.now:8.3f} {line}")
        self.names = ["u", "v", "w", "x", "y", "z"] if slow else ["x", "y", "z"][: rng.randint(1, 3)]
        size = rng.choice(self.sizes)
        for name in w.NAMES[:size]:
            host = self.world.add_host(name)
            host.skew_ms = rng.randint(-500, 500)
        self.hosts = list(self.world.hosts.values())
        self.longest = 60.0 if network != "decay" else LONG_ENOUGH
        """The longest timeout of a register: nobody is told of what memory has lost."""
        self.served: set[Pid] = set()
        """Processes for which other nodes have registered names."""
        self.coming = 0.0
        """When the last node comes back that is down now."""

    def run(self) -> list[str]:
        """Run it. Returns the violations."""
        NETWORKS[self.network](self)
        self.settle()
        if self.rng.random() < 0.1 and not self.judge.violations:
            self.rest()
        self.judge.finish()
        return self.judge.violations

    # --- phases ---

    def mesh(self) -> None:
        """Start everybody, connected to everybody."""
        for host in self.hosts:
            self.start(host)
            self.world.run(self.world.now + 0.02)
        self.settle()

    def start(self, host: Host) -> None:
        """Start a node that joins by all the others."""
        node = self.world.start(host)
        seeds = [other.seed for other in self.hosts if other is not host and other.node is not None]
        self.judge.join(node, seeds, timeout=5.0, patient=True)

    def start_later(self, host: Host, longest: float) -> None:
        """Start a node within so many seconds."""
        when = self.world.now + self.rng.random() * longest
        self.coming = max(self.coming, when)
        self.world.at(when, None, self.start, host)

    def settle(self) -> None:
        """Let time pass until all is quiet; most of the time that takes a moment."""
        world, step = self.world, 0.1
        world.run(max(self.coming, world.now + 0.1, *(node.wakes for node in world.running())))  # what is bound to come
        limit = world.now + QUIET
        arrived = False
        while not arrived and world.now < limit and not self.judge.violations:
            if self.judge.unsettled() is None:
                # Quiet to look at: it is, if that is still so when all that is under way now has arrived.
                under_way = [end.last for node in world.running() for end in node.ends.values()]
                world.run(max(world.now, *under_way, 0.0))
                arrived = self.judge.unsettled() is None
            else:
                world.run(world.now + step)
                step = min(1.0, step * 1.5)

    def rest(self) -> None:
        """What is quiet stays quiet."""
        before = [(node.name, node.kernel.peers(), dict(node.kernel.names.view)) for node in self.world.running()]
        self.judge.steady = True
        self.world.run(self.world.now + 2 * DOWN_AFTER)
        after = [(node.name, node.kernel.peers(), dict(node.kernel.names.view)) for node in self.world.running()]
        if before != after:
            self.judge.violation(f"not quiet after all: {before} became {after}")

    def heal(self) -> None:
        """No more faults, and everything at its usual speed."""
        for a, b in sorted(self.world.silent):
            self.world.heal(a, b)
        self.world.slow.clear()
        self.world.wild_clocks = False

    def spread(self, count: int, mean: float, act: Callable[[], None]) -> None:
        """Do this so many times, at random moments `mean` seconds apart."""
        for _ in range(count):
            self.world.run(self.world.now + self.rng.expovariate(1 / mean))
            if self.judge.violations:
                return
            act()

    # --- what users do ---

    def use(self) -> None:
        """Somebody does something with a name."""
        rng = self.rng
        running = [node for node in self.world.running() if node.wakes <= self.world.now]
        if not running:
            return
        node, name, roll = rng.choice(running), rng.choice(self.names), rng.random()
        if roll < 0.45:
            self.register(node, name)
        elif roll < 0.55:
            for racer in running:
                if rng.random() < 0.8:
                    self.world.at(
                        self.world.now + rng.random() * 0.05, racer, lambda racer: self.register(racer, name), racer
                    )
        elif roll < 0.75:
            owners = [owner for owner in running if name in owner.kernel.names.own]
            if owners:
                owner = rng.choice(owners)
                claim = owner.kernel.names.own[name].claim
                if rng.random() < 0.5:
                    self.world.process_exits(owner, claim.pid.local)
                else:
                    position = rng.choice((None, claim.position))
                    self.judge.unregister(owner, name, position, rng.choice((0.1, 1.0, LONG_ENOUGH)))
        elif roll < 0.8:
            waiting = [order for order in self.judge.orders.values() if self._can_abandon(order)]
            if waiting:
                self.judge.abandon(rng.choice(waiting))
        elif roll < 0.83:
            position = rng.randint(1, 5)  # a handle that may be stale
            self.judge.unregister(node, name, position, 1.0)
        elif node.processes and roll < 0.86:
            self.world.process_exits(node, rng.choice(sorted(node.processes)))
        elif roll < 0.90:
            other = rng.choice(running)
            timeout = rng.choice((0.05, 0.3, LONG_ENOUGH, LONG_ENOUGH, self.longest))
            pid = other.spawn()
            self.served.add(pid)
            self.judge.register(node, name, pid, wait=True, timeout=timeout, on_lost="message")
        elif roll < 0.94:
            self.judge.unregister(node, name, None, rng.choice((0.1, 1.0, LONG_ENOUGH)))
        elif roll < 0.96 and node.processes:
            pid = _pid(node, rng.choice(sorted(node.processes)))
            group = rng.choice(("g", "h"))
            self.world.feed(node, fx.LeaveGroup(group, pid) if rng.random() < 0.3 else fx.JoinGroup(group, pid))
        elif roll < 0.98:
            for end in node.ends.values():
                if end.state is State.OPEN:
                    self.world.at(self.world.now, node, self._message_comes, end)

    def hand_on(self) -> None:
        """Somebody lets a new process have a name, or one that is dead."""
        rng = self.rng
        running = [node for node in self.world.running() if node.wakes <= self.world.now]
        names = [name for name in self.names if any(name in node.kernel.names.view for node in running)]
        if not names:
            self.use()
            return
        name = rng.choice(names)
        pid = rng.choice(running).spawn()
        self.served.add(pid)
        if rng.random() < 0.05:
            pid = Pid(pid.node, pid.creation, pid.local + 99)
        self.judge.transfer(rng.choice(running), name, pid, rng.choice((0.05, 0.2, LONG_ENOUGH, LONG_ENOUGH)))

    def settle_down(self) -> None:
        """A process takes every name and group it can get, at once."""
        running = [node for node in self.world.running() if node.wakes <= self.world.now]
        if not running:
            return
        node = self.rng.choice(running)
        pid = node.spawn()
        for name in self.rng.sample(self.names, self.rng.randint(2, len(self.names))):
            self.judge.register(
                node, name, pid, wait=self.rng.random() < 0.3, timeout=self.rng.choice((1.0, LONG_ENOUGH)),
                on_lost="message",
            )  # fmt: skip
        for group in self.rng.sample(("g", "h", "i"), self.rng.randint(0, 3)):
            self.world.feed(node, fx.JoinGroup(group, pid))

    def move_out(self) -> None:
        """The process with the most names ends."""
        held = [(len(facts), node, local) for node in self.world.running() if node.wakes <= self.world.now
                for local, facts in node.kernel.names._by_process.items()]  # fmt: skip
        if held:
            _, node, local = max(held, key=lambda row: (row[0], row[1].name, row[2]))
            self.world.process_exits(node, local)

    def register(self, node: Node, name: str) -> None:
        """A process of the node, old or new, asks for a name."""
        rng = self.rng
        old = [_pid(node, local) for local in sorted(node.processes)] if rng.random() < 0.2 else []
        old = [pid for pid in old if pid not in self.served]
        pid = rng.choice(old) if old else node.spawn()
        self.judge.register(
            node,
            name,
            pid,
            wait=rng.random() < 0.75,
            timeout=rng.choice((0.05, 0.3, LONG_ENOUGH, LONG_ENOUGH, self.longest)),
            on_lost="exit" if rng.random() < 0.5 else "message",
        )

    def _message_comes(self, end: End) -> None:
        if end.state is State.OPEN:
            self.world.feed(end.node, fx.Heard(end.number))

    def _can_abandon(self, order: Order) -> bool:
        return order.kind == "register" and order.wait and not order.answers and order.node.wakes <= self.world.now

    # --- what goes wrong ---

    def clocks(self) -> None:
        """Perhaps the wall clocks jump from now on, hours apart or out of all bounds; and one is at the end of time."""
        world, rng = self.world, self.rng
        world.wild_clocks = rng.random() < 0.1
        if world.wild_clocks:
            for host in self.hosts:
                host.skew_ms += rng.choice((-18_000_000, 0, 0, 18_000_000))
            rng.choice(world.running()).kernel.names.clock.observe(w.LAST_STAMP - rng.randrange(3), 2**62)

    def slow_link(self, most: float) -> None:
        """One direction of one link is slow."""
        a, b = self.rng.sample([host.address.host for host in self.hosts], 2)
        self.world.slow[a, b] = self.rng.uniform(0.1, most)

    def cut(self) -> None:
        """One connection breaks."""
        ends = [end for node in self.world.running() for end in node.ends.values()]
        if ends:
            self.world.cut(self.rng.choice(ends), silent=self.rng.random() < 0.2)

    def part(self, longest: float) -> None:
        """Two hosts cannot reach each other for a while; their connections break now, or nobody notices yet."""
        a, b = self.rng.sample([host.address.host for host in self.hosts], 2)
        self._part(a, b, self.rng.random() * longest, self.rng.random() < 0.6, both=self.rng.random() < 0.7)

    def split(self, longest: float) -> None:
        """The hosts fall into two groups for a while."""
        names = [host.address.host for host in self.hosts]
        self.rng.shuffle(names)
        at, seconds, noticed = self.rng.randint(1, len(names) - 1), self.rng.random() * longest, self.rng.random() < 0.6
        for a in names[:at]:
            for b in names[at:]:
                self._part(a, b, seconds, noticed, both=True)

    def _part(self, a: str, b: str, seconds: float, noticed: bool, both: bool) -> None:
        world = self.world
        world.stall(a, b)
        if both:
            world.stall(b, a)
        if noticed:
            for x, y in ((a, b), (b, a)):
                node = world.hosts[x].node
                for end in list(node.ends.values()) if node else ():
                    if end.other is not None and end.other.node.host.address.host == y and end.state is State.OPEN:
                        when = world.now + self.rng.random() * 0.1
                        world.at(when, node, world.cut, end)

        def mend(_: object) -> None:
            world.heal(a, b)
            world.heal(b, a)

        world.at(world.now + seconds, None, mend)

    def restart(self, longest: float) -> None:
        """A node crashes, closes or leaves, and comes back after a while."""
        world, rng = self.world, self.rng
        running = world.running()
        if len(running) < 2:
            return
        node = rng.choice(running)
        if rng.random() < 0.2 and node.wakes <= world.now:
            world.shut_down(node, leaves=node.kernel.creation % 2 == 0)
        else:
            silent = [host.name for host in self.hosts if rng.random() < 0.4]
            world.crash(node, silent if rng.random() < 0.5 else ())
        self.start_later(node.host, longest)

    def pause(self, longest: float) -> None:
        """A node is stopped and wakes again."""
        running = self.world.running()
        if running:
            self.world.pause(self.rng.choice(running), self.rng.random() * longest)

    # --- the networks ---

    def races(self) -> None:
        rng, world, judge = self.rng, self.world, self.judge
        self.mesh()
        if rng.random() < 0.5:
            self.slow_link(1.0)
        self.clocks()
        for _ in range(rng.randint(1, 3)):
            name, orders = rng.choice(self.names), list[Order]()

            def race(node: Node, name: str = name, orders: list[Order] = orders) -> None:
                orders.append(judge.register(node, name, node.spawn(), wait=True, timeout=60.0))

            width = rng.choice((0.001, 0.01, 0.1))
            racers = rng.sample(world.running(), rng.randint(2, len(self.hosts)))
            for node in racers:
                world.at(world.now + rng.random() * width, node, race, node)
            world.run(world.now + width)
            while not all(order.answers for order in orders) and world.now < QUIET:
                world.run(world.now + 0.1)
            winners = [order for order in orders if order.answers and order.error is None]
            if len(orders) != len(racers) or len(winners) != 1:
                judge.violation(f"of {len(racers)} that claimed {name!r} at once, {len(winners)} have it")
                return
            winner = winners[0]
            for order in orders:
                if order is not winner and (order.error is None or order.error.args[1:] != (winner.pid,)):
                    judge.violation(f"{winner.pid} has {name!r}, but {order.pid} was told {order.error!r}")
            assert winner.pid is not None, "a register is for a process"
            world.process_exits(winner.node, winner.pid.local)
            self.settle()

    def calm(self) -> None:
        self.mesh()
        self.slow_link(1.0)
        self.clocks()
        self.spread(self.rng.randint(8, 22), 0.03, self.use)
        self.heal()

    def strangers(self) -> None:
        self._separate()
        self.calm()

    def apart(self) -> None:
        self._separate()
        self.mesh()
        self.judge.steady = False
        self.slow_link(0.5)

        def act() -> None:
            if self.rng.random() < 0.7:
                self.use()
            else:
                self.cut()

        self.spread(self.rng.randint(8, 22), 0.1, act)
        self.heal()

    def moves(self) -> None:
        rng = self.rng
        if rng.random() < 0.2:
            self._separate()
        self.mesh()
        for name in self.names:
            self.register(rng.choice(self.world.running()), name)
        self.settle()
        self.slow_link(rng.choice((0.1, 1.0)))
        calm = rng.random() < 0.5
        self.judge.steady = calm
        kinds = [self.hand_on] * 5 + [self.use] * 2
        kinds += [] if calm else [self.cut, self.cut, lambda: self.part(2.5), lambda: self.restart(1.0)]
        self.spread(rng.randint(8, 25), rng.choice((0.03, 0.2)), lambda: rng.choice(kinds)())
        self.heal()

    def _separate(self) -> None:
        names = [host.address.host for host in self.hosts]
        self.world.strangers = set(self.rng.sample(names, self.rng.randint(2, min(3, len(names) - 1))))

    def faults(self) -> None:
        self.mesh()
        self.judge.steady = False
        rng = self.rng
        self.slow_link(1.0)
        self.clocks()
        brisk = rng.random() < 0.6
        mean, longest = (0.06, 1.0) if brisk else (0.2, 2.5 * DOWN_AFTER)
        kinds: list[Callable[[float], None]] = [lambda _: self.cut()] * 3 + [self.part] * 3 + [self.split, self.restart]
        if not brisk:
            kinds += [self.pause, self.restart]

        def act() -> None:
            if rng.random() < 0.75:
                self.use()
            else:
                rng.choice(kinds)(longest)

        self.spread(rng.randint(8, 22), mean, act)
        self.world.run(self.world.now + (1.0 if brisk else longest * rng.random()))
        self.heal()

    def deaths(self) -> None:
        """Whoever notices that a name falls free asks for it once."""
        rng, world, judge = self.rng, self.world, self.judge
        self.mesh()
        judge.steady = False
        names = self.names
        for name in names:
            self.judge.register(
                owner := rng.choice(world.running()), name, owner.spawn(), wait=True, timeout=LONG_ENOUGH
            )
        world.run(world.now + rng.choice((0.05, 0.5)) * rng.random())
        heirs = {node for node in world.running() if rng.random() < 0.6}
        asked: set[str] = set()

        def watch(node: Node, name: str) -> None:
            if node in heirs and rng.random() < 0.9:
                world.at(world.now + rng.random() * rng.choice((0.01, 0.3)), node, lambda _: claim(node, name))

        def claim(node: Node, name: str) -> None:
            if name not in node.kernel.names.view:
                asked.add(name)
                judge.register(node, name, node.spawn(), wait=True, timeout=LONG_ENOUGH, on_lost="message")

        judge.on_free = watch
        for _ in range(rng.choice((1, 1, 1, 2))):
            owners = [node for node in world.running() if node.kernel.names.own] or world.running()
            if len(world.running()) < 3:
                break
            victim = rng.choice(owners)
            peers = [host.name for host in self.hosts if host is not victim.host]
            world.crash(victim, rng.sample(peers, rng.randint(0, len(peers))))
            asked.clear()
            if rng.random() < 0.3:
                self.start_later(victim.host, 2 * DOWN_AFTER)
            world.run(world.now + rng.random() * 2 * DOWN_AFTER)
        self.settle()
        world.run(world.now + 0.3)  # for the last to notice may be the next to ask
        self.settle()
        for name in sorted(asked):
            if not any(name in node.kernel.names.own for node in world.running()):
                judge.violation(f"{name!r} was asked for after the last death, and nobody has it")

    def joins(self) -> None:
        rng, world, judge = self.rng, self.world, self.judge
        hosts = list(self.hosts)
        rng.shuffle(hosts)
        together = rng.random() < 0.4
        late = rng.choice((0.01, 0.3, 2.0))
        if rng.random() < 0.3:
            self.slow_link(0.5)

        def start(host: Host) -> None:
            node = world.start(host)
            for name in self.names:
                if rng.random() < 0.3:
                    judge.register(
                        node, name, node.spawn(), wait=rng.random() < 0.5, timeout=LONG_ENOUGH, on_lost="message"
                    )
            others = [other.seed for other in hosts if together or hosts.index(other) < hosts.index(host)]
            if together:
                seeds = others if rng.random() < 0.5 else [seed for seed in others if seed.expects != node.name]
            else:
                seeds = rng.sample(others, min(len(others), rng.choice((1, 1, 2))))
            if rng.random() < 0.3:
                seeds = [Seed(seed.address, "") for seed in seeds]
            if rng.random() < 0.1:
                seeds.append(Seed(Address("nobody", 1), ""))
            if rng.random() < 0.05:
                seeds = [Seed(seed.address, "somebody@else:1") for seed in seeds]
            judge.join(node, seeds, timeout=rng.choice((2.0, 5.0)), patient=rng.random() < 0.8)

        for host in hosts:
            world.at(world.now + rng.random() * late, None, start, host)
        self.spread(rng.randint(5, 20), late / 10, self.use)
        world.run(world.now + late)
        if rng.random() < 0.3:
            a, b = rng.sample(world.running(), 2)
            judge.join(a, [b.host.seed], timeout=2.0, patient=False)
        self.heal()
        world.run(world.now + 0.1)
        # Whoever came first, alone or by a seed that was not there, is brought in now.
        for node in world.running():
            judge.join(node, [hosts[0].seed], timeout=5.0, patient=True)

    def flaps(self) -> None:
        rng, world = self.rng, self.world
        self.mesh()
        self.judge.steady = False
        world.turn = rng.choice((0.01, 0.3))  # often there is a new session before the old names have left
        a, b = rng.sample(world.running(), 2)
        if rng.random() < 0.3:
            self.slow_link(0.5)

        def act() -> None:
            if rng.random() < 0.75:
                self.use()
                return
            ends = [end for end in a.ends.values() if end.other is not None and end.other.node is b]
            if ends:
                world.cut(rng.choice(ends), silent=rng.random() < 0.2)

        self.spread(rng.randint(10, 30), rng.choice((0.02, 0.1)), act)
        self.heal()

    def churn(self) -> None:
        rng, world = self.rng, self.world
        self.mesh()
        self.judge.steady = False
        world.turn, world.drain = rng.choice((0.05, 0.3)), rng.choice((0.05, 0.3))
        if rng.random() < 0.3:
            self.slow_link(0.5)
        kinds = [self.use] * 4 + [self.settle_down] * 2 + [self.move_out] * 2 + [self.cut] * 3
        kinds += [lambda: self.part(1.0), lambda: self.restart(1.0)]
        self.spread(rng.randint(15, 40), rng.choice((0.03, 0.1)), lambda: rng.choice(kinds)())
        self.heal()

    def decay(self) -> None:
        rng, world, judge = self.rng, self.world, self.judge
        self.mesh()
        world.turn, world.drain = rng.choice((0.05, 0.3)), rng.choice((0.05, 0.3))
        judge.damage = judge.decay = True

        def damage() -> None:
            disputing = [node for node in world.running() if node.kernel.names.rivals]
            node = rng.choice(disputing if disputing and rng.random() < 0.7 else world.running())
            self._damage(node)
            judge.damaged(node)

        def quarrel() -> None:
            name = rng.choice(self.names)
            for node in world.running():
                self.register(node, name)
            world.run(world.now + rng.random() * world.delay)
            damage()

        kinds = [self.use] * 5 + [self.settle_down] * 2 + [self.move_out] * 2 + [damage, damage, quarrel]
        self.spread(rng.randint(10, 30), rng.choice((0.05, 0.2)), lambda: rng.choice(kinds)())
        self.heal()

    def damage(self) -> None:
        rng, world, judge = self.rng, self.world, self.judge
        self.mesh()
        self.spread(rng.randint(4, 12), 0.03, self.use)
        self.settle()
        for _ in range(rng.randint(1, 3)):
            node = rng.choice(world.running())
            self._damage(node)
            judge.damaged(node)
            world.run(world.now + 2 * HEARTBEAT + 0.5)
            waiting = judge.unsettled()
            if waiting is not None:
                judge.violation(f"not repaired within two heartbeats: {waiting}")
                return

    def _damage(self, node: Node) -> None:
        """Something in the memory of a node is no longer what it was."""
        rng, names = self.rng, node.kernel.names
        mirror = names.mirrors[rng.choice(sorted(names.mirrors))]
        name = rng.choice(sorted(mirror.claims) or self.names)
        claim = mirror.claims.get(name, Claim(name, Pid(mirror.peer, mirror.creation, 99), 10**6, 1))
        disputes = [names.rivals[name] for name in sorted(names.rivals)] if self.judge.decay else []
        match rng.randrange(9 if disputes else 6):
            case 6 | 7 | 8:
                dispute = rng.choice(disputes)
                dispute[rng.randrange(len(dispute))] = claim
            case 0:
                mirror.claims.pop(name, None)
            case 1:
                wrong = Pid(mirror.peer, mirror.creation, claim.pid.local + 1)
                mirror.claims[name] = Claim(name, wrong, claim.position, claim.stamp)
            case 2:
                mirror.members["h", 99] = None
            case 3:
                names.view.pop(name, None)
            case 4:
                names.view[rng.choice(self.names)] = Pid(mirror.peer, mirror.creation, 99)
            case _ if name in mirror.claims:
                mirror.unconfirmed.add(claim.position)
            case _:
                mirror.claims[name] = claim


NETWORKS: dict[str, Callable[[Schedule], None]] = {
    "races": Schedule.races,
    "calm": Schedule.calm,
    "faults": Schedule.faults,
    "strangers": Schedule.strangers,
    "apart": Schedule.apart,
    "moves": Schedule.moves,
    "deaths": Schedule.deaths,
    "joins": Schedule.joins,
    "flaps": Schedule.flaps,
    "churn": Schedule.churn,
    "damage": Schedule.damage,
    "decay": Schedule.decay,
}


def _pid(node: Node, local: int) -> Pid:
    return Pid(node.name, node.kernel.creation, local)
