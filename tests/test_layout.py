"""The layers: imports go one way, and what is pure imports nothing of the outside world."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "kinfolk"

LAYERS = [
    ["ids", "errors", "reasons", "seconds", "counters", "compiled", "logs"],
    ["core"],
    ["cookie", "wire"],
    [
        "effects",
        "tempo",
        "agenda",
        "mesh",
        "ondemand",
        "orders",
        "rosters",
        "tenure",
        "transfers",
        "asks",
        "kernel",
    ],
    ["messages", "mailbox", "handover", "process", "tracing", "server", "allowed"],
    ["shell", "registries", "discovery"],
    [
        "settings",
        "pictures",
        "events",
        "registry",
        "groups",
        "blocking",
        "watches",
        "finding",
        "supervisor",
        "leaving",
        "console",
        "looking",
        "service",
        "node",
        "observer",
        "otel",
    ],
    ["__init__"],
    ["asgi", "visitors", "web", "metrics", "dashboard"],
    ["cli", "demo", "__main__"],
    ["testing"],
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
PURE = [*LAYERS[0], *LAYERS[1], "wire", *LAYERS[3]]
OUTSIDE = {"asyncio", "socket", "ssl", "time", "threading", "secrets", "os", "subprocess", "selectors"}

MODULES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The modules that a file imports when it runs (what only type checkers see does not count)."""
    tree = ast.parse(path.read_text())
    unseen = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_every_module_has_its_layer():
    assert {part_of(path) for path in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_own_layer_and_those_below(path: Path):
    own = LEVEL[part_of(path)]
    for name in imports(path):
        package, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if package == "kinfolk" and part in LEVEL:
            assert LEVEL[part] <= own, f"{path.name} imports {name}, which stands above it"


@pytest.mark.parametrize("part", PURE)
def test_what_is_pure_imports_nothing_of_the_outside_world(part: str):
    for path in MODULES:
        if part_of(path) == part:
            used = {name.partition(".")[0] for name in imports(path)}
            assert not used & OUTSIDE, f"{path.name} imports {used & OUTSIDE}"
            assert used <= sys.stdlib_module_names | {"kinfolk", "msgspec"}


def test_no_module_has_state_that_changes():
    """Module-level names are constants, types, functions, loggers and compiled things: never an empty container."""
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            empty = isinstance(value, ast.List | ast.Set) and not value.elts
            assert not empty and not (isinstance(value, ast.Dict) and not value.keys), f"{path.name}:{node.lineno}"
