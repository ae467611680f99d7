"""`kinfolk names` and `kinfolk whereis`: who has which name."""

from typing import Annotated

from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask, whole_name
from kinfolk.looking import PAGE
from kinfolk.observer import Observer


def names(prefix: Annotated[str, Parameter(show_default=False)] = "", /, *, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List the names of the cluster with their holders, as one node knows them.

    Parameters
    ----------
    prefix
        Only names that begin so.
    """

    async def every_page(node: Observer) -> list[list[str]]:
        found: list[list[str]] = []
        with output.Progress("names") as progress:
            while True:
                page = await node.call(["names", prefix, found[-1][0] if found else "", PAGE])
                found += page["names"]
                if not page["more"]:
                    return found
                progress.at(len(found))

    found = ask(asking, every_page)
    if asking.json:
        output.show_json([{"name": name, "pid": pid} for name, pid in found])
    else:
        output.show(["NAME", "PID"], found, f"no name begins with {prefix!r}" if prefix else "no names")
    return exits.YES


def whereis(name: str, /, *, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """Print the pid that has a name. Exit code 1 if none has it.

    Parameters
    ----------
    name
        The whole name.
    """
    name = whole_name(name)
    pid: str | None = ask(asking, lambda node: node.call(["whereis", name]))
    if asking.json:
        output.show_json({"name": name, "pid": pid})
    elif pid is not None:
        print(pid)
    return exits.NO if pid is None else exits.YES
