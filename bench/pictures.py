"""The pictures of docs/performance.md, drawn from the results. Needs matplotlib."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import Row, figure

OURS, BARE, THEIRS = "#1f6feb", "#b9bec6", "#6e7781"
COLUMNS = 3
HIGHLIGHTS = {
    ("lookup", "each"),
    ("register16", "rate"),
    ("loss", "gone"),
    ("oneway", "rate"),
    ("call", "p50"),
    ("local", "call"),
}
"""What the README shows."""

# Same results, same file: no dates, no random ids; text stays text.
mpl.rcParams.update({"svg.hashsalt": "kinfolk", "svg.fonttype": "none", "font.size": 8})


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all pictures that there are results for; the files."""
    folder.mkdir(exist_ok=True)
    rows = results["results"]
    highlights = [row for row in rows if (row["workload"], row["metric"]) in HIGHLIGHTS]
    return [
        *_comparison(rows, folder / "comparison.svg"),
        *_comparison(highlights, folder / "highlights.svg"),
        *_growth(results.get("growth", {}), folder / "growth.svg"),
    ]


def _comparison(rows: Sequence[Row], path: Path) -> Iterator[Path]:
    """One panel for each metric of each workload: ours and every reference, as bars."""
    panels: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["ours"] is None or not row["references_a_contender"]:
            continue
        bars = panels.setdefault((row["workload"], row["metric"]), {})
        bars[f"kinfolk {row['loop']}"] = row["ours"]
        if row["reference"] is not None:
            bars[row["against"]] = row["reference"]
    if not panels:
        return
    about = {(row["workload"], row["metric"]): row for row in rows}
    made, axes = _sheet(len(panels), height=2.1)
    for axis, (key, bars) in zip(axes, panels.items(), strict=False):
        unit = about[key]["unit"]
        ordered = sorted(bars, key=bars.__getitem__, reverse=unit == "s")
        colours = [OURS if "kinfolk" in name else BARE if _is_bare(name) else THEIRS for name in ordered]
        drawn = axis.barh(ordered, [bars[name] for name in ordered], color=colours, log=True)
        axis.bar_label(drawn, [figure(bars[name], unit) for name in ordered], padding=2, fontsize=6)
        axis.set_title(f"{key[0]}, {key[1].replace('_', ' ')} ({'less' if unit != '/s' else 'more'} is better)")
        axis.set_xlim(min(bars.values()) / 3, max(bars.values()) * 8)
        axis.tick_params(labelsize=6)
        axis.tick_params(axis="x", which="both", labelbottom=False, length=0)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    yield _save(made, path)


def _is_bare(name: str) -> bool:
    return name.startswith(("bare", "sockets"))


def _growth(curves: Mapping[str, Any], path: Path) -> Iterator[Path]:
    """One panel for each curve."""
    shown = {word: curve for word, curve in curves.items() if curve["series"]}
    if not shown:
        return
    made, axes = _sheet(len(shown), height=2.3)
    for axis, curve in zip(axes, shown.values(), strict=False):
        for name, points in curve["series"].items():
            sizes, values = zip(*points, strict=True)
            axis.plot(sizes, values, marker=".", label=name)
        axis.set_title(curve["title"], fontsize=7)
        axis.set_xlabel(curve["size"], fontsize=7)
        if curve["size"] != "nodes":
            axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        ticks = [tick for tick in axis.get_yticks() if tick >= 0]
        axis.set_yticks(ticks, [figure(tick, curve["unit"]) if tick else "0" for tick in ticks])
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
        if len(curve["series"]) > 1:
            axis.legend(fontsize=6, frameon=False)
    yield _save(made, path)


def _sheet(count: int, height: float) -> tuple[Figure, list[Any]]:
    rows = math.ceil(count / COLUMNS)
    made = Figure(figsize=(3.6 * COLUMNS, height * rows), layout="constrained")
    axes = [made.add_subplot(rows, COLUMNS, number + 1) for number in range(count)]
    return made, axes


def _save(made: Figure, path: Path) -> Path:
    made.savefig(path, metadata={"Date": None})
    return path
