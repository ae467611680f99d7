"""``python -m bench.looking [ROUNDS [LOOK ...]]``: what it costs a cluster to be looked at.

Three programs: `ada`, a node that has 100,000 processes, each with a name and a membership of a group; `bob`, her peer,
who calls her in the busy cluster; and one that looks, as the commands do. Told is how long an answer takes, how long
the loop of ada does not come round meanwhile, and how many calls a second bob gets answered with somebody looking every
second, beside how many without: measured one after the other in each round, now the one first, now the other.

The figures go into bench/results/looking.json, and from there into docs/guides/production.md.
"""

import asyncio
import importlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import ours, report
from bench.agent import Here
from bench.stage import ROOT, PythonAgent, Stage
from bench.workloads import casts
from kinfolk import Cookie, Node
from kinfolk.cli.top import Wanted, look
from kinfolk.looking import PAGE, PROCESSES
from kinfolk.observer import Observer

RESULTS = Path(__file__).parent / "results" / "looking.json"
GUIDE = ROOT / "docs" / "guides" / "production.md"
NAMES, GROUPS = 100_000, 1_000
CALLS, CALLERS = 40_000, 16
EVERY = 1.0
"""Seconds from the begin of one look to that of the next, in the busy cluster."""
_SECTION = re.compile(r"(<!-- measured: looking -->\n).*?(<!-- end -->)", re.DOTALL)

# --- what is looked at ---

Ask = Callable[[Observer], Awaitable[object]]


async def _names(node: Observer) -> None:
    after, more = "", True
    while more:
        page = await node.call(["names", "", after, PAGE])
        after, more = page["names"][-1][0], page["more"]


async def _groups(node: Observer) -> None:
    after, more = ["", ""], True
    while more:
        page = await node.call(["groups", "", *after, PAGE])
        after, more = page["groups"][-1], page["more"]


async def _ps(node: Observer) -> None:
    after, more = 0, True
    while more:
        page = await node.call(["ps", after, PROCESSES])
        after, more = int(page["processes"][-1]["pid"].rpartition("/")[2]), page["more"]


async def _watch(node: Observer) -> None:
    """Until all that is there has come."""
    number, told = await node.call(["watch", "*"]), 0
    while told < NAMES:
        told += len(await node.call(["events", number, 5.0]))


def _top(sort: Any, pattern: str = "") -> Ask:
    return lambda node: look(node, Wanted(sort, pattern, 100))


ASKS: Mapping[str, Ask] = {
    "nodes": lambda node: node.call(["nodes"]),
    "why": lambda node: node.call(["why", "owned 500"]),
    "names": _names,
    "groups": _groups,
    "ps": _ps,
    "watch": _watch,
    "top": _top("waiting"),
    "top --sort name": _top("name"),
    "top --filter": _top("waiting", "owned 77"),
}
METRICS = "/metrics"
LOOKS = [*ASKS, METRICS]

# --- orders for agents ---


async def fill(here: Here, names: int, groups: int) -> None:
    """Processes, each with a name and a membership."""
    await ours.owners(here, names)
    node: Node = here.kept["node"]
    for number, pid in enumerate(here.kept["owners"]):
        await node.groups.join(f"group {number % groups}", pid)
        if number % ours.BURST == 0:
            await asyncio.sleep(0)


async def serve_pages(here: Here) -> int:
    """Serve the pages for Prometheus; their port."""
    serving = here.kept["pages"] = importlib.import_module("kinfolk.metrics").serve(here.kept["node"], "127.0.0.1:0")
    port: int = (await serving.__aenter__()).port
    return port


async def open_session(here: Here, where: str, cookie: str, port: int) -> None:
    """Be somebody who looks, and has a core only when nobody else wants it: as if from another machine."""
    os.nice(19)
    observer = Observer(where, cookies=[Cookie(cookie)], cluster="kinfolk", timeout=60.0)
    here.kept["observer"], here.kept["port"] = await observer.open(), port


async def look_once(here: Here, what: str) -> float:
    """Look; the seconds that the answer took, all of it."""
    begun = time.perf_counter()
    if what == METRICS:
        await _scrape(here.kept["port"])
    else:
        await ASKS[what](here.kept["observer"])
    return time.perf_counter() - begun


