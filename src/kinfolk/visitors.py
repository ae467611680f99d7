"""Who comes to the pages of a node: how many connections there may be, and how often somebody may guess a token.

Both go by address (of IPv6, by the network of 64 bits that one customer has): whoever takes much takes it from its own.

    a connection   asks   -- its answer is complete -->  is idle  -- `IDLE` seconds -->  closed
                   one too many are there  -->  the oldest of the address that has most of them is closed
    a wrong token  `GUESSES` at once, then one in `GUESS_EVERY` seconds; until then no token is looked at
"""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

CONNECTIONS = 256
"""Connections that a server of pages has at most."""
IDLE = 15.0
"""Seconds in which a connection must ask for something: uvicorn lets one wait for ever that has never asked."""
GUESSES = 10
"""Wrong tokens that one address may show at once."""
GUESS_EVERY = 30.0
"""Seconds after which it may show one more."""
_ADDRESSES = 10_000
"""Addresses of which it is known that they have guessed wrong."""


class Visitors:
    """The connections of one server.

    Args:
        protocol: makes what speaks HTTP on one of them, as uvicorn wants it made.
    """

    def __init__(self, protocol: Callable[..., asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._by_address: dict[str, dict[_Connection, None]] = {}
        self._count = 0

    def protocol(self, **given: Any) -> asyncio.Protocol:
        """What speaks on one more connection."""
        return _Connection(self._protocol(**given), self)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """An application with this one's answers: connections on which one is under way are not idle."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            connection = _CONNECTION.get(None)
            if connection is None:
                await app(scope, receive, send)
                return
            connection.asks()
            try:
                await app(scope, receive, send)
            finally:
                connection.answered()

        return counted

    def came(self, connection: "_Connection") -> None:
        """One has been accepted."""
        self._by_address.setdefault(connection.address, {})[connection] = None
        self._count += 1
        if self._count > CONNECTIONS:
            most = max(self._by_address.values(), key=len)
            next(iter(most)).close()

    def went(self, connection: "_Connection") -> None:
        """It is closed, or will be in a moment."""
        among = self._by_address.get(connection.address, {})
        if connection in among:
            del among[connection]
            self._count -= 1
            if not among:
                del self._by_address[connection.address]


class _Connection(asyncio.Protocol):
    """One connection: it passes on everything to what speaks HTTP."""

    def __init__(self, inner: asyncio.Protocol, visitors: Visitors) -> None:
        self._inner = inner
        self._visitors = visitors
        self._transport: asyncio.Transport
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass of it
        self.address = address_of(transport.get_extra_info("peername"))
        self._inner.connection_made(transport)
        self._rest()
        self._visitors.came(self)

    def data_received(self, data: bytes) -> None:
        # The task of a request begins in this context.
        before = _CONNECTION.set(self)
        try:
            self._inner.data_received(data)
        finally:
            _CONNECTION.reset(before)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends()
        self._inner.connection_lost(exc)

    def asks(self) -> None:
        """A request has come."""
        self._under_way += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self) -> None:
        """It has been answered."""
        self._under_way -= 1
        if not self._under_way and not self._transport.is_closing():
            self._rest()

    def close(self) -> None:
        """Whatever is under way on it: whoever does not read would keep it."""
        self._ends()
        self._transport.abort()

    def _rest(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE, self.close)

    def _ends(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._visitors.went(self)


_CONNECTION: ContextVar[_Connection] = ContextVar("kinfolk_connection")
"""That on which the request came that is being answered."""


class Guesses:
    """The wrong tokens of a while, by address."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}
        """When all that an address has guessed is forgotten, and the hash of the last one: the oldest first."""

    def wait(self, address: str) -> float:
        """Seconds until a token from there is looked at; 0 for at once."""
        until, _ = self._known.get(address, (0.0, 0))
        return max(0.0, until - (GUESSES - 1) * GUESS_EVERY - asyncio.get_running_loop().time())

    def wrong(self, address: str, token: str) -> None:
        """A token from there was wrong. The same once more tells nobody anything, and does not count."""
        now, which = asyncio.get_running_loop().time(), hash(token)
        until, last = self._known.pop(address, (0.0, 0))
        self._known[address] = (until if which == last else max(until, now) + GUESS_EVERY), which
        if len(self._known) > _ADDRESSES:
            del self._known[next(iter(self._known))]


def address_of(client: Sequence[Any] | str | None) -> str:
    """What counts as one address, of a peer as sockets and ASGI tell it; "" if there is none, as with Unix sockets."""
    host = str(client[0]) if client and not isinstance(client, str) else ""
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host
