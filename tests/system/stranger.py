"""A stranger: a client of a node that speaks as it likes, on the wire's own classes."""

import asyncio
import secrets
import ssl
from collections.abc import Sequence
from typing import Self

from kinfolk.cookie import Cookie
from kinfolk.shell.tls import SERVER_NAME, Credentials, peer_fingerprint
from kinfolk.wire.frames import Operation, Peers
from kinfolk.wire.handshake import NONCE_BYTES, Dialler, Fingerprints, Identity, Purpose
from kinfolk.wire.session import Event, Session, State

PATIENCE = 10.0


class Stranger:
    """A TCP connection, with TLS or without, and a session of its own making if it wants one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.session: Session | None = None
        self.events: list[Event] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    @classmethod
    async def tcp(cls, port: int) -> Self:
        """Without TLS."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def tls(cls, port: int, context: ssl.SSLContext) -> Self:
        """With TLS as in the context."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME))

    @classmethod
    async def peer(
        cls,
        port: int,
        cookie: str,
        *,
        name: str,
        creation: int = 1,
        other_keys: str = "",
        cluster: str = "kinfolk",
        purpose: Purpose = "peer",
    ) -> Self:
        """One that knows the cookie, up to the end of the handshake; `other_keys` is the cookie of its proof."""
        credentials = Credentials.from_cookies([Cookie(cookie)])
        self = await cls.tls(port, credentials.client)
        theirs = peer_fingerprint(self.writer.get_extra_info("ssl_object"))
        keys = (Cookie(other_keys).proof_keys(),) if other_keys else credentials.keys
        handshake = Dialler(
            Identity(name, creation, cluster, keys),
            fingerprints=Fingerprints(credentials.fingerprint, theirs),
            nonce=secrets.token_bytes(NONCE_BYTES),
            purpose=purpose,
        )
        self.session = Session(handshake)
        async with asyncio.timeout(PATIENCE):
            while self.session.state is State.HANDSHAKE and await self.turn():
                pass
        return self

    async def open(self, first: Sequence[Operation] = (Peers([]),)) -> Self:
        """Say the first frame past ACK, and more."""
        assert self.session is not None and self.session.state is State.OPEN, self.events
        for operation in first:
            self.session.outbox.encode(operation)
        await self.turn()
        return self

    async def turn(self) -> bool:
        """Say what waits, and take in what comes next. False at the end, and when it has been told goodbye."""
        assert self.session is not None
        self.writer.write(bytes(self.session.outbox.take()))
        data = await self.reader.read(65536)
        self.events += list(self.session.feed(data))
        return bool(data) and self.session.state is not State.CLOSED

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> bytes:
        """Wait until the other end has closed, or has said goodbye: then we hang up. What it has said."""
        said = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while data := await self.reader.read(65536):
                    said += data
                    if self.session is not None:
                        self.events += list(self.session.feed(data))
                        if self.session.state is State.CLOSED:
                            self.writer.close()
                            break
        except (ConnectionError, ssl.SSLError):
            pass
        return said
