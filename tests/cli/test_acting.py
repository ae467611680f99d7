"""`kinfolk send`, `call` and `kill`, and what `ps` and `info` show of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kinfolk.ids import Pid
from tests.cli.commands import Shell


@dataclass
class Market:
    """Two nodes: ada has the till, bob nothing."""

    shell: Shell
    ada: str
    bob: str


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Iterator[Market]:
    shell = Shell(tmp_path_factory.mktemp("market"))
    try:
        ada = shell.serve("till", "--name", "ada").ready()
        yield Market(shell, ada, shell.serve("quick", "--name", "bob").ready())
    finally:
        shell.close()


def test_a_call_prints_the_answer_as_json_whichever_node_is_asked(market, inside):
    first = inside(market.shell, "call", "till", '{"amount": 5}', "--type", "shopping:Sell", "--node", market.ada)
    assert (first.code, json.loads(first.out)) == (0, {"total": 5})
    second = market.shell.run("call", "till", '{"amount": 2}', "--type", "shopping:Sell", "--node", market.bob)
    assert (second.code, json.loads(second.out)) == (0, {"total": 7})


def test_an_answer_that_json_does_not_know_is_written_as_text(market, inside):
    ended = inside(market.shell, "call", "till", "[]", "--node", market.bob)
    pid, sell, other = json.loads(ended.out)
    assert Pid.parse(pid).node == market.ada
    assert sell["type"] == "shopping:Sell" and sell["amount"] >= 0 and sell["by"] == [pid]
    assert other == {"1": "YQ=="}


def test_a_message_is_sent_and_may_come_from_standard_input(market, inside, monkeypatch):
    assert inside(market.shell, "send", "till", '"one"', "--node", market.ada).code == 0
    pid = inside(market.shell, "whereis", "till").out.strip()
    assert inside(market.shell, "send", pid, '"two"', "--node", market.ada).code == 0
    on_ada = ("--on", market.ada, "--node", market.ada)
    assert inside(market.shell, "send", "drawer", '"three"', *on_ada).code == 0
    asked = inside(market.shell, "call", "till", '"four"', "--node", market.ada)
    assert json.loads(asked.out) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["call", "till", '{"amount": 0}', "--type", "shopping:Sell"], 1, "0 is nothing to sell"),
        (["call", "nobody", "1"], 1, "nobody"),
        (["send", "nobody", "1"], 1, "nobody"),
        (["kill", "nobody"], 1, "nobody"),
        (["call", "till", "3", "--timeout", "0.2"], 4, "within 0.2 s"),
        (["call", "till", "no json"], 2, '"in quotes"'),
        (["call", "till", "5", "--type", "shopping:Sell"], 2, "object"),
        (["call", "till", '{"price": 5}', "--type", "shopping:Sell"], 1, "the request could not be read"),
        (["call", "", "5"], 2, "empty"),
        (["call", "drawer", "5", "--on", "ada"], 2, "'@'"),
        (["kill", "carl@127.0.0.1:1/a/1"], 3, "not connected"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(market, inside, arguments, code, says):
    ended = inside(market.shell, *arguments, "--node", market.ada)
    assert ended.code == code and says in ended.only_line


def test_a_killed_process_is_gone_and_killing_it_again_says_so(market, inside):
    shell = Shell(market.shell.directory)
    shell.serve("till", "--name", "dora", "--cluster", "alone").ready()
    alone = ("--cluster", "alone")
    pid = inside(shell, "whereis", "till", *alone).out.strip()
    ended = inside(shell, "kill", "till", *alone)
    assert (ended.code, ended.out) == (0, f"{pid} has ended: killed\n")
    assert inside(shell, "whereis", "till", *alone).code == 1
    again = inside(shell, "kill", pid, "--json", *alone)
    assert (again.code, json.loads(again.out)) == (1, {"pid": pid, "reason": "noproc"})
    why = inside(shell, "why", "till", *alone)
    assert why.code == 1 and f"exited: {pid} lost it: the process exited (killed)" in why.out.splitlines()[-1]
    shell.close()


def test_ps_lists_what_runs_here_or_everywhere(market, inside):
    inside(market.shell, "call", "till", '"hello"', "--node", market.ada)
    rows = [line.split("\t") for line in inside(market.shell, "ps", "--node", market.ada).out.splitlines()]
    (till,) = [row for row in rows if row[1] == "till drawer"]
    assert Pid.parse(till[0]).node == market.ada
    assert till[2] == "till_body" and till[3] == "0" and int(till[4]) > 0 and till[5].count(":") == 2
    here = json.loads(inside(market.shell, "ps", "--json", "--node", market.bob).out)
    assert {row["node"] for row in here} == {market.bob} and "till" not in str(here)
    everywhere = json.loads(inside(market.shell, "ps", "--all", "--json", "--node", market.bob).out)
    assert {row["node"] for row in everywhere} == {market.ada, market.bob}
    by_work = json.loads(inside(market.shell, "ps", "--all", "--sort", "received", "--json", "--node", market.bob).out)
    assert [row["received"] for row in by_work] == sorted((row["received"] for row in by_work), reverse=True)


def test_info_tells_what_a_node_is_and_has_counted(market, inside):
    inside(market.shell, "send", f"{market.ada}/1/1", "1", "--node", market.ada)
    told = json.loads(inside(market.shell, "info", "--json", "--node", market.ada).out)
    assert told["name"] == market.ada and list(told["peers"]) == [market.bob]
    assert told["counters"]["sends_to_dead_processes"] == 1
    shown = market.shell.run_on_terminal("info", "--node", market.ada).out
    assert market.ada in shown and "sends_to_dead_processes" in shown and "that is dead" in shown


def test_why_tells_who_has_a_name_by_which_rule_and_what_was_before(market, inside):
    pid = inside(market.shell, "whereis", "till").out.strip()
    asked = inside(market.shell, "why", "till", "--node", market.ada)
    first, rule, claim, *_, claimed, confirmed = asked.out.splitlines()
    assert (asked.code, first) == (0, f"till is held by {pid}, as {market.ada} sees it")
    assert rule == "  only claim: no other claim of it is known here" and claim == f"claim of {pid}: confirmed"
    assert claimed.endswith(f"claimed: claimed for {pid}")
    assert confirmed.endswith(f"confirmed: the claim of {pid} was confirmed")


def test_why_shows_what_the_asked_node_knows_and_that_alone(market, inside):
    told = json.loads(inside(market.shell, "why", "till", "--json", "--node", market.bob).out)
    pid = inside(market.shell, "whereis", "till").out.strip()
    assert (told["name"], told["node"], told["holder"], told["rule"]) == ("till", market.bob, pid, "only claim")
    (claim,) = told["claims"]
    assert (claim["pid"], claim["state"], claim["acknowledged"], claim["epoch"]) == (
        pid,
        "confirmed",
        [market.bob],
        None,
    )
    (came,) = told["history"]  # bob came later than the name: it was told of it with all others
    assert (came["what"], came["text"]) == ("peer up", f"{market.ada} came")


def test_why_of_a_name_that_nobody_ever_had(market, inside):
    asked = inside(market.shell, "why", "no\tname", "--node", market.ada)
    assert asked.code == 1 and asked.out.splitlines() == [
        f"no\\tname is held by nobody, as {market.ada} sees it",
        "  no claim: no live claim of it is known here",
        f"nothing that happened to it is remembered by {market.ada}",
    ]
    assert inside(market.shell, "why", "", "--node", market.ada).code == 2
    shown = market.shell.run_on_terminal("why", "till", "--node", market.ada).out
    assert f"as {market.ada} sees it" in shown and "only claim" in shown
