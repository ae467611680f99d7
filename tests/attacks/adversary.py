"""The adversary: keys, TLS, frames and proofs by docs/protocol.md, with nothing of kinfolk's own.

What kinfolk would not say, or would check before it says it, can be said with this. That it is right is proved by a
session of its own making that a node accepts.
"""

import asyncio
import base64
import datetime as dt
import hashlib
import hmac
import itertools
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME = "node.kinfolk.invalid"
CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
NAME, CHALLENGE, REPLY, ACK, REFUSED = 1, 2, 3, 4, 5
SEND, PEER_LIST, SPAWN, SPAWN_REPLY = 0x10, 0x12, 0x19, 0x1A
GLOBAL_SYNC, CALL, ANSWER, GOODBYE, PING, PONG = 0x1D, 0x34, 0x35, 0x36, 0xF0, 0xF1
PATIENCE = 10.0

_serial = itertools.count(1)


class Keys:
    """What the document derives from a generated cookie."""

    def __init__(self, cookie: str) -> None:
        text = cookie.removeprefix("kfc1_")
        secret = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:32]

        def key(label: str, size: int) -> bytes:
            return HKDF(hashes.SHA256(), size, b"kinfolk/1 cookie", label.encode()).derive(secret)

        number = int.from_bytes(key("certificate authority", 48), "big") % (CURVE_ORDER - 1) + 1
        self.authority = ec.derive_private_key(number, ec.SECP256R1())
        self.dialler = key("dialler proof", 32)
        self.listener = key("listener proof", 32)


class Papers(NamedTuple):
    """Certificates at both ends: contexts for the one who dials and for the one who listens, and a fingerprint."""

    client: ssl.SSLContext
    server: ssl.SSLContext
    fingerprint: bytes

    @classmethod
    def of(cls, keys: Keys, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Self:
        """Issued by the authority of a cookie."""
        key = ec.generate_private_key(ec.SECP256R1())
        digest = x509.SubjectKeyIdentifier.from_public_key(keys.authority.public_key())
        issuer = _name(f"kinfolk {digest.digest.hex()}")
        authority = (
            _certificate(issuer, issuer, keys.authority, keys.authority)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(issues=True), critical=True)
            .sign(keys.authority, hashes.SHA256())
        )
        leaf = (
            _certificate(_name(SERVER_NAME), issuer, key, keys.authority)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(issues=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(keys.authority, hashes.SHA256())
        )
        with TemporaryDirectory() as directory:
            certificate, secret, trusted = (Path(directory, word) for word in ("leaf", "key", "trusted"))
            certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
            secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            trusted.write_bytes(authority.public_bytes(Encoding.PEM))
            return cls.load(certificate, secret, trusted, version=version)

    @classmethod
    def load(
        cls, certificate: Path, key: Path, trusted: Path, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> Self:
        """From files. Whoever is at the other end is not checked: an adversary does not mind."""
        client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (client, server):
            context.minimum_version = context.maximum_version = version
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(trusted)
        server.verify_mode = ssl.CERT_OPTIONAL  # or it would not ask for a certificate, and none would be shown
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        return cls(client, server, leaf.fingerprint(hashes.SHA256()))


def _name(word: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)])


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not issues, False, False, False, False, issues, False, False, False)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(next(_serial))
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


# --- frames ---


def frame(tag: int, *operations: list[Any]) -> bytes:
    """A frame of these operations, each the list of its fields."""
    return raw_frame(tag, msgspec.msgpack.encode(operations))


def raw_frame(tag: int, payload: bytes) -> bytes:
    """A frame with any payload."""
    return (len(payload) + 1).to_bytes(4, "little") + bytes((tag,)) + payload


class Heard(NamedTuple):
    """A frame that the other end has said."""

    tag: int
    operations: list[list[Any]]
    frame: bytes


