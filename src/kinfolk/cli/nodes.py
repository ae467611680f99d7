"""`kinfolk nodes`: who is in the cluster."""

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.cli.info import started


def nodes(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """List one node and all that it is connected to."""
    creations: dict[str, int] = ask(asking, lambda node: node.call(["nodes"]))
    if asking.json:
        output.show_json([{"name": name, "creation": f"{creation:x}"} for name, creation in creations.items()])
    else:
        rows = [[name, f"{creation:x}", started(creation)] for name, creation in creations.items()]
        output.show(["NODE", "CREATION", "STARTED"], rows, "no nodes")
    return exits.YES
