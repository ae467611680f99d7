"""The table of counters is complete, and what is dropped is counted under its reason, exactly once."""

import ast
from pathlib import Path

from kinfolk.counters import DROPPED, HAPPENED, Counters

SOURCE = Path(__file__).parent.parent / "src" / "kinfolk"


def counted(tree: ast.AST) -> set[str]:
    """The names in ``counters["name"]`` and ``Count("name")``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(
                value=ast.Attribute(attr="counters" | "_counters") | ast.Name(id="counters"),
                slice=ast.Constant(value=str(name)),
            ):
                found.add(name)
            case ast.Call(
                func=ast.Attribute(attr="Count") | ast.Name(id="Count"), args=[ast.Constant(value=str(name)), *_]
            ):
                found.add(name)
            case _:
                pass
    return found


def test_every_counter_is_in_the_table_and_every_entry_of_the_table_is_counted():
    found = set[str]().union(*(counted(ast.parse(path.read_text())) for path in SOURCE.rglob("*.py")))
    assert found == DROPPED.keys() | HAPPENED.keys()
    assert not DROPPED.keys() & HAPPENED.keys()


def test_dropped_tells_the_reasons_that_there_were():
    counters = Counters()
    assert counters.dropped() == {} and counters["late_answers"] == 0
    counters["late_answers"] += 2
    counters["peers_lost"] += 1
    assert counters.dropped() == {"late_answers": 2}