async def _scrape(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    assert b" 200 " in answer[:20] and b"kinfolk_names" in answer, answer[:200]
    writer.close()


async def begin_looking(here: Here, what: str) -> None:
    """Look again and again, until `end_looking`."""
    times: list[float] = []

    async def again() -> None:
        while True:
            times.append(await look_once(here, what))
            await asyncio.sleep(max(0.0, EVERY - times[-1]))

    here.kept["looking"] = asyncio.create_task(again()), times


async def end_looking(here: Here) -> list[float]:
    """The seconds of each look since; the last is awaited."""
    task, times = here.kept.pop("looking")
    while not times:  # noqa: ASYNC110 - it is far quicker than a look
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    done: list[float] = times
    await here.kept["observer"].close()  # it may have been in the midst of an answer
    here.kept["observer"] = await here.kept["observer"].another().open()
    return done


# --- the measurement ---


async def measure(work: Path, rounds: int, looks: Sequence[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each of these kinds of look."""
    async with Stage(work) as stage:
        say("staging")
        (ada, bob), cookie = await casts.mesh(stage, "asyncio", 2)
        await ada.run(ours.serve)
        await ada.run(fill, NAMES, GROUPS)
        await bob.run(ours.when_names, NAMES + 3)
        who = await stage.python()
        await who.run(open_session, await ada.run(ours.name), cookie, await ada.run(serve_pages))
        await bob.run(ours.rate, CALLS // 8, CALLERS)  # warms up
        rows: list[dict[str, Any]] = []
        for what in looks:
            say(what)
            await who.run(look_once, what)
            idle = [await _idle(ada, who, what) for _ in range(rounds)]
            busy = [await _busy(ada, bob, who, what, turn) for turn in range(rounds)]
            rows.append({"what": what, **_medians(idle), **_medians(busy)})
        return rows


async def _idle(ada: PythonAgent, who: PythonAgent, what: str) -> dict[str, float]:
    await ada.run(ours.watch_stalls)
    before = await ada.run(ours.used)
    seconds = await who.run(look_once, what)
    after = await ada.run(ours.used)
    wall, own = await ada.run(ours.stalls)
    return {"idle": seconds, "idle_cpu": after["cpu"] - before["cpu"], "idle_wall": wall, "idle_own": own}


async def _busy(ada: PythonAgent, bob: PythonAgent, who: PythonAgent, what: str, turn: int) -> dict[str, float]:
    found: dict[str, float] = {}

    async def called(word: str) -> tuple[float, float]:
        """Calls a second, and for each second that ada has had of a processor."""
        await ada.run(ours.watch_stalls)
        before = await ada.run(ours.used)
        rate = await bob.run(ours.rate, CALLS, CALLERS)
        after = await ada.run(ours.used)
        found[f"{word}_wall"], found[f"{word}_own"] = await ada.run(ours.stalls)
        return rate, CALLS / (after["cpu"] - before["cpu"])

    async def looked_at() -> tuple[float, float]:
        await who.run(begin_looking, what)
        called_meanwhile = await called("busy")
        found["busy"] = statistics.median(await who.run(end_looking))
        return called_meanwhile

    if turn % 2:
        looked, without = await looked_at(), await called("alone")
    else:
        without, looked = await called("alone"), await looked_at()
    ratio, own = (some / all_of_it for some, all_of_it in zip(looked, without, strict=True))
    return {**found, "rate": without[0], "ratio": ratio, "ratio_own": own}


def _medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


# --- what becomes of it ---


def table(results: Mapping[str, Any]) -> str:
    """The figures as the guide shows them."""
    machine = results["machine"]
    rate = statistics.median(row["rate"] for row in results["rows"])
    head = (
        f"Measured on {results['at']} (UTC) on {machine['cores']} cores of {machine['processor']}, Python"
        f" {machine['python']}, {results['rounds']} rounds; the load of the machine, which others used as well, was"
        f" {machine['load'][0]:g} at the end. Each figure is the median of its rounds. Busy: {rate:,.0f} calls a second"
        f" by {CALLERS} callers of another node. Who looks has what the two leave of the cores (nice 19)."
    )
    columns = [
        *("look", "idle: answer", "processor", "longest stall", "its own", "busy: answer", "longest stall", "its own"),
        *("its own, not looked at", "calls a second, by those when not looked at", "calls for its processor, likewise"),
    ]
    keys = ("idle", "idle_cpu", "idle_wall", "idle_own", "busy", "busy_wall", "busy_own", "alone_own")
    rows = [
        [
            f"`{row['what']}`",
            *(report.figure(row[key], "s") for key in keys),
            f"{row['ratio']:.2f}",
            f"{row['ratio_own']:.2f}",
        ]
        for row in results["rows"]
    ]
    return "\n".join([head, "", *map(_line, [columns, ["---"] * len(columns), *rows])])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with its measured section written anew."""
    return _SECTION.sub(lambda found: f"{found[1]}{table(results)}\n{found[2]}", page)


def main(arguments: Sequence[str]) -> int:
    """Measure, write it down, and put it into the guide."""
    rounds = int(arguments[0]) if arguments else 5
    looks = arguments[1:] or LOOKS
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:4.0f} s] {text} ...", flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        rows = asyncio.run(measure(Path(work), rounds, looks, say))
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    known = {row["what"]: row for row in [*old, *rows]}  # of those that were not measured now, the last
    rows = [known[what] for what in LOOKS if what in known]
    results = {"at": at, "rounds": rounds, "machine": report.machine(), "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    GUIDE.write_text(filled(GUIDE.read_text(), results))
    print(table(results))
    return 0


if __name__ == "__main__":
    # By its own name: agents import what they run from there.
    sys.exit(importlib.import_module("bench.looking").main(sys.argv[1:]))
