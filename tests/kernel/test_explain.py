"""Why a name is where it is: what was done to it is what each node says of it afterwards.

Each seed draws who is who, and how long messages take. Then a cause is brought about, as in a transcript,
and what the nodes print is compared with it.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from kinfolk import effects as fx
from kinfolk.core.explain import Explanation, lines
from kinfolk.core.history import History
from kinfolk.kernel import Kernel
from kinfolk.tempo import Settings
from kinfolk.wire import frames
from tests.kernel.test_replication import BOB, CARL, Ada, synced
from tests.kernel.transcript import Stage
from tests.simulation.world import World


class Gentle(random.Random):
    """Chance, but for closed connections that are reset: what a node has said last arrives."""

    def random(self) -> float:
        return 0.2 + 0.8 * super().random()


class Seeded(Stage):
    """A stage on which everything takes as long as it happens to take."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        old = self.world
        self.world = self.reporter.world = World(
            rng, old.settings, self.reporter, names_type=old.names_type, delay=old.delay
        )

    def explain(self, node: str, name: str = "x") -> Explanation:
        return self._node(node).kernel.explain(name)

    def exits(self, node: str, local: int, reason: str) -> None:
        """A process ends for this reason."""
        self._node(node).processes.discard(local)
        self.world.feed(self._node(node), fx.ProcessExited(local, reason))
        self.wait("0.5")


class Scene:
    """Three nodes that are connected, `a`, `b` and `c`: which of the hosts each is, the seed has drawn."""

    def __init__(self, seed: int) -> None:
        rng = Gentle(seed)
        self.stage = Seeded(rng)
        self.a, self.b, self.c = self.hosts = rng.sample(["ada", "bob", "carl"], 3)
        self.does("start ada bob carl")
        self.does("wait 1")

    def does(self, *commands: str) -> None:
        """Carry out commands of a transcript; a, b and c in braces are the nodes."""
        for command in commands:
            self._play(command.format(a=self.a, b=self.b, c=self.c))

    def _play(self, line: str) -> None:
        for command in line.split(";"):
            word, *words = command.split()
            getattr(self.stage, word)(*words)
        if not line.startswith("wait"):
            self.stage.wait("0.5")

    def pid(self, node: str, number: int = 1) -> str:
        start = self.stage.world.hosts[node].creation
        return f"{node}@{node}:1/{start:x}/{number}"

    def last(self, node: str, name: str = "x") -> str:
        """The last line of what a node prints of a name."""
        explanation = self.stage.explain(node, name)
        told = explanation.builtins()
        assert str(explanation).splitlines() == lines(told)
        return lines(told)[-1].partition("  ")[2].lstrip().partition("  ")[2]

    def printed(self, node: str, name: str = "x") -> str:
        return str(self.stage.explain(node, name))

    def holder(self, node: str, name: str = "x") -> str | None:
        holder = self.stage.explain(node, name).holder
        return None if holder is None else str(holder)


def unregistered(scene: Scene) -> None:
    scene.does("register {a} x", "unregister {a} x")
    pid = scene.pid(scene.a)
    assert scene.last(scene.a) == f"unregistered: {pid} lost it: it was unregistered"
    for node in (scene.b, scene.c):
        name = pid.partition("/")[0]
        assert scene.last(node) == f"withdrawn: {name} withdrew the claim of {pid}: it can tell why"


def unregistered_from_afar(scene: Scene) -> None:
    scene.does("register {a} x", "unregister {b} x")
    assert scene.last(scene.a) == f"unregistered: {scene.pid(scene.a)} lost it: it was unregistered"


def killed(scene: Scene) -> None:
    scene.does("register {a} x")
    scene.stage.exits(scene.a, 1, "killed")
    assert scene.last(scene.a) == f"exited: {scene.pid(scene.a)} lost it: the process exited (killed)"
    assert scene.last(scene.b).startswith(f"withdrawn: {scene.a}@{scene.a}:1 withdrew")


def crashed_with_many_names(scene: Scene) -> None:
    """So many that they go in slices."""
    many = 2 * scene.stage.world.settings.step + 7
    pid = scene.stage._node(scene.a).spawn()
    for number in range(many):
        scene.stage.reporter.register(scene.stage._node(scene.a), f"x{number}", pid, wait=False, timeout=5.0)
    scene.does("wait 1")
    scene.stage.exits(scene.a, 1, "ValueError: no")
    for number in (0, many - 1):
        assert scene.last(scene.a, f"x{number}").endswith("the process exited (ValueError: no)")
        assert scene.last(scene.b, f"x{number}").startswith("withdrawn: ")


