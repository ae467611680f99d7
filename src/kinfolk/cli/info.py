"""`kinfolk info`: what one node is, and what it has counted."""

from datetime import UTC, datetime
from typing import Any

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.counters import DROPPED, HAPPENED


def info(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """Show what one node is: its name and start, its numbers of peers, names and processes, and what it has counted."""
    told: dict[str, Any] = ask(asking, lambda node: node.call(["info"]))
    if asking.json:
        output.show_json({**told, "creation": f"{told['creation']:x}"})
        return exits.YES
    rows = [
        ["name", told["name"], ""],
        ["cluster", told["cluster"], ""],
        ["creation", f"{told['creation']:x}", f"started {started(told['creation'])}"],
        ["version", told["version"], ""],
        ["peers", str(len(told["peers"])), " ".join(sorted(told["peers"]))],
        ["names", str(told["names"]), "in the cluster"],
        *_registry(told),
        ["processes", str(told["processes"]), "of this node"],
        *(
            [name, str(told["counters"][name]), text]
            for name, text in {**HAPPENED, **DROPPED}.items()
            if told["counters"].get(name)
        ),
    ]
    output.show(["WHAT", "", ""], rows, "")
    return exits.YES


def _registry(told: dict[str, Any]) -> list[list[str]]:
    """What there is to say of a node with names in etcd."""
    if told["lease"] is None:
        return []
    lease = f"{told['lease']:.1f} s" if told["lease"] else "none"
    return [
        ["sessions", str(len(told["connected"])), " ".join(told["connected"])],
        ["lease", lease, "from now, unless it is renewed; without one, it has no names"],
        ["staleness", f"{told['staleness']:.1f} s", "since the view was known to be what etcd has"],
    ]


def started(creation: int) -> str:
    """When a node started: its creation is that time in ns since 1970, on its own clock."""
    return datetime.fromtimestamp(creation / 1e9, UTC).astimezone().isoformat(" ", "seconds")
