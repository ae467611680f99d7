"""``python -m bench.document``: put the last results into their pages, and draw the pictures.

What stands there between ``<!-- measured: NAME -->`` and ``<!-- end -->`` is written here, from the file of results and
nothing else; the rest of the page is prose. So no number of it is ever copied by hand.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.report import Row, figure, ratio, spread, verdict

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
COMPARISON = ROOT / "docs" / "comparison.md"
README = ROOT / "README.md"
PAGES = (PAGE, COMPARISON, README)
PICTURES = ROOT / "docs" / "pictures"

_SECTION = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Write the pages and the pictures anew."""
    results = report.read()
    if not results["results"]:
        print("There are no results: run make bench first.", file=sys.stderr)
        return 1
    from bench import pictures  # matplotlib: only those who draw need it

    for page in PAGES:
        page.write_text(filled(page.read_text(), results))
    for path in (*PAGES, *pictures.draw(results, PICTURES)):
        print(path.relative_to(ROOT))
    return 0


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with its measured sections written anew."""

    def section(found: "re.Match[str]") -> str:
        return f"{found[1]}{SECTIONS[found[2]](results)}\n{found[3]}"

    return _SECTION.sub(section, page)


def _machine(results: Mapping[str, Any]) -> str:
    machine, rows = results["machine"], results["results"]
    times = sorted(row["at"] for row in rows)
    loads = sorted(row["load"] for row in rows)
    busy = " The machine was not quiet, so these figures are preliminary." if _is_busy(results) else ""
    return (
        f"Measured from {times[0]} to {times[-1]} (UTC) on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['system']}, Python {machine['python']}; at most {machine['rounds']} rounds. Load of the machine "
        f"right after each workload: {loads[0]:g} to {loads[-1]:g}, of which the measurement itself is up to 4.{busy}"
        f"\n\n{', '.join(f'{name} {version}' for name, version in machine['packages'].items())}."
    )


def _is_busy(results: Mapping[str, Any]) -> bool:
    """Whether others used the machine as well: a measurement itself keeps about four programs busy."""
    return bool(max(row["load"] for row in results["results"]) > results["machine"]["cores"] + 3)


def _quotes(results: Mapping[str, Any]) -> str:
    """Three figures for the README, each with its references."""
    rows = {(row["workload"], row["metric"], row["loop"], row["against"]): row for row in results["results"]}

    def quoted(workload: str, metric: str, loop: str, text: str, *references: str) -> str:
        found = [rows.get((workload, metric, loop, reference)) for reference in references]
        shown = [row for row in found if row is not None and row["ours"] is not None and row["reference"] is not None]
        if not shown:
            return ""
        beside = ", ".join(f"{row['against']} {figure(row['reference'], row['unit'])}" for row in shown)
        return f"- {text}: **{figure(shown[0]['ours'], shown[0]['unit'])}** ({beside})"

    busy = "(The machine was not quiet in that run, so these figures are preliminary.)\n"
    return "\n".join(
        filter(
            None,
            [
                busy if _is_busy(results) else "",
                quoted(
                    "lookup", "each", "asyncio", "a name is looked up, on any node, in", "dict.get", "redis", "etcd"
                ),
                quoted("register16", "rate", "uvloop", "names confirmed by three nodes", "erlang global", "etcd"),
                quoted("oneway", "rate", "uvloop", "messages to another node, over TLS", "erlang TLS", "xoscar TCP"),
            ],
        )
    )


PEERS = (
    ("lookup", "each", "asyncio", ("erlang global", "redis", "etcd")),
    ("register", "p50", "uvloop", ("erlang global", "erlang global TCP")),
    ("register16", "rate", "uvloop", ("erlang global", "erlang global TCP", "etcd", "redis")),
    ("nowait", "rate", "uvloop", ("erlang pg", "lapinbeam TCP")),
    ("join10k", "each", "uvloop", ("erlang pg", "erlang global")),
    ("loss", "gone", "uvloop", ("erlang pg", "erlang global")),
    ("call", "p50", "uvloop", ("erlang TLS", "rpyc TCP", "pyro5 TCP", "xoscar TCP", "lapinbeam TCP")),
    ("call16", "rate", "uvloop", ("erlang TLS", "rpyc TCP", "xoscar TCP", "lapinbeam TCP")),
    ("oneway", "rate", "uvloop", ("erlang TLS", "xoscar TCP", "lapinbeam TCP")),
    ("spawn", "rate", "uvloop", ("erlang TLS",)),
    ("local", "call", "uvloop", ("erlang", "pykka", "xoscar", "lapinbeam")),
)
"""What the comparison shows of the results: workload, metric, loop and references, won and lost alike."""


def _peers(results: Mapping[str, Any]) -> str:
    """Ours and those of others, one workload a line."""
    rows = {(row["workload"], row["metric"], row["loop"], row["against"]): row for row in results["results"]}
    lines: list[Sequence[str]] = []
    for workload, metric, loop, references in PEERS:
        found = [row for against in references if (row := rows.get((workload, metric, loop, against)))]
        if not found:
            continue
        ours, unit = found[0]["ours"], found[0]["unit"]
        beside = (f"{row['against']} {figure(row['reference'], unit)}" for row in found if row["reference"] is not None)
        lines.append((found[0]["title"], f"{metric.replace('_', ' ')}, {loop}", figure(ours, unit), ", ".join(beside)))
    return _table(("", "", "kinfolk", "others"), lines)


def _goals(results: Mapping[str, Any]) -> str:
    rows = [row for row in results["results"] if row["goal"]]
    met = sum(row["met"] is True for row in rows)
    missed = sum(row["met"] is False for row in rows)
    text = f"{met} of {len(rows)} goals met, {missed} missed, {len(rows) - met - missed} without their reference."
    return f"{text}{_runs(results, rows)}\n\n{_comparison(rows)}"


def _runs(results: Mapping[str, Any], goals: Sequence[Row]) -> str:
    """How often each goal was met in the last whole runs."""
    runs = results.get("runs", [])
    if len(runs) < 2:
        return ""
    times = [sum(run["met"].get(row["id"]) is True for run in runs) for row in goals]
    each = ", ".join(str(sum(met is True for met in run["met"].values())) for run in runs)
    return (
        f" Of the last {len(runs)} whole runs ({', '.join(run['at'] for run in runs)}) these met"
        f" {each}: {times.count(len(runs))} goals were met in all of them,"
        f" {times.count(0)} in none."
    )


def _misses(results: Mapping[str, Any]) -> str:
    runs = results.get("runs", [])
    rows = [row for row in results["results"] if row["met"] is False or _is_shaky(row, runs)]
    if not rows:
        return "None."
    return _table(
        ("workload", "loop", "goal", "measured", "spread", "in the last whole runs"),
        (
            (
                *(f"{row['workload']} {row['metric']}", row["loop"], f"{row['goal']}x {row['against']}"),
                *(f"{ratio(row['ratio'])}x", spread(row)),
                ", ".join(ratio(run["ratios"].get(row["id"])) for run in runs),
            )
            for row in rows
        ),
    )


def _is_shaky(row: Row, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a goal was missed in one of the last whole runs."""
    return any(run["met"].get(row["id"]) is False for run in runs)


