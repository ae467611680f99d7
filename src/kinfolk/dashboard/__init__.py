"""The dashboard: pages that show a cluster as one of its nodes knows it, and as it happens.

``web.mount("/kinfolk", kinfolk.dashboard.app(node))`` puts it into an application of FastAPI or Starlette on the node's
own loop; ``async with kinfolk.dashboard.serve(node)`` serves it by itself, and the command ``kinfolk dashboard`` serves
it for any node that runs. Without a token it answers this machine alone, and changes nothing. With one, whoever shows
it may look from anywhere, kill processes and drain nodes. Needs the extra ``kinfolk[dashboard]``.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from kinfolk.cookie import Hidden
from kinfolk.dashboard.api import MARK, Api, BadRequest, body_of
from kinfolk.dashboard.assets import Assets
from kinfolk.dashboard.feed import Feed
from kinfolk.dashboard.source import Afar, Here, Source
from kinfolk.ids import Address
from kinfolk.observer import Observer
from kinfolk.web import COOKIE, Guard, Token, hosting, hosts_of

if TYPE_CHECKING:
    from kinfolk.node import Node

ADDRESS = "127.0.0.1:4380"
"""Where it is served unless told otherwise."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: nothing comes from elsewhere, nothing is shown elsewhere, no script stands in a page."""


class Dashboard:
    """The pages as an ASGI application; `app` makes one.

    Args:
        source: whom to ask.
        token: what must be shown to look, and to act; without one only programs of this machine may look.
        hosts: as for `Guard`.

    Raises:
        ValueError: the token is too short.
    """

    def __init__(self, source: Source, *, token: Hidden[str] | None, hosts: Sequence[str] | None) -> None:
        self._source = source
        self._token = None if token is None else Token(token)
        self._feed = Feed(source)
        self._api = Api(source, self._feed, acts=token is not None)
        assets = Assets()
        site = Starlette(
            routes=[
                Route("/", assets.index),
                Route("/static/{name:path}", assets.file),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Mount("/api", Guard(self._api.app(), token=self._token, hosts=None)),
            ]
        )
        self._app = Guard(site, hosts=hosts, only_here=token is None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, say)

    async def close(self) -> None:
        """End what the pages listen to, and ask the node nothing more."""
        await self._feed.close()
        await self._api.close()
        await self._source.close()

    async def _log_in(self, request: Request) -> Response:
        """Take the token, and give the cookie that stands for it."""
        if MARK not in request.headers or self._token is None:
            return PlainTextResponse("there is nothing to log in to\n", 403)
        try:
            given = Hidden(str((await body_of(request)).get("token", "")))
        except BadRequest as error:
            return PlainTextResponse(f"{error}\n", 400, {"Connection": "close"})  # more of it may be to come
        refusal = self._token.refusal(request.scope, given, "this is not the token")
        if refusal is not None:
            return refusal
        answer = Response(status_code=204)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, given.reveal(), path=_path(request), secure=secure, httponly=True, samesite="strict")
        return answer

    async def _log_out(self, request: Request) -> Response:
        if MARK not in request.headers:
            return PlainTextResponse("only the pages of this dashboard may do this\n", 403)
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")
        return answer


def _path(request: Request) -> str:
    return str(request.scope.get("root_path") or "/")


def app(source: "Node | Observer | Source", *, token: str | None = None) -> Dashboard:
    """The pages as an ASGI application, to be mounted into one of yours under any path.

    Args:
        source: a node of this program, on whose loop the application runs; or an observer whose session is open; or
            what else answers as a node's service does.
        token: what must be shown to look, and then to act: 16 characters or more. Without one only this machine may
            look, and nobody may act.

    Raises:
        ValueError: the token is too short.
    """
    hidden = None if token is None else Hidden(token)
    del token  # tools show the variables of a traceback
    return Dashboard(_source(source), token=hidden, hosts=() if hidden is None else None)


@asynccontextmanager
async def serve(
    source: "Node | Observer | Source", address: str = ADDRESS, *, token: str | None = None
) -> AsyncGenerator[Address]:
    """Serve the pages as long as the block lasts. Gives the address, with its real port.

    Args:
        source: as for `app`.
        address: where, as host:port; port 0 takes a free one.
        token: as for `app`; needed beyond loopback.

    Raises:
        ValueError: not an address; beyond loopback without a token, or it is too short.
        OSError: the address cannot be bound.
    """
    where = Address.parse(address)
    hidden = None if token is None else Hidden(token)
    del token
    dashboard = Dashboard(_source(source), token=hidden, hosts=hosts_of(where, hidden))
    async with hosting(dashboard, where) as bound:
        try:
            yield bound
        finally:
            await dashboard.close()


def _source(source: "Node | Observer | Source") -> Source:
    if isinstance(source, Source):
        return source
    return Afar(source) if isinstance(source, Observer) else Here(source)
