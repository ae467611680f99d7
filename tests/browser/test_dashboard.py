"""The dashboard in a real browser: what a person does, and what somebody might try to do to one."""

import importlib
import os
import re
import signal
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser import cost
from tests.browser.conftest import DESK, PHONE, TOKEN, City, broken_rules
from tests.browser.cost import measured
from tests.cli.commands import Served
from tests.system.fleet import free_port

pytestmark = pytest.mark.slow

PAGES = ("overview", "names", "groups", "processes", "processes?view=tree", "events", "metrics")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "'\"><svg onload=alert(3)>",
    "&lt;b&gt; \u202e{{7*7}}",
)

Shops = tuple[City, Served, str]


def live(page: Any) -> None:
    page.wait_for_selector("#status[data-state=live]")


def row(page: Any, name: str) -> Any:
    return page.locator("tbody tr").filter(has=page.get_by_role("button", name=name, exact=True))


def counted(found: Any, number: int) -> None:
    """Wait until so many are there. (Playwright's own conditions in the page are `eval`, which its policy forbids.)"""
    importlib.import_module("playwright.sync_api").expect(found).to_have_count(number, timeout=20_000)


def overflows(page: Any) -> Any:
    """What stands out to the right, if something does."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("main *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
        .map((each) => each.outerHTML.slice(0, 100))"""
    )


# --- looking ---


@pytest.mark.parametrize("path", ["nowhere", "constructor", "toString", "__proto__"])
def test_an_address_of_no_page_shows_the_overview(shops: Shops, tab, path):
    _, _, address = shops
    page = tab()
    page.goto(f"{address}/#/{path}")
    live(page)
    page.wait_for_selector(".mesh .node")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_whole_and_accessible(shops: Shops, tab, size, scheme):
    _, _, address = shops
    page = tab(size, scheme)
    for path in PAGES:
        page.goto(f"{address}/#/{path}")
        live(page)
        page.wait_for_selector("main h1")
        page.locator("tbody tr, .tree li, .event, .empty:not([hidden])").first.wait_for()
        assert overflows(page) == []
        assert broken_rules(page) == []
    page.goto(f"{address}/#/names?q=cart/ada/1000")
    page.get_by_role("button", name="cart/ada/1000").click()
    page.get_by_role("heading", name="History").wait_for()
    assert overflows(page) == [] and broken_rules(page) == []
    page.goto(f"{address}/#/overview")
    page.get_by_role("button", name="Help and shortcuts").click()
    assert broken_rules(page) == []
    page.keyboard.press("Escape")
    page.locator(".mesh .node").nth(1).click()
    page.get_by_text("Heartbeat", exact=True).last.wait_for()
    assert broken_rules(page) == []


def test_a_name_appears_and_vanishes_while_one_looks(shops: Shops, tab):
    _, first, address = shops
    page = tab()
    page.goto(f"{address}/#/names?q=guest")
    live(page)
    page.get_by_text("No name matches").wait_for()
    City.order(first, "add", "guest/one")
    row(page, "guest/one").wait_for()
    page.get_by_text("1 name", exact=True).wait_for()
    row(page, "guest/one").get_by_role("button").click()
    page.get_by_text("only claim").wait_for()
    City.order(first, "remove", "guest/one")
    row(page, "guest/one").wait_for(state="detached")
    page.get_by_text("held by nobody").wait_for()
    page.get_by_role("link", name="Events").click()
    for said in ("name added", "name removed"):
        page.locator(".event").filter(has_text="guest/one").filter(has_text=said).wait_for()


def test_each_node_can_be_asked_why_a_name_is_where_it_is(shops: Shops, tab):
    page = tab()
    page.goto(f"{shops[2]}/#/names?q=cart/cyd/1000")
    page.get_by_role("button", name="cart/cyd/1000").click()
    page.locator(".claims").get_by_text("acknowledged by ada").wait_for()
    seen = page.get_by_label("As seen by")
    seen.focus()
    for word in ("bob", "ada"):
        seen.select_option(label=seen.locator("option").filter(has_text=f"{word}@").text_content())
        page.locator(".claims").get_by_text(f"acknowledged by {word}").wait_for()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "As seen by"


