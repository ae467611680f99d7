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


def test_a_node_whose_kernel_fails_ends_its_program_with_1_so_that_it_is_started_anew(shell):
    failing = shell.serve("failing")
    failing.ready()
    ended = failing.end()
    assert (ended.out, ended.code) == ("tidy\n", 1)
    assert "ends at once, since a step of its kernel has failed halfway: start it anew" in ended.err
    assert not any(line.startswith("kinfolk: ") for line in ended.err.splitlines()), (
        "that it has closed is no error too"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_what_the_first_could_not(shell, number):
    stubborn = shell.serve("stubborn")
    stubborn.ready()
    stubborn.signal(signal.SIGTERM)
    assert stubborn.line() == ["no"]
    stubborn.signal(number)
    assert stubborn.end().code == -number


def test_a_sigterm_lets_it_finish_what_it_has_to_do(shell):
    busy = shell.serve("busy")
    busy.ready()
    busy.signal(signal.SIGTERM)
    ended = busy.end()
    assert (ended.out, ended.code) == ("did 0\ndid 1\n", 0), (
        "of what it is at work on, nobody can see whether it is done"
    )


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_drain_that_is_not_done_in_time_ends_with_128_and_the_signal(shell, number, code):
    stuck = shell.serve("stuck", KINFOLK_DRAIN_TIMEOUT="0.2")
    stuck.ready()
    stuck.signal(number)
    ended = stuck.end()
    assert (ended.out, ended.code) == ("tidy\n", code)
    assert "leaves although it is not done within" in ended.err and "(deaf): 1 messages" in ended.err
    assert "is closed" in ended.err, "its peers have been told"


def test_a_function_that_swallows_its_cancellation_cannot_keep_the_program_longer(shell):
    stubborn = shell.serve("stubborn", "--drain-timeout", "0.3")
    stubborn.ready()
    stubborn.signal(signal.SIGTERM)
    ended = stubborn.end()
    assert ended.code == 143 and "is closed" in ended.err


def test_a_second_signal_ends_a_drain_at_once(shell):
    stuck = shell.serve("stuck")
    stuck.ready()
    stuck.signal(signal.SIGTERM)
    assert stuck.line() == ["tidy"]
    stuck.signal(signal.SIGTERM)
    assert stuck.end().code == -signal.SIGTERM, "which shells show as 143"


PROGRAM = """
import asyncio, kinfolk

async def deaf(me):
    await asyncio.Event().wait()

async def main():
    async with kinfolk.Node("ada", join=[], drain_timeout=0.2) as node:
        {work}
        print("ready", node.name, flush=True)
        {wait}
    print("done", flush=True)

kinfolk.run(main)
"""
STUCK = 'node.send(node.spawn(deaf), "hear me")'
EVER = "await asyncio.Event().wait()"


@pytest.mark.parametrize(
    ("work", "wait", "number", "code", "out"),
    [
        ("pass", EVER, signal.SIGTERM, 0, ""),
        pytest.param(STUCK, EVER, signal.SIGTERM, 143, "", marks=pytest.mark.slow),
        pytest.param("pass", "await node.wait_closed()", signal.SIGTERM, 0, "done\n", marks=pytest.mark.slow),
        ("pass", "await node.names.wait_for('nobody')", signal.SIGTERM, 0, ""),
        ("pass", EVER, signal.SIGINT, 130, ""),
    ],
)
def test_a_program_of_its_own_is_ended_by_a_signal_without_a_traceback(shell, work, wait, number, code, out):
    (shell.directory / "program.py").write_text(PROGRAM.format(work=work, wait=wait))
    program = shell.program("program.py")
    program.ready()
    program.signal(number)
    ended = program.end()
    assert (ended.code, ended.out) == (code, out)
    assert "Traceback" not in ended.err


STARTING = """
import asyncio, kinfolk

async def main():
    node = kinfolk.Node("ada", join=["127.0.0.1:{port}"])
    print("ready", node.name, flush=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(node.start())

kinfolk.run(main)
"""


def test_a_program_whose_node_has_yet_to_start_is_ended_without_a_traceback(shell):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (shell.directory / "program.py").write_text(STARTING.format(port=silent.getsockname()[1]))
        program = shell.program("program.py")
        program.ready()
        silent.settimeout(10)
        with silent.accept()[0]:  # it dials, and waits for an answer
            program.signal(signal.SIGTERM)
            ended = program.end()
    assert ended.code == 0
    assert "Traceback" not in ended.err


def test_a_ctrl_c_is_still_a_keyboard_interrupt_to_whoever_catches_it(shell):
    caught = PROGRAM.format(work="pass", wait=EVER).replace(
        "kinfolk.run(main)", "try:\n    kinfolk.run(main)\nexcept KeyboardInterrupt:\n    print('caught')"
    )
    (shell.directory / "program.py").write_text(caught)
    program = shell.program("program.py")
    program.ready()
    program.signal(signal.SIGINT)
    ended = program.end()
    assert (ended.out, ended.code) == ("caught\n", 0)


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


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [
        ("grpc", ("--registry", "etcd://127.0.0.1:1"), "kinfolk[etcd]"),
        ("dns", ("--join", "dns+srv://_kinfolk._tcp.example.org"), "kinfolk[dns]"),
    ],
)
def test_an_extra_that_is_missing_is_told_in_one_line(shell, module, option, extra):
    (shell.directory / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r}, name={module!r})\n")
    ended = shell.run("run", "shopping:quick", *option)
    assert ended.code == 2 and ended.err.splitlines()[-1].startswith("kinfolk: ")
    assert extra in ended.err and "Traceback" not in ended.err


def test_a_module_that_fails_to_import_shows_its_own_traceback(shell):
    (shell.directory / "sad.py").write_text("import not_there_at_all\n")
    ended = shell.run("run", "sad:f")
    assert ended.code == 1
    assert "Traceback" in ended.err and "not_there_at_all" in ended.err
