"""`kinfolk nodes`: who is in the cluster."""

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.cli.info import started
from kinfolk.observer import Observer


def nodes(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List one node and its peers, whose event loop stands still, and with whom no session is open at present."""
    creations, stalled, connected = ask(asking, _nodes)
    if asking.json:
        output.show_json(
            [
                {
                    "name": name,
                    "creation": f"{creation:x}",
                    "stalled": stalled.get(name),
                    "connected": name in connected,
                }
                for name, creation in creations.items()
            ]
        )
    else:
        rows = [
            [name, f"{creation:x}", started(creation), _state(stalled.get(name), name in connected)]
            for name, creation in creations.items()
        ]
        output.show(["NODE", "CREATION", "STARTED", "STATE"], rows, "no nodes")
    return exits.YES


async def _nodes(node: Observer) -> tuple[dict[str, int], dict[str, float], set[str]]:
    """The creation of each; of those that are stalled, the seconds since when; and who is connected, or itself."""
    connected = {node.name, *await node.call(["connected"])}
    return await node.call(["nodes"]), await node.call(["stalled"]), connected


def _state(stalled: float | None, connected: bool) -> str:
    if stalled is not None:
        return f"stalled for {stalled:.1f} s"
    return "up" if connected else "up, not connected"
