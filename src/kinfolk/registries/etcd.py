"""etcd as the authority over names: what `kinfolk.tenure` asks is done here, and what etcd says is passed on.

Nothing is decided here but which of etcd's members to talk to, and when to stop waiting for one. Each request is one
RPC; when its answer does not come, nobody knows whether it was carried out, and it is up to the tenure to ask again.
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from kinfolk import effects as fx
from kinfolk.cookie import Hidden, check_private
from kinfolk.errors import AuthenticationFailed
from kinfolk.ids import Address
from kinfolk.logs import fields
from kinfolk.registries import rpc

_log = logging.getLogger("kinfolk")

SCHEME = "etcd://"
_PAGE = 1000
"""Keys in one part of a snapshot."""
_SLICE = 500
"""Changes in one step of the node."""
_AT_ONCE = 64
"""Writes under way at a time; the rest waits here."""
_LOGIN = 5.0
"""Seconds that logging in may take: etcd makes that slow on purpose."""
_GOODBYE = 1.0
"""Seconds that ending the lease may take when the node closes."""


class Etcd:
    """Where etcd is, and how to get in; for ``Node(registry=...)``. ``"etcd://host:2379,..."`` is short for it.

    Args:
        endpoints: its members, each as ``host:port``.
        authority: a file with the certificates that etcd's must be signed by; with it, connections use TLS.
        certificate, key: files with a certificate of our own, if etcd wants one.
        user, password: if etcd wants them.
        password_file: a file that only its owner can read, in place of `password`.

    Raises:
        ValueError: an endpoint is no address, or the arguments do not fit each other.
        OSError: the password file cannot be read, or others may read it.
    """

    def __init__(
        self,
        *endpoints: str,
        authority: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        user: str | None = None,
        password: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
    ) -> None:
        hidden = Hidden(password)
        del password
        if not endpoints:
            raise ValueError("Etcd() needs the address of a member at least, as in Etcd('10.0.0.5:2379')")
        self.endpoints = tuple(_endpoint(endpoint) for endpoint in endpoints)
        if (certificate is None) != (key is None) or (certificate is not None and authority is None):
            raise ValueError("a certificate for etcd needs its key, and the authority of etcd's own certificate")
        self.authority, self.certificate, self.key = authority, certificate, key
        if password_file is not None:
            if hidden.reveal() is not None:
                raise ValueError("give password or password_file for etcd, not both")
            hidden = _read_password(Path(password_file))
        if (user is None) != (hidden.reveal() is None):
            raise ValueError("a user of etcd needs a password, and a password a user")
        self.user, self.password = user, hidden

    def __str__(self) -> str:
        return f"etcd at {', '.join(self.endpoints)}"

    def __repr__(self) -> str:
        return f"<{self}>"


class Client:
    """Carries out requests, for one node.

    Args:
        etcd: where.
        cluster: of the node; its keys are below ``/kinfolk/<cluster>/``.
        ttl: seconds of the node's lease.
        pulse: seconds between two questions whether all changes have been told.
        tell: takes what etcd says.
        clock: the time that leases are counted in.
        node: whose it is, for the log.

    Raises:
        ImportError: grpcio or protobuf are not installed.
        OSError: a file of `etcd` cannot be read, or others can read its key.
    """

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        ttl: float,
        pulse: float,
        tell: Callable[[fx.Input], None],
        clock: Callable[[], float],
        node: str,
    ) -> None:
        self._etcd = etcd
        self._node = node
        self._prefix = f"/kinfolk/{cluster}/".encode()
        self._end = self._prefix[:-1] + b"0"  # the next after "/"
        self._patience = max(0.5, min(2.0, ttl / 3))
        self._renewal_patience = max(0.25, ttl / 4)  # so that one can fail, and be asked of another member in time
        self._pulse = pulse
        self._tell = tell
        self._clock = clock
        self._grpc = rpc.grpc()
        self._known = rpc.messages()
        # What comes of a member that cannot be reached, that stops in between, or that refuses.
        errors = (TimeoutError, self._grpc.RpcError, rpc.module_of_errors().BaseError, asyncio.InvalidStateError)
        self._failures: tuple[type[Exception], ...] = (*errors, AuthenticationFailed)
        self._credentials = _credentials(self._grpc, etcd)
        self._channels: dict[str, tuple[Any, Any]] = {}  # each with its methods
        self._at = random.randrange(len(etcd.endpoints))  # noqa: S311 - no secret: nodes spread over the members
        self._token: str | None = None
        self._logging_in = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._closed = False
        self.refused: AuthenticationFailed | None = None
        """Why etcd would not let us in, the last time that it was asked."""
        self.trouble = ""
        """What went wrong last."""

    def consult(self, request: fx.Request) -> None:
        """Begin to carry out a request."""
        if self._closed:
            return
        match request:
            case fx.Follow(after=after, known=latest):
                if self._following is not None:
                    self._following.cancel()
                self._following = self._start(self._follow(after, latest), "follow")
            case fx.Release(lease=lease):
                self._closed = True
                for task in list(self._tasks):
                    task.cancel()
                self._leaving = self._start(self._leave(lease), "leave")
            case _:
                task = self._start(self._carry_out(request), type(request).__name__)
                assert task in self._tasks, "it is kept there"

    async def close(self) -> None:
        """Wait until what was begun has ended, which is soon after Release, and disconnect."""
        self._closed = True
        for task in self._tasks - {self._leaving}:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._disconnect()

    async def _disconnect(self) -> None:
        while self._channels:
            channel, _ = self._channels.popitem()[1]
            await channel.close()

    def abandon(self) -> None:
        """Be gone at once: ask nothing more, and tell nobody. The lease ends by itself."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        self._leaving = self._start(self._disconnect(), "disconnect")

    # --- requests ---

    async def _carry_out(self, request: fx.Request) -> None:
        answer = None
        endpoint = self._endpoint
        try:
            await self._log_in()
            if isinstance(request, fx.Put | fx.Remove):
                async with self._room, asyncio.timeout(self._patience):
                    endpoint = self._endpoint
                    answer = await self._write(request)
            else:
                patience = self._renewal_patience if isinstance(request, fx.Renew) else self._patience
                async with asyncio.timeout(patience):
                    answer = await self._about_lease(request)
            self.refused = None
        except self._failures as error:
            self._failed(endpoint, error)
        self._tell(fx.Consulted(request, answer))

    async def _about_lease(self, request: fx.Request) -> Any:
        known, etcd = self._known, self._methods
        match request:
            case fx.Grant(ttl=ttl):
                granted = await etcd.grant(known.LeaseGrantRequest(TTL=ttl), metadata=self._metadata())
                return fx.Granted(granted.ID, granted.TTL)
            case fx.Renew(lease=lease):
                stream = etcd.keep_alive(metadata=self._metadata(leader=True))
                try:
                    await stream.write(known.LeaseKeepAliveRequest(ID=lease))
                    renewed = await stream.read()
                finally:
                    stream.cancel()
                if renewed is rpc.module_of_errors().EOF:
                    raise TimeoutError("the stream for keeping leases alive has ended")
                return fx.Granted(lease, renewed.TTL)
            case fx.Revoke(lease=lease):
                return await self._revoke(lease)
            case _:
                raise AssertionError(f"{request!r} is not about a lease")

    async def _revoke(self, lease: int) -> fx.Done:
        try:
            done = await self._methods.revoke(self._known.LeaseRevokeRequest(ID=lease), metadata=self._metadata())
        except self._grpc.RpcError as error:
            if error.code() is self._grpc.StatusCode.NOT_FOUND:  # it has ended: that is what was wanted
                return fx.Done(0)
            raise
        return fx.Done(done.header.revision)

    async def _write(self, request: fx.Put | fx.Remove) -> Any:
        known, key = self._known, self._prefix + request.key.encode()
        if isinstance(request, fx.Put):
            condition = known.Compare(result=rpc.EQUAL, target=rpc.VERSION, key=key, version=0)
            write = known.RequestOp(request_put=known.PutRequest(key=key, value=request.value, lease=request.lease))
        else:
            condition = known.Compare(result=rpc.EQUAL, target=rpc.VALUE, key=key, value=request.value)
            write = known.RequestOp(request_delete_range=known.DeleteRangeRequest(key=key))
        look = known.RequestOp(request_range=known.RangeRequest(key=key))
        transaction = known.TxnRequest(compare=[condition], success=[write], failure=[look])
        try:
            done = await self._methods.txn(transaction, metadata=self._metadata())
        except self._grpc.RpcError as error:
            if error.code() is self._grpc.StatusCode.NOT_FOUND:
                return fx.NoLease()
            raise
        found = () if done.succeeded else done.responses[0].response_range.kvs
        if found:
            return self._fact(found[0])
        return fx.Done(done.header.revision)

    async def _leave(self, lease: int) -> None:
        if not lease:
            return
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._log_in()
                await self._revoke(lease)
        except self._failures as error:
            _log.info(
                "%s could not be told that the node closes, its lease will end by itself: %s",
                self._etcd,
                error,
                extra=fields(self._node, address=self._etcd, reason=error),
            )

    # --- the watch ---

    async def _follow(self, after: int, latest: int) -> None:
        """Tell what is there and what changes, until that ends; it is taken up again where the node wants it."""
        compacted, endpoint = False, self._endpoint
        try:
            await self._log_in()
            if not after:
                after = latest = await self._snapshot()
            compacted = await self._watch(after, latest)
        except self._failures as error:
            self._failed(endpoint, error)
        self._tell(fx.Unfollowed(compacted))

    async def _snapshot(self) -> int:
        """Tell all that is there, as of one revision. Returns that."""
        key, revision, first = self._prefix, 0, True
        while True:
            request = self._known.RangeRequest(key=key, range_end=self._end, limit=_PAGE, revision=revision)
            async with asyncio.timeout(self._patience):
                page = await self._methods.range(request, metadata=self._metadata())
            revision = revision or page.header.revision
            facts = [self._fact(found) for found in page.kvs]
            self._tell(fx.Snapshot(revision, facts, first, not page.more))
            if not page.more:
                return revision
            key, first = page.kvs[-1].key + b"\0", False
            await asyncio.sleep(0)

    async def _watch(self, after: int, latest: int) -> bool:
        """Tell all changes after this revision. Returns, once that cannot go on, whether they have been compacted.

        Args:
            latest: a revision that there has been already.
        """
        known = self._known
        stream = self._methods.watch(metadata=self._metadata(leader=True))
        asked: list[float] = []
        begins = known.WatchCreateRequest(key=self._prefix, range_end=self._end, start_revision=after + 1)
        try:
            await stream.write(known.WatchRequest(create_request=begins))
            pulse = asyncio.create_task(self._ask_whether_current(stream, asked))
            try:
                while True:
                    async with asyncio.timeout(self._patience + 2 * self._pulse):
                        told = await stream.read()
                    if told is rpc.module_of_errors().EOF:
                        raise TimeoutError("the watch has ended")
                    if told.created and told.header.revision < max(after, latest):
                        return True  # this etcd has another history: it was made anew, or from an old backup
                    if told.canceled and told.compact_revision:
                        return True
                    if told.canceled:
                        raise TimeoutError(f"the watch was cancelled: {told.cancel_reason}")
                    if told.events:
                        await self._tell_changes(told.events)
                    elif not told.created and asked:
                        self._tell(fx.Current(asked.pop(0)))
            finally:
                pulse.cancel()
                await asyncio.wait([pulse])
        finally:
            stream.cancel()

    async def _ask_whether_current(self, stream: Any, asked: list[float]) -> None:
        """Ask again and again whether all changes have been told; the answers come between these, in order."""
        request = self._known.WatchRequest(progress_request=self._known.WatchProgressRequest())
        while True:
            asked.append(self._clock())
            try:
                await stream.write(request)
            except self._failures:
                return  # whoever reads is told
            await asyncio.sleep(self._pulse)

    async def _tell_changes(self, events: Sequence[Any]) -> None:
        """Whole revisions: what one transaction has changed comes in one answer."""
        last = events[-1].kv.mod_revision
        changes = [self._change(event) for event in events]
        for start in range(0, len(changes), _SLICE):
            some = changes[start : start + _SLICE]
            done = start + _SLICE >= len(changes)
            self._tell(fx.Changed(last if done else 0, some))
            if not done:
                await asyncio.sleep(0)

    def _change(self, event: Any) -> fx.Fact | fx.Gone:
        if event.type == rpc.DELETED:
            return fx.Gone(self._word(event.kv.key), event.kv.mod_revision)
        return self._fact(event.kv)

    def _fact(self, found: Any) -> fx.Fact:
        return fx.Fact(self._word(found.key), found.value, found.mod_revision, found.lease)

    def _word(self, key: bytes) -> str:
        return key.removeprefix(self._prefix).decode(errors="replace")

    # --- talking ---

    @property
    def _endpoint(self) -> str:
        return self._etcd.endpoints[self._at]

    @property
    def _methods(self) -> Any:
        """etcd's methods, at the member that is asked at present."""
        endpoint = self._endpoint
        there = self._channels.get(endpoint)
        if there is None:
            options = [
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),  # one node's trouble is no other's
                ("grpc.enable_http_proxy", 0),
            ]
            aio = rpc.module_of_errors()
            if self._credentials is None:
                channel = aio.insecure_channel(endpoint, options=options)
            else:
                channel = aio.secure_channel(endpoint, self._credentials, options=options)
            there = self._channels[endpoint] = channel, rpc.methods(channel, self._known)
        return there[1]

    def _metadata(self, leader: bool = False) -> list[tuple[str, str]]:
        """What goes along with a request. `leader`: to be cut off by a member that has no leader."""
        metadata = [("hasleader", "true")] if leader else []
        return metadata if self._token is None else [*metadata, ("token", self._token)]

    async def _log_in(self) -> None:
        """Get a token, if this etcd has users and there is none."""
        if self._etcd.user is None:
            return
        async with self._logging_in:
            if self._token is None:
                async with asyncio.timeout(_LOGIN):
                    self._token = await self._authenticate(self._etcd.user)

    async def _authenticate(self, user: str) -> str:
        try:
            answer = await self._methods.authenticate(
                self._known.AuthenticateRequest(name=user, password=self._etcd.password.reveal())
            )
        except self._grpc.RpcError as error:
            if error.code() is not self._grpc.StatusCode.INVALID_ARGUMENT:
                raise
            text = f"{self._etcd} refuses the user {user!r}: {error.details()}; check the user and the password"
            raise AuthenticationFailed(text, "registry") from None
        return str(answer.token)

    def _failed(self, endpoint: str, error: Any) -> None:
        """A member has not answered as it should: the next one is asked, unless somebody has turned to it already."""
        self.trouble = str(error) or f"no answer within {self._patience:g} s"
        if isinstance(error, AuthenticationFailed):
            self.refused = error
        elif isinstance(error, self._grpc.RpcError):
            self.trouble = f"{error.code().name}: {error.details()}"
            self._learn_from(error.code())
        _log.debug("%s: %s", endpoint, self.trouble, extra=fields(self._node, address=endpoint, reason=self.trouble))
        if endpoint == self._endpoint:
            self._at = (self._at + 1) % len(self._etcd.endpoints)

    def _learn_from(self, code: Any) -> None:
        codes = self._grpc.StatusCode
        if code in (codes.UNAUTHENTICATED, codes.INVALID_ARGUMENT):
            self._token = None  # it is too old, or that of an etcd that has been started again
        elif code is codes.PERMISSION_DENIED:
            text = f"{self._etcd} does not allow this below {self._prefix.decode()}: grant its user reading and writing"
            self.refused = AuthenticationFailed(text, "registry")

    def _start(self, what: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(what, name=f"kinfolk: etcd {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error(
                "a request to etcd has failed: a bug in kinfolk, please report it",
                exc_info=task.exception(),
                extra=fields(self._node, address=self._etcd, reason=task.exception()),
            )


def _endpoint(text: str) -> str:
    address = Address.parse(text.strip())
    if not address.port:
        raise ValueError(f"endpoint {text!r} of etcd: name its port, mostly 2379")
    return str(address)


def _credentials(grpc: Any, etcd: Etcd) -> Any:
    if etcd.authority is None:
        return None
    if etcd.key is not None:
        check_private(Path(etcd.key), "the file with the key for etcd")
    chain = [None if path is None else Path(path).read_bytes() for path in (etcd.certificate, etcd.key)]
    return grpc.ssl_channel_credentials(Path(etcd.authority).read_bytes(), chain[1], chain[0])


def _read_password(path: Path) -> Hidden[str | None]:
    check_private(path, "the file with etcd's password")
    return Hidden(path.read_text().rstrip("\r\n"))
