"""What the dashboard answers, and to whom."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kinfolk import Child, Node, Pid, Process, Supervisor
from kinfolk.dashboard import app, serve
from kinfolk.dashboard.assets import PLACE
from tests.dashboard.cluster import Told
from tests.node.nodes import Nodes, idle, until

TOKEN = "0123456789abcdef"
HERE = ("127.0.0.1", 5000)
ELSEWHERE = ("10.0.0.9", 5000)
MARK = {"X-Kinfolk": "page"}


@asynccontextmanager
async def client(pages: Any, at: str = "http://127.0.0.1:4380", who: tuple[str, int] = HERE, **more: Any):
    transport = httpx.ASGITransport(app=pages, client=who)
    async with httpx.AsyncClient(transport=transport, base_url=at, **more) as opened:
        yield opened


@asynccontextmanager
async def shown(node: Node, **given: Any) -> AsyncGenerator[httpx.AsyncClient]:
    pages = app(node, **given)
    try:
        async with client(pages) as web:
            yield web
    finally:
        await pages.close()


# --- who may see it ---


async def test_every_answer_forbids_what_a_page_does_not_need():
    pages = app(Told("ada"), token=TOKEN)
    async with client(pages) as web, client(pages, "http://evil.example", ELSEWHERE) as other:
        for answer in (
            await web.get("/"),
            await web.get("/static/main.js"),
            await web.get("/static/none.js"),
            await web.get("/api/about"),
            await web.post("/login"),
            await web.post("/", headers={"Origin": "http://evil.example"}),
            await other.get("/"),
        ):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_page_has_a_script_or_style_within_it_or_anything_from_elsewhere():
    for path in PLACE.iterdir():
        text = path.read_text()
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "document.write" not in text
        addresses = text.replace("http://www.w3.org/", "")
        assert "http://" not in addresses and "https://" not in addresses
    index = (PLACE / "index.html").read_text()
    assert " style=" not in index and "<style" not in index and " on" not in index.replace(" once", "")
    assert index.count("<script") == index.count("<script src=") + index.count('<script type="module" src=')


async def test_without_a_token_only_programs_of_this_machine_may_look():
    pages = app(Told("ada"))
    async with client(pages) as web:
        assert (await web.get("/api/about")).json()["acts"] is False
        assert (await web.get("/", headers={"Host": "evil.example"})).status_code == 421
        for name in ("Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "CF-Connecting-IP"):
            assert (await web.get("/", headers={name: "10.0.0.9"})).status_code == 403
    async with client(pages, who=ELSEWHERE) as web:
        assert (await web.get("/")).status_code == (await web.get("/api/about")).status_code == 403


async def test_with_a_token_whoever_shows_it_may_look_from_anywhere():
    pages = app(Told("ada"), token=TOKEN)
    async with client(pages, "https://shop.example", ELSEWHERE) as web:
        assert (await web.get("/")).status_code == (await web.get("/static/style.css")).status_code == 200
        assert (await web.get("/api/about")).status_code == 401
        assert (await web.post("/login", json={"token": "wrong"}, headers=MARK)).status_code == 401
        assert (await web.post("/login", json={"token": TOKEN})).status_code == 403
        assert (await web.post("/login", content=b"no", headers=MARK)).status_code == 400
        answer = await web.post("/login", json={"token": TOKEN}, headers=MARK)
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 204 and "httponly" in cookie and "samesite=strict" in cookie and "secure" in cookie
        assert (await web.get("/api/about")).json()["acts"] is True
        assert (await web.post("/logout", headers=MARK)).status_code == 204
        assert (await web.get("/api/about")).status_code == 401
        assert (await web.get("/api/about", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_no_page_of_another_site_may_ask_for_anything(token: str | None):
    at, evil = "http://127.0.0.1:4380", "http://evil.example"
    async with client(app(Told("ada"), token=token), headers={"Authorization": f"Bearer {TOKEN}"}) as web:

        async def answer(method: str, path: str, **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            asked: httpx.Response = await web.request(method, path, headers=named)
            return asked.status_code

        for path in ("/", "/static/main.js", "/api/about", "/api/names"):
            for method in ("GET", "HEAD", "OPTIONS", "POST"):
                assert await answer(method, path, Origin=evil) == 403
                assert await answer(method, path, Origin="null", Sec_Fetch_Mode="navigate") == 403
            for site in ("cross-site", "same-site"):
                assert await answer("GET", path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == 403
                assert await answer("GET", path, Sec_Fetch_Site=site) == 403
        for path in ("/", "/static/main.js", "/api/about"):
            assert await answer("GET", path, Origin=at) == 200
            assert await answer("GET", path, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors") == 200
            assert await answer("GET", path, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate") == 200
        assert await answer("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200, "by a link"


async def test_what_makes_no_sense_is_refused_and_is_no_error_of_the_server():
    async with client(app(Told("ada"))) as web:
        for host in ("[", "[::1", "[foo]", "a]b"):
            assert (await web.get("/", headers={"Host": host})).status_code == 421
        for origin in ("http://[", "http://[foo]", "null", ""):
            assert (await web.post("/login", headers={"Origin": origin})).status_code == 403
    async with client(app(Told("ada"), token=TOKEN)) as web:
        deep = b'{"token":' + b"[" * 2000 + b"]" * 2000 + b"}"
        answer = await web.post("/login", content=deep, headers=MARK)
        # From Python 3.13 on that is read, and is no token.
        assert answer.status_code == 401 or (answer.status_code == 400 and "no JSON object" in answer.text)


async def test_a_request_that_is_cut_short_is_no_error_of_the_server():
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"x-kinfolk", b"page")],
        "client": HERE,
    }
    came: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return came.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    await app(Told("ada"), token=TOKEN)(scope, receive, send)
    assert said[0]["status"] == 400 and b"ends before" in said[1]["body"]


@pytest.mark.parametrize(("token", "why"), [("sesame", "16 characters"), ("sesame" * 3 + "ä", "printable ASCII")])
def test_a_token_that_is_short_or_fits_no_header_is_refused_and_not_shown(token: str, why: str):
    with pytest.raises(ValueError, match=why) as caught:
        app(Told("ada"), token=token)
    assert "sesame" not in str(caught.value)


async def test_a_token_may_have_any_sign_of_ascii():
    token = 'a;b, "c\\ d=e%41!'
    async with client(app(Told("ada"), token=token)) as web:
        await web.post("/login", json={"token": token}, headers=MARK)
        assert (await web.get("/api/about")).status_code == 200


@pytest.mark.parametrize("other", ['pref={"dark": true}', "a/b=1", "a,b=1", "[x]=1", "alone", "é=1"])
async def test_the_cookie_is_found_among_whatever_others_of_that_host(other: str):
    async with client(app(Told("ada"), token=TOKEN)) as web:
        cookies = f"{other}; kinfolk_token={TOKEN}".encode("latin-1")
        assert (await web.get("/api/about", headers={b"Cookie": cookies})).status_code == 200
        assert (await web.get("/api/about", headers={b"Cookie": cookies[:-1]})).status_code == 401


async def test_mounted_anywhere_all_addresses_are_relative_and_the_cookie_is_for_that_place(nodes: Nodes):
    web = Starlette()
    web.mount("/a/kinfolk", app(Told("ada"), token=TOKEN))
    async with client(web) as asked:
        assert (await asked.get("/a/kinfolk")).headers["location"].endswith("/a/kinfolk/")
        index = await asked.get("/a/kinfolk/")
        assert index.status_code == 200 and 'href="/' not in index.text and 'src="/' not in index.text
        assert (await asked.get("/a/kinfolk/static/main.js")).status_code == 200
        answer = await asked.post("/a/kinfolk/login", json={"token": TOKEN}, headers=MARK)
        assert "path=/a/kinfolk" in answer.headers["set-cookie"].lower()
        assert (await asked.get("/a/kinfolk/api/about")).status_code == 200


async def test_a_browser_keeps_a_file_until_it_is_another():
    async with client(app(Told("ada"))) as web:
        first = await web.get("/static/main.js")
        assert first.headers["content-type"].startswith("text/javascript")
        again = await web.get("/static/main.js", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content
        assert (await web.get("/static/../__init__.py")).status_code == 404
        assert (await web.get("/static/%2e%2e/__init__.py")).status_code == 404


async def test_beyond_loopback_it_is_not_served_without_a_token():
    with pytest.raises(ValueError, match="give a token"):
        async with serve(Told("ada"), "0.0.0.0:0"):
            pass


async def test_who_sends_half_a_request_and_no_more_is_hung_up_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.dashboard.api._BODY", 0.1)
    async with serve(Told("ada"), "127.0.0.1:0", token=TOKEN) as where:
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(b"POST /login HTTP/1.1\r\nHost: localhost\r\nX-Kinfolk: 1\r\nContent-Length: 10\r\n\r\n{")
        try:
            async with asyncio.timeout(4):  # before uvicorn would end an idle connection
                answer = await reader.read()
        finally:
            writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ") and b"has not come in 0.1 s" in answer


# --- what it tells ---


async def registered(node: Node, *names: str) -> Pid:
    pid = node.spawn(idle)
    for name in names:
        node.names.register_nowait(name, pid)
    return pid


async def test_names_are_searched_and_paged_at_the_node(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = await registered(ada, *(f"shop/{number:03}" for number in range(120)), "<script>alert(1)</script>", "Späti")
    other = await registered(bob, "shop/bob")
    await until(lambda: len(ada.names) == 123)
    async with shown(ada) as web:
        found = (await web.get("/api/names", params={"q": "shop/", "limit": 50})).json()
        assert (found["count"], found["more"], found["names"][0]) == (121, True, ["shop/000", str(pid)])
        page = (await web.get("/api/names", params={"q": "shop/", "limit": 50, "after": "shop/099"})).json()
        assert (page["count"], page["more"], len(page["names"])) == (121, False, 21)
        (row,) = (await web.get("/api/names", params={"q": "shop", "node": bob.name})).json()["names"]
        assert row == ["shop/bob", str(other)]
        for text, name in (
            ("SCRIPT", None),
            ("script>a", "<script>alert(1)</script>"),
            ("spä", "Späti"),
            ("Spä", "Späti"),
        ):
            names = (await web.get("/api/names", params={"q": text})).json()["names"]
            assert [row[0] for row in names] == ([] if name is None else [name])
        assert len((await web.get("/api/names", params={"limit": 10_000})).json()["names"]) == 123
        answer = await web.get("/api/names", params={"limit": "many"})
        assert answer.status_code == 400 and "'many' is no number" in answer.json()["error"]


async def test_why_is_told_by_the_node_and_by_its_peers(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = await registered(ada, "db")
    await until(lambda: bob.names.whereis("db") == pid)
    async with shown(ada) as web:
        for node in (ada.name, bob.name):
            told = (await web.get("/api/why", params={"name": "db", "node": node})).json()
            assert (told["holder"], told["node"], told["rule"]) == (str(pid), node, "only claim")
        assert (await web.get("/api/why")).status_code == 400
        answer = await web.get("/api/why", params={"name": "db", "node": "eve@127.0.0.1:1"})
        assert answer.status_code == 503 and "eve@127.0.0.1:1" in answer.json()["error"]


async def test_why_is_asked_for_a_few_at_a_time():
    asked, answer = list[object](), asyncio.Event()

    class Slow(Told):
        async def ask(self, request: Sequence[object], timeout: float = 5.0) -> Any:
            asked.append(request)
            await answer.wait()
            return {}

    async with client(app(Slow("ada"))) as web:
        gets = [asyncio.create_task(web.get("/api/why", params={"name": "db"})) for _ in range(20)]
        await until(lambda: len(asked) == 4)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(asked) == 4
        answer.set()
        assert {(await get).status_code for get in gets} == {200}
    assert len(asked) == 20


async def test_groups_are_told_with_their_sizes_and_their_members_in_pages(nodes: Nodes):
    ada = await nodes.start("ada")
    pids = [ada.spawn(idle) for _ in range(3)]
    for pid in pids:
        await ada.groups.join("room/1", pid)
    await ada.groups.join("room/10", pids[0])
    async with shown(ada) as web:
        found = (await web.get("/api/groups", params={"q": "ROOM".lower()})).json()
        assert found == {"groups": [["room/1", 3], ["room/10", 1]], "more": False, "count": 2}
        page = (await web.get("/api/members", params={"group": "room/1", "limit": 2})).json()
        assert page == {"members": [str(pid) for pid in pids[:2]], "more": True, "count": 3}
        rest = (await web.get("/api/members", params={"group": "room/1", "after": page["members"][-1]})).json()
        assert rest["members"] == [str(pids[2])]
        assert (await web.get("/api/members", params={"group": "room/1", "after": "nobody"})).status_code == 400


async def deaf(me: Process, taken: int) -> None:
    for _ in range(taken):
        await me.receive()
    await asyncio.Event().wait()


async def test_processes_are_ordered_searched_and_paged_at_their_node(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    quiet, full, fed = (ada.spawn(deaf, taken) for taken in (0, 0, 5))
    for number in range(5):
        ada.send(full, number)
        ada.send(fed, number)
    ada.names.local.register("the fed one", fed)
    there = bob.spawn(idle)
    await asyncio.sleep(0)
    async with shown(ada) as web:

        async def pids(**given: Any) -> list[str]:
            answer = await web.get("/api/processes", params=given)
            return [row["pid"] for row in answer.json()["processes"]]

        assert (await pids(order="start", q="deaf")) == [str(pid) for pid in (quiet, full, fed)]
        assert (await pids(order="waiting"))[0] == str(full)
        assert (await pids(order="received", q="deaf"))[0] == str(fed)
        assert await pids(q="the FED one".lower()) == [str(fed)]
        assert await pids(q="deaf", limit=1, skip=1) == [str(full)]
        assert str(there) in await pids(node=bob.name)
        assert (await web.get("/api/processes", params={"order": "weight"})).status_code == 400


async def test_of_a_process_with_very_many_names_a_few_are_told(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = await registered(ada, *(f"name {number}" for number in range(300)))
    async with shown(ada) as web:
        for text, wanted in (("idle", [str(pid)]), ("name 99", [str(pid)]), ("name 100", [])):
            rows = (await web.get("/api/processes", params={"q": text})).json()["processes"]
            assert [row["pid"] for row in rows] == wanted
            assert all(row["names"] == [f"name {number}" for number in range(6)] for row in rows)


async def test_the_tree_of_a_node_leaves_out_what_nobody_would_look_through(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kinfolk.dashboard.api.CHILDREN", 2)
    ada = await nodes.start("ada")
    await ada.supervise([Child(idle, name="db"), Child(Supervisor([Child(idle) for _ in range(5)])), Child(idle)])
    async with shown(ada) as web:
        told = (await web.get("/api/tree")).json()
        monkeypatch.setattr("kinfolk.dashboard.api.SUPERVISED", 3)
        cut = (await web.get("/api/tree")).json()
    (root,) = told["roots"]
    assert told["more"] is False and cut["more"] is True and len(cut["roots"][0]["children"]) == 2
    assert [child["name"] for child in root["children"]] == ["db", None] and root["left_out"] == 1
    assert len(root["children"][1]["children"]) == 2 and root["children"][1]["left_out"] == 3


# --- what it does ---


async def test_nothing_can_be_done_without_a_token(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    async with shown(ada) as web:
        answer = await web.post("/api/kill", json={"pid": str(pid)}, headers=MARK)
        assert answer.status_code == 403 and "with a token" in answer.json()["error"]
        assert (await web.post("/api/drain", json={"node": ada.name}, headers=MARK)).status_code == 403
    assert ada.is_alive(pid) and ada.ready


async def test_only_the_pages_of_the_dashboard_itself_can_do_something(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    body = {"pid": str(pid)}
    async with shown(ada, token=TOKEN) as web:
        assert (await web.post("/api/kill", json=body, headers=MARK)).status_code == 401
        web.headers["Authorization"] = f"Bearer {TOKEN}"
        assert (await web.get("/api/kill", headers=MARK)).status_code == 405
        assert (await web.post("/api/kill", json=body)).status_code == 403
        foreign = {**MARK, "Origin": "http://evil.example"}
        assert (await web.post("/api/kill", json=body, headers=foreign)).status_code == 403
        long = await web.post("/api/kill", json={**body, "more": " " * 9000}, headers=MARK)
        assert long.status_code == 400 and "longer than 8192 bytes" in long.json()["error"]
        assert ada.is_alive(pid)
        own = {**MARK, "Origin": "http://127.0.0.1:4380"}
        answer = await web.post("/api/kill", json=body, headers=own)
        assert answer.json() == {"pid": str(pid), "reason": "killed"}
        assert not ada.is_alive(pid)
        for content in (b"[]", b"{", b'{"pid": "nobody"}'):
            assert (await web.post("/api/kill", content=content, headers=MARK)).status_code == 400


async def test_a_node_is_drained_and_so_is_a_peer(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    async with shown(ada, token=TOKEN) as web:
        web.headers.update({"Authorization": f"Bearer {TOKEN}", **MARK})
        for node in (bob, ada):
            assert (await web.post("/api/drain", json={"node": node.name})).status_code == 202
            await asyncio.wait_for(node.wait_closed(), 10)
        answer = await web.get("/api/tree")
        assert answer.status_code == 503 and "is closed" in answer.json()["error"]


# --- the stream ---


def read(message: bytes) -> tuple[str, Any]:
    event, data = message.decode().removesuffix("\n\n").split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_the_stream_is_served_and_ends_with_the_server(nodes: Nodes):
    ada = await nodes.start("ada")
    async with AsyncExitStack() as served:
        where = await served.enter_async_context(serve(ada, "127.0.0.1:0"))
        web = httpx.AsyncClient(base_url=f"http://{where}", trust_env=False)
        async with web, web.stream("GET", "/api/feed") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: hello"
            async for line in lines:
                if line == "event: pulse":
                    break
            assert json.loads((await anext(lines)).removeprefix("data: "))["name"] == ada.name
            await served.aclose()
            async with asyncio.timeout(5):
                _ = [line async for line in lines]  # it has ended, and in good order


async def test_a_stream_ends_when_the_web_server_of_the_program_is_told_to(monkeypatch: pytest.MonkeyPatch):
    server = SimpleNamespace(should_exit=False)
    monkeypatch.setattr(signal, "getsignal", lambda _: SimpleNamespace(__self__=server))
    pages = app(Told("ada"))
    said: list[bytes] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message.get("body", b""))
        server.should_exit = len(said) > 2

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": "/api/feed",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": HERE,
    }
    async with asyncio.timeout(10):
        await pages(scope, receive, send)
    await pages.close()
    assert read(said[1])[0] == "hello" and said[-1] == b""


async def test_a_process_answers_while_large_tables_are_looked_through(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    """The service goes on, and so does everybody else: a search is done in slices."""
    monkeypatch.setattr("kinfolk.looking._SLICE", 10)
    ada = await nodes.start("ada")
    await registered(ada, *(f"name {number}" for number in range(500)))
    turns = 0

    async def count(me: Process) -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with shown(ada) as web:
        ada.spawn(count)
        asked = asyncio.create_task(web.get("/api/names", params={"q": "name"}))
        await asyncio.sleep(0)
        before = turns
        assert (await asked).json()["count"] == 500
    assert turns - before >= 50
