"""How many may come to the pages of a node, for how long without asking, and how often with a wrong token."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest

from kinfolk.dashboard import app, serve
from kinfolk.ids import Address
from kinfolk.visitors import GUESS_EVERY, GUESSES, Guesses, address_of
from tests.dashboard.cluster import Told
from tests.dashboard.test_pages import ELSEWHERE, MARK, TOKEN, client

ASKS = b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Visitor:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self) -> bool:
        """Whether it still is answered."""
        try:
            self.writer.write(ASKS)
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            await self.reader.readexactly(length)
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        return head.startswith(b"HTTP/1.1 200 ")

    async def is_sent_away(self) -> None:
        """Wait for the end of the connection."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass


@asynccontextmanager
async def visiting(where: Address, host: str = "127.0.0.1") -> AsyncGenerator[Visitor]:
    reader, writer = await asyncio.open_connection(where.host, where.port, local_addr=(host, 0))
    try:
        yield Visitor(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("said", [b"", b"GET / HT", ASKS + b"GET / HTTP/1.1\r\n"], ids=["nothing", "half", "half more"])
async def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch, said: bytes):
    monkeypatch.setattr("kinfolk.visitors.IDLE", 0.1)
    async with serve(Told("ada"), "127.0.0.1:0") as where, visiting(where) as visitor:
        visitor.writer.write(said)
        async with asyncio.timeout(4):  # before uvicorn would end one that has asked
            await visitor.is_sent_away()


async def test_a_stream_is_not_idle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.visitors.IDLE", 0.1)
    async with serve(Told("ada"), "127.0.0.1:0") as where, visiting(where) as visitor:
        visitor.writer.write(b"GET /api/feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 0.5:
            assert await visitor.reader.readline()


async def test_who_opens_too_many_connections_loses_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.visitors.CONNECTIONS", 4)
    async with serve(Told("ada"), "127.0.0.1:0") as where, visiting(where, "127.0.0.2") as honest:
        assert await honest.ask()
        async with visiting(where) as first, visiting(where) as second, visiting(where) as third:
            assert await first.ask() and await second.ask() and await third.ask()
            async with visiting(where) as fourth:
                assert await fourth.ask()
                await first.is_sent_away()
                async with visiting(where) as fifth:
                    assert await fifth.ask()
                    await second.is_sent_away()
                    assert await third.ask() and await fourth.ask() and await honest.ask()
            async with visiting(where, "127.0.0.2") as another:
                assert await another.ask() and await honest.ask()


async def test_who_guesses_tokens_has_to_wait_and_nobody_else(monkeypatch: pytest.MonkeyPatch):
    pages = app(Told("ada"), token=TOKEN)
    async with client(pages, who=ELSEWHERE) as web, client(pages, who=("10.0.0.8", 5000)) as other:

        async def login(web: httpx.AsyncClient, token: str) -> httpx.Response:
            answer: httpx.Response = await web.post("/login", json={"token": token}, headers=MARK)
            return answer

        async def look(token: str) -> httpx.Response:
            answer: httpx.Response = await web.get("/api/about", headers={"Authorization": f"Bearer {token}"})
            return answer

        for number in range(GUESSES):
            answer = await (look(f"no {number}") if number % 2 else login(web, f"no {number}"))
            assert answer.status_code == 401
        for answer in (await login(web, TOKEN), await look(TOKEN), await login(web, "no"), await look("no")):
            assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= GUESS_EVERY
            assert f"try again in {answer.headers['retry-after']} s" in answer.text
        assert (await web.get("/")).status_code == 200
        assert (await web.get("/api/about")).status_code == 401, "it has shown no token"
        assert (await login(other, TOKEN)).status_code == 204
        assert (await other.get("/api/about")).status_code == 200

        loop = asyncio.get_running_loop()
        later = loop.time() + GUESS_EVERY
        monkeypatch.setattr(loop, "time", lambda: later)
        assert (await login(web, "no more")).status_code == 401
        assert (await look(TOKEN)).status_code == 429
        later += GUESS_EVERY
        assert (await look(TOKEN)).status_code == 200


async def test_a_token_that_is_outdated_is_not_a_guess_each_time():
    async with client(app(Told("ada"), token=TOKEN), headers={"Authorization": "Bearer 0123456789abcdeX"}) as web:
        for _ in range(3 * GUESSES):
            assert (await web.get("/api/about")).status_code == 401
        assert (await web.post("/login", json={"token": TOKEN}, headers=MARK)).status_code == 204


async def test_of_very_many_who_guess_some_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.visitors._ADDRESSES", 10)
    guesses = Guesses()
    for number in range(100):
        for guess in range(GUESSES):
            guesses.wrong(f"10.0.0.{number}", f"no {guess}")
    assert len(guesses._known) == 10 and guesses.wait("10.0.0.99") > 0 and guesses.wait("10.0.0.1") == 0


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.9", 5000), "10.0.0.9"),
        (("2001:db8:1:2:3:4:5:6", 5000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5000, 0, 2), "fe80::/64"),
        (("::ffff:10.0.0.9", 5000, 0, 0), "10.0.0.9"),
        (["testclient", 1], "testclient"),
        ("", ""),
        ("/run/web.sock", ""),
        (None, ""),
    ],
)
def test_an_address_is_what_one_customer_has(client: object, address: str):
    assert address_of(client) == address  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
