"""`kinfolk tree`: what is supervised on a node."""

from collections.abc import Iterator, Sequence
from typing import Any

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.looking import trees


def tree(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """Show the supervisors of one node, with their children, indented below them."""
    roots: list[dict[str, Any]] = ask(asking, lambda node: trees(node.call))
    if asking.json:
        output.show_json(roots)
    else:
        columns = ["CHILD", "NAME", "PID", "RUNS", "STATE", "RESTARTS"]
        output.show(columns, list(_rows(roots, 0)), "no supervisors")
    return exits.YES


def _rows(children: Sequence[dict[str, Any]], depth: int) -> Iterator[list[str]]:
    for child in children:
        runs = f"{child['runs']} ({child['strategy']})" if "strategy" in child else child["runs"]
        pid = child["pid"] or f"(on {child['on']})"
        restarts = str(child.get("restarts", 0))
        yield ["  " * depth + child["id"], child.get("name") or "", pid, runs, child.get("state", "running"), restarts]
        yield from _rows(child.get("children", ()), depth + 1)
