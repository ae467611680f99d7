"""A world of nodes and an etcd, without either: random schedules in which all is late, lost, stopped or repeated.

The etcd here is what etcd promises and no more. A request may be carried out long after nobody waits for it; answers
come in any order or not at all; a lease that is over may linger, but not be renewed; changes are told in order, and
all at once where the history has been compacted. Nodes are tenures with nothing around them.

What is checked after every step: whoever holds a name, as it knows it itself, has it in etcd too; so two never do. And
at the end, once nothing fails any more: all views are what etcd has, and etcd has what the nodes claim.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.ledger import Claim
from kinfolk.errors import KinfolkError, NameLost
from kinfolk.ids import Pid
from kinfolk.tenure import Held, Stage, State, Tenure, _Seen

TTL = 4
NAMES = ("x", "y")
GROUPS = ("a", "b/c")
WORDS = ("ada", "bob", "eve")


@dataclass
class Etcd:
    """The authority."""

    revision: int = 1
    keys: dict[str, fx.Fact] = field(default_factory=dict[str, fx.Fact])
    leases: dict[int, float] = field(default_factory=dict[int, float])
    history: list[fx.Fact | fx.Gone] = field(default_factory=list[fx.Fact | fx.Gone])
    compacted: int = 0
    given: int = 0
    stopped: bool = False

    def carry_out(self, request: fx.Request, now: float, lag: float) -> fx.Granted | fx.Done | fx.Fact | fx.NoLease:
        """Do what is asked. `lag`: how long ago a leader was deposed that still renews a lease for its full time."""
        match request:
            case fx.Grant(ttl=ttl):
                self.given += 1
                self.leases[self.given] = now + ttl
                return fx.Granted(self.given, ttl)
            case fx.Renew(lease=lease):
                if self.leases.get(lease, 0.0) <= now:
                    return fx.Granted(lease, 0)
                self.leases[lease] = now + TTL - lag
                return fx.Granted(lease, TTL)
            case fx.Revoke(lease=lease):
                self.end(lease)
                return fx.Done(self.revision)
            case fx.Put(key=key, value=value, lease=lease):
                if key in self.keys:
                    return self.keys[key]
                if lease not in self.leases:
                    return fx.NoLease()
                self.revision += 1
                self.keys[key] = fx.Fact(key, value, self.revision, lease)
                self.history.append(self.keys[key])
                return fx.Done(self.revision)
            case fx.Remove(key=key, value=value):
                if key in self.keys and self.keys[key].value != value:
                    return self.keys[key]
                self._delete([key] if key in self.keys else [])
                return fx.Done(self.revision)
            case _:
                raise AssertionError(request)

    def end(self, lease: int) -> None:
        if self.leases.pop(lease, None) is not None:
            self._delete([key for key, fact in self.keys.items() if fact.lease == lease])

    def _delete(self, keys: list[str]) -> None:
        if keys:
            self.revision += 1
        for key in keys:
            del self.keys[key]
            self.history.append(fx.Gone(key, self.revision))

    def after(self, revision: int) -> list[fx.Fact | fx.Gone]:
        return [change for change in self.history if change.revision > revision]


class Node:
    """One start of a node, and what is under way between it and etcd."""

    def __init__(self, world: "World", word: str, creation: int) -> None:
        self.world = world
        self.name = f"{word}@127.0.0.1:4370"
        self.creation = creation
        self.speed = 1.0 if world.seed < 0 else world.random.choice([0.95, 1.0, 1.05])
        self.agenda = Agenda()
        self.peers: dict[str, int] = {}  # as it was told of them
        self.tenure = world.tenure(
            self.agenda, self.name, creation, TTL, "etcd", self.answer, lambda known: False, self.seen, self.gone
        )
        self.requests: list[fx.Request] = []
        self.answers: list[fx.Consulted] = []
        self.follows: int | None = None  # told up to this revision
        self.waits_for: dict[int, float] = {}  # orders, by ref, with their deadlines
        self.dead: set[int] = set()  # processes
        self.locals = 0
        self.confirmed: dict[tuple[str, int], bool] = {}  # claims that were: whether a loss would be news
        self.claims: list[Claim] = []
        self.view: dict[str, Pid] = {}
        self.members: set[tuple[str, Pid]] = set()  # of groups, as it was told of them
        self.wanted: set[tuple[str, int]] = set()  # its own
        self.entered = False
        self.succeeded: set[int] = set()
        self.failed: dict[int, KinfolkError] = {}
        self.told: list[str] = []  # names that it has lost
        self.lags = world.random.choice([0.0, 0.0, 0.97])  # how seldom it is told of changes
        self.known: Counter[str] = Counter()  # the latest revision that it has known a name at
        self._show, self.tenure._show = self.tenure._show, self.show  # type: ignore[method-assign]

    @property
    def clock(self) -> float:
        """The time by its own clock, which may be a little fast or slow."""
        return self.world.now * self.speed

    def seen(self, node: str, creation: int) -> None:
        assert self.peers.get(node) != creation, f"{node} is told of twice"
        self.peers[node] = creation

    def gone(self, node: str) -> None:
        del self.peers[node]

    def do(self, act: str, *args: object) -> None:
        self.agenda.now = fx.Now(self.clock, 0)
        of = self.tenure.rosters if act in ("join", "leave", "again") else self.tenure
        getattr(of, act)(*args)
        for effect in self.agenda.take():
            self.perform(effect)

    def perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Consult(request=fx.Follow(after=after)):
                self.follows = after
            case fx.Consult(request=fx.Release()):
                pass
            case fx.Consult(request=request):
                self.requests.append(request)
            case fx.NameAdded(name=name, pid=pid):
                assert name not in self.view, f"{name} is added twice"
                assert pid.node != self.name or pid.local not in self.dead, "the dead are not named"
                self.view[name] = pid
            case fx.NameRemoved(name=name, pid=pid):
                assert self.view.pop(name) == pid
            case fx.MemberAdded(group=group, pid=pid):
                assert (group, pid) not in self.members, f"{pid} joins {group} twice"
                self.members.add((group, pid))
            case fx.MemberRemoved(group=group, pid=pid):
                self.members.remove((group, pid))
            case fx.TellLoss(local=local, loss=NameLost(name=name)):
                key = (name, local)
                self.told.append(name)
                assert self.confirmed.pop(key, False), f"{key} is told of a loss that is none, or a second time"
                assert self.view.get(name) != Pid(self.name, self.creation, local)
            case _:
                pass

    def show(self, name: str, seen: _Seen, early: bool = False) -> None:
        self._show(name, seen, early)
        if self.tenure._seen.get(name) is seen and not early:
            assert seen.revision >= self.known[name], "what was gone comes back"
            self.known[name] = seen.revision

    def answer(self, effect: fx.Succeed | fx.Fail) -> None:
        deadline = self.waits_for.pop(effect.ref)
        assert self.clock <= deadline + 0.001, "every order is answered within its deadline"
        if isinstance(effect, fx.Succeed) and isinstance(effect.value, Claim):
            self.claims.append(effect.value)
        if isinstance(effect, fx.Fail):
            self.failed[effect.ref] = effect.error
        else:
            self.succeeded.add(effect.ref)
            self.entered = True

    def time_passed(self) -> None:
        for key, _ in list(self.agenda.timers.due(self.clock + 1e-9)):
            match key:
                case ("tenure", str(what), int(number)):
                    self.do("timer", what, number)
                case ("roster", str(membership)):
                    self.do("again", membership)
                case ("order", int(ref)):
                    if ref in self.waits_for:
                        self.do("due", ref)
                case _:
                    raise AssertionError(key)

    def holds(self) -> dict[str, bytes]:
        """The names that this node relies on at this moment, by its own clock."""
        if self.tenure.stage is not Stage.HELD or self.clock >= self.tenure.until:
            return {}
        return {own.name: own.value for own in self.tenure._own.values() if own.state is State.HELD}


class World:
    """One schedule.

    Args:
        seed: decides everything; a negative one makes clocks and leaders faultless.
        tenure: what nodes are; one with a rule left out shows what it is for.
    """

    def __init__(self, seed: int, tenure: type[Tenure] = Tenure) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.tenure = tenure
        self.now = 0.0
        self.etcd = Etcd()
        self.ghosts: list[fx.Request] = []  # given up, and yet to be carried out
        self.refs = 0
        self.starts = 0
        self.nodes: dict[str, Node] = {}
        self.did: Counter[str] = Counter()
        for word in WORDS:
            self.start(word)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            self.check()
        self.heal()

    def start(self, word: str) -> None:
        self.starts += 1
        node = self.nodes[word] = Node(self, word, self.starts)
        self.order(node, "enter", lambda ref: fx.EnterRegistry(ref, 1000.0), 1000.0)

    def order(self, node: Node, act: str, make: object, timeout: float) -> int:
        self.refs += 1
        node.waits_for[self.refs] = node.clock + timeout
        assert callable(make)
        node.do(act, make(self.refs))
        return self.refs

    def step(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        acts = (
            [self.deliver] * 8 + [self.hear] * 6 + [self.tell] * 5 + [self.wait] * 5 + [self.order_something] * 8
            + [self.lose_request, self.lose_answer, self.haunt, self.break_watch, self.compact, self.stop, self.stop]
            + [self.join_or_leave] * 4 + [self.expire] * 2 + [self.crash] + [self.sleep] * (self.random.random() < 0.2)
        )  # fmt: skip
        act = self.random.choice(acts)
        if act == self.tell and self.random.random() < node.lags:
            return
        self.did[act.__name__] += 1
        act(node)

    def lag(self) -> float:
        return self.random.choice([0.0, 0.0, 0.5]) if self.seed >= 0 else 0.0

    # --- what may happen ---

    def deliver(self, node: Node) -> None:
        """A request arrives, and is carried out."""
        if node.requests and not self.etcd.stopped:
            request = node.requests.pop(self.random.randrange(len(node.requests)))
            node.answers.append(fx.Consulted(request, self.etcd.carry_out(request, self.now, self.lag())))

    def hear(self, node: Node) -> None:
        """An answer arrives."""
        if node.answers:
            heard = node.answers.pop(self.random.randrange(len(node.answers)))
            node.do("consulted", heard)
            if isinstance(heard.request, fx.Remove) and isinstance(heard.answer, fx.Done):
                name = heard.request.key.removeprefix("names/")
                node.known[name] = max(node.known[name], heard.answer.revision)

    def lose_request(self, node: Node) -> None:
        """Nobody waits for a request any longer; it may still be carried out."""
        if node.requests:
            request = node.requests.pop(self.random.randrange(len(node.requests)))
            if self.random.random() < 0.7:
                self.ghosts.append(request)
            node.answers.append(fx.Consulted(request, None))

    def lose_answer(self, node: Node) -> None:
        if node.answers:
            at = self.random.randrange(len(node.answers))
            node.answers[at] = fx.Consulted(node.answers[at].request, None)

    def haunt(self, node: Node) -> None:
        """A request that nobody waits for is carried out after all."""
        if self.ghosts and not self.etcd.stopped:
            self.etcd.carry_out(self.ghosts.pop(self.random.randrange(len(self.ghosts))), self.now, self.lag())

    def tell(self, node: Node) -> None:
        """Some of what has changed is told, or all there is."""
        etcd = self.etcd
        if node.follows is None or etcd.stopped:
            return
        if node.follows and node.follows < etcd.compacted:
            node.follows = None
            node.do("unfollowed", fx.Unfollowed(True))
        elif not node.follows:
            facts = list(etcd.keys.values())
            cut, revision = self.random.randint(0, len(facts)), etcd.revision
            node.do("snapshot", fx.Snapshot(revision, facts[:cut], True, False))
            if self.random.random() < 0.1:
                node.follows = None
                node.do("unfollowed", fx.Unfollowed())
                return
            for _ in range(self.random.randrange(3)):  # what happens between two parts of it
                self.random.choice([self.hear, self.deliver, self.order_something])(node)
            node.do("snapshot", fx.Snapshot(revision, facts[cut:], False, True))
            node.follows = revision
        else:
            changes = etcd.after(node.follows)
            if changes:
                until = self.random.choice(changes).revision
                some = [change for change in changes if change.revision <= until]
                node.follows = until
                node.do("changed", fx.Changed(until, some))

    def break_watch(self, node: Node) -> None:
        if node.follows is not None:
            node.follows = None
            node.do("unfollowed", fx.Unfollowed())

    def compact(self, node: Node) -> None:
        self.etcd.compacted = self.etcd.revision
        self.etcd.history = []

    def stop(self, node: Node) -> None:
        self.etcd.stopped = not self.etcd.stopped

    def wait(self, node: Node) -> None:
        self.pass_time(self.random.choice([0.01, 0.1, 0.5]))

    def sleep(self, node: Node) -> None:
        self.pass_time(self.random.choice([2.0, 9.0]))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            dues = [due / one.speed for one in self.nodes.values() if (due := one.agenda.timers.next()) is not None]
            if not dues or min(dues) > until:
                break
            self.now = max(self.now, min(dues))
            self.check()
            for one in list(self.nodes.values()):
                one.time_passed()
        self.now = until

    def expire(self, node: Node) -> None:
        """etcd ends the leases that are over, when it comes to it."""
        if not self.etcd.stopped:
            for lease in [lease for lease, until in self.etcd.leases.items() if until <= self.now]:
                self.etcd.end(lease)

    def crash(self, node: Node) -> None:
        if self.random.random() < 0.3:
            word = node.name.partition("@")[0]
            self.ghosts += [request for request in node.requests if self.random.random() < 0.5]
            self.start(word)

    def order_something(self, node: Node) -> None:
        name, timeout = self.random.choice(NAMES), self.random.choice([0.3, 2.0, 10.0])
        match self.random.randrange(6):
            case 0 | 1 | 2:
                node.locals += self.random.random() < 0.8
                pid = Pid(node.name, node.creation, max(1, node.locals))
                if pid.local not in node.dead:
                    wait = self.random.random() < 0.8
                    self.order(
                        node,
                        "register",
                        lambda ref: fx.Register(ref, name, pid, wait, timeout, "message"),
                        timeout if wait else 0.0,
                    )
            case 3:
                if self.random.random() < 0.5 and node.claims:  # a handle, maybe an old one
                    claim = self.random.choice(node.claims)
                    self.order(
                        node,
                        "unregister",
                        lambda ref: fx.Unregister(ref, claim.name, claim.position, timeout, claim.pid),
                        timeout,
                    )
                else:
                    self.order(node, "unregister", lambda ref: fx.Unregister(ref, name, None, timeout), timeout)
                live = {(own.name, own.pid.local) for own in node.tenure._own.values()}
                node.confirmed = {key: True for key in node.confirmed if key in live}
            case 4:
                local = self.random.randint(1, node.locals + 1)
                node.dead.add(local)
                node.wanted = {member for member in node.wanted if member[1] != local}
                node.confirmed = {key: True for key in node.confirmed if key[1] != local}
                node.do("exited", local)
            case _:
                if node.waits_for:
                    ref = self.random.choice(list(node.waits_for))
                    if ref in node.tenure._refs and ref not in node.tenure._refs[ref].leavers:
                        del node.waits_for[ref]
                        node.do("abandon", fx.Abandon(ref))

    def join_or_leave(self, node: Node) -> None:
        group, pid = self.random.choice(GROUPS), Pid(node.name, node.creation, self.random.randint(1, 2))
        if pid.local in node.dead:
            return
        if self.random.random() < 0.5:
            node.wanted.add((group, pid.local))
            node.do("join", group, pid)
        else:
            node.wanted.discard((group, pid.local))
            node.do("leave", group, pid)

    # --- what must hold ---

    def check(self) -> None:
        for node in self.nodes.values():
            for name, value in node.holds().items():
                there = self.etcd.keys.get(f"names/{name}")
                assert there is not None and there.value == value, f"{node.name} holds {name}, but etcd says {there}"
            assert node.view == node.tenure.view
            own = {(group, pid.local) for group, pid in node.members if pid.node == node.name}
            assert own == node.wanted, "a member is one here at once, and as long as it wants"
            confirmed = {(own.name, own.pid.local) for own in node.tenure._own.values() if own.state is State.HELD}
            assert node.confirmed.keys() <= confirmed, "a name that was lost, and nobody was told"
            node.confirmed |= dict.fromkeys(confirmed, True)

    def heal(self) -> None:
        """Nothing fails any more; then all agree."""
        self.etcd.stopped = False
        for _ in range(400):
            for node in self.nodes.values():
                for _ in range(4):
                    self.deliver(node)
                    self.hear(node)
                self.tell(node)
                self.expire(node)
                self.haunt(node)
            self.pass_time(0.05)
            self.check()
        claimed = {f"names/{own.name}": own.value for node in self.nodes.values() for own in node.tenure._own.values()}
        names = {key: fact.value for key, fact in self.etcd.keys.items() if key.startswith("names/")}
        assert names == claimed
        members = {
            (group, Pid(node.name, node.creation, local))
            for node in self.nodes.values()
            for group, local in node.wanted
        }
        kept = {key for key in self.etcd.keys if key.startswith("groups/")}
        assert kept == {f"groups/{pid}/{group}" for group, pid in members}
        for node in self.nodes.values():
            assert node.members == members
            assert node.peers == {one.name: one.creation for one in self.nodes.values() if one is not node}
            assert node.tenure.stage is Stage.HELD, node.tenure.stage
            assert node.view == {
                key.removeprefix("names/"): Pid.parse(msgspec.json.decode(value, type=Held).pid)
                for key, value in names.items()
            }
            assert not node.tenure._leaving, "nothing is left on its way out"
            assert all(own.state is State.HELD for own in node.tenure._own.values())
            assert not node.waits_for, "every order is answered"
            assert node.tenure.nodes.keys() == {one.name for one in self.nodes.values()}
