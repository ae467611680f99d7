"""What supervisors decide, told as scripts: ``what happens -> what is done about it``.

`+a` start a, `-a` stop a, `~a` pause with a, `!a` drop a. The end: `over` as it was told to, `gives up on a` after
too many restarts, `fails on a` at the start.
"""

import pytest

from kinfolk.core.restarts import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Action,
    Dropped,
    End,
    Over,
    Pause,
    Restart,
    Restarts,
    Start,
    State,
    Stop,
    Strategy,
    pause,
)

POLICIES: dict[str, Restart] = {"p": "permanent", "t": "transient", "x": "temporary"}
STRATEGIES: dict[str, Strategy] = {"one": "one_for_one", "all": "one_for_all", "rest": "rest_for_one"}


def told(action: Action) -> str:
    match action:
        case Start(child):
            return f"+{child}"
        case Stop(child):
            return f"-{child}"
        case Pause(child):
            return f"~{child}"
        case Dropped(child):
            return f"!{child}"
        case Over(None):
            return "over"
        case Over(failed, opening):
            return f"fails on {failed}" if opening else f"gives up on {failed}"


class Told:
    """A supervisor of children "a:p b:t" (permanent, transient), with a clock that stands unless it is told to go."""

    def __init__(self, strategy: str, children: str, intensity: int = 3) -> None:
        pairs = [child.split(":") for child in children.split()]
        self.restarts = Restarts([(name, POLICIES[kind]) for name, kind in pairs], STRATEGIES[strategy], intensity, 5.0)
        self.now = 0.0

    def happens(self, what: str) -> str:
        verb, _, name = what.partition(" ")
        restarts = self.restarts
        match verb:
            case "begin":
                actions = restarts.begin()
            case "stop":
                actions = restarts.stop()
            case "started":
                actions = restarts.started(name)
            case "standby":
                actions = restarts.stands_by(name)
            case "normal" | "crash" | "trouble":
                actions = restarts.ended(name, End(verb), self.now)
            case "due":
                actions = restarts.due(name)
            case "add":
                name, _, kind = name.partition(":")
                actions = restarts.add(name, POLICIES[kind])
            case "remove":
                actions = restarts.remove(name)
            case "after":
                self.now += float(name)
                actions = []
            case _:
                raise AssertionError(what)
        return " ".join(map(told, actions))

    def run(self, script: str) -> None:
        for line in script.strip().splitlines():
            what, _, expected = line.partition("->")
            done = self.happens(what.strip())
            assert done == expected.strip(), f"{line.strip()!r}, but it did {done!r}"


def running(strategy: str, children: str, intensity: int = 3) -> Told:
    """All children of it have been started."""
    supervisor = Told(strategy, children, intensity)
    done = supervisor.happens("begin")
    while done:
        done = supervisor.happens(f"started {done.removeprefix('+')}")
    return supervisor


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_children_start_in_order_and_stop_in_the_opposite_order(strategy: str):
    Told(strategy, "a:p b:p c:p").run("""
        begin     -> +a
        started a -> +b
        started b -> +c
        started c ->
        stop      -> -c
        normal c  -> -b
        crash b   -> -a
        normal a  -> over
        stop      ->
    """)


# What a child of each policy does when it ends in each way: alone, under one_for_one.
ENDS = [
    ("p", "normal", "+a", State.STARTING),
    ("p", "crash", "+a", State.STARTING),
    ("p", "trouble", "~a", State.WAITING),
    ("t", "normal", "", State.DONE),
    ("t", "crash", "+a", State.STARTING),
    ("t", "trouble", "~a", State.WAITING),
    ("x", "normal", "!a", None),
    ("x", "crash", "!a", None),
    ("x", "trouble", "!a", None),
]


@pytest.mark.parametrize(("policy", "end", "done", "state"), ENDS, ids=[f"{row[0]}-{row[1]}" for row in ENDS])
def test_whether_a_child_runs_again(policy: str, end: str, done: str, state: State | None):
    supervisor = running("one", f"a:{policy} b:p")
    assert supervisor.happens(f"{end} a") == done
    child = supervisor.restarts.children.get("a")
    assert (None if child is None else child.state) == state


