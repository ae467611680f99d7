"""`kinfolk nodes`: who is in the cluster."""

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.cli.info import started
from kinfolk.observer import Observer


def nodes(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List one node and all that it is connected to, and whose event loop stands still."""
    creations, stalled = ask(asking, _nodes)
    if asking.json:
        output.show_json(
            [
                {"name": name, "creation": f"{creation:x}", "stalled": stalled.get(name)}
                for name, creation in creations.items()
            ]
        )
    else:
        rows = [
            [name, f"{creation:x}", started(creation), _state(stalled.get(name))]
            for name, creation in creations.items()
        ]
        output.show(["NODE", "CREATION", "STARTED", "STATE"], rows, "no nodes")
    return exits.YES


async def _nodes(node: Observer) -> tuple[dict[str, int], dict[str, float]]:
    """The creation of each; and of those that are stalled, the seconds since when."""
    return await node.call(["nodes"]), await node.call(["stalled"])


def _state(stalled: float | None) -> str:
    return "up" if stalled is None else f"stalled for {stalled:.1f} s"