def node_crashed(scene: Scene) -> None:
    scene.does("register {a} x")
    pid = scene.pid(scene.a)
    scene.does("crash {a}")
    for node in (scene.b, scene.c):
        assert (
            scene.last(node)
            == f"peer lost: {pid.partition('/')[0]} was lost, and {pid} with it (the connection was closed)"
        )


def node_silent(scene: Scene) -> None:
    scene.does("register {a} x")
    pid = scene.pid(scene.a)
    scene.does("crash {a} unseen by {b} {c}", "wait 6")
    for node in (scene.b, scene.c):
        text = scene.last(node)
        assert text.startswith(f"peer lost: {pid.partition('/')[0]} was lost, and {pid} with it (heard nothing for 3")


def node_left(scene: Scene) -> None:
    scene.does("register {a} x")
    pid = scene.pid(scene.a)
    scene.does("leave {a}")
    for node in (scene.b, scene.c):
        assert scene.last(node) == f"peer left: {pid.partition('/')[0]} left the cluster, and {pid} with it"


def node_closed(scene: Scene) -> None:
    scene.does("register {a} x")
    pid = scene.pid(scene.a)
    scene.does("close {a}")
    for node in (scene.b, scene.c):
        assert (
            f"peer lost: {pid.partition('/')[0]} was lost, and {pid} with it (it ended the session (closed)"
            in scene.last(node)
        )


def started_anew(scene: Scene) -> None:
    """Before anybody has noticed that the old start is gone."""
    scene.does("register {a} x")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    scene.does("crash {a} unseen by {b} {c}; restart {a}", "wait 1")
    for node in (scene.b, scene.c):
        assert f"superseded: {name} was started anew, and {pid} is dead" in scene.printed(node)
        assert scene.last(node) == f"peer up: {name} came"


def came_back_with_it(scene: Scene) -> None:
    scene.does("register {a} x")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    scene.does("cut {a} {b}", "wait 2")
    assert scene.holder(scene.b) == pid
    text = scene.printed(scene.b).splitlines()
    lost = next(number for number, line in enumerate(text) if "peer lost: " in line)
    assert f"{name} was lost, and {pid} with it" in text[lost] and f"peer up: {name} came" in text[lost + 1]
    assert "peer lost" not in scene.printed(scene.c)


def two_holders_after_a_partition(scene: Scene) -> None:
    scene.does("part {a} {b}; part {a} {c}", "wait 4", "register {a} x", "register {b} x message")
    first, second = scene.pid(scene.a), scene.pid(scene.b)
    assert (scene.holder(scene.a), scene.holder(scene.b), scene.holder(scene.c)) == (first, second, second)
    scene.does("heal {a} {b}; heal {a} {c}", "wait 3")
    lost = f"  lost: {second} lost it to {first}, whose claim stood before it; it was told so by NameLost\n"
    gone = f"  withdrawn: {scene.b}@{scene.b}:1 withdrew the claim of {second}"
    assert [lost in scene.printed(node) + "\n" for node in scene.hosts] == [False, True, False]
    assert [gone in scene.printed(node) for node in scene.hosts] == [True, False, True]
    assert f"{gone}, before which that of {first} stood: " in scene.printed(scene.a)  # the third may not see it yet
    assert [scene.holder(node) for node in scene.hosts] == [first] * 3


def race_lost(scene: Scene) -> None:
    """The two claim it in the same moment."""
    scene.does("register {a} x; register {b} x")
    holder = scene.holder(scene.c)
    winner, loser = (scene.a, scene.b) if holder == scene.pid(scene.a) else (scene.b, scene.a)
    text = f"yielded: the claim of {scene.pid(loser)} was withdrawn before it was confirmed: that of {holder} stood"
    assert text in scene.printed(loser)
    assert f"that of {holder} stood" in scene.printed(winner)


def not_confirmed_in_time(scene: Scene) -> None:
    scene.does("silence {a} {b}; register {a} x timeout 1", "wait 0.1")
    (claim,) = scene.stage.explain(scene.a).claims
    b, c = f"{scene.b}@{scene.b}:1", f"{scene.c}@{scene.c}:1"
    assert (claim.state, claim.missing, claim.acknowledged) == ("waiting", (b,), (c,))
    (seen,) = scene.stage.explain(scene.c).claims
    assert (seen.state, seen.acknowledged, seen.missing) == ("acknowledged", (c,), ())
    scene.does("wait 1")
    assert scene.last(scene.a) == (
        f"unconfirmed: the claim of {scene.pid(scene.a)} was withdrawn: {b} did not acknowledge it in time"
    )


