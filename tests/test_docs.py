"""The documentation's programs run, and print what the page says that they print.

On a page, a ```` ```python ```` block is a program; one that begins with ``# name.py`` is a file beside it instead. A
```` ```text ```` block that follows a program is what it prints, with ``...`` for what may differ.
"""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import pytest

from kinfolk import new_cookie
from kinfolk.settings import resolve

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "```python" in path.read_text()]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page, each with its language."""
    return BLOCK.findall(page.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_programs_of_a_page_print_what_it_says(page: Path, environment: dict[str, str], tmp_path: Path):
    found = blocks(page)
    (tmp_path / "cookie").write_text(new_cookie())  # which readers have made
    (tmp_path / "cookie").chmod(0o600)
    for number, (language, program) in enumerate(found):
        if language != "python":
            continue
        file = re.match(r"# (\w+\.py)\b.*\n", program)
        if file:
            (tmp_path / file[1]).write_text(program)
            continue
        (tmp_path / "program.py").write_text(program)
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{program}\n{done.stderr}"
        expected = found[number + 1][1] if number + 1 < len(found) and found[number + 1][0] == "text" else None
        if expected is not None:
            pattern = expected.replace("[", "[[]").replace("...", "*")
            assert fnmatchcase(done.stdout, pattern), f"{program}\nprints\n{done.stdout}\nnot\n{expected}"


def test_the_tests_that_the_page_about_testing_shows_pass_and_a_failure_tells_its_seed(
    environment: dict[str, str], tmp_path: Path
):
    shown = [program for language, program in blocks(DOCS / "testing.md") if language == "python"]
    for number, program in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(program)
    (tmp_path / "test_fails.py").write_text(shown[1].replace("== 1", "== 3"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"1 failed, {len(shown)} passed" in done.stdout, done.stdout
    assert re.search(
        r"^E +with seed \d+; to run it again: pytest test_fails.py::\w+ --kin-seed=\d+$", done.stdout, re.M
    )


@pytest.mark.slow
def test_the_tutorial_goes_as_it_says(environment: dict[str, str], tmp_path: Path):
    programs = [program for language, program in blocks(DOCS / "tutorial.md") if language == "python"]
    hello, counter, ask, supervised = programs
    started: list[subprocess.Popen[str]] = []

    def write(name: str, program: str) -> None:
        (tmp_path / name).write_text(program)

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "counter.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    def says(process: subprocess.Popen[str], end: str) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.endswith(f" {end}\n"), line

    try:
        write("hello.py", hello)
        assert run("hello.py") == "hello, ada\n"
        write("counter.py", counter)
        write("ask.py", ask)
        says(start(), "counts")
        assert [run("ask.py") for _ in range(2)] == ["the total is 5\n", "the total is 10\n"]
        assert run("-m", "kinfolk", "names").startswith("counter\t")
        assert run("-m", "kinfolk", "call", "counter", '{"by": 1}', "--type", "add") == "11\n"
        started[0].kill()

        before, main, end = re.split(r"(async def main.*?)(?=\n\n\nif)", counter, flags=re.DOTALL)
        write("counter.py", before + supervised.partition("\n")[2].rstrip() + end)
        assert main not in (tmp_path / "counter.py").read_text()
        first = start()
        says(first, "counts")
        says(first, "is ready")
        second = start()
        says(second, "is ready")
        first.kill()
        says(second, "counts")
        assert run("ask.py") == "the total is 5\n"
        assert run("-m", "kinfolk", "kill", "counter").endswith("has ended: killed\n")
        says(second, "counts")
        assert run("ask.py") == "the total is 5\n"
        assert run("-m", "kinfolk", "tree").startswith("supervisor\t")
    finally:
        for process in started:
            process.kill()
            process.communicate()


def drawings() -> ModuleType:
    """The script that draws the pictures; it is no package."""
    spec = spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_are_those_that_the_script_draws():
    for name, draw in drawings().PICTURES.items():
        assert (DOCS / "pictures" / f"{name}.svg").read_text() == draw(), "run: python docs/pictures/draw.py"


def test_the_code_that_how_it_works_shows_is_that_of_the_files():
    page = (DOCS / "how-it-works.md").read_text()
    files = "src/kinfolk/wire/frames.py", "src/kinfolk/kernel.py", "tests/wire/vectors.py", "tests/hostile/table.py"
    code = "".join((DOCS.parent / file).read_text() for file in files)
    shown = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 4
    for block in shown:
        assert block in code, block


def test_every_file_that_how_it_works_names_is_there():
    page = (DOCS / "how-it-works.md").read_text()
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md)|(?:\w+/)+)`", page):
        assert any((root / name).exists() for root in (DOCS.parent, DOCS.parent / "src" / "kinfolk")), name


def test_the_excerpts_of_the_page_about_etcd_are_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fencing, access = re.findall(r"^```py\n(.*?)^```$", (DOCS / "etcd.md").read_text(), re.DOTALL | re.MULTILINE)
    example = (DOCS.parent / "examples" / "fencing.py").read_text()
    assert indent(fencing, " " * 8) in re.sub(r"  #.*", "", example)
    monkeypatch.chdir(tmp_path)
    for name in ("cookie", "etcd-password"):
        Path(name).write_text(new_cookie())
        Path(name).chmod(0o600)
    made: dict[str, Any] = {}
    exec(access.partition("node = ")[0], made)  # what follows would bind the address of another machine
    assert made["etcd"].endpoints == ("etcd1.example.org:2379", "etcd2.example.org:2379")


def test_the_settings_that_a_page_shows_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (shown,) = re.findall(
        r"^```toml\n(.*?)^```$", (DOCS / "guides" / "production.md").read_text(), re.DOTALL | re.MULTILINE
    )
    cookie = tmp_path / "cookie"
    cookie.write_text(new_cookie())
    cookie.chmod(0o600)
    (tmp_path / "kinfolk.toml").write_text(shown.replace("/etc/shop/cookie", str(cookie)))
    monkeypatch.chdir(tmp_path)
    settings = resolve()
    assert settings.name == "shop-1@10.0.0.1:4370" and [str(seed) for seed in settings.join] == ["shop-0@10.0.0.2:4370"]
