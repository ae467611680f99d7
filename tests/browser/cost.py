"""What an open dashboard costs its node: ``python -m tests.browser.cost --seconds 60``.

A node with 100,000 names, of which one comes or goes each second, first by itself, then with each page open in turn.
What is measured is the time that the node's program has used of a processor.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.browser.conftest import DESK, City, launched
from tests.cli.commands import Shell
from tests.system.fleet import free_port

NAMES = 100_000
PAGES = ("overview", "names", "names?q=9", "groups", "processes", "events", "metrics")


def used(pid: int) -> float:
    """Seconds of a processor that a program has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(pid: int, seconds: float) -> float:
    """The part of a core that a program uses, over so many seconds."""
    began, before = time.monotonic(), used(pid)
    time.sleep(seconds)
    return (used(pid) - before) / (time.monotonic() - began)


def measured(city: City, browser: Any, seconds: float) -> Iterator[tuple[str, float]]:
    """What the node uses with nobody looking, and with each page open."""
    where = f"127.0.0.1:{free_port()}"
    node = city.node("obey", "ada", "--dashboard", where, "--log-level", "error")
    City.order(node, "crowd", NAMES)
    City.order(node, "churn", 1.0)
    pid = node.process.pid
    time.sleep(2.0)
    yield "nobody looks", share(pid, seconds)
    for path in PAGES:
        page = browser.new_page(viewport=DESK)
        page.goto(f"http://{where}/#/{path}")
        page.wait_for_selector("#status[data-state=live]")
        time.sleep(2.0)
        yield path, share(pid, seconds)
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory, launched() as browser:
        shell = Shell(Path(directory))
        try:
            for what, part in measured(City(shell), browser, seconds):
                print(f"{what:20} {100 * part:5.2f} % of a core", flush=True)
        finally:
            shell.close()


if __name__ == "__main__":
    main()
