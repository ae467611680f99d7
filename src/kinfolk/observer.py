"""`Observer`: a session with one node, to ask it about itself and its cluster.

An observer knows the cookie and proves it, but it is no node: it is in no peer list, exchanges no ledger, and nobody
waits for its word. All it may say is a call to the node's own service (`kinfolk.service`), one after the other.
"""

import asyncio
import copy
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from kinfolk.cookie import Cookie
from kinfolk.errors import (
    AuthenticationFailed,
    CallFailed,
    CallTimeout,
    KinfolkError,
    NodeLost,
    NodeUnreachable,
    RemoteProtocolError,
)
from kinfolk.ids import Seed
from kinfolk.seconds import check_seconds
from kinfolk.service import SERVICE_NAME
from kinfolk.shell.tls import SERVER_NAME, Credentials, OwnCertificates, named_nodes, node_uri, peer_fingerprint
from kinfolk.shell.transport import dial_error, refusal_error
from kinfolk.wire import codec, frames, handshake
from kinfolk.wire.handshake import NONCE_BYTES, Dialler, Fingerprints, Identity, Proved
from kinfolk.wire.session import Event, Opened, Operations, Session, State

_READ = 256 * 1024
_FAREWELL = 0.5  # seconds
_STOPPED = 1.0  # seconds; a timer that is later than this fired in a program that was stopped, or is too busy


