"""The list of what other nodes may start: what it takes in, and that no name leads out of it."""

import builtins
import functools
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kinfolk.allowed import Allowed, check_function_name, name_of
from kinfolk.errors import NotAllowed, NotSerializable, SpawnFailed
from kinfolk.process import Process
from tests.node import jobs, nodes

HERE = "tests.node.jobs"


def resolved(*entries: Any) -> Allowed:
    allowed = Allowed(entries)
    allowed.resolve("ada@h:1")
    return allowed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that nobody else has: `work`, with `work.images` and `work.deep.down` in it."""
    files = {
        "__init__.py": "from work.images import resize\nasync def top(me): pass",
        "__main__.py": "import work\nwork.ran = True",
        "images.py": "import os\nasync def resize(me, size): pass\ndef plain(me): pass\nasync def _hidden(me): pass",
        "deep/__init__.py": "",
        "deep/down.py": "import work.images as images\nasync def dig(me): pass",
    }
    for file, text in files.items():
        (tmp_path / "work" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "work" / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "work"
    for name in [name for name in sys.modules if name == "work" or name.startswith("work.")]:
        del sys.modules[name]


# --- names ---


def test_a_function_and_a_class_are_named_by_module_and_place_in_it():
    assert name_of(jobs.echo) == f"{HERE}:echo"
    assert name_of(jobs.Shop) == f"{HERE}:Shop"
    assert name_of(jobs.Shop.inner) == f"{HERE}:Shop.inner"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (lambda me: None, "inside a function"),
        (functools.partial(jobs.wait, name="db"), "no name"),
        (nodes.Nodes().close, "no name"),
        (5, "no name"),
    ],
    ids=["a lambda", "a partial", "a bound method", "a number"],
)
def test_what_has_no_name_elsewhere_is_refused_with_a_remedy(body: object, why: str):
    with pytest.raises(NotSerializable, match=why) as raised:
        name_of(body)
    assert "module" in str(raised.value)


def test_a_function_of_the_main_program_is_refused_for_that_is_another_one_on_every_node(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(jobs.echo, "__module__", "__main__")
    with pytest.raises(NotSerializable, match="__main__"):
        name_of(jobs.echo)
    with pytest.raises(NotSerializable, match="__main__"):
        Allowed([jobs.echo])


@pytest.mark.parametrize("name", ["a:b", "a.b:c.d", "jobs:Shop.inner", "späti:öffne"])
def test_names_of_functions(name: str):
    assert check_function_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", ":", "a:", ":b", "a:b:c", "a.:b", ".a:b", "a..b:c", "a:b.", "a-b:c", "a:b()", "a: b", "a:" + 1023 * "b"],
)
def test_what_is_no_name_of_a_function_is_said_to_be_none(name: str):
    with pytest.raises(ValueError, match="module:function"):
        check_function_name(name)


# --- the list ---


def test_by_default_nothing_is_allowed():
    assert list(resolved()) == []
    for name in (f"{HERE}:echo", "os:system", "builtins:exec"):
        with pytest.raises(NotAllowed, match="allow_spawn"):
            resolved().find(name)


def test_a_listed_function_is_found_and_nothing_beside_it():
    allowed = resolved(jobs.echo, f"{HERE}:wait", jobs.Shop)
    assert allowed.find(f"{HERE}:echo") is jobs.echo
    assert allowed.find(f"{HERE}:wait") is jobs.wait
    assert allowed.find(f"{HERE}:Shop") is jobs.Shop
    assert len(list(allowed)) == 3


def test_what_is_listed_where_it_is_only_imported_has_both_names():
    allowed = resolved(f"{HERE}:alias")
    assert allowed.find(f"{HERE}:alias") is allowed.find("tests.node.nodes:echo") is nodes.echo


def test_a_listed_name_may_lead_into_a_class():
    assert resolved(f"{HERE}:Shop.inner").find(f"{HERE}:Shop.inner") is jobs.Shop.inner


def test_a_module_with_a_star_is_what_is_defined_in_it_and_can_be_a_process():
    assert set(resolved(f"{HERE}.*")) == {
        f"{HERE}:{name}" for name in ("echo", "wait", "trap", "crash", "done", "Shop", "Idle", "Waits")
    }


def test_a_package_with_a_star_is_all_modules_below_it_but_no_program(package: Path):
    assert set(resolved("work.*")) == {"work:top", "work.images:resize", "work.deep.down:dig"}
    assert not hasattr(sys.modules["work"], "ran")


ESCAPES = [
    f"{HERE}:os.system",
    f"{HERE}.os:system",
    f"{HERE}:os",
    "os:system",
    "builtins:exec",
    f"{HERE}:helpers.echo",
    f"{HERE}:collect",
    f"{HERE}:alias",
    f"{HERE}:constant",
    f"{HERE}:plain",
    f"{HERE}:_private",
    f"{HERE}:NoShop",
    f"{HERE}:Shop.method",
    f"{HERE}:Shop.inner",
    f"{HERE}:Shop.__init__",
    f"{HERE}:echo.__globals__",
    f"{HERE}:echo.__call__",
    f"{HERE}:__builtins__",
    f"{HERE}:*",
    f"{HERE}.*",
    f"{HERE}",
    f"{HERE}:",
    f"{HERE}:echo ",
    f" {HERE}:echo",
    f"{HERE}:echo\0",
    f"{HERE}:Echo",
    f"{HERE}:ec\u200bho",
    f"{HERE}..jobs:echo",
    "tests/node/jobs:echo",
    "tests.node:jobs.echo",
    "tests:node.jobs.echo",
    "tests.node.nodes:echo",
    "jobs:echo",
    "__main__:echo",
    "",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leads_out_of_the_list(name: str, monkeypatch: pytest.MonkeyPatch):
    allowed = resolved(f"{HERE}.*")

    def refuse(*_: object) -> None:
        raise AssertionError("a peer's word must not import anything")

    with monkeypatch.context() as patched:
        patched.setattr(importlib, "import_module", refuse)
        patched.setattr(builtins, "__import__", refuse)
        try:
            found = allowed.find(name)
        except NotAllowed:
            found = None
    assert found is None


def test_a_function_that_comes_into_a_module_later_is_not_on_the_list(monkeypatch: pytest.MonkeyPatch):
    allowed = resolved(f"{HERE}.*")

    async def late(me: Process) -> None: ...

    late.__module__, late.__qualname__ = HERE, "late"
    monkeypatch.setattr(jobs, "late", late, raising=False)
    with pytest.raises(NotAllowed):
        allowed.find(f"{HERE}:late")


def test_a_module_below_a_package_that_is_broken_is_left_out_and_said_so(
    package: Path, caplog: pytest.LogCaptureFixture
):
    (package / "broken.py").write_text("import nothing_of_this_name\nasync def job(me): pass")
    (package / "leaves.py").write_text("raise SystemExit(3)")
    with caplog.at_level(logging.WARNING, "kinfolk"):
        allowed = resolved("work.*")
    assert "work.broken" in caplog.text and "nothing_of_this_name" in caplog.text and "work.leaves" in caplog.text
    assert "work.images:resize" in set(allowed)
    with pytest.raises(SpawnFailed, match="nothing_of_this_name"):
        allowed.find("work.broken:job")
    with pytest.raises(NotAllowed):
        allowed.find("work.brokenness:job")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("nothing_of_this_name.*", "cannot be imported"),
        ("nothing_of_this_name:job", "cannot be imported"),
        (f"{HERE}:nothing", "nothing"),
        (f"{HERE}:constant", "is a int"),
        (f"{HERE}:NoShop", "without an async def init"),
        ("os:getpid", "builtin"),
    ],
)
def test_an_entry_that_leads_nowhere_is_an_error_at_the_start(entry: str, why: str):
    allowed = Allowed([entry])
    with pytest.raises(ValueError, match=why) as raised:
        allowed.resolve("ada@h:1")
    assert entry in str(raised.value)


@pytest.mark.parametrize("entry", ["*", ".*", "jobs", "jobs*", "jobs:*", "jobs.*.*", "a b.*", "", "jobs.images"])
def test_an_entry_that_is_neither_a_function_nor_a_package_is_an_error_at_once(entry: str):
    with pytest.raises(ValueError, match="module:function"):
        Allowed([entry])


def test_entries_of_other_types_are_errors_at_once():
    with pytest.raises(TypeError, match="give a list"):
        Allowed("jobs.*")
    with pytest.raises(NotSerializable):
        Allowed([cast("Any", 5)])
    with pytest.raises(ValueError, match="async def init"):
        Allowed([jobs.NoShop])
