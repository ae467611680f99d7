"""`kinfolk run` with pages for orchestrators, and with a log for machines."""

import json

import httpx

from tests.system.fleet import free_port


def test_the_pages_are_there_while_the_node_runs(shell):
    where = f"127.0.0.1:{free_port()}"
    ada = shell.serve("till", "--name", "ada", "--metrics", where).ready()
    with httpx.Client(base_url=f"http://{where}", trust_env=False) as web:
        assert web.get("/readyz").status_code == 200
        assert f'name="{ada}"' in web.get("/metrics").text


def test_pages_for_everybody_need_a_token(shell, inside):
    ended = inside(shell, "run", "shopping:till", "--metrics", "0.0.0.0:0")
    assert ended.code == 2 and "give a token" in ended.err
    ended = inside(shell, "run", "shopping:till", "--metrics", "everywhere")
    assert ended.code == 2 and "needs a host and a port" in ended.err


def test_the_log_may_be_json(shell):
    node = shell.serve("broken", "--name", "ada", "--log-format", "json")
    lines = [line for line in node.end().err.splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    assert {"time", "level", "logger", "message", "where"} <= found[0].keys()
    assert found[0]["logger"] == "kinfolk" and any("ada@" in each["message"] for each in found)
