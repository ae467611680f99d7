"""A real browser, Debian's Chromium, driven by Playwright; and nodes to look at."""

import importlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Served, Shell

HERE = Path(__file__).parent
DESK, PHONE = {"width": 1280, "height": 832}, {"width": 390, "height": 844}
TOKEN = "correct-horse-battery"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def launched() -> Generator[Any]:
    """The browser."""
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; where none is installed, the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: on Debian and Ubuntu, apt install chromium")
    with launched() as browser:
        yield browser


@pytest.fixture
def tab(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens tabs. At the end of the test, none of them may have had an error, or have been asked something by a script.

    What the test itself provokes it takes out of `tab.errors` of that page.
    """
    contexts: list[Any] = []
    errors: list[str] = []

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    def asked(dialog: Any) -> None:
        errors.append(f"asked: {dialog.message}")
        dialog.dismiss()

    def opened(size: dict[str, int] = DESK, scheme: str = "light") -> Any:
        context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", asked)
        return page

    opened.errors = errors  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    yield opened
    for context in contexts:
        context.close()
    assert errors == []


class City:
    """Nodes of `city`, and dashboards of them."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        shutil.copy(HERE / "city.py", shell.directory)

    def node(self, function: str, name: str, *more: str, **environ: str) -> Served:
        """A node that is ready."""
        served = self.shell.start("run", f"city:{function}", "--name", name, *more, **environ)
        served.ready()
        return served

    def dashboard(self, node: str, *more: str, **environ: str) -> tuple[Served, str]:
        """`kinfolk dashboard` of a node, and its address."""
        served = self.shell.start("dashboard", node, "--listen", "127.0.0.1:0", *more, **environ)
        return served, served.line()[0].rstrip("/")

    @staticmethod
    def order(node: Served, *order: object) -> None:
        """Have a node do something, and wait until it has."""
        assert node.process.stdin is not None
        print(json.dumps(order), file=node.process.stdin, flush=True)
        assert node.line() == ["done"]


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    """An empty city."""
    shell = Shell(tmp_path)
    yield City(shell)
    shell.close()


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[City, Served, str]]:
    """Five nodes of a shop, of which the first obeys; and the address of its dashboard."""
    shell = Shell(tmp_path_factory.mktemp("shops"))
    city = City(shell)
    try:
        first = city.node("shop", "ada")
        for word in ("bob", "cyd", "dan", "eve"):
            city.node("shop", word)
        _, address = city.dashboard(shell.run("nodes").out.split()[0])
        yield city, first, address
    finally:
        shell.close()


def broken_rules(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical."""
    axe = importlib.import_module("axe_playwright_python")
    script = (Path(str(axe.__file__)).parent / "axe.min.js").read_text()
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
