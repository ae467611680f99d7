"""`kinfolk top`, on a terminal and in a pipe: what it shows, what its keys do, and that a lost node is found again."""

import asyncio
import json
import re
import signal
from typing import Any

import pytest

from kinfolk.cli.top import Look, Wanted, in_order
from kinfolk.errors import CallTimeout
from tests.system.fleet import free_port

QUICK = ("top", "--every", "0.2")
COLOUR = re.compile(r"\x1b\[(?:[\d;:]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:[;:][\d;:]*)?m")


def column(lines: list[str], title: str) -> list[str]:
    """What stands below a title, in the table of processes."""
    head = next((number for number, line in enumerate(lines) if "RUNS" in line and title in line), None)
    if head is None:
        return []
    at = lines[head].index(title)
    found = (line[at:].split("  ")[0].strip() for line in lines[head + 1 : -1])  # the last has the keys
    return [text for text in found if text]


def test_it_shows_nodes_and_processes_and_does_what_its_keys_say(cluster):
    top = cluster.shell.start_on_terminal(*QUICK, "--node", cluster.bob, lines=40)
    lines = top.until_painted("2 nodes", "MAILBOX v", "shop/[bold]mail", "p Pause", "/ Filter", "q Quit")
    assert any(line.split()[:2] == [cluster.ada, "up"] for line in lines)
    assert any(line.split()[:2] == [cluster.bob, "up"] for line in lines)

    top.type("n")
    names = ["bell\\x1b[31m\\x07", "kinfolk", "kinfolk", "odd\\tname\\n", "shop/[bold]mail"]
    top.until_painted("NAME v", holds=lambda lines: column(lines, "NAME v")[:5] == names)
    assert "\x1b[31m\a" not in top.shown, "a name must not control the terminal"
    top.type("o")
    top.until_painted("NODE v")

    top.type("/")
    top.until_painted("text in a name")
    top.type("shop/db\r")
    top.until_painted("1 match 'shop/db'", "1 shown", holds=lambda lines: column(lines, "NAME")[:2] == ["shop/db"])
    top.type("\r")
    top.until_painted("parent:", "at: ", "shopping.py:", "next: -")
    top.type("\x1b")
    top.until_painted("1 shown", holds=lambda lines: not any("parent:" in line for line in lines))
    top.type("p")
    top.until_painted("PAUSED")
    top.type("q")
    ended = top.end()
    assert ended.code == 0
    assert ended.out.count("\x1b[?1049h") == ended.out.count("\x1b[?1049l") == 1, "the screen is as it was before"


@pytest.mark.slow
def test_a_signal_ends_it_with_the_terminal_as_it_was(cluster):
    top = cluster.shell.start_on_terminal(*QUICK, lines=30)
    top.until_painted("2 nodes")
    top.process.send_signal(signal.SIGTERM)
    ended = top.end()
    assert ended.code == 128 + signal.SIGTERM
    assert "\x1b[?1049l" in ended.out and ended.out.rindex("\x1b[?25h") > ended.out.rindex("\x1b[?25l")


@pytest.mark.parametrize("environ", [pytest.param({}, marks=pytest.mark.slow), {"NO_COLOR": "1"}])
def test_no_color_is_respected(cluster, environ):
    top = cluster.shell.start_on_terminal(*QUICK, lines=30, environ=environ)
    top.until_painted("2 nodes")
    top.type("\x03")
    ended = top.end()
    assert ended.code == 0
    assert bool(COLOUR.search(ended.out)) is not bool(environ)


def test_a_node_that_is_lost_is_told_of_and_dialled_until_it_is_back(shell):
    name = f"ada@127.0.0.1:{free_port()}"
    node = shell.serve("till", "--name", name)
    node.ready()
    top = shell.start_on_terminal(*QUICK, "--node", name, lines=30)
    top.until_painted("1 nodes", "till")
    node.signal(signal.SIGKILL)
    node.end()
    top.until_painted("LOST", "dials again")
    shell.serve("shop", "--name", name).ready()
    top.until_painted("1 nodes", "shop/db", holds=lambda lines: not any("LOST" in line for line in lines))
    top.type("q")
    assert top.end().code == 0


def test_in_a_pipe_it_names_what_to_use_and_as_json_it_looks_once(inside, cluster):
    ended = inside(cluster.shell, "top")
    assert ended.code == 2 and "kinfolk ps" in ended.only_line
    ended = inside(cluster.shell, "top", "--json", "--filter", "shop/", "--sort", "name", "--limit", "1")
    seen = json.loads(ended.out)
    assert [(node["node"], node["state"]) for node in seen["nodes"]] == [(cluster.ada, "up"), (cluster.bob, "up")]
    assert [node["matching"] for node in seen["nodes"]] == [2, 0]
    assert [row["names"] for row in seen["processes"]] == [["shop/[bold]mail"]]


def test_what_cannot_be_is_a_usage_error(inside, cluster):
    for arguments, complaint in {
        ("--every", "0"): "positive",
        ("--limit", "0"): "from 1 to 200",
        ("--limit", "201"): "kinfolk ps",
        ("--sort", "colour"): "colour",
    }.items():
        ended = inside(cluster.shell, "top", "--json", *arguments)
        assert ended.code == 2 and complaint in ended.only_line
    assert "needs a terminal" in cluster.shell.run_on_terminal("top", TERM="dumb").out