def test_it_goes_on_when_its_node_is_restarted_and_when_its_server_is(city: City, tab):
    name = f"ada@127.0.0.1:{free_port()}"
    node = city.node("obey", name)
    served, address = city.dashboard(name)
    page = tab()
    page.goto(f"{address}/#/names")
    live(page)
    City.order(node, "add", "before")
    row(page, "before").wait_for()

    node.signal(signal.SIGKILL)
    node.process.wait()
    page.locator("#status[data-state=away]").wait_for()
    page.get_by_role("alert").filter(has_text="The node does not answer").wait_for()
    again = city.node("obey", name)
    City.order(again, "add", "after")
    live(page)
    row(page, "after").wait_for()
    row(page, "before").wait_for(state="detached")
    assert page.get_by_role("alert").filter(has_text="does not answer").count() == 0

    served.signal(signal.SIGKILL)
    served.process.wait()
    page.locator("#status[data-state=lost]").wait_for()
    page.get_by_role("alert").filter(has_text="The server of this page does not answer").wait_for()
    _ = city.shell.start("dashboard", name, "--listen", address.removeprefix("http://")).line()
    live(page)
    City.order(again, "add", "at last")
    row(page, "at last").wait_for()
    lost = ("Failed to load resource", "ERR_CONNECTION", "ERR_INCOMPLETE", "503", "EventSource")
    tab.errors[:] = [error for error in tab.errors if not any(each in error for each in lost)]


def test_a_hundred_thousand_names_stay_usable(city: City, tab):
    where = f"127.0.0.1:{free_port()}"
    node = city.node("obey", "ada", "--dashboard", where)
    City.order(node, "crowd", 100_000)
    page = tab()
    page.goto(f"http://{where}/#/names")
    live(page)
    page.get_by_text("1–50 of 100,000 names").wait_for()
    assert page.locator("tbody tr").count() == 50
    page.get_by_role("button", name="Next").click()
    page.get_by_text("51–100 of 100,000 names").wait_for()
    row(page, "user/000050").wait_for()
    page.get_by_role("button", name="Previous").click()
    row(page, "user/000000").wait_for()
    page.get_by_role("searchbox").fill("99999")
    page.get_by_text("1 name", exact=True).wait_for()
    row(page, "user/099999").wait_for()
    page.get_by_role("searchbox").fill("ser/0123")
    page.get_by_text("1–50 of 100 names").wait_for()
    City.order(node, "add", "user/012300/at home")
    row(page, "user/012300/at home").wait_for()
    page.get_by_text("1–50 of 101 names").wait_for()
    page.go_back()  # what was typed left no trace in the history
    assert "names" not in page.url


def test_a_hundred_nodes_are_seen_at_a_glance(city: City, tab):
    port = free_port()
    root = Path(__file__).parents[2]
    served = city.shell._start([sys.executable, "-m", "tests.browser.hundred", str(port)], {"PYTHONPATH": str(root)})
    served.ready()
    for size in (DESK, PHONE):
        page = tab(size)
        page.goto(f"http://127.0.0.1:{port}/#/overview")
        live(page)
        counted(page.locator(".mesh .node"), 100)
        counted(page.locator("tbody tr"), 100)
        for said in ("node-17 is stalled", "node-40 drains: finishes calls", "node-60 has no session with node-71"):
            page.locator(".heed button").filter(has_text=said).wait_for(timeout=60_000)
        assert overflows(page) == [] and broken_rules(page) == []
        if size is DESK:
            _picture(page, "hundred")


def test_colours_are_those_of_the_system_until_others_are_chosen(shops: Shops, tab):
    page = tab(scheme="dark")
    page.goto(shops[2])
    live(page)

    def ground() -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = ground()
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert ground() != dark and button.get_attribute("aria-label") == "Colours: light"
    page.reload()
    live(page)
    assert ground() != dark and button.get_attribute("aria-label") == "Colours: light"
    button.click()
    assert ground() == dark
    button.click()
    page.emulate_media(color_scheme="light")
    assert ground() != dark and button.get_attribute("aria-label") == "Colours: system"


