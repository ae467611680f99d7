"""Each rule of the checker catches a history that breaks it, and lets pass the one beside it that does not."""

import pytest
from msgspec.structs import replace

from tests.histories.checker import check
from tests.histories.history import (
    Apart,
    Bounds,
    Exit,
    Fault,
    Gone,
    Happening,
    History,
    Lookup,
    Lost,
    Register,
    Rest,
    Unregister,
)

ADA, BOB, CARL = "ada@h:1", "bob@h:2", "carl@h:3"
P, Q, R = f"{ADA}/1/5", f"{BOB}/1/6", f"{CARL}/1/7"
BOUNDS = Bounds(hop=0.1, silence=6.0)
ALL = frozenset((ADA, BOB, CARL))
REST = Rest(ALL, 1.0, 1.0)
HELD = Register("x", P, 2.0, 2.1, "held")


def look(node: str, pid: str | None, at: float, name: str = "x") -> Lookup:
    return Lookup(node, name, pid, at, at)


def fault(one: str, other: str, at: float) -> Fault:
    return Fault(frozenset((one, other)), at)


def apart(one: str, other: str, began: float, ended: float = float("inf")) -> Apart:
    return Apart(frozenset((one, other)), began, ended)


def rest(at: float) -> Rest:
    return Rest(ALL, at, at)


# Each is one line or a few: what happened, in order.
# fmt: off
WRONG: dict[str, tuple[str, list[Happening]]] = {
    "a name of somebody who never had it": ("made up", [HELD, look(BOB, Q, 3.0)]),
    "a process that is registered only later": ("made up", [look(BOB, P, 1.5), HELD]),
    "a refusal for somebody who never had it": ("made up", [Register("x", P, 2.0, 2.1, "failed", holder=Q)]),
    "both of a race": ("two holders", [REST, HELD, Register("x", Q, 2.0, 2.2, "held")]),
    "a second while the first lives": ("two holders", [REST, HELD, Register("x", Q, 5.0, 5.1, "held")]),
    "two after a partition is healed": (
        "two holders",
        [REST, apart(ADA, BOB, 1.5, 4.0), HELD, Register("x", Q, 2.0, 2.2, "held"), rest(9.0)],
    ),
    "two that have a neighbour": (
        "two holders",
        [
            Rest(frozenset((ADA, CARL)), 1.0, 1.0), Rest(frozenset((BOB, CARL)), 1.0, 1.0),
            HELD, Register("x", Q, 2.0, 2.2, "held"),
        ],
    ),
    "two of one node": ("two holders", [HELD, Register("x", f"{ADA}/1/9", 3.0, 3.1, "held")]),
    "a node that does not see it": ("missed", [REST, HELD, look(CARL, None, 2.2)]),
    "a node that sees another": (
        "missed",
        [REST, Register("x", R, 1.1), HELD, look(CARL, R, 2.2)],
    ),
    "a node that sees one who had it before a partition": (
        "missed",
        [REST, Register("x", R, 1.1), apart(ADA, CARL, 1.2), apart(BOB, CARL, 1.2), HELD, look(BOB, None, 2.2)],
    ),
    "one's own dead": ("dead", [HELD, Exit(P, 3.0, 3.0), look(ADA, P, 3.001)]),
    "a peer's dead, after a hop": ("dead", [REST, HELD, Exit(P, 3.0, 3.0), look(BOB, P, 3.2)]),
    "a process of a node that is gone": ("dead", [REST, HELD, Gone(f"{ADA}/1", 3.0), look(BOB, P, 3.2)]),
    "a process of a node that was parted from others after its end": (
        "dead", [REST, HELD, Gone(f"{ADA}/1", 3.0), apart(ADA, BOB, 3.3, 4.0), look(BOB, P, 3.2)],
    ),
    "a process of a node that is silent": ("dead", [REST, HELD, Gone(f"{ADA}/1", 3.0, silent=True), look(BOB, P, 9.2)]),
    "a process beyond a partition": ("dead", [REST, HELD, apart(ADA, BOB, 3.0), look(BOB, P, 9.2)]),
    "what was given up": ("withdrawn", [REST, HELD, Unregister("x", P, 3.0, 3.1, done=True), look(BOB, P, 3.11)]),
    "what was forgotten, again": (
        "resurrected",
        [REST, HELD, fault(ADA, BOB, 2.5), Exit(P, 3.0, 3.0), look(BOB, None, 3.05), look(BOB, P, 3.06)],
    ),
    "two tables at rest": (
        "at odds",
        [Register("x", P, 0.5), look(ADA, P, 1.0), look(BOB, None, 1.0), REST],
    ),
    "a name taken without a fault": ("robbed", [REST, HELD, Register("x", Q, 3.0), Lost("x", P, 4.0)]),
    "a loss that nobody tells": (
        "not told",
        [REST, apart(ADA, BOB, 1.5, 4.0), HELD, Register("x", Q, 1.6, 1.7, "held"), rest(9.0), look(ADA, Q, 9.0)],
    ),
    "a loss told twice": (
        "not told",
        [REST, apart(ADA, BOB, 1.5, 4.0), HELD, Lost("x", P, 5.0), Lost("x", P, 5.1)],
    ),
}