def moved_to_another_node(scene: Scene) -> None:
    scene.does("register {a} x", "transfer {c} x to {b}", "wait 1")
    old, new = scene.pid(scene.a), scene.pid(scene.b)
    assert f"handed over: it has moved from {old} to {new}" in scene.printed(scene.a)
    assert f"withdrew the claim of {old}" in scene.printed(scene.c)  # it may hear of the new one only after that
    assert [scene.holder(node) for node in scene.hosts] == [new] * 3


def moved_within_a_node(scene: Scene) -> None:
    scene.does("register {a} x", "transfer {a} x to {a}", "wait 1")
    name, new = f"{scene.a}@{scene.a}:1", scene.pid(scene.a, 2)
    for node in scene.hosts:
        assert scene.last(node) == f"moved: {name} gave it to its process {new}"


def revoked(scene: Scene) -> None:
    """The name was to move, and did not in time."""
    scene.does("register {a} x", "part {b} {c}; transfer {a} x to {b} timeout 1", "wait 1")
    assert scene.holder(scene.a) == scene.holder(scene.c) == scene.pid(scene.a)
    assert scene.last(scene.b) == (
        f"revoked: the claim of {scene.pid(scene.b)} was withdrawn: the name is not to move there any more"
    )


def orphaned(scene: Scene) -> None:
    """The holder died while its name was on its way."""
    scene.does("register {a} x", "part {b} {c}; transfer {a} x to {b}")
    assert [info.state for info in scene.stage.explain(scene.a).claims] == ["moving", "held back"]
    scene.stage.exits(scene.a, 1, "killed")
    assert scene.last(scene.b) == (
        f"orphaned: the claim of {scene.pid(scene.b)} was withdrawn: the claim that it was to succeed is gone"
    )


def abandoned(scene: Scene) -> None:
    """Whoever registered it was cancelled."""
    scene.does("silence {a} {b}; register {a} x")
    orders = scene.stage.reporter.orders
    scene.stage.reporter.abandon(orders[max(orders)])
    assert scene.last(scene.a) == (
        f"abandoned: the claim of {scene.pid(scene.a)} was withdrawn: nobody waited for it any longer"
    )


def exited_before_it_was_confirmed(scene: Scene) -> None:
    scene.does("silence {a} {b}; register {a} x", "wait 0.1")
    scene.stage.exits(scene.a, 1, "killed")
    assert scene.last(scene.a) == f"exited: {scene.pid(scene.a)} lost it: the process exited (killed)"
    assert "confirmed: " not in scene.printed(scene.a)


def not_confirmed_by_either(scene: Scene) -> None:
    scene.does("silence {a} {b}; silence {a} {c}; register {a} x timeout 1", "wait 2")
    b, c = sorted(f"{node}@{node}:1" for node in (scene.b, scene.c))
    assert scene.last(scene.a) == (
        f"unconfirmed: the claim of {scene.pid(scene.a)} was withdrawn: {b} and {c} did not acknowledge it in time"
    )


def died_and_another_took_it(scene: Scene) -> None:
    scene.does("register {a} x")
    scene.stage.exits(scene.a, 1, "killed")
    scene.does("register {b} x")
    new = scene.pid(scene.b)
    assert f"exited: {scene.pid(scene.a)} lost it: the process exited (killed)" in scene.printed(scene.a)
    for node in scene.hosts:
        assert scene.holder(node) == new and scene.last(node) == f"confirmed: the claim of {new} was confirmed"


def stopped_and_went_on(scene: Scene) -> None:
    scene.does("register {a} x", "stop {a} 8", "wait 12")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    for node in (scene.b, scene.c):
        assert scene.holder(node) == pid and scene.last(node) == f"peer up: {name} came"
        assert f"peer lost: {name} was lost, and {pid} with it (heard nothing for 3" in scene.printed(node)
    assert "peer lost" not in scene.printed(scene.a)


def left_and_returned(scene: Scene) -> None:
    scene.does("register {a} x")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    scene.does("leave {a}", "restart {a}", "wait 2")
    for node in (scene.b, scene.c):
        assert scene.holder(node) is None and scene.last(node) == f"peer up: {name} came"
        assert f"peer left: {name} left the cluster, and {pid} with it" in scene.printed(node)