class Wire:
    """A connection inside TLS, or without it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    @classmethod
    async def dial(cls, port: int, papers: Papers | None) -> Self:
        """Connect, with TLS if there are papers."""
        context = papers and papers.client
        name = SERVER_NAME if papers else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))

    @property
    def theirs(self) -> bytes:
        """The fingerprint of the other end's certificate."""
        certificate = self.writer.get_extra_info("ssl_object").getpeercert(True)
        return hashlib.sha256(certificate).digest()

    async def say(self, data: bytes) -> None:
        """Send bytes; it may be that nobody takes them any longer."""
        with suppress(OSError):
            self.writer.write(data)
            await self.writer.drain()

    async def hear(self) -> Heard | None:
        """The next frame; None at the end of the connection."""
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self.reader.readexactly(4)
                body = await self.reader.readexactly(int.from_bytes(head, "little"))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return Heard(body[0], msgspec.msgpack.decode(body[1:]), head + body)

    async def ended(self) -> None:
        """Wait until the other end has closed the connection, whatever it says before."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.reader.read(65536):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass

    async def hear_until(self, *tags: int) -> Heard | None:
        """The next frame of one of these kinds; None if the connection ends before."""
        while (heard := await self.hear()) is not None:
            if heard.tag in tags:
                return heard
        return None


def hello(name: str, **changed: Any) -> bytes:
    """The frame NAME."""
    fields: dict[str, Any] = {
        "version": 1,
        "features": [],
        "purpose": "peer",
        "cluster": "kinfolk",
        "name": name,
        "creation": 1,
        "expects": "",
        "nonce": os.urandom(32),
    }
    assert fields.keys() >= changed.keys()
    return frame(NAME, list({**fields, **changed}.values()))


def proof(key: bytes, name: bytes, challenge: bytes, dialler: bytes, listener: bytes) -> bytes:
    """Of these frames in a TLS connection of these two."""
    return hmac.digest(key, b"kinfolk/1 handshake\0" + name + challenge + dialler + listener, "sha256")


async def reply_to(wire: Wire, keys: Keys, own: bytes, named: bytes) -> tuple[bytes, Heard | None]:
    """Say NAME and prove it. The REPLY that was said, and what the listener says to it: ACK or REFUSED."""
    await wire.say(named)
    challenge = await wire.hear()
    if challenge is None or challenge.tag != CHALLENGE:
        return b"", challenge
    answer = frame(REPLY, [proof(keys.dialler, named, challenge.frame, own, wire.theirs)])
    await wire.say(answer)
    return answer, await wire.hear()


# --- in the middle ---

Alter = Callable[[bytes], bytes]


class Middle:
    """Whoever sits between: it carries bytes, remembers them, and may alter what it reads."""

    def __init__(self) -> None:
        self.port = 0
        self.said = bytearray()
        """By those who dial, as this end reads it."""
        self.heard = bytearray()
        """By the listener, likewise."""
        self.alter: Alter = bytes
        """Made of each portion that a dialler has said."""
        self.failures: list[str] = []


@asynccontextmanager
async def in_the_middle(target: int, papers: Papers | None = None, *, port: int = 0) -> AsyncGenerator[Middle]:
    """A port that leads to another one; with papers it ends TLS to both sides."""
    middle = Middle()
    tasks: set[asyncio.Task[None]] = set()
    transports: set[asyncio.WriteTransport] = set()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, into: bytearray, alter: Callable[[], Alter]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                into += data
                writer.write(alter()(data))
                await writer.drain()
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        ours = {writer.transport}
        transports.update(ours)
        try:
            context = papers and papers.client
            name = SERVER_NAME if papers else None
            there = await asyncio.open_connection("127.0.0.1", target, ssl=context, server_hostname=name)
            ours.add(there[1].transport)
            transports.update(ours)
            try:
                await asyncio.gather(
                    pump(reader, there[1], middle.said, lambda: middle.alter),
                    pump(there[0], writer, middle.heard, lambda: bytes),
                )
            finally:
                there[1].transport.abort()
        except OSError as error:
            middle.failures.append(str(error))
        finally:
            writer.transport.abort()
            transports.difference_update(ours)
            tasks.discard(task)

    server = await asyncio.start_server(carry, "127.0.0.1", port, ssl=papers and papers.server)
    middle.port = server.sockets[0].getsockname()[1]
    try:
        yield middle
    finally:
        server.close()
        for transport in list(transports):
            transport.abort()
        await asyncio.gather(*tasks)  # not cancelled: asyncio would take that for an error of the server's
        await asyncio.sleep(0)
