"""`kinfolk doctor`: it finds what would keep a node from joining, and says what to do."""

import json
import socket
from pathlib import Path

from kinfolk import new_cookie
from tests.cli.commands import Ended


def found(ended: Ended) -> dict[str, tuple[str, str]]:
    """What was looked at, with its state and everything that is said of it."""
    return {entry["what"]: (entry["state"], f"{entry['says']} {entry['remedy']}") for entry in json.loads(ended.out)}


def cookie_in(directory: Path, name: str = "cookie", text: str | None = None) -> str:
    path = directory / name
    path.write_text((new_cookie() if text is None else text) + "\n")
    path.chmod(0o600)
    return str(path)


def test_all_is_well_where_nodes_run(cluster, inside):
    findings = found(inside(cluster.shell, "doctor", "--json"))
    assert {state for state, _ in findings.values()} == {"ok"}
    assert {f"node {cluster.ada}", f"node {cluster.bob}", "reach", "port", "software"} <= findings.keys()
    ended = cluster.shell.run_on_terminal("doctor")
    assert ended.code == 0 and "WHAT TO DO" in ended.out and cluster.ada in ended.out


def test_a_first_node_has_nobody_to_join(shell, inside):
    ended = inside(shell, "doctor", "--json", "--name", "ada@127.0.0.1:0")
    assert ended.code == 0 and found(ended)["nodes to join"][0] == "ok"


def test_a_wrong_cookie_is_told_from_a_node_that_is_not_there(shell, inside, tmp_path):
    ada = shell.serve("quick", "--name", "ada", "--cookie-file", cookie_in(tmp_path)).ready()
    other = cookie_in(tmp_path, "other")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{nobody.getsockname()[1]}"
        ended = inside(shell, "doctor", "--json", "--cookie-file", other, "--join", f"{ada},{silent}")
    findings = found(ended)
    assert ended.code == 1
    state, says = findings[f"node {ada}"]
    assert state == "wrong" and "same cookie file" in says
    state, says = findings[f"node {silent}"]
    assert state == "wrong" and "cannot connect" in says and "firewall" in says


def test_a_weak_cookie_a_taken_port_and_an_unknown_host_are_found(shell, inside, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        weak = cookie_in(tmp_path, text="sesame")
        ended = inside(
            shell, "doctor", "--json", "--name", f"ada@127.0.0.1:{port}", "--cookie-file", weak,
            "--join", "bob@nowhere.invalid:4370",
        )  # fmt: skip
    findings = found(ended)
    assert ended.code == 1
    state, says = next(findings[what] for what in findings if what.startswith("cookie from") and weak in what)
    assert state == "warning" and "kinfolk cookie new" in says
    assert findings[f"port 127.0.0.1:{port}"][0] == "warning"
    assert findings["address nowhere.invalid:4370"][0] == "wrong"


def test_an_address_of_another_machine_is_wrong(shell, inside, tmp_path):
    ended = inside(shell, "doctor", "--json", "--name", "ada@192.0.2.1:4370", "--cookie-file", cookie_in(tmp_path))
    state, says = found(ended)["port 192.0.2.1:4370"]
    assert ended.code == 1
    assert state == "wrong" and "Cannot assign requested address" in says and "--listen an address of this mach" in says


def test_settings_that_are_wrong_are_found_before_anything_else(shell, inside, tmp_path):
    path = cookie_in(tmp_path)
    Path(path).chmod(0o644)
    ended = inside(shell, "doctor", "--json", "--cookie-file", path)
    state, says = found(ended)["settings"]
    assert (ended.code, state) == (1, "wrong") and "chmod 600" in says
    assert inside(shell, "doctor", "--timeout", "0").code == 2


def test_another_clock_is_noticed(shell, inside):
    shell.serve("quick", "--name", "ada").ready()
    (shell.directory / "late.py").write_text(
        "import asyncio, time, kinfolk\n"
        "async def main():\n"
        "    async with kinfolk.Node('bob', wall_clock=lambda: time.time_ns() - 90 * 10**9) as node:\n"
        "        print('ready', node.name, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    bob = shell.program("late.py").ready()
    state, says = found(inside(shell, "doctor", "--json"))[f"node {bob}"]
    assert state == "warning" and "90.0 s behind" in says and "NTP" in says


def test_what_a_lookup_yields_is_told_and_who_is_found_is_asked(cluster, inside):
    port = cluster.ada.rpartition(":")[2]
    ended = inside(cluster.shell, "doctor", "--json", "--join", f"dns://127.0.0.1:{port},dns://nowhere.invalid:4370")
    findings = found(ended)
    assert ended.code == 1
    assert findings[f"lookup dns://127.0.0.1:{port}"] == ("ok", f"yields 127.0.0.1:{port} ")
    assert findings[f"node {cluster.ada}"][0] == "ok"
    state, says = findings["lookup dns://nowhere.invalid:4370"]
    assert state == "wrong" and "nowhere.invalid has no address" in says and "correct --join" in says