def test_without_the_extra_it_says_how_to_install_it(cluster):
    absent = cluster.shell.directory / "textual.py"
    absent.write_text("raise ModuleNotFoundError(\"No module named 'textual'\", name='textual')\n")
    try:
        ended = cluster.shell.run_on_terminal("top")
    finally:
        absent.unlink()
    assert ended.code == 2
    assert ended.out == "kinfolk: `kinfolk top` needs textual: pip install 'kinfolk[tui]'\r\n"


def test_processes_of_several_nodes_stand_in_one_order():
    rows: list[dict[str, Any]] = [
        {"node": "b", "names": [], "waiting": 1, "received": 5, "age": 2.0},
        {"node": "a", "names": ["y"], "waiting": 3, "received": 4, "age": 9.0},
        {"node": "c", "names": ["x"], "waiting": 2, "received": 6, "age": 1.0},
    ]
    orders = {sort: "".join(row["node"] for row in in_order(rows, sort)) for sort in ("waiting", "received", "age")}
    assert orders == {"waiting": "acb", "received": "cba", "age": "abc"}
    assert [row["node"] for row in in_order(rows, "name")] == ["c", "a", "b"]
    assert [row["node"] for row in in_order(rows, "node")] == ["a", "b", "c"]


# --- the screen alone ---


class Asked:
    """A node that answers each request as it is told to."""

    def __init__(self) -> None:
        self.name = "ada@h:1"
        self.requests: list[Any] = []
        self.rows: list[dict[str, Any]] = [
            {
                "pid": f"ada@h:1/1/{number}",
                "names": [],
                "runs": f"f{number}",
                "waiting": number,
                "received": 0,
                "age": 1.0,
            }
            for number in range(50)
        ]

    async def call(self, request: Any, *, timeout: float | None = None) -> Any:
        self.requests.append(request)
        match request:
            case ["nodes"]:
                return {"ada@h:1": 1, "bob@h:2": 2}
            case ["stalled"]:
                return {"bob@h:2": 3.0}
            case ["top", _, pattern, limit]:
                found = sorted((row for row in self.rows if pattern in row["runs"]), key=lambda row: -row["waiting"])
                told = {"node": self.name, "names": 0, "processes": 50, "waiting": 0, "ready": True}
                return {**told, "matching": len(found), "top": found[:limit]}
            case ["process", pid]:
                return {"pid": pid, "links": [], "parent": None}
            case _:
                raise AssertionError(request)

    async def close(self) -> None:
        pass


async def test_the_cursor_stays_on_its_process_and_a_paused_screen_asks_nobody():
    from textual.widgets import DataTable

    from kinfolk.cli.live import Live
    from kinfolk.cli.top import look

    asked = Asked()
    node: Any = asked
    wanted = Wanted("waiting", "", 20)
    seen: Look = await look(node, wanted)
    assert [(row["node"], row["state"]) for row in seen.nodes] == [("ada@h:1", "up"), ("bob@h:2", "stalled for 3.0 s")]
    app = Live(node, wanted, seen, every=0.1)
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.query_one("#processes", DataTable)
        assert table.row_count == 20
        await pilot.press("down", "down")
        assert str(table.get_row_at(table.cursor_row)[1]) == "f47"
        asked.rows[47]["waiting"] = 1000
        async with asyncio.timeout(10):
            while str(table.get_row_at(0)[1]) != "f47":
                await pilot.pause(0.01)
        assert table.cursor_row == 0, "it has gone with its process"
        await pilot.press("p")
        await pilot.pause()
        before = len(asked.requests)
        await pilot.pause(0.3)
        assert len(asked.requests) <= before + 4, "at most the look that was under way"
        settled = len(asked.requests)
        await pilot.pause(0.3)
        assert len(asked.requests) == settled
        await pilot.press("p", "slash", "f", "4", "enter")
        async with asyncio.timeout(10):
            while table.row_count != 11:
                await pilot.pause(0.01)
        assert asked.requests[-1][:3] == ["top", "waiting", "f4"] or ["top", "waiting", "f4", 20] in asked.requests
        await pilot.press("q")


async def test_a_peer_that_does_not_tell_of_its_process_is_not_our_session_lost():
    from textual.widgets import Static

    from kinfolk.cli.live import Live
    from kinfolk.cli.top import look

    class Silent(Asked):
        async def act(self, request: list[Any], *, timeout: float | None = None) -> Any:
            raise CallTimeout("bob@h:1 has not answered in 1 s")

    asked = Silent()
    for row in asked.rows:
        row["pid"] = row["pid"].replace("ada@h:1", "bob@h:1")
    node: Any = asked
    wanted = Wanted("waiting", "", 20)
    app = Live(node, wanted, await look(node, wanted), every=0.1)
    async with app.run_test(size=(120, 40)) as pilot:
        about = app.query_one("#about", Static)
        await pilot.press("enter")
        async with asyncio.timeout(10):
            while "no answer: " not in str(about.content):
                assert "LOST" not in str(app.query_one("#status", Static).content)
                await pilot.pause(0.01)
        assert "bob@h:1 has not answered" in str(about.content)
        before = len(asked.requests)
        async with asyncio.timeout(10):
            while len(asked.requests) < before + 6:  # it goes on looking
                await pilot.pause(0.01)
        await pilot.press("q")
