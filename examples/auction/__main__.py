"""Start the house, one node of it, or restart it while it works:

    python -m examples.auction                       three nodes, until Ctrl-C; a node that ends is started again
    python -m examples.auction rolling-restart       each leaves in good order and comes back, one after the other

Each node runs in a program of its own, as it would on a machine of its own.
"""

import argparse
import asyncio
import signal
import sys
import time
import urllib.request

import uvicorn

from examples.auction.web import create
from kinfolk import Node, run

WORDS = ("ada", "bob", "carl")
CLUSTER = "auction"
PROGRAM = "examples.auction"
PATIENCE = 60.0


def name_of(word: str, base: int) -> str:
    """The name of a node."""
    return f"{word}@127.0.0.1:{base + 11 + WORDS.index(word)}"


def port_of(word: str, base: int) -> int:
    """Where its pages are."""
    return base + 1 + WORDS.index(word)


def serve(word: str, base: int, seconds: float) -> None:
    """Be one node, and serve its pages."""
    node = Node(name_of(word, base), cluster=CLUSTER, join=[name_of(other, base) for other in WORDS if other != word])
    uvicorn.run(create(node, seconds), port=port_of(word, base), log_level="warning", timeout_graceful_shutdown=5)


async def keep_running(base: int, seconds: float) -> None:
    """Start all nodes, and start again what ends: what systemd or Kubernetes do elsewhere."""
    children: dict[str, asyncio.subprocess.Process] = {}

    async def keep(word: str) -> None:
        options = ["--base", str(base), "--seconds", str(seconds)]
        while True:
            child = await asyncio.create_subprocess_exec(sys.executable, "-m", PROGRAM, "node", word, *options)
            children[word] = child
            print(f"{word} starts: http://127.0.0.1:{port_of(word, base)}/ (process {child.pid})", flush=True)
            code = await child.wait()
            print(f"{word} has ended ({code})", flush=True)
            await asyncio.sleep(0.5)  # one that cannot start does not try all the time

    try:
        await asyncio.gather(*map(keep, WORDS))
    finally:
        for child in children.values():
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
        await asyncio.gather(*(child.wait() for child in children.values()))


async def rolling_restart(base: int) -> None:
    """Let one node after the other leave, and wait until it is back."""
    for word in WORDS:
        print(f"{word} leaves", flush=True)
        command = (sys.executable, "-m", "kinfolk", "drain", name_of(word, base), "--cluster", CLUSTER)
        drain = await asyncio.create_subprocess_exec(*command)
        if await drain.wait():
            raise SystemExit(f"{word} did not leave as it should: the others stay as they are")
        await asyncio.to_thread(wait_until_ready, word, base)
        print(f"{word} is back", flush=True)


def wait_until_ready(word: str, base: int) -> None:
    """Wait until a node takes work again."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port_of(word, base)}/readyz", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{word} has not come back within {PATIENCE:g} s")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.auction", description="A live auction on three nodes.")
    parser.add_argument("command", nargs="?", default="start", choices=["start", "node", "rolling-restart"])
    parser.add_argument("word", nargs="?", choices=WORDS, help="which node to be")
    parser.add_argument("--base", type=int, default=8000, help="pages at BASE + 1 to 3, nodes at BASE + 11 to 13")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the first lots are open")
    given = parser.parse_args()
    match given.command:
        case "node":
            serve(given.word, given.base, given.seconds)
        case "rolling-restart":
            asyncio.run(rolling_restart(given.base))
        case _:
            run(lambda: keep_running(given.base, given.seconds))


if __name__ == "__main__":
    main()
