"""`kinfolk why`: why a node sees a name where it sees it."""

from typing import Any

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask, whole_name
from kinfolk.core.explain import lines
from kinfolk.wire.handshake import printable


def why(name: str, /, *, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """Tell who claims a name, who has it by which rule, and what was before, as one node knows. Exit code 1 if nobody.

    Parameters
    ----------
    name
        The whole name.
    """
    name = whole_name(name)
    told: dict[str, Any] = ask(asking, lambda node: node.call(["why", name]))
    if asking.json:
        output.show_json(told)
    else:
        print("\n".join(map(printable, lines(told))))
    return exits.NO if told["holder"] is None else exits.YES
