"""The commands that ask a node: what they print, and how they end."""

import json
import signal
import socket

import pytest

from kinfolk import new_cookie
from kinfolk.cli.asking import Asking
from kinfolk.cli.nodes import nodes
from kinfolk.ids import Pid
from kinfolk.shell.neighbours import announce, neighbours, withdraw

NAMES = ["bell\\x1b[31m\\x07", "odd\\tname\\n", "shop/[bold]mail", "shop/db", "späti"]

GROUPS = ["bell\\x1b[31m\\x07", "room/1", "room/[bold]hall"]


@pytest.fixture
def silent_port():
    """A port that nobody listens on, and nobody else can take."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_names_in_a_pipe_are_lines_of_name_and_pid(cluster):
    ended = cluster.shell.run("names")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [name for name, _ in rows] == NAMES
    assert {Pid.parse(pid).node for _, pid in rows} == {cluster.ada}


def test_an_encoding_that_lacks_a_letter_is_no_error(cluster):
    ended = cluster.shell.run("names", "sp", PYTHONIOENCODING="ascii")
    assert (ended.out.split("\t")[0], ended.code) == ("sp\\xe4ti", 0)


def test_names_can_be_limited_to_a_prefix(inside, cluster):
    ended = inside(cluster.shell, "names", "shop/", "--node", cluster.bob)
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == NAMES[2:4]
    assert inside(cluster.shell, "names", "nothing/").out == ""


def test_names_as_json_are_unchanged(inside, cluster):
    found = json.loads(inside(cluster.shell, "names", "--json", "--node", cluster.bob).out)
    assert [entry["name"] for entry in found] == ["bell\x1b[31m\a", "odd\tname\n", *NAMES[2:]]
    assert all(Pid.parse(entry["pid"]).node == cluster.ada for entry in found)


def test_names_on_a_terminal_are_a_table_that_no_name_can_break(cluster):
    shown = cluster.shell.run_on_terminal("names").out
    lines = shown.splitlines()
    assert "NAME" in lines[0] and "PID" in lines[0] and len(lines) == 1 + len(NAMES)
    for name, line in zip(NAMES, lines[1:], strict=True):
        assert name in line
    assert "\x1b[1m" in lines[0], "titles are bold"
    assert "\x1b[31m" not in shown and "\a" not in shown, "a name must not control the terminal"


def test_on_a_narrow_terminal_a_pid_stays_whole(cluster):
    pids = [line.split("\t")[1] for line in cluster.shell.run("names").out.splitlines()]
    table = cluster.shell.run_on_terminal("names", COLUMNS="40", NO_COLOR="1").out
    assert [line.split()[-1] for line in table.splitlines()[1:]] == pids


def test_no_color_is_respected(cluster):
    shown = cluster.shell.run_on_terminal("nodes", NO_COLOR="1").out
    assert "NODE" in shown and "\x1b[3" not in shown


def test_an_empty_table_says_so_to_a_human(cluster):
    assert "no name begins with 'nothing/'" in cluster.shell.run_on_terminal("names", "nothing/").out


def test_groups_in_a_pipe_are_lines_of_group_and_member(cluster):
    ended = cluster.shell.run("groups", "--node", cluster.bob)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [group for group, _ in rows] == [group for group in GROUPS for _ in range(4)]
    members = [Pid.parse(pid) for _, pid in rows]
    assert {pid.node for pid in members} == {cluster.ada, cluster.bob}
    assert members[:4] == sorted(set(members[:4]))


def test_groups_can_be_limited_to_a_prefix_and_an_empty_one_says_so_to_a_human(inside, cluster):
    ended = inside(cluster.shell, "groups", "room/")
    assert {line.split("\t")[0] for line in ended.out.splitlines()} == set(GROUPS[1:])
    assert inside(cluster.shell, "groups", "nothing/").out == ""
    assert "no group begins with 'nothing/'" in cluster.shell.run_on_terminal("groups", "nothing/").out


def test_groups_as_json_are_unchanged_with_their_members(inside, cluster):
    found = json.loads(inside(cluster.shell, "groups", "--json", "--node", cluster.bob).out)
    assert [entry["group"] for entry in found] == ["bell\x1b[31m\a", *GROUPS[1:]]
    for entry in found:
        assert [Pid.parse(pid).node for pid in entry["members"]] == [cluster.ada] * 2 + [cluster.bob] * 2


def test_groups_on_a_terminal_are_a_table_that_no_name_can_break(cluster):
    shown = cluster.shell.run_on_terminal("groups", "--node", cluster.bob).out
    lines = shown.splitlines()
    assert "GROUP" in lines[0] and "MEMBER" in lines[0] and len(lines) == 1 + 12
    assert "room/[bold]hall" in shown and "\x1b[31m" not in shown and "\a" not in shown


def test_whereis_prints_the_pid_alone(cluster):
    ended = cluster.shell.run("whereis", "shop/db")
    assert ended.code == 0
    assert Pid.parse(ended.out.removesuffix("\n")).node == cluster.ada


def test_whereis_of_a_name_that_nobody_has_ends_with_1(cluster):
    ended = cluster.shell.run("whereis", "nobody")
    assert (ended.out, ended.err, ended.code) == ("", "", 1)


def test_whereis_as_json_says_so_in_both_cases(inside, cluster):
    ended = inside(cluster.shell, "whereis", "shop/db", "--json")
    assert (json.loads(ended.out)["name"], ended.code) == ("shop/db", 0)
    ended = inside(cluster.shell, "whereis", "nobody", "--json")
    assert (json.loads(ended.out), ended.code) == ({"name": "nobody", "pid": None}, 1)


def test_nodes_lists_the_node_and_its_peers_and_no_observer(inside, cluster):
    ended = inside(cluster.shell, "nodes", "--node", cluster.bob)
    assert ended.code == 0
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [(cluster.ada, "up"), (cluster.bob, "up")]


def test_nodes_as_json(cluster):
    found = json.loads(cluster.shell.run("nodes", "--json").out)
    assert [(node["name"], node["stalled"]) for node in found] == [(cluster.ada, None), (cluster.bob, None)]


@pytest.mark.parametrize(
    ("seconds", "connected", "state"),
    [(None, True, "up"), (7.25, True, "stalled for 7.2 s"), (None, False, "up, not connected")],
)
def test_the_list_of_nodes_says_whose_loop_stands_still_and_who_is_connected(
    seconds, connected, state, monkeypatch, capsys
):
    stalled = {} if seconds is None else {"bob@h:1": seconds}
    monkeypatch.setattr(
        "kinfolk.cli.nodes.ask", lambda *_: ({"bob@h:1": 1}, stalled, {"bob@h:1"} if connected else set())
    )
    assert nodes() == 0
    assert capsys.readouterr().out.rstrip("\n").split("\t")[-1] == state
    nodes(asking=Asking(json=True))
    (told,) = json.loads(capsys.readouterr().out)
    assert told == {"name": "bob@h:1", "creation": "1", "stalled": seconds, "connected": connected}


def test_the_node_to_ask_comes_from_the_environment_or_the_file(inside, cluster, shell):
    address = cluster.bob.partition("@")[2]
    assert inside(cluster.shell, "nodes", KINFOLK_NODE=address).code == 0
    assert inside(cluster.shell, "nodes", KINFOLK_JOIN=f"{cluster.bob},eve@127.0.0.1:1").code == 0
    (shell.directory / "kinfolk.toml").write_text(f'join = ["{cluster.bob}"]')
    assert inside(shell, "nodes", KINFOLK_HOME=cluster.shell.environ["KINFOLK_HOME"]).code == 0


def test_a_neighbour_that_has_died_is_passed_over_and_forgotten(inside, cluster, silent_port):
    home = cluster.shell.directory / "home"
    dead = f"aaron@127.0.0.1:{silent_port}"
    announce(home, "kinfolk", dead)
    assert inside(cluster.shell, "nodes").code == 0
    assert neighbours(home, "kinfolk") == [cluster.ada, cluster.bob]


def test_a_neighbour_whose_port_is_now_another_programs_is_passed_over(inside, cluster):
    home = cluster.shell.directory / "home"
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = announce(home, "kinfolk", f"aaron@127.0.0.1:{server.getsockname()[1]}")
        assert inside(cluster.shell, "nodes", "--timeout", "0.5").code == 0
    withdraw(other)


def test_another_cookie_is_refused_with_3(cluster, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text(new_cookie())
    wrong.chmod(0o600)
    ended = cluster.shell.run("nodes", "--node", cluster.ada, "--cookie-file", str(wrong))
    assert ended.code == 3
    assert "cookie" in ended.only_line and str(wrong) in ended.only_line


def test_another_cluster_is_refused_with_3(inside, cluster):
    ended = inside(cluster.shell, "nodes", "--node", cluster.ada, "--cluster", "elsewhere")
    assert ended.code == 3
    assert "cluster" in ended.only_line


def test_another_node_than_the_one_named_is_refused_with_3(inside, cluster):
    ended = inside(cluster.shell, "nodes", "--node", cluster.ada.replace("ada", "eve"))
    assert ended.code == 3
    assert cluster.ada in ended.only_line


def test_nobody_listening_ends_with_3(shell, silent_port):
    ended = shell.run("nodes", "--node", f"127.0.0.1:{silent_port}")
    assert ended.code == 3
    assert "is it running there?" in ended.only_line


def test_no_node_on_this_machine_ends_with_3(inside, shell):
    ended = inside(shell, "names")
    assert ended.code == 3
    assert "--node" in ended.only_line


def test_a_listener_that_is_no_node_ends_with_3(shell):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        process = shell.start("nodes", "--node", address)
        connection, _ = server.accept()
        connection.sendall(b"220 mail.example ESMTP\r\n")
        ended = process.end()
        connection.close()
    assert ended.code == 3
    assert "no kinfolk node" in ended.only_line


def test_a_stopped_node_ends_with_4(cluster):
    cluster.process_of_bob.signal(signal.SIGSTOP)
    try:
        ended = cluster.shell.run("nodes", "--node", cluster.bob, "--timeout", "0.3")
    finally:
        cluster.process_of_bob.signal(signal.SIGCONT)
    assert ended.code == 4
    assert "0.3 s" in ended.only_line


def test_a_wrong_setting_ends_with_2(inside, shell):
    for arguments, complaint in {
        ("names", "--cookie-file", "missing"): "missing",
        ("names", "--node", "ada"): "host and a port",
        ("whereis", ""): "empty",
        ("names", "--timeout", "0"): "positive",
    }.items():
        ended = inside(shell, *arguments)
        assert ended.code == 2
        assert complaint in ended.only_line


def test_output_that_nobody_reads_to_the_end_is_no_error(cluster):
    process = cluster.shell.start("names")
    process.process.stdout.close()
    process.process.stdout = None
    ended = process.end()
    assert (ended.err, ended.code) == ("", 141)
