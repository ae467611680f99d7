"""When a supervisor starts and stops its children: facts in, actions out.

A child is in one of these states; what happens to it is on the left, what is done about it on the right.

    ABSENT    its turn comes                         -> STARTING, Start
    STARTING  it has started                         -> RUNNING
              it waits for its name (a singleton)    -> STANDBY
              it ends before that, the first time    -> the supervisor gives up; a child added later is dropped
    STANDBY   it has its name and has started        -> RUNNING
    RUNNING   it ends, and is to run again           -> ABSENT, and by the strategy others with it
              it ends, and is not                    -> DONE; a temporary child is dropped
    any       it ends through no fault of its own    -> WAITING, Pause
    WAITING   the pause is over                      -> ABSENT
    STARTING, STANDBY, RUNNING
              it is doomed: its group starts again,
              it is removed, the supervisor stops    -> STOPPING, Stop; one at a time, the last first
    STOPPING  it has ended                           -> ABSENT, or dropped

Children start in their order, each when those before it have started; under one_for_one that holds for the first start
only. Whatever a child does, what it does too often makes the supervisor give up: more than `intensity` restarts within
`period` seconds. Names that are taken and nodes that are lost are no child's fault, and do not count.

Source: the supervisor of Erlang/OTP, restart intensity and shutdown order included.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Literal

from msgspec import Struct

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second attempt of a child that is not at fault; doubled with each, up to the longest."""


class State(Enum):
    """What a child does."""

    ABSENT = "absent"
    WAITING = "waiting"
    STARTING = "starting"
    STANDBY = "standby"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"


ALIVE = (State.STARTING, State.STANDBY, State.RUNNING)
READY = (State.STANDBY, State.RUNNING, State.DONE)


class End(Enum):
    """How a child has ended."""

    NORMAL = "normal"
    """It had nothing more to do, or was asked to end."""
    CRASH = "crash"
    TROUBLE = "trouble"
    """Its name is taken or lost, or its node is: nothing that it did."""


class Start(Struct, frozen=True):
    """Start this child. Then comes `started` or `stands_by`, or `ended`."""

    child: str


class Stop(Struct, frozen=True):
    """Stop this child, whatever it is about. Then comes `ended`."""

    child: str


class Pause(Struct, frozen=True):
    """Wait with this child; then call `due`. `attempt` counts from 1 and grows with each pause in a row."""

    child: str
    attempt: int


class Dropped(Struct, frozen=True):
    """The child does not run and never will: it is no child any more."""

    child: str


class Over(Struct, frozen=True):
    """No child runs: the supervisor ends.

    Attributes:
        failed: the child that could not be started, or that was started again too often; None if it was told to stop.
        opening: whether that was at the first start.
    """

    failed: str | None
    opening: bool


Action = Start | Stop | Pause | Dropped | Over


class Child(Struct):
    """What a supervisor knows of a child."""

    restart: Restart
    state: State = State.ABSENT
    fresh: bool = True
    """It has never been started."""
    initial: bool = True
    """If it cannot be started, the supervisor fails as a whole."""
    removed: bool = False
    starts: int = 0
    attempts: int = 0
    """Pauses since it has last been started."""


