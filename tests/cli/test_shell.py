"""`kinfolk shell`: Python inside a node that allows it, and nowhere else."""

import subprocess

from tests.cli.commands import KINFOLK


def test_lines_run_inside_the_node_and_their_names_stay(shell):
    ada = shell.serve("till", "--name", "ada", "--allow-shell").ready()
    terminal = shell.start_on_terminal("shell")
    terminal.until(f"Python inside {ada}", ">>>")
    terminal.type("x = await node.call('till', 'hello')\n")
    terminal.type("x, node.name\n")
    terminal.until(f"(['hello'], '{ada}')")
    terminal.type("for number in range(2):\n    print(number * 7 + 30)\n\n")
    terminal.until("30", "37")
    terminal.type("1 / 0\n")
    terminal.until("ZeroDivisionError")
    terminal.type("raise SystemExit\n")
    terminal.type("_[1].partition('@')[0] * 2\n")
    terminal.until("'adaada'\n>>>")  # then it reads the keys itself
    terminal.type("\x04")
    assert terminal.end().code == 0


def test_lines_may_come_from_a_pipe(shell):
    ada = shell.serve("till", "--name", "ada", "--allow-shell").ready()
    done = subprocess.run(
        [*KINFOLK, "shell"],
        input="async def name():\n    return node.name\nprint(1)\nawait name()\n",
        cwd=shell.directory,
        env=shell.environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"1\n{ada!r}\n", "")


def test_a_node_that_does_not_allow_it_says_so(shell, inside):
    shell.serve("till", "--name", "ada").ready()
    ended = inside(shell, "shell")
    assert ended.code == 1 and "allow_shell=True" in ended.only_line
