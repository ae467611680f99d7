"""The harness of the measurements: what it makes of samples. It measures nothing here."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import document, looking, report
from bench.__main__ import WORDS
from bench.harness import LIMIT, Goal, Outcome, Sample, Workload, measure, results
from bench.stage import Missing, Stage
from bench.workloads import WORKLOADS

WORKLOAD = Workload(
    "calls",
    "calls",
    {"p50": "s", "rate": "/s"},
    dict.fromkeys(["kinfolk asyncio", "kinfolk uvloop", "bare asyncio", "bare uvloop", "erlang"]),
    [
        Goal("p50", "<= 2", "erlang", loops=("asyncio",)),
        Goal("p50", "<= 1", LIMIT, limit=0.5, called="half a second"),
        Goal("rate", ">= 0.5", "bare"),
    ],
)


def rows(samples: dict[str, list[Sample]], missing: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in results(Outcome(WORKLOAD, samples, missing or {}))}


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
    ours: list[Sample] = [{"p50": 1.0}, {"p50": 3.0}, {"p50": 9.0}]
    theirs: list[Sample] = [{"p50": 1.0}, {"p50": 2.0}, {"p50": 2.0}]
    row = rows({"kinfolk asyncio": ours, "erlang": theirs})["calls.p50.asyncio/erlang"]
    assert (row["ours"], row["reference"], row["ratio"]) == (3.0, 2.0, 1.5)
    assert row["spread"] == [1.0, 4.5]
    assert (row["goal"], row["met"]) == ("<= 2", True)


def test_a_missing_reference_is_never_won():
    samples: dict[str, list[Sample]] = {"kinfolk asyncio": [{"p50": 1.0, "rate": 9.0}]}
    found = rows(samples, {"erlang": "not installed", "bare asyncio": "failed"})
    assert not any(row["met"] for row in found.values() if "missing" in row)
    row = found["calls.p50.asyncio/erlang"]
    assert (row["reference"], row["ratio"], row["met"], row["missing"]) == (None, None, None, "not installed")


def test_what_ours_cannot_do_is_missed():
    row = rows({"erlang": [{"p50": 1.0}]}, {"kinfolk asyncio": "failed"})["calls.p50.asyncio/erlang"]
    assert (row["ours"], row["met"]) == (None, False)


def test_a_limit_that_depends_on_the_loop_stands_beside_ours_on_that_loop():
    every: list[Sample] = [{"p50": 1.0, "rate": 4.0}]
    found = rows(dict.fromkeys(WORKLOAD.contenders, every))
    beside = {(row["loop"], row["against"]) for row in found.values() if row["against"].startswith("bare")}
    assert beside == {("asyncio", "bare asyncio"), ("uvloop", "bare uvloop")}
    assert found["calls.rate.uvloop/bare-uvloop"]["goal"] == ">= 0.5"
    assert found["calls.p50.uvloop/erlang"]["goal"] is None, "a goal of the other loop"
    assert found["calls.p50.uvloop/half-a-second"]["met"] is False


async def test_rounds_are_interleaved_and_the_first_sample_is_thrown_away(tmp_path: Path):
    order: list[str] = []

    def contender(name: str) -> Any:
        async def opening(stage: Stage) -> Any:
            async def run() -> Sample:
                order.append(name)
                return {"p50": float(order.count(name))}

            return run

        return opening

    async def absent(stage: Stage) -> Any:
        raise Missing("not here")

    workload = Workload(
        "w", "w", {"p50": "s"}, {"a": contender("a"), "b": contender("b"), "c": absent}, rounds=3, few={"b": 1}
    )
    outcome = await measure(workload, 2, tmp_path, lambda _: None)
    assert order == ["a", "b", "a", "b", "a"]
    assert outcome.samples == {"a": [{"p50": 2.0}, {"p50": 3.0}], "b": [{"p50": 2.0}]}
    assert outcome.missing == {"c": "not here"}


async def test_a_contender_that_fails_leaves_the_others_alone(tmp_path: Path):
    async def broken(stage: Stage) -> Any:
        async def run() -> Sample:
            raise OSError("no")

        return run

    async def sound(stage: Stage) -> Any:
        async def run() -> Sample:
            return {"p50": 1.0}

        return run

    outcome = await measure(Workload("w", "w", {"p50": "s"}, {"a": broken, "b": sound}), 1, tmp_path, lambda _: None)
    assert set(outcome.samples) == {"b"}
    assert outcome.missing == {"a": "failed: OSError: no"}


def test_every_goal_is_against_a_contender_and_of_a_metric_that_is_shown():
    for workload in WORKLOADS:
        for goal in workload.goals:
            assert goal.metric in workload.units
            beside = {goal.against, f"{goal.against} asyncio"}
            assert beside & {LIMIT, "kinfolk", *workload.contenders}, f"{workload.word}: {goal}"
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.345e-7, "s", "234 ns"),
        (0.0123, "s", "12.3 ms"),
        (219_000.0, "/s", "219k/s"),
        (None, "s", "-"),
        (0.0, "B", "0 B"),
    ],
)
def test_figures_are_shown_with_three_digits_and_a_unit_that_suits(value: float | None, unit: str, text: str):
    assert report.figure(value, unit) == text


def test_of_the_last_whole_runs_the_ratios_are_kept_and_a_goal_that_one_of_them_missed_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "latest.json")
    for ours in (1.0, 3.0, 1.5, 1.25):  # seconds, where a reference of 1 has the goal <= 2
        found = rows({"kinfolk asyncio": [{"p50": ours}], "erlang": [{"p50": 1.0}]})
        report.write([row for row in found.values() if row["goal"] == "<= 2"], {}, 1)
        report.remember()
    results = report.read()
    assert [run["ratios"]["calls.p50.asyncio/erlang"] for run in results["runs"]] == [3.0, 1.5, 1.25]
    page = document.filled(
        "".join(f"<!-- measured: {name} -->\n<!-- end -->\n" for name in ("goals", "misses")), results
    )
    assert "1 of 1 goals met" in page and "0 goals were met in all of them, 0 in none" in page
    assert "3, 1.5, 1.25" in page


def test_a_run_without_a_reference_has_not_missed_the_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "latest.json")
    found = rows({"kinfolk asyncio": [{"p50": 1.0}]}, {"erlang": "not installed"})
    report.write([row for row in found.values() if row["goal"] == "<= 2"], {}, 1)
    report.remember()
    page = document.filled("<!-- measured: misses -->\n<!-- end -->\n", report.read())
    assert page == "<!-- measured: misses -->\nNone.\n<!-- end -->\n"


@pytest.mark.parametrize("path", document.PAGES, ids=lambda path: path.name)
def test_the_pages_say_what_the_file_of_results_says(path: Path):
    page = path.read_text()
    assert document.filled(page, report.read()) == page, "run: make bench-docs"


def test_the_guide_says_what_was_measured_of_looking():
    page = looking.GUIDE.read_text()
    assert looking.filled(page, json.loads(looking.RESULTS.read_text())) == page