class Observer:
    """Asks one node. Use it as ``async with Observer(...) as node: await node.call(["nodes"])``.

    Args:
        where: the node's name, or only ``host:port``.
        cookies: the first is used to prove ourselves, all to check the node.
        cluster: the name of the cluster; a node of another refuses.
        tls: certificates of an own authority, if the cluster has one; any that it has issued will do.
        timeout: seconds for the session to open, and then for each answer.

    Attributes:
        name: the node's name, once the session is open.

    Raises:
        ValueError: not a node name or address, or no cookie.
    """

    def __init__(
        self,
        where: str,
        *,
        cookies: Sequence[Cookie],
        cluster: str,
        tls: OwnCertificates | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._seed = Seed.parse(where)
        self._credentials = Credentials.of(cookies, tls)
        self._cluster = cluster
        self._timeout = check_seconds(timeout)
        self._codec = codec.Codec()
        self._begin()

    def _begin(self) -> None:
        self.name = ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._session: Session | None = None
        self._calling = asyncio.Lock()
        self._reference = 0  # of the latest call
        self._answer: tuple[str, bytes] | None = None  # to it

    async def __aenter__(self) -> Self:
        return self if self._session is not None else await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open the session; returns the observer itself.

        Raises:
            NodeUnreachable: no node listens there.
            AuthenticationFailed: it refused us, or could not prove that it knows the cookie.
            CallTimeout: it did not answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._open()
        except TimeoutError:
            await self.close()
            raise CallTimeout(self._silence(self._timeout)) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def call(self, request: object, *, timeout: float | None = None) -> Any:
        """Ask the node's service.

        Args:
            request: one of those that `kinfolk.service` knows.
            timeout: seconds, if it is not that of the observer.

        Raises:
            Refused: the service does not know the request.
            CallTimeout: no answer in time.
            CallFailed: it failed.
            NodeLost: the session has ended.
        """
        seconds = self._timeout if timeout is None else check_seconds(timeout)
        async with self._calling:
            if self._session is None:
                raise NodeLost(f"the session with {self.name or self._seed} is not open: use `async with` or open()")
            self._reference += 1
            self._answer = None
            body = msgspec.Raw(self._codec.encode(request))
            asked = frames.Called(SERVICE_NAME, None, self._reference, frames.milliseconds_of(seconds), body)
            self._session.outbox.encode(asked)
            try:
                outcome, encoded = await self._answered_within(seconds)
            except TimeoutError:
                raise CallTimeout(self._silence(seconds)) from None
            except (OSError, RemoteProtocolError) as error:
                text = f"the session with {self.name} ended before the answer came: {error}"
                raise NodeLost(text) from None
        try:
            value = self._codec.decode(encoded)
        except codec.BadBody as error:
            raise CallFailed(f"the answer of {self.name} could not be read: {error}") from None
        if outcome == codec.NO_PROCESS:  # the service lives as long as the node
            raise NodeLost(f"{self.name} has closed: ask another node")
        if outcome != codec.OK:
            raise codec.error_of(outcome, str(value))
        return value

    async def act(self, request: object, *, timeout: float | None = None) -> Any:
        """Ask the node's service to do something, and return what came of it.

        Raises:
            CallTimeout, NodeLost: it ended so.
            KinfolkError: it ended in another error, whose text this has; or as `call`.
        """
        return came_of(await self.call(request, timeout=timeout))

    def another(self) -> "Observer":
        """An observer of the same node, whose session has yet to be opened: this one waits for one answer at a time."""
        other = copy.copy(self)
        other._begin()
        return other

    async def wait_end(self, timeout: float) -> None:
        """Wait until the node ends the session.

        Raises:
            CallTimeout: it has not, within so many seconds.
        """
        try:
            async with asyncio.timeout(check_seconds(timeout)):
                while self._session is not None:
                    await self._turn()
        except TimeoutError:
            raise CallTimeout(f"{self.name} has not closed within {timeout:g} s") from None
        except (OSError, RemoteProtocolError):
            pass

    async def close(self) -> None:
        """End the session. Closing again does nothing."""
        session, self._session = self._session, None
        streams, self._streams = self._streams, None
        if streams is None:
            return
        _, writer = streams
        if session is not None:
            session.close("closed", "the observer has no more questions")
            writer.write(session.outbox.take())
        writer.close()
        try:
            async with asyncio.timeout(_FAREWELL):
                await writer.wait_closed()
        except OSError:  # a TimeoutError is one: whoever does not answer the end of TLS is left alone
            writer.transport.abort()

    async def _open(self) -> None:
        seed = self._seed
        try:
            self._streams = await asyncio.open_connection(
                *seed.address, ssl=self._credentials.client, server_hostname=SERVER_NAME
            )
            session = self._session = Session(self._dialler(self._streams[1]))
            while session.state is State.HANDSHAKE:
                await self._turn()
        except RemoteProtocolError as error:
            raise NodeUnreachable(f"{seed} does not speak as a kinfolk node does: {error}") from None
        except (TimeoutError, KinfolkError):
            raise
        except OSError as error:
            raise dial_error(seed, error, self._credentials, past_tls=self._streams is not None) from None
        # The listener takes a session for open, and stops its clock, when the first frame past ACK has come.
        session.outbox.encode(frames.Ping(0))
        await self._turn()

    def _dialler(self, writer: asyncio.StreamWriter) -> Dialler:
        own = self._credentials.fingerprint
        peer = peer_fingerprint(writer.get_extra_info("ssl_object"))
        me = Identity("observer", 0, self._cluster, self._credentials.keys)
        return Dialler(
            me,
            fingerprints=Fingerprints(own, peer),
            nonce=secrets.token_bytes(NONCE_BYTES),
            expects=self._seed.expects,
            purpose="observer",
        )

    def _check_certificate(self, node: str) -> None:
        assert self._streams is not None, "a session has a connection"
        uri = node_uri(self._cluster, node)
        if self._credentials.names_nodes and uri not in named_nodes(self._streams[1].get_extra_info("ssl_object")):
            text = f"the certificate of {node} does not name it: it must have the URI {uri}"
            raise AuthenticationFailed(text, "certificate")

    async def _answered_within(self, seconds: float) -> tuple[str, bytes]:
        """The answer, or a TimeoutError. Time in which this program was itself stopped does not count."""
        loop = asyncio.get_running_loop()
        while True:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    return await self._answered()
            except TimeoutError:
                deadline = limit.when()
                # An OSError of the connection may be a TimeoutError as well.
                if deadline is None or not limit.expired() or loop.time() - deadline < _STOPPED:
                    raise
                # The timer was late: what has come meanwhile, or an answer that is on its way, gets its chance.

    async def _answered(self) -> tuple[str, bytes]:
        while self._answer is None:
            await self._turn()
        return self._answer

    async def _turn(self) -> None:
        """Say what waits, and take in what comes next."""
        assert self._session is not None and self._streams is not None, "only open() and call() get here"
        reader, writer = self._streams
        writer.write(self._session.outbox.take())
        await writer.drain()
        data = await reader.read(_READ)
        if not data:
            raise ConnectionResetError(self._session.connection_lost())
        for event in self._session.feed(data):
            self._happened(self._session, event)

    def _happened(self, session: Session, event: Event) -> None:
        match event:
            case Opened(peer=peer):
                self._check_certificate(peer)
                self.name = peer
            case handshake.Refused():
                raise refusal_error(event)
            case Operations(operations=operations):
                for operation in operations:
                    self._said(session, operation)
            case Proved():
                raise AssertionError("only a listener hears of a proof before the session opens")

    def _said(self, session: Session, operation: frames.Operation) -> None:
        match operation:
            case frames.Answered(reference=reference, outcome=outcome, body=body):
                if reference == self._reference:  # else it comes too late
                    self._answer = outcome, bytes(body)  # the body itself is a view into the read buffer
            case frames.Ping(sequence=sequence):
                session.outbox.encode(frames.Pong(sequence))
            case frames.Goodbye(detail=detail):
                raise ConnectionResetError(detail)
            case _:
                pass  # a Pong, or what a later version says

    def _silence(self, seconds: float) -> str:
        return (
            f"{self.name or self._seed} has not answered within {seconds:g} s: it may be stopped, or too busy, or"
            " behind a firewall; check it, or allow a longer timeout"
        )


def came_of(answer: Sequence[Any]) -> Any:
    """What came of something that the service was to do: the value, or an error is raised; see `Observer.act`."""
    outcome, *told = answer
    if outcome == "done":
        return told[0]
    kind, text = told
    raise {"CallTimeout": CallTimeout, "NodeLost": NodeLost}.get(kind, KinfolkError)(text)