class Restarts:
    """The children of one supervisor.

    Args:
        children: their ids and policies, in the order in which they start.
        strategy: who starts again with a child that has ended: it alone, all, or it and those after it.
        intensity: how many restarts are allowed,
        period: within so many seconds.
    """

    def __init__(
        self, children: Sequence[tuple[str, Restart]], strategy: Strategy, intensity: int, period: float
    ) -> None:
        self.children = {name: Child(restart) for name, restart in children}
        self._strategy = strategy
        self._intensity = intensity
        self._period = period
        self._times: list[float] = []
        self._unready = dict.fromkeys(self.children)
        """Those that have neither started nor stand by nor are done; the fresh ones in the order of their start."""
        self._doomed: set[str] = set()
        """Those that are to be stopped, but for whom others come first."""
        self._stopping: str | None = None
        self._over: Over | None = None
        self._told = False

    @property
    def complete(self) -> bool:
        """Whether everybody has started, or stands by, or is done."""
        return self._over is None and not self._unready

    # --- orders ---

    def begin(self) -> list[Action]:
        """Start everybody."""
        return self._next()

    def add(self, name: str, restart: Restart) -> list[Action]:
        """Another child, after all that are there. If it cannot be started it is dropped."""
        assert name not in self.children, "the caller has looked"
        if self._over is not None:
            return [Dropped(name)]
        self.children[name] = Child(restart, initial=False)
        self._unready[name] = None
        return self._next()

    def remove(self, name: str) -> list[Action]:
        """Stop a child, and forget it."""
        child = self.children[name]
        child.removed = True
        if child.state in ALIVE:
            self._doomed.add(name)
        elif child.state is not State.STOPPING:
            return [self._drop(name), *self._next()]
        return self._next()

    def stop(self) -> list[Action]:
        """Stop all children, the last one first."""
        return self._give_up(None)

    # --- facts ---

    def started(self, name: str) -> list[Action]:
        """A child has started."""
        child = self.children[name]
        if child.state not in (State.STARTING, State.STANDBY):
            return []  # it is being stopped
        self._enter(name, State.RUNNING)
        child.fresh, child.attempts = False, 0
        child.starts += 1
        return self._next()

    def stands_by(self, name: str) -> list[Action]:
        """A child waits until its name falls free: those after it need not wait for that."""
        child = self.children[name]
        if child.state is not State.STARTING:
            return []
        self._enter(name, State.STANDBY)
        child.fresh = False
        return self._next()

    def ended(self, name: str, end: End, now: float) -> list[Action]:
        """A child has ended, or could not be started."""
        child = self.children[name]
        before = child.state
        assert before in ALIVE or before is State.STOPPING, f"{name} was {before.value}, and so cannot end"
        self._doomed.discard(name)
        if self._stopping == name:
            self._stopping = None
        if self._over is not None:
            self._drop(name)
        elif child.removed or (before is State.STOPPING and child.restart == "temporary"):
            return [self._drop(name), *self._next()]
        elif before is State.STOPPING:
            self._enter(name, State.ABSENT)
        elif child.fresh:
            if child.initial:
                self._enter(name, State.DONE)
                return self._give_up(name)
            return [self._drop(name), *self._next()]
        elif child.restart == "temporary":
            return [self._drop(name), *self._next()]
        elif child.restart == "transient" and end is End.NORMAL:
            self._enter(name, State.DONE)
        else:
            return self._again(name, child, end, now)
        return self._next()

    def due(self, name: str) -> list[Action]:
        """The pause of a child is over, or there is reason to hope: try again."""
        child = self.children.get(name)
        if child is None or child.state is not State.WAITING:
            return []
        self._enter(name, State.ABSENT)
        return self._next()

    # --- decisions ---

    def _again(self, name: str, child: Child, end: End, now: float) -> list[Action]:
        """A child is to be started again, and by the strategy others with it."""
        had_run = child.state is State.RUNNING
        paused: list[Action] = []
        if end is End.TROUBLE:
            self._enter(name, State.WAITING)
            child.attempts += 1
            paused = [Pause(name, child.attempts)]
        else:
            self._enter(name, State.ABSENT)
            self._times = [*(time for time in self._times if now - time <= self._period), now]
            if len(self._times) > self._intensity:
                self._enter(name, State.DONE)
                return self._give_up(name)
        if had_run:
            for other in self._group(name):
                if self.children[other].state in ALIVE:
                    self._doomed.add(other)
                elif self.children[other].state is State.DONE:
                    self._enter(other, State.ABSENT)
        return [*paused, *self._next()]

    def _group(self, name: str) -> list[str]:
        """Those who start again with a child, itself left out."""
        if self._strategy == "one_for_one":
            return []
        names = list(self.children)
        first = 0 if self._strategy == "one_for_all" else names.index(name)
        return [other for other in names[first:] if other != name]

    def _give_up(self, failed: str | None) -> list[Action]:
        if self._over is None:
            self._over = Over(failed, failed is not None and self.children[failed].fresh)
        return self._next()

    def _drop(self, name: str) -> Dropped:
        del self.children[name]
        self._unready.pop(name, None)
        return Dropped(name)

    def _next(self) -> list[Action]:
        """What can be done now: first stop whoever must stop, then start whose turn it is."""
        actions: list[Action] = []
        if self._stopping is None and (self._doomed or self._over is not None):
            for name, child in reversed(self.children.items()):
                if child.state in ALIVE and (name in self._doomed or self._over is not None):
                    self._enter(name, State.STOPPING)
                    self._doomed.discard(name)
                    self._stopping = name
                    actions.append(Stop(name))
                    break
        if self._over is not None:
            if self._stopping is None and not self._told:
                self._told = True
                actions.append(self._over)
            return actions
        if self._stopping is not None and self._strategy != "one_for_one":
            return actions
        alone = self._strategy == "one_for_one"
        for name in self._unready if alone else self.children:
            child = self.children[name]
            if child.state is State.ABSENT:
                self._enter(name, State.STARTING)
                actions.append(Start(name))
            if child.state not in READY and (child.fresh or not alone):
                break
        return actions

    def _enter(self, name: str, state: State) -> None:
        self.children[name].state = state
        if state in READY:
            self._unready.pop(name, None)
        else:
            self._unready[name] = None


def pause(attempt: int, chance: float) -> float:
    """How many seconds to wait before another attempt.

    Args:
        attempt: from 1, as `Pause` carries it.
        chance: from 0 to 1, drawn anew each time, so that those who compete do not do so in step.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 16))
    return longest * (0.5 + 0.5 * chance)
