"""`kinfolk nodes`: who is in the cluster."""

from datetime import UTC, datetime

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask


def nodes(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List one node and all that it is connected to."""
    creations: dict[str, int] = ask(asking, lambda node: node.call(["nodes"]))
    if asking.json:
        output.show_json([{"name": name, "creation": f"{creation:x}"} for name, creation in creations.items()])
    else:
        rows = [[name, f"{creation:x}", _started(creation)] for name, creation in creations.items()]
        output.show(["NODE", "CREATION", "STARTED"], rows, "no nodes")
    return exits.YES


def _started(creation: int) -> str:
    """A creation is the time of the node's start in ns, on its own clock."""
    return datetime.fromtimestamp(creation / 1e9, UTC).astimezone().isoformat(" ", "seconds")
