"""What is written down of a run: the file of results, and a table for the terminal."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "latest.json"
RUNS = 3
"""Of so many whole runs the ratios are kept."""
Row = Mapping[str, Any]

_SCALES = {
    "s": [(1.0, " s"), (1e-3, " ms"), (1e-6, " us"), (1e-9, " ns")],
    "/s": [(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
    "B": [(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")],
    "": [(1.0, "")],
}


def figure(value: float | None, unit: str) -> str:
    """A value for people: three digits and a unit that suits it."""
    if value is None:
        return "-"
    scale, name = next((step for step in _SCALES[unit] if abs(value) >= step[0]), _SCALES[unit][-1])
    scaled = value / scale
    digits = f"{scaled:.0f}" if scaled >= 100 else f"{scaled:.3g}"
    return digits + name


def ratio(value: float | None) -> str:
    """A ratio for people."""
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(row: Row) -> str:
    """The lowest and the highest ratio of a round."""
    return "" if row["spread"] is None else f"{ratio(row['spread'][0])} .. {ratio(row['spread'][1])}"


def verdict(row: Row) -> str:
    """Whether the goal was met; nothing where there is none or it cannot be said."""
    if "missing" in row and row["met"] is None:
        return "missing"
    return {True: "met", False: "MISSED", None: ""}[row["met"]]


def machine() -> dict[str, Any]:
    """What was measured on."""
    versions = {}
    for package in ("kinfolk", "msgspec", "uvloop", "pykka", "xoscar", "rpyc", "Pyro5", "lapinbeam", "redis", "aetcd"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
        "load": [round(load, 2) for load in os.getloadavg()],
        "packages": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def read() -> dict[str, Any]:
    """The results of the last run; empty if there was none."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": {}, "results": []}
    return found


def write(rows: list[dict[str, Any]], curves: Mapping[str, Any], rounds: int) -> None:
    """Put new results in the place of old ones of the same workloads. Those of another machine are forgotten."""
    old: dict[str, Any] = read()
    here = machine()
    if any(old["machine"].get(key) != here[key] for key in ("cores", "processor", "system", "python")):
        old = {"machine": {}, "results": []}
    for row in rows:
        row["at"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        row["load"] = here["load"][0]
    measured = {row["workload"] for row in rows}
    kept = [row for row in old["results"] if row["workload"] not in measured]
    new = {
        "machine": {**here, "rounds": rounds},
        "results": kept + rows,
        "growth": {**old.get("growth", {}), **curves},
        "runs": old.get("runs", []),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    _save(new)


def remember() -> None:
    """The run was of everything: keep its ratios beside those of the runs before."""
    results = read()
    goals = [row for row in results["results"] if row["goal"]]
    run = {
        "at": max(row["at"] for row in goals),
        "rounds": results["machine"]["rounds"],
        "ratios": {row["id"]: row["ratio"] for row in goals},
        "met": {row["id"]: row["met"] for row in goals},
    }
    _save({**results, "runs": [*results["runs"], run][-RUNS:]})


def _save(results: Mapping[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def table(rows: Iterable[Row]) -> Table:
    """All rows, for the terminal."""
    made = Table("workload", "metric", "loop", "ours", "reference", "", "ratio", "spread", "goal", "")
    last = ""
    for row in rows:
        if row["workload"] != last:
            made.add_section()
        word, last = ("" if row["workload"] == last else row["workload"]), row["workload"]
        theirs = f"({row['missing']})" if "missing" in row else figure(row["reference"], row["unit"])
        made.add_row(
            *(word, row["metric"], row["loop"], figure(row["ours"], row["unit"]), row["against"], theirs),
            *(ratio(row["ratio"]), spread(row), row["goal"] or "", verdict(row)),
        )
    return made


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the table, and how many goals were met."""
    console.print(table(rows))
    goals = [row for row in rows if row["goal"]]
    met, missed = (sum(row["met"] is answer for row in goals) for answer in (True, False))
    console.print(f"{met} goals met, {missed} missed, {len(goals) - met - missed} without their reference.")
