"""Random schedules for the model: links, time, faults, and what must hold.

Links are first in, first out, with any delay, one direction of one link slower than the others. The networks:

calm        nothing goes wrong, but registers time out, processes exit, peers ask for a resync
strangers   the same, with two or three nodes that never meet while all the others see them
faults      cuts that the two ends notice at different times, part of what was under way lost, sessions that replace
            others, partial partitions, restarts; at the end all links heal
apart       strangers and cuts
flaps       one link that is cut and dialled again all the time, short logs, slow outboxes and slices
moves       names go from node to node, and back; seldom something else happens to them
torn        the same, and cuts
deaths      prompt links; holders of names die, some survivors notice late, others claim the names at once
corruption  cuts, and entries of mirrors and views that change in memory

What a schedule can show:

converge    at the end two nodes resolve a name differently
unique      at the end two claims of one name are alive, or one node knows two
dead        at the end a name resolves to a process that exited, or a group has one as a member
stale       at the end a name resolves to a claim that was withdrawn
hung        at the end a register or an unregister has not returned
ghost       at the end a claim is alive whose register has raised
mirror      at the end a mirror, or what is shown of it, differs from its ledger
success     a register returned while a connected node resolved the name differently, or had a confirmed claim itself
            (with faults it may resolve to a claim of a node that the holder has no session with, or to one that has
            been withdrawn so lately that it is not told yet)
released    an unregister returned while a connected node still showed the claim
robbed      (no faults) a confirmed claim was lost against its owner's will
younger     a confirmed claim was lost to a younger one
wiped       two claims were lost to each other
fooled      a claim gave way, on a third node's word, to one that its own node knew to be gone
beaten      (deaths) a claim gave way, on a third node's word, to one that was gone before it was made (but for one that
            was said to be unconfirmed, of a node never met: the price of settling the races of strangers at once)
vanished    (no faults) a lookup did not find a confirmed claim of a connected node
split       a name went to an heir although its transfer had failed (for sure, that is: not if the session with the
            heir's node was lost, or the holder exited, after the name had been let go)
moved       a transfer returned while a connected node still resolved the name to the old holder, or not to the new one
disowned    an heir gave way to the claim that it succeeds
refused     a lookup found a name of a peer without a session
risen       a claim entered the views that was withdrawn before the session it came by began
acknowledged    an entry was acknowledged that is not in the views
protocol    a peer said what does not follow from what it said before
diverged    (no corruption) a digest did not fit
endless     it does not come to rest
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from math import inf
from typing import Any

from tests.model.claims import (
    BEAT,
    DOWN_AFTER,
    GROUPS,
    NAMES,
    PATIENCE,
    Claim,
    Claimed,
    Entry,
    Identity,
    Moved,
    Node,
    Withdrawn,
)
from tests.model.guards import ALL

FAULTY = ("faults", "apart", "flaps", "torn", "corruption")
NETWORKS = ("calm", "strangers", "faults", "apart", "flaps", "moves", "torn", "deaths", "corruption")
PROMPT = 2
"""Ticks that a frame takes at most in the network of deaths."""
ENOUGH = 10_000
"""Events after which a network without new ones should have come to rest."""

Wire = deque[tuple[int, float, "tuple[Any, ...] | None"]]
"""Frames with the first and the last tick at which they may arrive. None: the end of the connection."""


class Simulation:
    """One schedule.

    Args:
        network: one of NETWORKS.
        seed: gives all the rest.
        guards: the rules that are kept.
    """

    def __init__(self, network: str, seed: str, guards: frozenset[str] = ALL) -> None:
        self.rng = random.Random(seed)
        self.network, self.guards = network, guards
        self.size = self.rng.randint(3, 5)
        self.faults = network in FAULTY
        self.calm = network in ("calm", "strangers", "moves")
        self.wild = self.rng.random() < 0.2
        """Clocks that show anything."""
        self.log_limit = self.rng.choice((2, 3, 4, 100) if network == "flaps" else (0, 2, 4, 100))
        self.now = self.events = 0
        self.resting = False
        self.counts = Counter[str]()
        self.violations = Counter[str]()
        self.dead: set[tuple[int, int, int]] = set()
        self.made_at: dict[Claim, int] = {}
        self.gone_at: dict[Claim, int] = {}
        self.failed: set[Claim] = set()
        self.stays: set[Identity] = set()
        """Claims whose transfer has failed for certain."""
        self.inherited: set[Identity] = set()
        """Claims whose heir has been confirmed."""
        self.losses: set[tuple[Claim, Claim]] = set()
        self.entries: dict[tuple[int, int, int], Entry] = {}
        self.links: dict[tuple[int, int], int] = {}
        """The session that one node has with another, as it sees it."""
        self.wires: dict[tuple[int, int, int], Wire] = {}
        self.opening: dict[int, tuple[int, int]] = {}
        """Sessions that the dialler has opened, and the other has not yet."""
        self.began: dict[int, int] = {}
        self.creations: dict[tuple[int, int], int] = {}
        """Of a node, as a session says."""
        apart = network in ("strangers", "apart") or (network in ("moves", "torn") and self.rng.random() < 0.3)
        self.strangers = self.rng.randint(2, min(3, self.size - 1)) if apart else 0
        self.slow = tuple(self.rng.sample(range(self.size), 2))
        self.just_confirmed: list[tuple[Node, Claim]] = []
        self.replacing = False
        """A session takes the place of another, in one moment."""
        self.nodes = [Node(self, ident, 0) for ident in range(self.size)]
        for a, b in self.pairs():
            self.dial(a, b)
        while self.opening:
            session, (a, b) = next(iter(self.opening.items()))
            self.deliver((a, b, session))

    def run(self) -> Counter[str]:
        """Run the schedule to its end. Returns the violations."""
        if self.network == "deaths":
            self.deaths()
        elif self.network == "flaps":
            self.flaps()
        elif self.network in ("moves", "torn"):
            self.hand_around()
        else:
            for _ in range(self.rng.randint(20, 140)):
                self.step()
        self.finish()
        return self.violations

    # --- links ---

    def pairs(self) -> list[tuple[int, int]]:
        """Who may meet whom."""
        return [(a, b) for a in range(self.size) for b in range(a) if a >= self.strangers]

    def together(self, a: int, b: int) -> bool:
        """Whether both ends have the same session."""
        return (a, b) in self.links and self.links[a, b] == self.links.get((b, a))

    def dial(self, a: int, b: int) -> None:
        """A session between two nodes: `a` opens it now, `b` when the first frame arrives."""
        if (a, b) in self.opening.values() or (b, a) in self.opening.values():
            return
        if self.together(a, b) and self.rng.random() < 0.8:
            return
        self.events += 1
        session = self.events
        self.began[session] = session
        self.opening[session] = a, b
        for x, y in ((a, b), (b, a)):
            self.wires[x, y, session] = deque()
            self.creations[session, x] = self.nodes[x].creation
        self.open(a, b, session)

    def open(self, a: int, b: int, session: int) -> None:
        """An end has a session from now on; an older one is replaced."""
        self.replacing = True
        if (a, b) in self.links:
            self.counts["replaced"] += 1
            self.cut(a, b, returns=True)
        self.links[a, b] = session
        self.nodes[a].peer_up(b, self.creations[session, b])
        self.replacing = False
        self.check_confirmed()

    def send(self, a: int, b: int, message: tuple[Any, ...], overtake: str = "") -> None:
        """A node says something; with `overtake`, a frame of that kind that waits at the end is overtaken."""
        wire = self.wires.get((a, b, self.links.get((a, b), 0)))
        if wire is None:
            return
        frame = self.now, self.now + PROMPT if self.network == "deaths" else inf, message
        before = wire[-1][2] if wire else None
        if overtake and before is not None and before[0] == overtake:
            wire.insert(len(wire) - 1, frame)
        else:
            wire.append(frame)

    def cut(self, a: int, b: int, returns: bool = False) -> None:
        """End `a` notices now. What it had sent arrives in part; after that end `b` notices."""
        session = self.links.pop((a, b), None)
        if session is None:
            return
        self.hang_up(a, b, session)
        self.nodes[a].peer_down(b, returns)

    def hang_up(self, a: int, b: int, session: int, notice: float = 0) -> None:
        """End `a` of a session is gone; end `b` notices within so many ticks, or (0) at any time."""
        self.wires.pop((b, a, session), None)
        wire = self.wires.get((a, b, session))
        if wire is not None:
            for _ in range(self.rng.randint(0, len(wire))):
                wire.pop()
            wire.append((self.now + round(self.rng.random() * notice), self.now + notice if notice else inf, None))

    def deliver(self, key: tuple[int, int, int]) -> None:
        """The next frame of a wire arrives."""
        a, b, session = key
        _, _, message = self.wires[key].popleft()
        if message is None:
            del self.wires[key]
        if self.opening.get(session) == (a, b):
            del self.opening[session]
            if message is not None:
                self.open(b, a, session)
        if self.links.get((b, a)) != session:
            return
        if message is None:
            del self.links[b, a]
            self.nodes[b].peer_down(a, returns=False)
        else:
            self.nodes[b].receive(a, *message)

    def crash(self, a: int, notice: float = 0) -> None:
        """A node dies, and starts anew without a session."""
        node = self.nodes[a]
        self.dead |= {(a, node.creation, pid) for pid in range(node.last_pid + 1)}
        for name in NAMES:
            if (claim := node.own(name)) is not None:
                self.gone(claim)
        self.nodes[a] = Node(self, a, node.creation + 1)
        for b in range(self.size):
            if session := self.links.pop((a, b), None):
                self.hang_up(a, b, session, notice)
        for session, (x, y) in list(self.opening.items()):
            if y == a:  # one that it had not opened yet
                del self.opening[session]
                self.hang_up(a, x, session, notice)

    # --- schedules ---

    def busy(self) -> list[tuple[int, int, int]]:
        """Wires with a frame that may arrive."""
        return [key for key, wire in self.wires.items() if wire and wire[0][0] <= self.now]

    def tick(self) -> None:
        """Time passes; what is due arrives."""
        self.now += 1
        for key in list(self.wires):
            while (wire := self.wires.get(key)) and wire[0][1] < self.now:
                self.deliver(key)
        for node in self.nodes:
            if not self.resting:
                node.time_passes()
            node.transfers_pass()
            if (self.now + 3 * node.id) % BEAT == 0:
                node.beat()

    def step(self) -> None:
        """Something happens."""
        rng, roll = self.rng, self.rng.random()
        node = rng.choice(self.nodes)
        if roll < 0.45:
            busy = [key for key in self.busy() if key[:2] != self.slow or rng.random() < 0.03]
            if busy:
                self.deliver(rng.choice(busy))
        elif roll < 0.57:
            self.go_on()
        elif roll < 0.67:
            self.tick()
        elif roll < 0.86 or not self.faults or self.network == "flaps":
            self.use(node)
        elif roll < 0.99:
            self.disturb(node)
        else:
            self.crash(node.id)
        self.look_up(rng.choice(self.nodes))

    def go_on(self) -> None:
        """One of the things that are done in parts goes on."""
        parts = [(node, ident) for node in self.nodes for ident in node.parts()]
        if parts:
            node, ident = self.rng.choice(parts)
            if node.has_slices(ident) and (not node.has_more(ident) or self.rng.random() < 0.5):
                node.slice(ident)
            else:
                node.tell_more(ident)

    def use(self, node: Node) -> None:
        """Somebody uses a node."""
        rng = self.rng
        kind = rng.choices(("register", "end", "group", "resync", "transfer"), (55, 20, 8, 5, 12))[0]
        owned = [name for name in NAMES if node.own(name) is not None]
        if kind == "register":
            node.register(rng.choice(NAMES), wait=rng.random() < 0.7, timeout=rng.choice((2, 10, 1000)))
        elif kind == "end" and owned and rng.random() < 0.6:
            node.unregister(rng.choice(owned))
        elif kind == "end" and node.processes:
            node.process_exits(rng.choice(node.processes))
        elif kind == "transfer":
            self.hand_on()
        elif kind == "group":
            node.join_or_leave(rng.choice(GROUPS))
        elif kind == "resync":
            whole = [ident for ident in node.connected() if (m := node.peers[ident].mirror) is not None and m.complete]
            if whole:
                node.ask_resync(node.peers[rng.choice(whole)])

    def hand_on(self) -> None:
        """Somebody lets another have a name."""
        rng = self.rng
        held = [(node, name) for node in self.nodes for name in NAMES if node.ledger.is_confirmed(name)]
        if held:
            node, name = rng.choice(held)
            node.transfer(name, rng.choice(range(self.size)), rng.choice((1, 2, 4, 1000, 1000)))

    def lose_patience(self) -> None:
        """Who waits for a transfer waits no longer."""
        moving = [(node, name) for node in self.nodes for name in node.moving]
        if moving:
            node, name = self.rng.choice(moving)
            node.moving[name].deadline = self.now
            node.transfers_pass()

    def disturb(self, node: Node) -> None:
        """Something goes wrong."""
        rng = self.rng
        a, b = rng.choice(self.pairs())
        if rng.random() < 0.5:
            a, b = b, a
        kinds: dict[Callable[[], None], int] = {
            lambda: self.cut(a, b): 35,
            lambda: self.dial(a, b): 55,
            lambda: self.nodes[a].forget(b): 5,
        }
        if self.network == "corruption":
            kinds[lambda: self.corrupt(node)] = 40
        rng.choices(list(kinds), list(kinds.values()))[0]()

    def corrupt(self, node: Node) -> None:
        """An entry of a mirror, or of a view, or of both is dropped, altered or made up."""
        rng, key = self.rng, self.rng.choice(NAMES + GROUPS)
        whole = [
            (ident, peer, peer.mirror)
            for ident, peer in node.peers.items()
            if peer.mirror is not None and peer.mirror.complete and key not in peer.entering
        ]
        if not whole:
            return
        ident, peer, mirror = rng.choice(whole)
        value = mirror.table.get(key)
        if value is not None and rng.random() < 0.5:
            value = None
        elif key in GROUPS:
            value = frozenset(mirror.members(key) ^ {rng.randint(1, 3)}) or None
        elif isinstance(value, tuple):
            value = value[0]._replace(pid=99, stamp=rng.randint(0, 50)), rng.random() < 0.5
        else:
            position = rng.randint(0, mirror.position)
            value = Claim(rng.randint(0, 50), ident, mirror.creation, position, key, 99), rng.random() < 0.5
        self.counts["corrupted"] += 1
        what = rng.choice(("mirror", "view", "both"))
        if what != "view":
            mirror.put(key, value)
        if what != "mirror" and value:
            peer.shown[key] = value
        elif what != "mirror":
            peer.shown.pop(key, None)

    def deaths(self) -> None:
        """Holders die. Whoever finds a name free claims it; some find that out late, one may have a single peer."""
        rng = self.rng
        outsider, _, *others = rng.sample(range(self.size), self.size)
        if rng.random() < 0.7:
            for other in others:
                self.cut(outsider, other)
                self.cut(other, outsider)
        for name in NAMES:
            rng.choice(self.nodes).register(name, wait=True, timeout=1000)
        self.claim_and_wait(outsider, rng.choice((0, 3, 2 * PATIENCE)))
        for _ in range(rng.randint(1, 3)):
            holders = [node for node in self.nodes if any(node.own(name) for name in NAMES)]
            if holders:
                self.crash(rng.choice(holders).id, notice=rng.choice((PROMPT, DOWN_AFTER)))
            self.claim_and_wait(outsider, rng.choice((DOWN_AFTER, DOWN_AFTER + PATIENCE + BEAT)))

    def claim_and_wait(self, eager: int, ticks: int) -> None:
        """So much time passes, and some claim names that are free, one node more than others; rarely two meet."""
        for _ in range(ticks):
            heir = self.nodes[eager] if self.rng.random() < 0.4 else self.rng.choice(self.nodes)
            free = [name for name in NAMES if heir.whereis(name) is None]
            if free and heir.connected() and self.rng.random() < 0.6:
                heir.register(self.rng.choice(free), wait=True, timeout=1000)
            for _ in range(3):
                if busy := self.busy():
                    self.deliver(self.rng.choice(busy))
                self.go_on()
            self.tick()
            if self.rng.random() < 0.01:
                self.dial(*self.rng.choice(self.pairs()))

    def hand_around(self) -> None:
        """Names go from node to node; once in a while, links break or somebody else wants the names."""
        rng = self.rng
        for name in NAMES:
            rng.choice(self.nodes).register(name, wait=True, timeout=1000)
        for _ in range(rng.randint(20, 140)):
            roll = rng.random()
            if roll < 0.12:
                self.hand_on()
            elif roll < 0.14:
                self.lose_patience()
            elif roll < 0.7 and (busy := [key for key in self.busy() if key[:2] != self.slow or rng.random() < 0.1]):
                self.deliver(rng.choice(busy))
            elif roll < 0.74 and self.faults:
                self.disturb(rng.choice(self.nodes))
            elif roll < 0.8:
                self.step()
            elif roll < 0.88:
                self.tick()
            else:
                self.go_on()
                self.look_up(rng.choice(self.nodes))

    def flaps(self) -> None:
        """One link is cut and dialled again, and again; in between its ends are used."""
        rng = self.rng
        ends = list(rng.choice(self.pairs()))

        def meanwhile(most: int) -> None:
            for _ in range(rng.randint(0, most)):
                if rng.random() < 0.4:
                    self.use(self.nodes[rng.choice(ends)])
                self.step()

        def arrive(most: int) -> None:
            for _ in range(rng.randint(0, most)):
                if wires := [key for key in self.busy() if {*key[:2]} == {*ends}]:
                    self.deliver(rng.choice(wires))
                a, b = ends
                if self.nodes[a].has_more(b) and rng.random() < 0.5:
                    self.nodes[a].tell_more(b)
                rng.shuffle(ends)

        meanwhile(30)
        for _ in range(rng.randint(2, 8)):
            arrive(20)
            a, b = ends
            self.cut(a, b)
            if rng.random() < 0.1:
                self.nodes[b].forget(a)
            arrive(20)
            meanwhile(4)
            self.dial(a, b)
            arrive(6)
            if rng.random() < 0.1:
                self.nodes[b].forget(a)
            for _ in range(rng.randint(0, 8)):
                for _ in range(rng.choice((1, 2, 4))):
                    self.use(self.nodes[a])
                arrive(rng.choice((1, 2, 4)))
            meanwhile(12)

    def drain(self) -> None:
        """All that is under way goes on until nothing is."""
        for _ in range(ENOUGH):
            todo: list[tuple[Callable[..., None], Any]]
            todo = [(self.deliver, key) for key, wire in self.wires.items() if wire]
            for node in self.nodes:
                todo += [(node.tell_more, ident) for ident in node.peers if node.has_more(ident)]
                todo += [(node.slice, ident) for ident in node.peers if node.has_slices(ident)]
            if not todo:
                return
            self.rng.shuffle(todo)
            for act, what in todo:
                if act != self.deliver or self.wires.get(what):
                    act(what)
        self.violation("endless")

    def finish(self) -> None:
        """All links heal, everything arrives, heartbeats go on until what is disputed is settled."""
        self.resting = True
        self.drain()
        for _ in range(2):  # a session may still have been opening
            for a, b in self.pairs():
                if not self.together(a, b):
                    self.dial(a, b)
            self.drain()
        for beats in range(2 * PATIENCE // BEAT):
            disputed = any(len(node.found(name)) > 1 for node in self.nodes for name in NAMES)
            if beats >= 2 and not disputed and not any(node.moving for node in self.nodes):
                break
            for _ in range(BEAT):
                self.tick()
            self.drain()
        self.judge()

    # --- what must hold ---

    def violation(self, kind: str) -> None:
        self.violations[kind] += 1

    def count(self, kind: str) -> None:
        self.counts[kind] += 1

    def stamp(self, clock: int) -> int:
        """The stamp of a new claim."""
        return self.rng.choice((0, 1, self.rng.randint(0, 50), 2**62)) if self.wild else clock + 1

    def made(self, claim: Claim) -> None:
        """A claim is made."""
        self.events += 1
        self.made_at[claim] = self.events

    def gone(self, claim: Claim) -> None:
        """A claim ends, or its node dies."""
        self.events += 1
        self.gone_at[claim] = self.events

    def timed_out(self, claim: Claim) -> None:
        """A register has raised NotConfirmed."""
        self.counts["timed out"] += 1
        self.failed.add(claim)

    def confirmed(self, node: Node, claim: Claim, late: bool) -> None:
        """A claim is confirmed, its register returns."""
        kind = "inherited" if claim.after else "confirmed, not waited for" if late else "confirmed"
        self.counts[kind] += 1
        if claim.after is not None:
            self.inherited.add(claim.after)
            if claim.after in self.stays and self.network != "corruption":
                self.violation("split")
        self.just_confirmed.append((node, claim))
        if not self.replacing:
            self.check_confirmed()

    def check_confirmed(self) -> None:
        """Whoever is connected with the holder of a name just confirmed knows that."""
        for node, claim in self.just_confirmed:
            for other in self.nodes:
                if other is node or not self.together(node.id, other.id) or self.network == "corruption":
                    continue
                own = other.ledger.table.get(claim.name)
                found = other.whereis(claim.name)
                known = found is None or found.node == other.id or self.together(node.id, found.node)
                known &= found is None or found not in self.gone_at  # else what ends it is under way
                if found is not None and found.identity == claim.after:
                    continue  # it hears of its heir a moment later
                rival = isinstance(own, tuple) and own[1] and own[0].identity != claim.after
                if rival or (found != claim and (known or self.calm)):
                    self.violation("success")
        self.just_confirmed.clear()

    def released(self, node: Node, position: int) -> None:
        """An unregister returns."""
        self.counts["released"] += 1
        gone = self.entries[node.id, node.creation, position]
        assert isinstance(gone, Withdrawn)
        for name, made_at in gone.claims:
            for other in self.nodes:
                if other is not node and self.together(node.id, other.id) and self.network != "corruption":
                    found = other.whereis(name)
                    if found is not None and (found.node, found.position) == (node.id, made_at):
                        self.violation("released")

    def moves(self, claim: Claim) -> None:
        """A transfer begins."""
        self.stays.discard(claim.identity)

    def stayed(self, claim: Claim, sure: bool) -> None:
        """A transfer has failed; if that is not sure, the heir may be confirmed where its node does not see it."""
        self.counts["stayed" if sure else "stayed, in doubt"] += 1
        if sure:
            self.stays.add(claim.identity)
            if claim.identity in self.inherited and self.network != "corruption":
                self.violation("split")

    def moved(self, node: Node, old: Claim, new: Claim | None) -> None:
        """A transfer returns."""
        assert new is not None, "it has gone to somebody"
        self.counts["moved" if new.after == old.identity else "moved within a node"] += 1
        for other in self.nodes if self.network != "corruption" else ():
            if other is node or not self.together(node.id, other.id):
                continue
            found = other.whereis(old.name)
            both = new.node == other.id or self.together(new.node, other.id)
            on = found is not None and (found == new or found.after == new.identity)
            if found == old or (both and self.calm and new not in self.gone_at and not on):
                self.violation("moved")

    def yielded(
        self, node: Node, claim: Claim, confirmed: bool, winner: tuple[Claim, bool], contest: bool, waited: bool
    ) -> None:
        """A claim gives way to another: NameLost, NameTaken, or (nobody waits) NameTaken as a message."""
        rival, sure = winner
        if claim.after == rival.identity:
            self.violation("disowned")
        self.counts["lost" if confirmed else "taken" if waited else "taken, told by message"] += 1
        self.losses.add((claim, rival))
        if self.network == "corruption":
            return
        if (rival, claim) in self.losses:
            self.violation("wiped")
        if confirmed and rival > claim:
            self.violation("younger")
        if confirmed and self.calm:
            self.violation("robbed")
        if self.network == "deaths" and contest and self.gone_at.get(rival, inf) < self.made_at[claim]:
            met = node.lost.get(rival.node) == rival.creation
            if met or sure:
                self.violation("beaten")
            else:
                self.counts["beaten by a stranger"] += 1
        mirror = node.peers[rival.node].mirror
        if contest and mirror is not None and mirror.complete and mirror.creation == rival.creation:
            known = mirror.position >= rival.position
            if known and mirror.claim(rival.name) != rival:
                self.violation("fooled")

    def appears(self, node: Node, ident: int, claim: Claim) -> None:
        """A claim enters the views."""
        if self.gone_at.get(claim, inf) < self.began[self.links[node.id, ident]]:
            self.violation("risen")

    def acknowledged(self, node: Node, ident: int, position: int) -> None:
        """A node acknowledges an entry."""
        peer = node.peers[ident]
        entry = self.entries.get((ident, peer.creation or 0, position))
        if self.network == "corruption" or entry is None:
            return
        visible = {name: value[0] for name in NAMES if isinstance(value := peer.shown.get(name), tuple)}
        if isinstance(entry, Claimed):
            wrong = visible.get(entry.claim.name) != entry.claim
        elif isinstance(entry, Moved):
            name = entry.name
            wrong = name in visible and name not in peer.leaving and visible[name].position == entry.made_at
        else:
            wrong = not isinstance(entry, Withdrawn) or any(
                name in visible and name not in peer.leaving and visible[name].position == made_at
                for name, made_at in entry.claims
            )
        if wrong:
            self.violation("acknowledged")

    def diverged(self) -> None:
        """A mirror does not fit its ledger."""
        self.counts["diverged"] += 1
        if self.network != "corruption":
            self.violation("diverged")

    def look_up(self, node: Node) -> None:
        """Somebody looks a name up."""
        for name in NAMES:
            found = node.whereis(name)
            if found is not None and found.node != node.id and (node.id, found.node) not in self.links:
                self.violation("refused")
            for other in self.nodes if self.calm else ():
                own = other.ledger.table.get(name)
                if found is not None and isinstance(own, tuple):
                    if found.after == own[0].identity or found.identity == own[0].after:
                        continue  # one of the two is about to go
                    if (found.node, found.stamp) == (own[0].node, own[0].stamp):
                        continue  # it has moved within its node
                if isinstance(own, tuple) and own[1] and own[0] != found and self.together(node.id, other.id):
                    self.violation("vanished")

    def judge(self) -> None:
        """Look at the end of it."""
        nodes = self.nodes
        for name in NAMES:
            views = {node.whereis(name) for node in nodes}
            alive = [claim for claim in views if claim is not None]
            owned = [claim for node in nodes if (claim := node.own(name)) is not None]
            for kind, wrong in {
                "converge": len(views) > 1 and not self.strangers,
                "unique": len(owned) > 1 or any(len(node.found(name)) > 1 for node in nodes),
                "dead": any((c.node, c.creation, c.pid) in self.dead for c in alive),
                "stale": any(claim in self.gone_at for claim in alive),
                "ghost": any(claim in self.failed for claim in owned),
            }.items():
                if wrong:
                    self.violation(kind)
        for group in GROUPS:
            for node in nodes:
                members = node.members(group)
                if any((ident, nodes[ident].creation, pid) in self.dead for ident, pid in members):
                    self.violation("dead")
        if any(node.missing or node.awaited or node.moving for node in nodes):
            self.violation("hung")
        for a, b in [*self.pairs(), *((b, a) for a, b in self.pairs())]:
            peer, ledger = nodes[a].peers[b], nodes[b].ledger
            mirror = peer.mirror
            if (
                mirror is None
                or not mirror.complete
                or (mirror.creation, mirror.position, mirror.table) != (ledger.creation, ledger.position, ledger.table)
                or peer.shown != ledger.table
                or peer.staged is not None
                or peer.leaving
            ):
                self.violation("mirror")
