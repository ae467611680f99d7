"""`kinfolk watch`, in a pipe and on a terminal: what it shows, how it ends, and that it holds up nobody."""

import asyncio
import json
import signal
import threading
import time

import pytest

from kinfolk import settings
from kinfolk.observer import Observer
from kinfolk.watches import MAX_EVENTS
from tests.cli.commands import Served, Shell


class Watched:
    """A node that registers and withdraws names when it is told to."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.served = shell.serve("obedient", "--name", "ada")
        self.name = self.served.ready()

    def add(self, *names: str) -> None:
        self.served.order("add", *names)

    def remove(self, *names: str) -> None:
        self.served.order("remove", *names)

    def ask(self, request: object) -> object:
        """Ask its service."""
        known = settings.resolve(environ=self.shell.environ)

        async def asked() -> object:
            async with Observer(self.name, cookies=known.cookies, cluster=known.cluster) as node:
                return await node.call(request)

        return asyncio.run(asked())

    def table(self) -> dict[str, str]:
        """All names with their pids; there are few."""
        page = self.ask(["names", "", "", 5000])
        assert isinstance(page, dict) and not page["more"]
        return dict(page["names"])


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A node for all tests; each takes its names away again."""
    shell = Shell(tmp_path_factory.mktemp("watched"))
    try:
        yield Watched(shell)
    finally:
        shell.close()


def events_of(served: Served, count: int) -> list[dict[str, str]]:
    """So many of the objects that it prints."""
    assert served.process.stdout is not None
    return [json.loads(served.process.stdout.readline()) for _ in range(count)]


def fold(events: list[dict[str, str]]) -> dict[str, str]:
    """The table that follows from events."""
    table: dict[str, str] = {}
    for event in events:
        match event["event"]:
            case "resync":
                table.clear()
            case "added":
                table[event["name"]] = event["pid"]
            case "removed":
                assert table.pop(event["name"]) == event["pid"]
            case other:
                raise AssertionError(other)
    return table


# --- in a pipe ---


def test_lines_come_at_once_and_in_order_and_ctrl_c_ends_with_0(watched):
    watched.add("svc/a", "other")
    lines = watched.shell.start("watch", "svc/*")
    pids = watched.table()
    assert lines.line() == ["added", "svc/a", pids["svc/a"]]
    watched.add("svc/b", "other/2")
    watched.remove("svc/a")
    assert lines.line() == ["added", "svc/b", watched.table()["svc/b"]]
    assert lines.line() == ["removed", "svc/a", pids["svc/a"]]
    lines.signal(signal.SIGINT)
    ended = lines.end()
    assert (ended.out, ended.err, ended.code) == ("", "", 0)
    watched.remove("svc/b", "other", "other/2")


def test_json_is_one_object_a_line_and_names_are_unchanged(inside, watched):
    odd = 'tab\tquote"\x1b[31mred\nsp\u00e4ti'
    watched.add(odd)
    pid = watched.table()[odd]
    lines = watched.shell.start("watch", "--json", "--count", "2")
    assert events_of(lines, 1) == [{"event": "added", "name": odd, "pid": pid}]
    plain = inside(watched.shell, "watch", "tab*", "--count", "1").out
    assert plain == f'added\ttab\\tquote"\\x1b[31mred\\nsp\u00e4ti\t{pid}\n'
    watched.remove(odd)
    assert events_of(lines, 1) == [{"event": "removed", "name": odd, "pid": pid}]
    assert lines.end().code == 0


def test_a_name_that_another_process_takes_is_removed_before_it_is_added(watched):
    watched.add("db")
    lines = watched.shell.start("watch", "db", "--json", "--count", "3")
    first = events_of(lines, 1)
    watched.remove("db")
    watched.add("db")
    events = first + events_of(lines, 2)
    assert [event["event"] for event in events] == ["added", "removed", "added"]
    assert events[0]["pid"] == events[1]["pid"] != events[2]["pid"]
    assert fold(events) == {"db": watched.table()["db"]}
    assert lines.end().code == 0
    watched.remove("db")


def test_count_and_kind_limit_what_is_shown(inside, watched):
    watched.add("a", "b", "c")
    ended = inside(watched.shell, "watch", "--count", "2")
    assert ([line.split("\t")[:2] for line in ended.out.splitlines()], ended.code) == (
        [["added", "a"], ["added", "b"]],
        0,
    )
    lines = watched.shell.start("watch", "--kind", "removed", "--kind", "resync", "--count", "2", "--json")
    while lines.process.poll() is None:  # it shows nothing of what is there, so nobody knows when it begins
        watched.remove("b")
        watched.add("b")
    ended = lines.end()
    shown = [json.loads(line) for line in ended.out.splitlines()]
    assert [(event["event"], event["name"]) for event in shown] == [("removed", "b")] * 2
    assert ended.code == 0
    watched.remove("a", "b", "c")