def crashed_and_returned(scene: Scene) -> None:
    """When everybody had noticed."""
    scene.does("register {a} x")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    scene.does("crash {a}", "wait 2", "restart {a}", "wait 2")
    for node in (scene.b, scene.c):
        assert scene.holder(node) is None and scene.last(node) == f"peer up: {name} came"
        assert f"peer lost: {name} was lost, and {pid} with it (the connection was closed)" in scene.printed(node)
        assert "superseded" not in scene.printed(node)


def lost_to_one_alone(scene: Scene) -> None:
    """The way between two of three is shut."""
    scene.does("register {a} x", "part {a} {b}", "wait 6")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    assert scene.last(scene.b).startswith(f"peer lost: {name} was lost, and {pid} with it (heard nothing for 3")
    assert (scene.holder(scene.b), scene.holder(scene.c)) == (None, pid)
    assert scene.last(scene.c) == f"confirmed: the claim of {pid} was confirmed"


def unregistered_behind_a_partition(scene: Scene) -> None:
    scene.does("register {a} x", "part {a} {b}", "wait 5", "unregister {a} x", "heal {a} {b}", "wait 4")
    pid, name = scene.pid(scene.a), f"{scene.a}@{scene.a}:1"
    assert scene.last(scene.a) == f"unregistered: {pid} lost it: it was unregistered"
    assert scene.last(scene.c) == f"withdrawn: {name} withdrew the claim of {pid}: it can tell why"
    assert f"peer lost: {name} was lost, and {pid} with it (heard nothing" in scene.printed(scene.b)
    assert scene.holder(scene.b) is None


def three_holders_after_a_partition(scene: Scene) -> None:
    scene.does("part {a} {b}; part {a} {c}; part {b} {c}", "wait 5", "register {a} x")
    scene.does("register {b} x message", "register {c} x message")
    first, *others = (scene.pid(node) for node in scene.hosts)
    scene.does("heal {a} {b}; heal {a} {c}; heal {b} {c}", "wait 4")
    assert [scene.holder(node) for node in scene.hosts] == [first] * 3
    for node, own in zip((scene.b, scene.c), others, strict=True):
        assert f"lost: {own} lost it to " in scene.printed(node) and "it was told so by NameLost" in scene.printed(node)
    assert "lost it to" not in scene.printed(scene.a)


def heir_died(scene: Scene) -> None:
    """The one that the name was on its way to."""
    scene.does("register {a} x", "part {b} {c}; transfer {a} x to {b}")
    scene.stage.exits(scene.b, 1, "killed")
    heir = scene.pid(scene.b)
    assert scene.last(scene.b) == f"exited: {heir} lost it: the process exited (killed)"
    assert f"withdrew the claim of {heir}, before which that of {scene.pid(scene.a)} stood" in scene.last(scene.a)
    assert scene.holder(scene.a) == scene.holder(scene.c) == scene.pid(scene.a)


def heir_crashed(scene: Scene) -> None:
    """The node that the name was on its way to."""
    scene.does("register {a} x", "part {b} {c}; transfer {a} x to {b}")
    heir = scene.pid(scene.b)
    scene.does("crash {b}", "wait 2")
    name = f"{scene.b}@{scene.b}:1"
    assert scene.last(scene.a) == f"peer lost: {name} was lost, and {heir} with it (the connection was closed)"
    assert scene.holder(scene.a) == scene.holder(scene.c) == scene.pid(scene.a)


def crashed_while_it_moved(scene: Scene) -> None:
    """The node that the name was to leave."""
    scene.does("register {a} x", "part {b} {c}; transfer {a} x to {b}")
    pid, heir = scene.pid(scene.a), scene.pid(scene.b)
    scene.does("crash {a}", "wait 1")
    gone = f"peer lost: {scene.a}@{scene.a}:1 was lost, and {pid} with it (the connection was closed)"
    assert scene.last(scene.c) == gone and gone in scene.printed(scene.b)
    assert scene.last(scene.b) == (
        f"orphaned: the claim of {heir} was withdrawn: the claim that it was to succeed is gone"
    )


SCENES: list[Callable[[Scene], Any]] = [
    unregistered, unregistered_from_afar, killed, crashed_with_many_names, node_crashed, node_silent, node_left,
    node_closed, started_anew, came_back_with_it, two_holders_after_a_partition, race_lost, not_confirmed_in_time,
    moved_to_another_node, moved_within_a_node, revoked, orphaned, abandoned, exited_before_it_was_confirmed,
    not_confirmed_by_either, died_and_another_took_it, stopped_and_went_on, left_and_returned, crashed_and_returned,
    lost_to_one_alone, unregistered_behind_a_partition, three_holders_after_a_partition, heir_died, heir_crashed,
    crashed_while_it_moved,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(2 * len(SCENES)))
