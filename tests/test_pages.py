"""What the pages say of the code is so: quoted messages, public names, settings, options and counters are there."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import kinfolk
from kinfolk.cli import app
from kinfolk.counters import DROPPED, HAPPENED
from kinfolk.settings import _KEYS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "kinfolk"
TROUBLE = (DOCS / "troubleshooting.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
    if path.name != "changelog.md"
}
VALUE = "\0"
"""Stands in a message for what is filled in."""


def texts() -> Iterator[str]:
    """All texts of the source, each as a whole, with VALUE for what an f-string fills in."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
                yield "".join(str(part) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TEXTS = set(texts())
FILLED_IN = {re.sub(r"%(?:\.\d)?[a-z]", VALUE, text) for text in TEXTS}
"""With VALUE for what a log line fills in, too."""


def quoted(page: str) -> list[str]:
    """The messages that a page of terms is about: what stands in bold on a line that a definition follows."""
    lines = page.splitlines()
    terms = (line for line, after in pairwise(lines) if after.startswith(": "))
    return [message for term in terms for message in re.findall(r"\*\*(.+?)\*\*", term)]


@pytest.mark.parametrize("message", quoted(TROUBLE))
def test_a_message_that_is_explained_is_one_that_the_code_has(message: str):
    pattern = re.compile(VALUE.join(map(re.escape, message.split("..."))))
    assert any(pattern.search(text) for text in FILLED_IN), f"nothing in src says {message!r}"


def test_the_reference_has_every_public_name():
    page = (DOCS / "reference.md").read_text()
    whole = set(re.findall(r"automodule:: ([\w.]+)", page))
    listed = set(re.findall(r"auto(?:class|function|exception|data):: ([\w.]+)", page))
    missing: list[str] = []
    for name in sorted(set(kinfolk.__all__) - {"__version__"}):
        value = getattr(kinfolk, name)
        places = {f"kinfolk.{name}", f"{getattr(value, '__module__', '')}.{name}"}
        if not places & listed and getattr(value, "__module__", "") not in whole:
            missing.append(name)
    assert not missing, f"docs/reference.md does not list {', '.join(missing)}"


def test_what_the_reference_leaves_out_is_there():
    page = (DOCS / "reference.md").read_text()
    left_out = re.findall(r"autoclass:: (?:kinfolk\.)([\w.]+)\n +:exclude-members: (.+)", page)
    assert len(left_out) > 10
    for path, names in left_out:
        cls = pkgutil.resolve_name(f"kinfolk.{path}")
        known = set(dir(cls)) | source_of(cls)
        assert set(names.split(", ")) <= known, f"docs/reference.md leaves out of {path} what it has not"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_command_and_no_option_that_there_is_not(page: str):
    parameters = "".join(path.read_text() for path in (SOURCE / "cli").glob("*.py"))
    for word, rest in re.findall(r"(?:^\$ |`)kinfolk ([a-z]+)\b([^`#\n]*)", PAGES[page], re.MULTILINE):
        assert word in app, f"{page}: kinfolk {word}"
        for option in re.findall(r"(?<!\S)--([a-z][\w-]+)", rest):
            assert re.search(rf"\b{option.replace('-', '_')}\b", parameters), f"{page}: --{option}"


OF_OTHERS = {"KINFOLK_PYTHONS", "KINFOLK_APP"}
"""What the tests read, and the unit for systemd."""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_variable_of_the_environment_that_nobody_reads(page: str):
    read = {text for text in TEXTS if "KINFOLK_" in text}
    read |= {path.read_text() for path in (ROOT / "deploy").rglob("*") if path.suffix in (".py", ".service", ".yaml")}
    everything = " ".join(read) + " ".join(f"KINFOLK_{key.upper()}" for key in _KEYS)
    for name in re.findall(r"KINFOLK_[A-Z_]+", PAGES[page]):
        assert name in everything or name in OF_OTHERS, f"{page}: {name}"


def test_the_counters_that_tell_what_to_look_at_are_counted():
    page = PAGES["docs/guides/production.md"]
    table = page[page.index("| counter | means |") :].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        for counter in re.findall(r"`(\w+)`", row.split("|")[1]):
            assert counter in {**DROPPED, **HAPPENED}, row


OBJECTS = {
    "node": kinfolk.Node,
    "names": kinfolk.Names,
    "groups": kinfolk.Groups,
    "me": kinfolk.Process,
    "call": kinfolk.Call,
    "claim": kinfolk.Registration,
    "kinfolk": kinfolk,
}
"""What the pages call things, and what these are."""
INSTANCE = {"reference", "machine"}
"""What an object gets in its `__init__`, beside the annotations of its class."""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_method_that_there_is_not(page: str):
    for code in re.findall(r"`([^`\n]+)`", PAGES[page]):
        for word, attribute in re.findall(r"(?<![\w./])(\w+)\.(\w+)", code):
            if word in OBJECTS and attribute not in INSTANCE and not re.fullmatch(r"toml|asgi|py|dev", attribute):
                thing = OBJECTS[word]
                known = hasattr(thing, attribute) or attribute in source_of(thing)
                assert known or is_other(word, attribute), f"{page}: {word}.{attribute}"


def source_of(thing: object) -> set[str]:
    """The attributes that a class gives to itself."""
    module = getattr(thing, "__module__", None)
    if module is None:
        return set()
    text = (SOURCE / f"{module.removeprefix('kinfolk.').replace('.', '/')}.py").read_text()
    return set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", text)) | set(re.findall(r"^    (\w+): ", text, re.MULTILINE))


def is_other(word: str, attribute: str) -> bool:
    """Whether it is a module, or a text that only looks like an attribute, as the names in traces do."""
    return bool(word == "kinfolk" and list(SOURCE.glob(f"{attribute}*"))) or any(
        f"{word}.{attribute}" in text for text in TEXTS
    )


@pytest.mark.parametrize("page", PAGES)
def test_a_page_gives_a_node_no_argument_that_it_does_not_take(page: str):
    takers: dict[str, Callable[..., object]] = {
        "Node": kinfolk.Node,
        "Child": kinfolk.Child,
        "spawn": kinfolk.Node.spawn,
    }
    for name, cls in takers.items():
        taken = set(inspect.signature(cls).parameters)
        for arguments in re.findall(rf"\b{name}\(([^()]*)\)", PAGES[page]):
            for argument in re.findall(r"(?<![\w.])(\w+)=(?!=)", arguments):
                assert argument in taken, f"{page}: {name}({argument}=...)"


def test_the_glossary_is_in_order():
    terms = re.findall(r"^(\w[\w -]*)\n: ", PAGES["docs/glossary.md"], re.MULTILINE)
    assert len(terms) > 40 and terms == sorted(terms)