def _others(results: Mapping[str, Any]) -> str:
    return _comparison([row for row in results["results"] if not row["goal"] and "missing" not in row])


def _missing(results: Mapping[str, Any]) -> str:
    lines = {
        f"- {row['workload']}: {row['against']}: {row['missing']}" for row in results["results"] if "missing" in row
    }
    return "\n".join(sorted(lines)) or "None."


def _growth(results: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    for curve in results.get("growth", {}).values():
        for name, points in curve["series"].items():
            title = curve["title"] if len(curve["series"]) == 1 else f"{curve['title']}: {name}"
            rows.append((title, ", ".join(f"{size:,}: {figure(value, curve['unit'])}" for size, value in points)))
    return _table(("", "by number of names, processes or nodes"), rows) if rows else "Not measured."


def _comparison(rows: Sequence[Row]) -> str:
    titles = {row["workload"]: row["title"] for row in rows}
    parts: list[str] = []
    for word, title in titles.items():
        lines = (
            (
                *(row["metric"].replace("_", " "), row["loop"], figure(row["ours"], row["unit"]), row["against"]),
                *(figure(row["reference"], row["unit"]), ratio(row["ratio"]), spread(row)),
                *(row["goal"] or "", verdict(row)),
            )
            for row in rows
            if row["workload"] == word
        )
        head = ("", "loop", "kinfolk", "reference", "", "ratio", "of the rounds", "goal", "")
        parts.append(f"**{word}**: {title}\n\n{_table(head, lines)}")
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "machine": _machine,
    "quotes": _quotes,
    "peers": _peers,
    "goals": _goals,
    "misses": _misses,
    "others": _others,
    "missing": _missing,
    "growth": _growth,
}

if __name__ == "__main__":
    sys.exit(main())