@pytest.mark.slow
def test_nodes_come_stall_and_go_beside_the_names(inside, watched):
    following = watched.shell.start("watch", "nora", "--nodes", "--json", "--node", watched.name)
    watched.add("nora")
    assert [event["event"] for event in events_of(following, 1)] == ["added"]
    bob = watched.shell.serve("obedient", "--name", "bob")
    name = bob.ready()
    (up,) = events_of(following, 1)
    assert (up["event"], up["node"]) == ("up", name) and int(up["creation"], 16) > 0
    there = inside(watched.shell, "watch", "--nodes", "--kind", "up", "--count", "1", "--node", watched.name)
    assert there.out == f"up\t{name}\t{up['creation']}\n"
    on_terminal = watched.shell.start_on_terminal("watch", "nora", "--nodes", "--node", watched.name)
    on_terminal.until("nora", f"node, creation {up['creation']}", "1 names match nora", "1 peers")
    bob.order("block", 2.5)
    stalls = [("stalled", name), ("resumed", name)]  # more than one on a machine that is busy
    seconds = 0.0
    while seconds < 1.5:
        stalled, resumed = events_of(following, 2)
        assert [(event["event"], event["node"]) for event in (stalled, resumed)] == stalls
        assert float(stalled["seconds"]) <= float(resumed["seconds"])
        seconds = float(resumed["seconds"])
    bob.signal(signal.SIGKILL)
    down = next(event for event in iter(lambda: events_of(following, 1)[0], None) if event["event"] not in dict(stalls))
    assert (down["event"], down["node"]) == ("down", name) and down["reason"]
    on_terminal.until(f"node, down: {down['reason']}"[:40])
    on_terminal.type("\x03")
    watched.remove("nora")
    assert [event["event"] for event in events_of(following, 1)] == ["removed"]
    following.signal(signal.SIGINT)
    assert (following.end().code, on_terminal.end().code) == (0, 0)


def test_what_is_no_pattern_or_count_ends_with_2(inside, shell):
    for arguments, complaint in {
        ("a*b",): "no pattern",
        ("",): "no pattern",
        ("--count", "0"): "1 or more",
        ("--kind", "changed"): "changed",
    }.items():
        ended = inside(shell, "watch", *arguments)
        assert ended.code == 2
        assert complaint in ended.only_line


def test_output_that_nobody_reads_any_longer_ends_the_watch(watched):
    lines = watched.shell.start("watch")
    watched.add("a")
    assert lines.line()[1] == "a"
    assert lines.process.stdout is not None
    lines.process.stdout.close()
    lines.process.stdout = None
    watched.remove("a")
    ended = lines.end()
    assert (ended.err, ended.code) == ("", 141)


def test_when_the_node_closes_it_ends_with_3_and_says_so_in_a_pipe_and_on_a_terminal(shell):
    node = Watched(shell)
    node.add("a")
    lines, terminal = shell.start("watch", "--json"), shell.start_on_terminal("watch")
    events = events_of(lines, 1)
    terminal.until("1 names match")
    node.served.signal(signal.SIGTERM)
    ended = lines.end()
    assert (ended.err.removeprefix("kinfolk: "), ended.code) == (f"{node.name} has closed: ask another node\n", 3)
    # What it withdrew before it went may have been told, and nothing else.
    events += [json.loads(line) for line in ended.out.splitlines()]
    assert [event["event"] for event in events] in (["added"], ["added", "removed"])
    ended = terminal.end()
    assert ended.code == 3
    assert f"kinfolk: {node.name} has closed" in ended.out


# --- on a terminal ---