def test_what_is_printed_as_the_cause_is_the_cause(seed: int):
    scene = Scene(seed)
    SCENES[seed % len(SCENES)](scene)
    assert scene.stage.reporter.violations == []


def test_names_that_come_many_at_once_drive_out_nothing():
    ada = Ada()
    ada.kernel.history = History(room=10)
    names = [f"x{number}" for number in range(100)]

    def whats(name: str) -> list[str]:
        return [event.what for event in ada.kernel.explain(name).history]

    ada.open(CARL, synced())
    ada.say(CARL, frames.NameClaimed(1, "db", 1, 5))
    ada.open(BOB, synced(*names))
    ada.finish()
    assert (whats("db"), whats("x7")) == (["claimed"], ["peer up"])
    ada.close(BOB)
    ada.finish()
    assert (whats("db"), whats("x7")) == (["claimed"], ["peer up", "peer lost"])
    # It comes back, and goes on where it was: what has gone meanwhile is worth a line, what has come is there to see.
    ada.open(BOB, frames.LedgerResumed(100, 131))
    ada.say(BOB, *(frames.NameClaimed(101 + number, f"y{number}", 1, 5) for number in range(30)))
    ada.say(BOB, frames.NamesWithdrawn(131, ["x7"], [8]))
    ada.finish()
    assert (whats("db"), whats("y7")) == (["claimed"], ["peer up"])
    assert whats("x7") == ["peer lost", "peer up", "withdrawn"]


def test_what_is_news_is_remembered_also_if_it_comes_with_the_end_of_a_catch_up():
    ada = Ada()
    ada.open(BOB, synced("old"))
    ada.close(BOB)
    ada.finish()
    ada.open(BOB, frames.LedgerResumed(1, 2))
    claims = [frames.NameClaimed(2, "missed", 1, 5), frames.NameClaimed(3, "news", 1, 6)]
    confirmations = [frames.NameConfirmed(4, "news", 3), frames.NameConfirmed(5, "old", 1)]
    ada.handle(fx.Received(ada.conns[BOB], [*claims, *confirmations]))
    ada.finish()
    assert [event.what for event in ada.kernel.explain("news").history] == ["claimed", "confirmed"]
    assert [event.what for event in ada.kernel.explain("missed").history] == ["peer up"]

    ada.close(BOB)
    ada.finish()
    ada.open(BOB, frames.LedgerResumed(5, 6))
    confirmations = [frames.NameConfirmed(6, "missed", 2), frames.NameConfirmed(7, "news", 3)]
    ada.handle(fx.Received(ada.conns[BOB], confirmations))
    ada.finish()
    assert ada.kernel.explain("missed").history[-1].what == "peer up"
    assert ada.kernel.explain("news").history[-1].what == "confirmed"


def test_what_is_claimed_while_a_peer_tells_all_anew_is_remembered():
    ada = Ada(step=1)
    ada.open(BOB, synced("a", "b", "c"))
    ada.close(BOB)  # its names are still on their way out
    part = frames.LedgerSynced(1, 3, False, ["a", "b", "c"], [1] * 3, [1, 2, 3], [1] * 3, [True] * 3)
    ada.open(BOB, part, frames.NameClaimed(4, "news", 1, 6))
    assert BOB in ada.names.staged
    ada.say(BOB, frames.LedgerSynced(1, 4, True, [], [], [], [], []))
    ada.finish()
    assert [event.what for event in ada.kernel.explain("news").history] == ["claimed"]


def test_what_was_registered_for_another_node_that_gave_up_meanwhile_is_unwanted():
    ada = Ada()
    ada.open(BOB, synced())
    ada.open(CARL, synced())
    ada.say(BOB, frames.RegistrationAsked(5, "db", 1, 9000, "exit"))
    for peer in (BOB, CARL):
        ada.say(peer, frames.Acknowledged([1]))
    ada.say(BOB, frames.AskSettled(5, False))
    history = ada.kernel.explain("db").history
    assert [event.what for event in history] == ["claimed", "confirmed", "unwanted"]
    assert history[-1].text.endswith("the node that had asked for it wants it no longer")


def test_what_an_outside_authority_decides_is_said_to_be_its_word():
    kernel = Kernel("ada@h:1", 7, Settings(), random.Random(1), authority="etcd://h:2379")
    told = kernel.explain("db")
    assert (told.rule, told.holder, told.claims) == ("authority", None, ())
    assert "etcd://h:2379" in told.because
