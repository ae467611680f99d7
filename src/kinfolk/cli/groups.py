"""`kinfolk groups`: who is a member of which group."""

from typing import Annotated

from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.looking import PAGE
from kinfolk.observer import Observer


def groups(prefix: Annotated[str, Parameter(show_default=False)] = "", /, *, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List the groups of the cluster with their members, as one node knows them.

    Parameters
    ----------
    prefix
        Only groups whose names begin so.
    """

    async def every_page(node: Observer) -> list[list[str]]:
        found: list[list[str]] = []
        with output.Progress("members") as progress:
            while True:
                page = await node.call(["groups", prefix, *(found[-1] if found else ("", "")), PAGE])
                found += page["groups"]
                if not page["more"]:
                    return found
                progress.at(len(found))

    found = ask(asking, every_page)
    if asking.json:
        members: dict[str, list[str]] = {}
        for group, pid in found:
            members.setdefault(group, []).append(pid)
        output.show_json([{"group": group, "members": pids} for group, pids in members.items()])
    else:
        output.show(["GROUP", "MEMBER"], found, f"no group begins with {prefix!r}" if prefix else "no groups")
    return exits.YES
