"""What log records say beside their text: each has the node, and what else concerns it."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinfolk import Node, Process, new_cookie
from kinfolk.cli.logs import JsonLines
from kinfolk.ids import Pid
from kinfolk.logs import FIELDS, fields
from tests.node.nodes import until

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "kinfolk"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
OF_THE_LOOP = {"testing/loop.py"}
"""A simulated loop logs errors of tasks as asyncio's does: it runs many nodes, and does not know whose."""


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call of a method of ``_log``, of an agenda's ``log``, and of the kernel's own ``_log``; and whose it is."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            whose = ast.unparse(node.func.value)
            where = f"{path.relative_to(SOURCE)}:{node.lineno}"
            if whose == "_log" and node.func.attr in LEVELS:
                yield where, node, "logger"
            elif (whose, node.func.attr) in (("self._agenda", "log"), ("self", "_log")):
                yield where, node, "agenda"


def test_every_record_is_given_the_fields_of_its_node():
    found = 0
    for where, call, whose in calls():
        if whose != "logger" or where.partition(":")[0] in OF_THE_LOOP:
            continue
        extra = next((word.value for word in call.keywords if word.arg == "extra"), None)
        if isinstance(extra, ast.Name):  # set beforehand, in the same function
            assert extra.id == "about", where
        else:
            assert isinstance(extra, ast.Call), where
            assert ast.unparse(extra.func) in ("fields", "_about", "self._about"), where
        found += 1
    assert found > 40


def test_what_the_kernel_logs_has_fields_that_there_are():
    found = [(where, call) for where, call, whose in calls() if whose == "agenda"]
    assert len(found) > 15
    for where, call in found:
        assert {word.arg for word in call.keywords} - {None} <= FIELDS.keys() - {"node"}, where


def test_fields_are_texts_and_numbers_and_those_left_out_are_not_there():
    pid = Pid("ada@h:1", 5, 7)
    assert fields("ada@h:1", pid=pid, reason=ValueError("no"), number=0, seconds=None) == {
        "node": "ada@h:1",
        "pid": str(pid),
        "reason": "no",
        "number": 0,
    }


def test_no_field_has_a_name_that_records_need_themselves():
    assert not FIELDS.keys() & vars(logging.makeLogRecord({})).keys()
    record = logging.getLogger("kinfolk").makeRecord("kinfolk", 20, "", 1, "", (), None, extra=dict(FIELDS))
    line = json.loads(JsonLines().format(record))
    assert {field: line[field] for field in FIELDS} == dict(FIELDS)


def test_the_guide_has_every_field():
    guide = (ROOT / "docs" / "guides" / "production.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", guide, re.MULTILINE))
    assert {field: rows.get(field) for field in FIELDS} == dict(FIELDS)


async def test_records_of_a_crash_and_of_a_peer_say_who_and_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path))
    caplog.set_level(logging.INFO, "kinfolk")
    cookie = new_cookie()

    async def fragile(me: Process) -> None:
        raise LookupError("the shop has burnt down")

    async with Node("ada@127.0.0.1:0", cookie=cookie, join=[]) as ada:
        pid = ada.spawn(fragile)
        async with Node("bob@127.0.0.1:0", cookie=cookie, join=[ada.name]) as bob:
            await until(lambda: ada.peers() == [bob.name])
        await until(lambda: ada.peers() == [])
        await until(lambda: not ada.is_alive(pid))
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "kinfolk"]
    assert {line["node"] for line in lines} == {ada.name, bob.name}
    crash = next(line for line in lines if " crashed: " in line["message"])
    assert (crash["node"], crash["pid"]) == (ada.name, str(pid))
    assert crash["runs"].endswith("fragile") and crash["reason"] == "LookupError('the shop has burnt down')"
    assert any(line["peer"] == bob.name and line["message"].endswith(" is up") for line in lines if "peer" in line)
    down = next(line for line in lines if " is down: " in line["message"] and line["node"] == ada.name)
    assert down["peer"] == bob.name and down["message"].endswith(down["reason"])
