"""`kinfolk run`: a function gets a node, and the node serves until a signal."""

import signal
import socket

import pytest

from kinfolk import new_cookie
from kinfolk.shell.neighbours import neighbours


def test_a_node_serves_after_its_function_has_returned_and_a_sigterm_ends_it_with_0(shell):
    quick = shell.serve("quick", "--name", "ada")
    name = quick.ready()
    assert shell.run("nodes").out.startswith(name)
    quick.signal(signal.SIGTERM)
    ended = quick.end()
    assert ended.code == 0
    assert f"{name} is closed" in ended.err
    assert neighbours(shell.directory / "home", "kinfolk") == []


def test_a_sigint_ends_it_with_0_and_a_running_function_is_cancelled(shell):
    endless = shell.serve("endless")
    endless.ready()
    endless.signal(signal.SIGINT)
    ended = endless.end()
    assert (ended.out, ended.code) == ("tidy\n", 0)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_what_the_first_could_not(shell, number):
    stubborn = shell.serve("stubborn")
    stubborn.ready()
    stubborn.signal(signal.SIGTERM)
    assert stubborn.line() == ["no"]
    stubborn.signal(number)
    assert stubborn.end().code == -number


def test_a_function_that_raises_shows_its_traceback_and_ends_with_1(shell):
    ended = shell.serve("broken").end()
    assert ended.code == 1
    assert "Traceback" in ended.err and "LookupError: the shop has burnt down" in ended.err
    assert "in broken" in ended.err


def test_join_names_several_nodes_with_commas_and_waits_for_them(shell):
    ada, carl = (shell.serve("quick", "--name", word, "--join", "") for word in ("ada", "carl"))
    seeds = f"{ada.ready()},{carl.ready()}"
    bob = shell.serve("quick", "--name", "bob", "--join", seeds)
    assert bob.line()[2] == "2"


def test_what_others_may_start_is_listed_in_the_command(shell):
    bob = shell.serve("quick", "--name", "bob", "--allow-spawn", "shopping:body", "--allow-spawn", "json.*").ready()
    boss = shell.serve("boss", "--name", "ada")
    assert [boss.line() for _ in range(2)] == [["started", bob], ["NotAllowed"]]


@pytest.mark.parametrize("entry", ["shopping", "shopping:nothing", "nothing_of_this_name.*"])
def test_a_list_that_leads_nowhere_is_wrong_usage(shell, entry):
    ended = shell.run("run", "shopping:quick", "--allow-spawn", entry)
    assert ended.code == 2
    assert entry in ended.err.splitlines()[-1] and "Traceback" not in ended.err


def test_a_node_without_a_name_is_called_after_its_module(shell):
    assert shell.serve("quick").ready().startswith("shopping-")


def test_cookie_and_name_may_come_from_the_environment(shell):
    served = shell.serve("quick", KINFOLK_COOKIE=new_cookie(), KINFOLK_NAME="eve")
    assert served.ready().startswith("eve@127.0.0.1:")


def test_a_refused_cookie_ends_with_3(inside, shell):
    seed = shell.serve("quick", "--name", "ada").ready()
    ended = inside(shell, "run", "shopping:quick", "--join", seed, KINFOLK_COOKIE=new_cookie())
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert last.startswith("kinfolk: ") and "cookie" in last
    assert "Traceback" not in ended.err


def test_what_cannot_be_run_ends_with_2_and_says_why(inside, shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for arguments, complaint in {
            ("shopping",): "MODULE:FUNC",
            ("nothing:f",): "no module named 'nothing'",
            ("shopping:nothing",): "shopping has no 'nothing'",
            ("shopping:constant",): "async function",
            ("shopping:not_async",): "async function",
            ("shopping:quick", "--name", "a b"): "letters",
            ("shopping:quick", "--name", "ada@10.1.2.3:4370"): "cookie new",
            ("shopping:quick", "--name", f"ada@127.0.0.1:{port}"): "cannot listen",
        }.items():
            ended = inside(shell, "run", *arguments)
            assert ended.code == 2, ended
            assert complaint in ended.only_line


def test_a_module_that_fails_to_import_shows_its_own_traceback(shell):
    (shell.directory / "sad.py").write_text("import not_there_at_all\n")
    ended = shell.run("run", "sad:f")
    assert ended.code == 1
    assert "Traceback" in ended.err and "not_there_at_all" in ended.err
