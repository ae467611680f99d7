"""The harness: contenders measured in rounds, one after the other in each, and what came of it beside the goals.

What is compared ran within seconds of each other: a machine that is slower for a while is so for all. A figure is the
median of its rounds; its spread are the lowest and the highest ratio to the reference within one round.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.stage import Missing, Stage

Sample = Mapping[str, float]
"""The figures of one contender in one round, by metric."""
Measure = Callable[[], Awaitable[Sample]]
Opening = Callable[[Stage], Awaitable[Measure]]
"""Stages a contender; what it returns measures it once."""
Progress = Callable[[str], None]

LOOPS = ("asyncio", "uvloop")
ENOUGH = 30.0
"""Seconds of one workload after which no further round begins: on a slow machine fewer rounds, not an hour."""
PATIENCE = 100.0
"""Seconds that one contender has for one round: whoever waits for a name that got lost must not eat the run."""
LIMIT = "limit"
"""The reference of a goal that is a figure."""


@dataclass(frozen=True)
class Goal:
    """How our figure should compare.

    Args:
        metric: of ours.
        bound: ``"<= 2"`` or ``">= 0.5"``: of the ratio of our figure to the reference's.
        against: a contender, or `LIMIT`.
        other: the reference's metric, if it is another one. Against "kinfolk" it is our own, of the same loop.
        limit: the figure, for `LIMIT`.
        loops: which of ours are meant.
        called: what the reference is called, if it is no contender.
    """

    metric: str
    bound: str
    against: str
    other: str = ""
    limit: float = 0.0
    loops: Sequence[str] = LOOPS
    called: str = ""

    def met(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        sign, _, figure = self.bound.partition(" ")
        return ratio <= float(figure) if sign == "<=" else ratio >= float(figure)


@dataclass(frozen=True)
class Workload:
    """One row of the table of goals.

    Args:
        word: what it is called on the command line.
        title: what is measured, for people.
        units: of each metric: "s", "/s", "B" or "".
        contenders: by name, with what stages them (None: somebody else has). Ours are ``kinfolk asyncio`` and
            ``kinfolk uvloop``. A reference that ends with the name of a loop is compared with ours on that loop.
        goals: what is to be reached.
        rounds: at most so many.
        few: contenders that take so long that they are measured only so often.
        cold: contenders whose first sample counts; that of all others is thrown away.
    """

    word: str
    title: str
    units: Mapping[str, str]
    contenders: Mapping[str, Opening | None]
    goals: Sequence[Goal] = ()
    rounds: int = 5
    few: Mapping[str, int] = field(default_factory=dict)
    cold: Sequence[str] = ()


@dataclass
class Outcome:
    """What the contenders of one workload have shown."""

    workload: Workload
    samples: dict[str, list[Sample]]
    missing: dict[str, str]


async def measure(workload: Workload, rounds: int, work: Path, say: Progress) -> Outcome:
    """Stage all contenders, warm them up, and measure them in rounds."""
    samples: dict[str, list[Sample]] = {}
    missing: dict[str, str] = {}
    measures: dict[str, Measure] = {}
    async with AsyncExitStack() as stages:

        async def attempt(name: str, step: Callable[[], Awaitable[Any]]) -> Any:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await step()
            except Missing as error:
                missing[name] = str(error)
            except Exception as error:  # noqa: BLE001 - a contender that fails must not take the others with it
                # Of an agent's traceback, the line that says what it was.
                *_, said = (str(error).strip() or "out of time").splitlines()
                missing[name] = f"failed: {type(error).__name__}: {said}"
            measures.pop(name, None)
            return None

        for name, opening in workload.contenders.items():
            assert opening is not None, "what others stage they measure as well"
            say(f"{workload.word}: staging {name}")
            stage = await stages.enter_async_context(Stage(work))
            ready = await attempt(name, lambda opening=opening, stage=stage: opening(stage))  # type: ignore[misc]
            if ready is not None:
                measures[name] = ready
        for name, run in list(measures.items()):
            if name not in workload.cold:
                say(f"{workload.word}: warming up {name}")
                await attempt(name, run)
        count = min(rounds, workload.rounds)
        begun = time.monotonic()
        for turn in range(count):
            if turn and time.monotonic() - begun > ENOUGH:
                break
            for name, run in _rotated(measures, turn):
                if turn >= workload.few.get(name, count):
                    continue
                say(f"{workload.word}: round {turn + 1} of {count}, {name}")
                sample = await attempt(name, run)
                if sample is not None:
                    samples.setdefault(name, []).append(sample)
    return Outcome(workload, {name: seen for name, seen in samples.items() if name not in missing}, missing)


def _rotated(measures: Mapping[str, Measure], turn: int) -> list[tuple[str, Measure]]:
    """In each round another begins: whoever comes after a heavy one must not always be the same."""
    all_of_them = list(measures.items())
    start = turn % max(1, len(all_of_them))
    return all_of_them[start:] + all_of_them[:start]


def results(outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of an outcome: each figure of ours beside each reference that has it. What is missing is never won."""
    workload = outcome.workload
    rows: list[dict[str, Any]] = []
    for goal in workload.goals:
        if goal.against in (LIMIT, "kinfolk"):
            rows += [_row(outcome, goal, loop, goal.against) for loop in goal.loops if _is_staged(workload, loop)]
    for reference in workload.contenders:
        if reference.startswith("kinfolk"):
            continue
        for metric in workload.units:
            if not _has(outcome, reference, metric):
                continue
            for loop in LOOPS:
                if _is_staged(workload, loop) and not (set(reference.split()) & (set(LOOPS) - {loop})):
                    rows.append(_row(outcome, _goal(workload, metric, reference, loop), loop, reference))
    return rows