def test_everything_can_be_reached_with_the_keyboard(shops: Shops, tab):
    page = tab()
    page.goto(f"{shops[2]}/#/overview")
    live(page)
    page.locator(".mesh .node").first.wait_for()

    def focused(what: str = "document.activeElement.textContent.trim()") -> Any:
        return page.evaluate(what)

    page.keyboard.press("Tab")
    assert focused() == "Skip to the content"
    page.keyboard.press("Enter")
    assert focused("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert focused("document.activeElement.getAttribute('aria-label')").startswith("ada@")
    page.keyboard.press("ArrowRight")
    assert focused("document.activeElement.getAttribute('aria-label')").startswith("bob@")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile("^bob@")).wait_for()
    page.keyboard.press("2")
    page.get_by_role("heading", name="Names").wait_for()
    page.locator("tbody tr").first.wait_for()
    page.keyboard.press("/")
    assert focused("document.activeElement.type") == "search"
    page.keyboard.type("prices")
    row(page, "prices").wait_for()
    row(page, "cart/ada/1000").wait_for(state="detached")
    row(page, "prices").get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="prices").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="prices").wait_for(state="hidden")
    page.keyboard.press("?")
    page.get_by_role("checkbox", name="Single keys do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.get_by_role("heading", name="Names").wait_for()
    assert "names" in page.url, "single keys are off"


# --- what somebody might try ---


def test_hostile_names_are_text_and_nothing_else(shops: Shops, tab):
    _, first, address = shops
    page = tab()
    page.goto(f"{address}/#/names")
    live(page)
    page.locator("tbody tr").first.wait_for()
    before = page.evaluate("document.querySelectorAll('script, img, iframe').length")
    City.order(first, "add", *HOSTILE)
    try:
        for name in HOSTILE:
            page.get_by_role("searchbox").fill(name)
            found = page.locator("tbody tr button.name")
            found.filter(has_text=name).wait_for()
            counted(found, 1)
            assert found.text_content() == name
            found.click()
            page.locator(".detail-title").filter(has_text=name).wait_for()
            assert page.url.split("#")[0].rstrip("/") == address
        for path in ("events", "processes", "overview"):
            page.goto(f"{address}/#/{path}")
            page.get_by_text(HOSTILE[0]).first.wait_for()
        assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == before
    finally:
        City.order(first, "remove", *HOSTILE)


def test_no_script_runs_that_is_not_a_file_of_the_dashboard(shops: Shops, tab):
    page = tab()
    page.goto(shops[2])
    live(page)
    page.evaluate(
        """() => { const script = document.createElement("script");
        script.textContent = "window.injected = true"; document.head.append(script); }"""
    )
    assert page.evaluate("window.injected") is None
    assert tab.errors and all("Content Security Policy" in error for error in tab.errors)
    tab.errors.clear()


def test_nothing_is_done_without_the_token_and_then_only_after_a_confirmation(city: City, tab):
    where = f"127.0.0.1:{free_port()}"
    node = city.node("obey", "ada", "--dashboard", where, KINFOLK_DASHBOARD_TOKEN=TOKEN)
    City.order(node, "add", "victim", "bystander")
    page = tab()
    page.goto(f"http://{where}/#/processes")
    page.get_by_label("Token").fill("not-this-one-at-all")
    page.get_by_role("button", name="Show the dashboard").click()
    page.get_by_text("That is not the token.").wait_for()
    assert broken_rules(page) == []
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    live(page)
    assert page.evaluate("document.cookie") == "", "no script can read it"
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"

    victim = page.locator("tbody tr").filter(has_text="victim")
    victim.get_by_role("button", name=re.compile("^Kill")).click()
    page.get_by_role("dialog").get_by_text("ends at once and cannot refuse").wait_for()
    assert broken_rules(page) == []
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for(state="detached")
    assert victim.count() == 1
    victim.get_by_role("button", name=re.compile("^Kill")).click()
    page.get_by_role("dialog").get_by_role("button", name="Kill the process").click()
    victim.wait_for(state="detached")
    assert page.locator("tbody tr").filter(has_text="bystander").count() == 1

    page.goto(f"http://{where}/#/overview")
    page.locator(".mesh .node").first.click()
    page.get_by_role("button", name="Drain …").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain the node").click()
    node.process.wait(30)
    page.locator("#status[data-state=lost]").wait_for()
    tab.errors[:] = [error for error in tab.errors if "Failed to load resource" not in error and "ERR_" not in error]


def test_without_a_token_nothing_offers_to_act_and_the_page_says_how_to_turn_it_on(shops: Shops, tab):
    page = tab()
    page.goto(f"{shops[2]}/#/processes")
    page.get_by_text("kinfolk dashboard --token-file FILE").wait_for()
    page.locator("tbody tr").first.wait_for()
    assert page.get_by_role("button", name=re.compile("^Kill|^Drain")).count() == 0


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
        pass


def test_a_page_from_elsewhere_can_neither_do_nor_read_anything(city: City, tab, tmp_path: Path):
    where = f"127.0.0.1:{free_port()}"
    node = city.node("obey", "ada", "--dashboard", where, KINFOLK_DASHBOARD_TOKEN=TOKEN)
    City.order(node, "add", "victim")
    page = tab()
    page.goto(f"http://{where}/")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    live(page)
    pid = page.evaluate("fetch('api/names').then((answer) => answer.json()).then((told) => told.names[0][1])")

    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text("<!doctype html><title>evil</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path / "evil"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        evil = page.context.new_page()
        evil.goto(f"http://localhost:{server.server_port}/")
        tried = evil.evaluate(
            """async ([where, pid]) => {
              const said = [];
              const body = JSON.stringify({ pid });
              for (const how of [
                ["api/kill", { method: "POST", mode: "no-cors", body, credentials: "include" }],
                ["api/kill", { method: "POST", body, credentials: "include", headers: { "X-Kinfolk": "page" } }],
                ["api/names", { credentials: "include" }],
              ]) {
                try { const answer = await fetch(`http://${where}/${how[0]}`, how[1]); said.push(await answer.text()); }
                catch (error) { said.push("refused"); }
              }
              const frame = document.createElement("iframe");
              frame.src = `http://${where}/`;
              document.body.append(frame);
              await new Promise((done) => frame.addEventListener("load", done));
              return said;
            }""",
            [where, pid],
        )
        assert all("victim" not in said and "killed" not in said for said in tried), tried
        assert not any(frame.url == f"http://{where}/" and frame.query_selector("#nav") for frame in evil.frames[1:])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    page.goto(f"http://{where}/#/names")
    row(page, "victim").wait_for()
    tab.errors.clear()  # the browser tells the other page what it may not


# --- what it costs ---


def test_an_open_page_costs_a_node_with_a_hundred_thousand_names_less_than_a_twentieth_of_a_core(
    city: City, chromium: Any
):
    found = dict(measured(city, chromium, 12.0))
    idle = found.pop("nobody looks")
    assert found.keys() == set(cost.PAGES)
    assert {page: part for page, part in found.items() if part - idle >= 0.05} == {}


# --- for the documentation ---


def _picture(page: Any, name: str) -> None:
    """Of what is seen; kept if KINFOLK_PICTURES is set."""
    if page.viewport_size == DESK:
        page.set_viewport_size({"width": 1120, "height": 720})
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)  # it is drawn anew
    picture = page.screenshot(animations="disabled")
    assert len(picture) > 10_000
    if os.environ.get("KINFOLK_PICTURES"):
        (PICTURES / f"dashboard-{name}.png").write_bytes(picture)


def test_the_pictures_of_the_documentation(shops: Shops, tab):
    _, first, address = shops
    City.order(first, "churn", 2.3)
    page = tab()
    page.goto(f"{address}/#/metrics")
    page.get_by_role("button", name="1 min").click()
    page.wait_for_timeout(58_000 if os.environ.get("KINFOLK_PICTURES") else 1_000)
    _picture(page, "metrics")
    page.goto(f"{address}/#/overview")
    counted(page.locator(".mesh .node"), 5)
    page.locator(".brief time").first.wait_for()
    _picture(page, "overview")
    dark = tab(scheme="dark")
    dark.goto(f"{address}/#/names?q=cart")
    dark.get_by_role("button", name="cart/bob/1000").click()
    dark.get_by_role("heading", name="History").wait_for()
    _picture(dark, "names-dark")
    phone = tab(PHONE, "dark")
    phone.goto(f"{address}/#/overview")
    counted(phone.locator(".mesh .node"), 5)
    phone.locator(".brief time").first.wait_for()
    _picture(phone, "phone-dark")
