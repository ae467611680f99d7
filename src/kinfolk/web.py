"""What the pages of a node have in common (metrics, dashboard): who may see them, and a server on the node's loop.

On loopback anybody on this machine may look, but no page from elsewhere that a browser has loaded: the Host header must
name this machine, the Origin header, where there is one, the same place, and a browser must not say that another site
asks, unless its user goes to a page. Beyond loopback a token is needed.

Needs the packages of the extra ``kinfolk[metrics]`` or ``kinfolk[dashboard]``.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import math
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from kinfolk.cookie import Hidden
from kinfolk.ids import Address
from kinfolk.shell.machine import listening
from kinfolk.visitors import Guesses, Visitors, address_of

COOKIE = "kinfolk_token"
MIN_TOKEN = 16
"""Characters of the shortest token that is taken."""
_PASSED_ON = frozenset({"forwarded", "via", "x-real-ip", "cf-connecting-ip"})  # and x-forwarded-*
_FAREWELL = 2  # seconds that open requests may take when the server ends


class Token:
    """What must be shown. Who shows something else again and again waits longer and longer; see `visitors`.

    Raises:
        ValueError: it is too short, or no header can carry it.
    """

    def __init__(self, token: Hidden[str]) -> None:
        if len(token.reveal()) < MIN_TOKEN:
            raise ValueError(f"the token must have at least {MIN_TOKEN} characters: `openssl rand -hex 16` makes one")
        if not (token.reveal().isascii() and token.reveal().isprintable()):
            raise ValueError("the token must be of printable ASCII, as headers and cookies are")
        self._token = token
        self._guesses = Guesses()

    def refusal(self, scope: Scope, shown: Hidden[str], text: str) -> PlainTextResponse | None:
        """What to answer to whoever shows this; None if it is the token.

        Args:
            scope: of the request.
            text: what is said to it, if it is not.
        """
        wrong = PlainTextResponse(f"{text}\n", 401, {"WWW-Authenticate": "Bearer"})
        if not shown.reveal():
            return wrong
        address = address_of(scope.get("client"))
        wait = math.ceil(self._guesses.wait(address))
        if wait:
            return PlainTextResponse(
                f"so many wrong tokens have come from there: try again in {wait} s\n", 429, {"Retry-After": str(wait)}
            )
        if hmac.compare_digest(shown.reveal().encode(), self._token.reveal().encode()):
            return None
        self._guesses.wrong(address, shown.reveal())
        return wrong


class Guard:
    """Lets through, to an ASGI application, whoever may see it.

    Args:
        app: the application.
        token: what must be shown, as ``Authorization: Bearer`` or in the cookie `COOKIE`; None for nothing.
        hosts: names under which this machine may be asked for, beside those of loopback; None for any.
        only_here: lets in nobody from another machine, also if a proxy on this one has passed the request on, and
            says so in one of the usual headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: Token | None = None,
        hosts: Sequence[str] | None = (),
        only_here: bool = False,
    ) -> None:
        self._app = app
        self._token = token
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._only_here = only_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if self._only_here and not _is_from_here(scope, headers):
            return PlainTextResponse("without a token this is for programs on its own machine alone\n", 403)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return PlainTextResponse(f"this is not {host!r}: ask for it by its own address\n", 421)
        if _is_foreign(headers, host):
            return PlainTextResponse("a page from elsewhere may not do this\n", 403)
        if self._token is None:
            return None
        return self._token.refusal(scope, _shown(headers), "give the token, as in: Authorization: Bearer TOKEN")

    def _is_ours(self, host: str) -> bool:
        """A name that a foreign page has made to lead here (DNS rebinding) is not one of ours."""
        if self._hosts is None:
            return True
        name = (_split(f"//{host}").hostname or "").lower()
        return name in self._hosts or name == "localhost" or _is_loopback(name)


@asynccontextmanager
async def serving(app: ASGIApp, address: Address, *, token: str | None = None) -> AsyncGenerator[Address]:
    """Serve an application on the running loop as long as the block lasts. Gives the address, with its real port.

    Args:
        app: the application; it is guarded.
        address: where; port 0 takes a free one.
        token: what must be shown; needed beyond loopback.

    Raises:
        ValueError: beyond loopback without a token, or it is too short.
        OSError: the address cannot be bound.
    """
    hidden = None if token is None else Hidden(token)
    del token  # tools show the variables of a traceback
    wanted = None if hidden is None else Token(hidden)
    guarded = Guard(app, token=wanted, hosts=hosts_of(address, hidden))
    async with hosting(guarded, address) as bound:
        yield bound


def hosts_of(address: Address, token: Hidden[str] | None) -> Sequence[str] | None:
    """The names under which pages that are served there may be asked for, beside those of loopback; None for any.

    Raises:
        ValueError: beyond loopback without a token.
    """
    if token is None and not address.is_loopback:
        raise ValueError(
            f"{address} can be reached from other machines: give a token, or serve on 127.0.0.1 behind a proxy"
        )
    return None if _is_any(address.host) else (address.host,)


@asynccontextmanager
async def hosting(guarded: ASGIApp, address: Address) -> AsyncGenerator[Address]:
    """Serve an application, which guards itself, as long as the block lasts. Gives the address, with its real port.

    Of its connections there is a bounded number, and none is kept that asks for nothing: see `visitors`.

    Raises:
        OSError: the address cannot be bound.
    """
    sock = listening(address)
    visitors = Visitors(AutoHTTPProtocol)
    server = _Server(
        Config(
            visitors.counting(guarded),
            http=cast("type[asyncio.Protocol]", visitors.protocol),
            ws="none",  # no page wants one, and it would be a connection that nobody counts
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_FAREWELL,
        )
    )
    serves = asyncio.create_task(server.serve([sock]), name=f"kinfolk: pages at {address}")
    try:
        yield Address(address.host, sock.getsockname()[1])
    finally:
        server.should_exit = True
        await serves


class _Server(Server):
    """One that leaves the program's signals alone: whoever embeds it ends it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take no signal."""
        yield


def _shown(headers: Headers) -> Hidden[str]:
    """What is shown as the token; empty if nothing is."""
    kind, _, shown = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        shown = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    return Hidden(shown)


def _split(url: str) -> SplitResult:
    """The parts of an address that anybody may have sent; of one that is none, empty parts."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a page of another site asks, not a user who goes to a page of ours."""
    origin = headers.get("origin")
    if origin is not None and (not host or _split(origin).netloc != host):
        return True
    asks = headers.get("sec-fetch-site", "none")
    return asks in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"


def _is_from_here(scope: Scope, headers: Headers) -> bool:
    client = scope.get("client")
    passed_on = any(name in _PASSED_ON or name.startswith("x-forwarded-") for name in headers)
    return client is not None and _is_loopback(client[0]) and not passed_on


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_any(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False