def test_a_terminal_shows_a_list_that_lives(watched):
    watched.add("svc/a", "svc/b", "other")
    pids = watched.table()
    terminal = watched.shell.start_on_terminal("watch", "svc/*")
    lines = terminal.until(f"2 names match svc/* at {watched.name}")
    assert lines[0].split() == ["NAME", "PID", "CHANGED"]
    assert [line.split()[:3] for line in lines[1:3]] == [["+", name, pids[name]] for name in ("svc/b", "svc/a")]
    watched.remove("svc/b")
    watched.add("svc/evil\x1b[31m\a")
    lines = terminal.until("- svc/b".replace(" ", "  "), "+  svc/evil\\x1b[31m\\x07", "2 names match")
    assert [line.split()[1] for line in lines[1:4]] == ["svc/evil\\x1b[31m\\x07", "svc/b", "svc/a"]
    assert "\x1b[31ms" not in terminal.shown and "\a" not in terminal.shown, "a name must not control the terminal"
    terminal.type("\x03")
    ended = terminal.end()
    assert ended.code == 0
    assert ended.out.endswith("\x1b[?25h"), "the cursor is back"
    assert "svc/evil" in "\n".join(terminal.screen()), "the list stays"
    watched.remove("svc/a", "other", "svc/evil\x1b[31m\a")


def test_a_list_fits_the_screen_whatever_happens(watched):
    names = [f"n{number:03}" for number in range(100)]
    watched.add(*names)
    terminal = watched.shell.start_on_terminal("watch", lines=10)
    lines = terminal.until("100 names match *")
    assert [line.split()[1] for line in lines[1:8]] == names[:-8:-1]
    watched.remove(*names[20:])
    lines = terminal.until("20 names match *")
    assert len(lines) <= 10
    assert [line.split()[:2] for line in lines[1:8]] == [
        *(["-", name] for name in ("n099", "n098")),
        *(["+", name] for name in names[19:14:-1]),
    ], "those that went last, and those that are there"
    terminal.type("\x03")
    assert terminal.end().code == 0
    watched.remove(*names[:20])


def test_a_dumb_terminal_and_one_that_is_asked_for_json_get_lines(watched):
    watched.add("a")
    pid = watched.table()["a"]
    dumb = watched.shell.run_on_terminal("watch", "--count", "1", TERM="dumb")
    assert (dumb.out, dumb.code) == (f"added\ta\t{pid}\r\n", 0)
    asked = watched.shell.run_on_terminal("watch", "--count", "1", "--json")
    assert json.loads(asked.out) == {"event": "added", "name": "a", "pid": pid}
    watched.remove("a")


# --- one that does not read ---


def test_a_stopped_watcher_holds_up_nobody_and_wakes_to_a_true_table(shell):
    """While 50,000 names change at the node."""
    node = Watched(shell)
    node.add("early")
    watcher = shell.start("watch", "--json")
    events = events_of(watcher, 1)
    watcher.signal(signal.SIGSTOP)
    try:
        latencies = Latencies(node)
        peak, *_ = node.served.order("storm", 0, 12_500)  # now memory holds what such a storm needs
        storms = [node.served.order("storm", number, 12_500) for number in (1, 2, 3)]
        node.add("late/1", "late/2")
        node.remove("early")
        slowest = latencies.end()
    finally:
        watcher.signal(signal.SIGCONT)
    final, *_ = storms[-1]
    assert final - peak < 4 * 1024, "the names of the missed changes alone are more than this"
    assert max(waiting for _, waiting, _ in storms) <= MAX_EVENTS
    assert max(unsent for *_, unsent in storms) < 64 * 1024
    assert slowest < 2.0, "another observer had to wait"

    table = node.table()
    assert sorted(table) == ["late/1", "late/2"]
    while not (events and events[-1].get("name") == "late/2"):
        events += events_of(watcher, 1)
    while fold(events) != table:  # the last names of the storm leave in slices, some perhaps after the resync
        events += events_of(watcher, 1)
    assert [event["event"] for event in events].count("resync") == 1
    # And it goes on as if nothing had been.
    node.remove("late/1")
    events += events_of(watcher, 1)
    assert fold(events) == node.table()
    # A node that is killed takes no leave.
    node.served.signal(signal.SIGKILL)
    ended = watcher.end()
    assert ended.code == 3
    assert f"the session with {node.name} ended" in ended.only_line


class Latencies:
    """Another observer, that asks again and again in a thread of its own."""

    def __init__(self, node: Watched) -> None:
        self._node = node
        self._slowest = 0.0
        self._done = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))
        self._thread.start()

    def end(self) -> float:
        """Stop asking. The longest time that an answer took, in seconds."""
        self._done = True
        self._thread.join()
        return self._slowest

    async def _ask(self) -> None:
        known = settings.resolve(environ=self._node.shell.environ)
        async with Observer(self._node.name, cookies=known.cookies, cluster=known.cluster) as node:
            while not self._done:
                begin = time.monotonic()
                await node.call(["whereis", "early"])
                self._slowest = max(self._slowest, time.monotonic() - begin)
                await asyncio.sleep(0.01)
