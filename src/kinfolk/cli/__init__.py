"""The command line: what there is, and how it ends.

One module a group of commands; this one puts them together. A command returns its exit code, or raises one of the
errors that `kinfolk.cli.exits` knows: then one line on stderr says what is wrong and what to do. Modules that take long
to import are imported by the function that needs them.
"""

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from kinfolk.cli import (
    acting,
    completion,
    cookie,
    dashboard,
    doctor,
    drain,
    exits,
    groups,
    info,
    names,
    nodes,
    play,
    ps,
    run,
    shell,
    top,
    tree,
    watch,
    why,
)

app = App(
    name="kinfolk",
    help="Erlang-style processes for asyncio, in a cluster where every node knows every name.",
    help_format="plaintext",
    version=lambda: f"kinfolk {version('kinfolk')}",
)


def _flowing(command: Callable[..., object]) -> str:
    """What a command says of itself, a line for each paragraph: where it breaks, the width of the terminal decides."""
    text, _, _ = (inspect.getdoc(command) or "").partition("\nParameters\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


for command in (
    play.demo,
    run.run,
    nodes.nodes,
    names.names,
    names.whereis,
    why.why,
    groups.groups,
    ps.ps,
    tree.tree,
    info.info,
    acting.send,
    acting.call,
    acting.kill,
    shell.shell,
    watch.watch,
    top.top,
    dashboard.dashboard,
    drain.drain,
    doctor.doctor,
    completion.completion,
):
    app.command(command, help=_flowing(command))
app.command(cookie.app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 yes, 1 a negative answer, 2 usage, 3 unreachable or refused, 4 timed out.

    Args:
        arguments: those after the program's name; default: the program's own.

    Raises:
        SystemExit: always.
    """
    if sys.stdout is None:  # it was closed before we began: whoever did that wants none of it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the program runs
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # an encoding that lacks a letter of a name is no reason for a traceback
    try:
        code = _command(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except exits.EXPECTED as error:
        print(f"kinfolk: {exits.line_of(error)}", file=sys.stderr)
        code = exits.code_of(error)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has enough of it, as in `kinfolk names | head`
        _write_no_more()
        code = 128 + getattr(signal, "SIGPIPE", 13)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _write_no_more()
        print(f"kinfolk: cannot write all of the output: {error.strerror}", file=sys.stderr)
        code = exits.NO
    sys.exit(code)


def _write_no_more() -> None:
    """What has not been written never will be: else the interpreter tries it once more as it ends, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise exits.Usage(f"{str(error).rstrip()} `kinfolk --help` shows what there is.") from None
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else exits.YES