SCRIPTS = {
    "one_for_one starts that child alone": (
        running("one", "a:p b:p c:p"),
        """
        crash b   -> +b
        crash a   -> +a
        started a ->
        started b ->
        """,
    ),
    "one_for_all stops all others, the last first, then starts all in order": (
        running("all", "a:p b:p c:p"),
        """
        crash b   -> -c
        crash c   -> -a
        normal a  -> +a
        started a -> +b
        started b -> +c
        started c ->
        """,
    ),
    "rest_for_one stops those after it": (
        running("rest", "a:p b:p c:p d:p"),
        """
        crash b   -> -d
        normal d  -> -c
        normal c  -> +b
        started b -> +c
        started c -> +d
        """,
    ),
    "rest_for_one with the last child is like one_for_one": (running("rest", "a:p b:p"), "crash b -> +b"),
    "a group that starts again takes those along that were done, and drops the temporary": (
        running("all", "a:p b:t c:x"),
        """
        normal b  ->
        crash a   -> -c
        normal c  -> !c +a
        started a -> +b
        """,
    ),
    "a child that ends without being started again leaves its group alone": (
        running("all", "a:p b:t c:x"),
        """
        normal b ->
        crash c  -> !c
        """,
    ),
    "a second crash while a group is stopping changes nothing": (
        running("all", "a:p b:p c:p"),
        """
        crash a   -> -c
        crash b   ->
        crash c   -> +a
        started a -> +b
        """,
    ),
    "a crash while a group is starting starts again what is there": (
        running("all", "a:p b:p c:p"),
        """
        crash c   -> -b
        normal b  -> -a
        normal a  -> +a
        started a -> +b
        crash a   -> -b
        normal b  -> +a
        """,
    ),
    "too many restarts in too short a time: all stop, the last first": (
        running("one", "a:p b:p", intensity=2),
        """
        crash a   -> +a
        started a ->
        crash b   -> +b
        started b ->
        crash a   -> -b
        normal b  -> gives up on a
        """,
    ),
    "restarts that are long ago do not count": (
        running("one", "a:p", intensity=1),
        """
        crash a   -> +a
        started a ->
        after 5.1 ->
        crash a   -> +a
        started a ->
        after 4.9 ->
        crash a   -> gives up on a
        """,
    ),
    "an intensity of none allows none": (running("one", "a:p", intensity=0), "crash a -> gives up on a"),
    "a normal end of a permanent child counts": (running("one", "a:p", intensity=0), "normal a -> gives up on a"),
    "an end that starts nothing again does not count": (
        running("one", "a:t b:x", intensity=0),
        """
        normal a ->
        crash b  -> !b
        """,
    ),
    "trouble never counts, and pauses grow": (
        running("one", "a:p b:p", intensity=0),
        """
        trouble a -> ~a
        due a     -> +a
        trouble a -> ~a
        due a     -> +a
        trouble a -> ~a
        due b     ->
        due a     -> +a
        started a ->
        due a     ->
        """,
    ),
    "a child that waits holds nobody up under one_for_one": (
        running("one", "a:p b:p"),
        """
        trouble a -> ~a
        crash b   -> +b
        """,
    ),
    "those after a child that waits wait with it under rest_for_one": (
        running("rest", "a:p b:p"),
        """
        trouble a -> ~a -b
        normal b  ->
        due a     -> +a
        started a -> +b
        """,
    ),
    "trouble at a start leaves those alone that run": (
        running("all", "a:p b:p"),
        """
        trouble b -> ~b -a
        normal a  -> +a
        started a ->
        due b     -> +b
        trouble b -> ~b
        due b     -> +b
        started b ->
        """,
    ),
    "whoever cannot start the first time fails the supervisor": (
        Told("one", "a:p b:p c:p"),
        """
        begin     -> +a
        started a -> +b
        crash b   -> -a
        normal a  -> fails on b
        """,
    ),
    "a name that is taken at the start fails it as well": (
        Told("one", "a:p"),
        """
        begin     -> +a
        trouble a -> fails on a
        """,
    ),
    "a temporary child that cannot start fails it too": (Told("one", "a:x"), "begin -> +a\ncrash a -> fails on a"),
    "a singleton that stands by has started, as far as others are concerned": (
        Told("rest", "a:p b:p"),
        """
        begin     -> +a
        standby a -> +b
        standby a ->
        started b ->
        started a ->
        """,
    ),
    "a standby that wins and crashes counts": (
        Told("one", "a:p", intensity=1),
        """
        begin     -> +a
        standby a ->
        crash a   -> +a
        crash a   -> gives up on a
        """,
    ),
    "a standby is stopped like the others": (
        Told("one", "a:p b:p"),
        """
        begin     -> +a
        standby a -> +b
        started b ->
        stop      -> -b
        normal b  -> -a
        normal a  -> over
        """,
    ),
    "stopped while it starts: nothing more is started": (
        Told("one", "a:p b:p c:p"),
        """
        begin     -> +a
        started a -> +b
        stop      -> -b
        started b ->
        standby b ->
        normal b  -> -a
        normal a  -> over
        """,
    ),
    "a supervisor without children ends when it is told to": (Told("one", ""), "begin ->\nstop -> over"),
    "a child that waits need not be stopped": (running("one", "a:p"), "trouble a -> ~a\nstop -> over\ndue a ->"),
    "children come and go": (
        running("one", "a:p"),
        """
        add b:p   -> +b
        add c:x   ->
        started b -> +c
        started c ->
        remove b  -> -b
        normal b  -> !b
        crash c   -> !c
        remove a  -> -a
        remove a  ->
        crash a   -> !a
        """,
    ),
    "a child that is added and cannot start is dropped, and nobody else": (
        running("all", "a:p"),
        """
        add b:p   -> +b
        crash b   -> !b
        add b:p   -> +b
        trouble b -> !b
        """,
    ),
    "what does not run is removed at once": (
        running("one", "a:t b:p"),
        """
        normal a  ->
        remove a  -> !a
        trouble b -> ~b
        remove b  -> !b
        due b     ->
        """,
    ),
    "removed while its group stops": (
        running("all", "a:p b:p c:p"),
        """
        crash a  -> -c
        remove c ->
        remove b ->
        normal c -> !c -b
        normal b -> !b +a
        """,
    ),
    "nothing is added to what stops": (
        running("one", "a:p"),
        """
        stop     -> -a
        add b:p  -> !b
        normal a -> over
        """,
    ),
}


@pytest.mark.parametrize(("supervisor", "script"), SCRIPTS.values(), ids=SCRIPTS)
def test_script(supervisor: Told, script: str):
    supervisor.run(script)


def test_pauses_grow_to_a_bound_and_are_drawn_anew():
    assert pause(1, 1.0) == FIRST_PAUSE
    assert pause(1, 0.0) == FIRST_PAUSE / 2
    assert pause(3, 1.0) == 4 * FIRST_PAUSE
    assert pause(1000, 1.0) == LONGEST_PAUSE


def test_what_does_not_run_cannot_end():
    supervisor = running("one", "a:t")
    supervisor.happens("normal a")
    with pytest.raises(AssertionError, match="a was done, and so cannot end"):
        supervisor.happens("crash a")