RIGHT: dict[str, list[Happening]] = {
    "an older claim beyond a healed partition, given up before the younger one's holder has heard of it": [
        REST, apart(BOB, CARL, 1.5, 3.0), apart(ADA, BOB, 1.5, 3.0), Register("x", Q, 1.9, 2.0, "held"), HELD,
        look(CARL, Q, 3.2), Unregister("x", Q, 3.2, 3.3, done=True), look(CARL, P, 3.4),
    ],
    "a life": [
        REST, HELD, look(ADA, P, 2.2), look(BOB, P, 2.2), Register("x", Q, 3.0, 3.1, "failed", holder=P),
        Exit(P, 4.0, 4.0), look(ADA, None, 4.01), look(BOB, P, 4.05), look(BOB, None, 4.2),
        Register("x", Q, 5.0, 5.1, "held"), look(CARL, Q, 5.2), rest(6.0), look(ADA, Q, 6.0), look(BOB, Q, 6.0),
    ],
    "while it is not confirmed": [REST, replace(HELD, ended=9.0), look(BOB, P, 2.1), look(CARL, None, 2.2)],
    "one that is killed twice": [
        REST, HELD, Exit(P, 3.0, 3.1), Exit(P, 8.0, 8.1), Register("x", Q, 3.2, 3.3, "held"), look(CARL, Q, 4.0),
    ],
    "one on each side of a partition, and the younger is told": [
        REST, apart(ADA, BOB, 1.5, 4.0), HELD, Register("x", Q, 2.0, 2.2, "held"), Lost("x", Q, 4.5),
        look(BOB, P, 4.6), rest(9.0), look(ADA, P, 9.0), look(BOB, P, 9.0),
    ],
    "one of a partition, whose end takes it away before anything else happens": [
        REST, apart(ADA, BOB, 1.5, 4.0), HELD, Register("x", Q, 1.6, 1.7, "held"), look(ADA, Q, 4.2),
        Register("x", R, 4.8, 4.9, "held"), fault(ADA, CARL, 5.0), Lost("x", P, 6.0), Exit(Q, 4.5, 4.5), rest(9.0),
    ],
    "beyond a partition, until the silence is noticed": [REST, HELD, apart(ADA, BOB, 3.0), look(BOB, P, 9.05)],
    "and again when it is over": [
        REST, HELD, apart(ADA, BOB, 3.0, 12.0), look(BOB, None, 11.0), look(BOB, P, 12.1),
    ],
    "a process of a node whose silence nobody has noticed yet": [
        REST, HELD, Gone(f"{ADA}/1", 3.0, silent=True), look(BOB, P, 9.0),
    ],
    "a process of a node whose end could not be told any more": [
        REST, HELD, Gone(f"{ADA}/1", 3.0), apart(ADA, BOB, 3.01, 4.0), look(BOB, P, 5.0),
    ],
    "a node that is not at rest with the holder's": [HELD, look(BOB, None, 5.0)],
    "what is being given up": [REST, HELD, Unregister("x", P, 3.0, 3.1, done=True), look(BOB, P, 3.05)],
    "what was given up and is held anew": [
        REST, HELD, Unregister("x", P, 3.0, 3.1, done=True), look(BOB, None, 3.2), Register("x", P, 4.0, 4.1, "held"),
        look(BOB, P, 4.2),
    ],
    "two that have no neighbour in peace with both": [
        Rest(frozenset((ADA, CARL)), 1.0, 1.0), Rest(frozenset((BOB, CARL)), 1.0, 1.0), fault(BOB, CARL, 1.1),
        HELD, Register("x", Q, 2.0, 2.2, "held"),
    ],
    "one after the other": [
        REST, HELD, Unregister("x", P, 3.0, 3.3, done=True), Register("x", Q, 3.1, 3.2, "held"), look(CARL, Q, 3.4),
    ],
    "a successor of a node that is gone": [
        REST, HELD, Gone(f"{ADA}/1", 3.0), fault(ADA, BOB, 3.0), Register("x", Q, 3.05, 3.2, "held"),
    ],
}
# fmt: on


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_history_is_caught_by_its_rule(what: str):
    rule, happened = WRONG[what]
    violations = check(History(BOUNDS, happened))
    assert rule in {violation.partition(":")[0] for violation in violations}, violations


@pytest.mark.parametrize("what", RIGHT)
def test_a_history_that_is_allowed_passes(what: str):
    assert check(History(BOUNDS, RIGHT[what])) == []


def test_every_rule_has_a_history_that_breaks_it():
    import tests.histories.checker as checker

    assert checker.__doc__ is not None
    rules = {line[4:16].strip() for line in checker.__doc__.splitlines() if line.startswith("    ") and line[4] != " "}
    assert rules == {rule for rule, _ in WRONG.values()}
