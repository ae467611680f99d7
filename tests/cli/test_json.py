"""Every command that prints something prints JSON when it is asked to, and ends as the table of the reference says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kinfolk.cli import app, output

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference.md"

COMMANDS: dict[str, tuple[list[str], int]] = {
    "nodes": ([], 0),
    "names": ([], 0),
    "groups": ([], 0),
    "ps": (["--all"], 0),
    "top": (["--sort", "name"], 0),
    "tree": ([], 0),
    "info": ([], 0),
    "whereis": (["nobody"], 1),
    "why": (["nobody"], 1),
    "send": (["till", '"hello"'], 0),
    "call": (["till", "[]"], 0),
    "watch": (["till", "--count", "1"], 0),
    "kill": (["till"], 0),
    "drain": (["--node", "NODE"], 0),
    "doctor": (["--join", "NODE"], 0),
    "cookie": (["new"], 0),
}
"""Each with arguments, and how it ends with them. NODE is the node that is asked; the last but doctor and cookie ends
it."""
LINES = {"watch"}
"""Those that print one object a line."""
WITHOUT = {
    "demo": "it is told for people",
    "run": "it prints what the program prints; --log-format json is its log",
    "dashboard": "it serves pages, until it is ended",
    "shell": "it prints what lines of Python print",
    "completion": "it prints a script",
}


def commands() -> set[str]:
    return {name for name in app if not name.startswith("-")}


def test_every_command_is_in_the_table():
    assert commands() == COMMANDS.keys() | WITHOUT.keys()


def parsed(name: str, text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()] if name in LINES else [json.loads(text)]


def test_every_command_prints_json_alone(inside, shell):
    node = shell.serve("till", "--name", "ada").ready()
    order = ["doctor", "cookie", *(name for name in COMMANDS if name not in ("doctor", "cookie", "drain")), "drain"]
    for name in order:
        arguments, code = COMMANDS[name]
        asking = [] if name in ("doctor", "cookie", "drain") else ["--node", node]
        ended = inside(shell, name, *(node if word == "NODE" else word for word in arguments), "--json", *asking)
        assert ended.code == code, (name, ended)
        assert parsed(name, ended.out), name
        assert "\x1b" not in ended.out, name


def test_the_reference_has_every_command_and_its_exit_codes():
    rows = re.findall(r"^\| `kinfolk ([a-z]+)[^|]*\| ([^|]+) \| ([^|]+) \|$", REFERENCE.read_text(), re.MULTILINE)
    assert {name for name, _, _ in rows} == commands()
    assert all(text.strip() and set(re.findall(r"\d+", codes)) >= {"0"} for _, text, codes in rows)


@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_says_on_a_terminal_how_far_it_is_and_leaves_nothing_behind(terminal, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with output.Progress("names") as progress:
        progress.at(5000)
        monkeypatch.setattr(output.Progress, "SOON", 0.0)
        progress.at(10_000)
    assert capsys.readouterr().err == ("\r10,000 names ...\x1b[K\r\x1b[K" if terminal else "")
