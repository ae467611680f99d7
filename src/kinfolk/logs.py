"""What a log record says beside its text, for programs: the same few fields everywhere.

Every record of the logger ``kinfolk`` has `node`, and of the others those that concern it. They are given as ``extra``,
so each is an attribute of the record, and any formatter for JSON writes them.
"""

from collections.abc import Mapping
from types import MappingProxyType

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "node": "the node that logs",
        "peer": "the other node",
        "address": "where somebody is who is not known by name: whom it dials, who calls, a seed, a member of etcd",
        "pid": "the process",
        "runs": "what the process runs: its function or class",
        "registered": "the name, as in `kinfolk names`",
        "group": "the group",
        "reason": "why: what went wrong, or with what a process ended",
        "seconds": "how long, in seconds",
        "number": "how many: bytes, messages, names, processes or peers",
    }
)
"""All fields and what they tell. Each is a text, but for the last two. What does not concern a record is left out."""


def fields(
    node: str,
    *,
    peer: object = None,
    address: object = None,
    pid: object = None,
    runs: object = None,
    registered: object = None,
    group: object = None,
    reason: object = None,
    seconds: float | None = None,
    number: int | None = None,
) -> dict[str, object]:
    """The fields of one record, for ``extra``; those that are None are left out. `FIELDS` says what they mean."""
    texts = {
        "node": node,
        "peer": peer,
        "address": address,
        "pid": pid,
        "runs": runs,
        "registered": registered,
        "group": group,
        "reason": reason,
    }
    numbers = {"seconds": seconds, "number": number}
    return {
        **{field: str(value) for field, value in texts.items() if value is not None},
        **{field: value for field, value in numbers.items() if value is not None},
    }