def _is_staged(workload: Workload, loop: str) -> bool:
    return f"kinfolk {loop}" in workload.contenders


def _has(outcome: Outcome, reference: str, metric: str) -> bool:
    """Whether a reference has this metric, or would have it if it were not missing."""
    if reference in outcome.samples:
        return metric in outcome.samples[reference][0]
    wanted = [goal.metric for goal in outcome.workload.goals if _means(goal, reference)]
    return metric in (wanted or list(outcome.workload.units)[:1])


def _goal(workload: Workload, metric: str, reference: str, loop: str) -> Goal:
    """The goal for this comparison; one without a bound, if it is there to be looked at only."""
    for goal in workload.goals:
        if goal.metric == metric and loop in goal.loops and _means(goal, reference):
            return goal
    return Goal(metric, "", reference)


def _means(goal: Goal, reference: str) -> bool:
    return reference in (goal.against, *(f"{goal.against} {loop}" for loop in LOOPS))


def _row(outcome: Outcome, goal: Goal, loop: str, reference: str) -> dict[str, Any]:
    workload, name = outcome.workload, f"kinfolk {loop}"
    ours = [sample[goal.metric] for sample in outcome.samples.get(name, ()) if goal.metric in sample]
    other = goal.other or goal.metric
    if reference == LIMIT:
        theirs = [goal.limit] * len(ours)
    else:
        source = name if reference == "kinfolk" else reference
        theirs = [sample[other] for sample in outcome.samples.get(source, ()) if other in sample]
    row: dict[str, Any] = {
        "id": "/".join([f"{workload.word}.{goal.metric}.{loop}", (goal.called or reference).replace(" ", "-")]),
        "ours": statistics.median(ours) if ours else None,
        "reference": statistics.median(theirs) if theirs else None,
        "unit": workload.units[goal.metric],
        "ratio": None,
        "goal": goal.bound or None,
        "met": None,
        "spread": None,
        "workload": workload.word,
        "title": workload.title,
        "metric": goal.metric,
        "loop": loop,
        "against": goal.called or reference,
        "references_a_contender": reference in workload.contenders,
        "rounds": len(ours),
    }
    why = outcome.missing.get(name) or outcome.missing.get(reference)
    if why:
        row["missing"] = why
    if ours and theirs and row["reference"]:
        ratio = row["ratio"] = row["ours"] / row["reference"]
        # A reference that is measured less often than ours stands beside all of our rounds.
        pairs = zip(ours, theirs if len(theirs) == len(ours) else [row["reference"]] * len(ours), strict=True)
        ratios = [mine / their for mine, their in pairs if their]
        row["spread"] = [min(ratios), max(ratios)]
        if goal.bound:
            row["met"] = goal.met(ratio)
    elif goal.bound and not ours:
        row["met"] = False  # ours itself could not be measured
    return row
