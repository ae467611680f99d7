"""TLS between nodes: who knows the cookie is let in, nobody else reaches the parser.

Both ends derive the same certificate authority from the cookie. Each process issues itself a fresh certificate under
it (the leaf) and demands one from the other end. TLS 1.3 alone, no resumption: every connection is a full handshake in
both directions. The leaf carries a constant name, so that a stranger who connects learns neither cluster nor node; who
is at the other end is decided inside TLS, by `kinfolk.wire.handshake`, whose proofs name both leaves.

Certificates of one's own authority can take the place of the derived ones (`OwnCertificates`). Then a certificate
names its cluster and node in a URI, ``kinfolk://cluster/name@host:port``, and a node is taken for no other than its
certificate names: stealing one node's key does not make a thief all of them. The cookie is still required.
"""

import hashlib
import os
import secrets
import ssl
import sys
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kinfolk.cookie import Cookie, Hidden, ProofKeys, check_private

SERVER_NAME = "node.kinfolk.invalid"
"""The name in every leaf, and the server name that every dialler asks for. It can never resolve (RFC 6761)."""

# Certificates are valid always: a node with a wrong clock shall not be locked out, and a leaf dies with its process.
_VALID_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_VALID_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # "no expiry" in RFC 5280, 4.1.2.5
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key."""

    public: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate as it goes over the wire."""
        return self.public.public_bytes(Encoding.DER)


@dataclass(frozen=True)
class OwnCertificates:
    """Files of an own authority, in PEM, for ``Node(tls=...)``.

    The node's certificate must be good for servers and clients, and name ``kinfolk://cluster/name@host:port`` as a URI
    among its subject's alternative names.
    """

    certificate: str | os.PathLike[str]
    """The node's certificate, followed by those between it and the authority, if there are any."""
    key: str | os.PathLike[str]
    """Its private key, not encrypted; a file that only its owner can read."""
    authority: str | os.PathLike[str]
    """The authorities whose certificates are trusted."""


@dataclass(frozen=True)
class Papers:
    """What a node identifies itself with in the handshake inside TLS."""

    fingerprint: bytes
    """SHA-256 of our own leaf."""
    keys: tuple[ProofKeys, ...]
    """Of each cookie: the first to prove ourselves, all to check the other end."""
    names: frozenset[str] | None = None
    """The URIs in our own leaf; None where certificates name nobody."""

    @property
    def names_nodes(self) -> bool:
        """Whether certificates name their node, so that each end must be the one that its certificate names."""
        return self.names is not None

    def check_name(self, uri: str) -> None:
        """Raise ValueError if our own certificate is not for the node with this URI: nobody would let it in."""
        if self.names is not None and uri not in self.names:
            raise ValueError(
                f"the certificate of this node is not for it: it must have the URI {uri} among its subject's"
                f" alternative names, and it has {_listed(self.names)}"
            )


@dataclass(frozen=True, kw_only=True)
class Credentials(Papers):
    """What a process needs to connect over TLS and to be connected to."""

    server: ssl.SSLContext
    """For the end that accepts."""
    client: ssl.SSLContext
    """For the end that dials, with `SERVER_NAME` as server_hostname."""

    @classmethod
    def of(cls, cookies: Sequence[Cookie], own: OwnCertificates | None) -> "Credentials":
        """Credentials under an own authority if there is one, else under the cookie's."""
        return cls.from_cookies(cookies) if own is None else cls.from_files(own, cookies)

    @classmethod
    def from_cookies(cls, cookies: Sequence[Cookie]) -> "Credentials":
        """Credentials under the authority of the first cookie that accept those of every cookie.

        Takes a few milliseconds, and a quarter of a second for each weak cookie that is used for the first time.

        Raises:
            ValueError: no cookie.
        """
        if not cookies:
            raise ValueError("at least one cookie is needed: make one with `kinfolk cookie new`")
        authorities = [derive_authority(cookie) for cookie in cookies]
        leaf = issue_leaf(authorities[0])
        trusted = [authority.der for authority in authorities]
        return cls(
            fingerprint=fingerprint(leaf.der),
            keys=tuple(cookie.proof_keys() for cookie in cookies),
            server=_context(ssl.PROTOCOL_TLS_SERVER, leaf, trusted),
            client=_context(ssl.PROTOCOL_TLS_CLIENT, leaf, trusted),
        )

    @classmethod
    def from_files(cls, own: OwnCertificates, cookies: Sequence[Cookie]) -> "Credentials":
        """Credentials of an own authority.

        Raises:
            OSError: a file cannot be read; PermissionError if others can read the key.
            ValueError: no cookie, or a file is not what it should be.
        """
        if not cookies:
            raise ValueError("own certificates do not replace the cookie: make one with `kinfolk cookie new`")
        check_private(Path(own.key), "the key file")
        Path(own.authority).read_bytes()  # raises with its path in the message, which ssl's errors leave out
        try:
            leaf = x509.load_pem_x509_certificate(Path(own.certificate).read_bytes())
            server, client = (_own_context(kind, own) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
            names = _uris(leaf)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                f"{own.certificate}, {own.key} and {own.authority} do not make a TLS identity ({error}): they must be"
                " PEM files, and the key that of the certificate"
            ) from None
        keys = tuple(cookie.proof_keys() for cookie in cookies)
        own_fingerprint = fingerprint(leaf.public_bytes(Encoding.DER))
        return cls(fingerprint=own_fingerprint, keys=keys, names=names, server=server, client=client)


def node_uri(cluster: str, name: str) -> str:
    """How an own certificate names its node."""
    return f"kinfolk://{cluster}/{name}"


def named_nodes(connection: ssl.SSLObject | ssl.SSLSocket) -> frozenset[str]:
    """The URIs in the other end's certificate. Only after the TLS handshake."""
    alternatives: Any = (connection.getpeercert() or {}).get("subjectAltName", ())
    return frozenset(value for kind, value in alternatives if kind == "URI")


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a certificate, by which the proofs of the handshake name it."""
    return hashlib.sha256(der).digest()


def peer_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket) -> bytes:
    """SHA-256 of the other end's leaf. Only after the TLS handshake, which has demanded and checked it.

    Args:
        connection: what an asyncio transport gives as extra info "ssl_object".
    """
    der = connection.getpeercert(binary_form=True)
    assert der is not None, "our contexts let nobody in without a certificate"
    return fingerprint(der)


def probable_cause(error: BaseException | None, *, own: bool = False) -> str:
    """Why a connection probably ended before the other end let us in, and what to do, in words for the user.

    Args:
        error: what `create_connection` or `connection_lost` told; None if the other end just closed.
        own: whether our certificate is of an own authority.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        if own:
            return f"the certificate there is not accepted here ({error.verify_message}): {_OWN_REMEDY}"
        return "the node there has another cookie, or certificates of its own: give both nodes the same one"
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"}:
        return "what listens there does not speak TLS, so it is no kinfolk node: check host and port"
    if "PROTOCOL_VERSION" in reason or reason in {"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"}:
        return "what listens there does not speak TLS 1.3, so it is no kinfolk node: check host and port"
    if "UNKNOWN_CA" in reason or "CERTIFICATE" in reason or "DECRYPT_ERROR" in reason:
        if own:
            return f"the node there does not accept our certificate ({_alert(reason)}): {_OWN_REMEDY}"
        return "the node there does not accept our cookie: give both nodes the same one"
    what = "it does not accept our certificate" if own else "the cookies differ"
    return f"the node there ended the connection before it let us in: probably {what}; its log says why"


_OWN_REMEDY = "both ends need valid certificates of an authority that the other trusts, for servers and for clients"


def _alert(reason: str) -> str:
    """What the other end said, from OpenSSL's name for it."""
    return reason.partition("ALERT_")[2].replace("_", " ").lower() or reason


def derive_authority(cookie: Cookie) -> Certificate:
    """The certificate authority of a cookie. Its key and its name are the same wherever it is derived."""
    # 128 bits more than the order: the bias of the remainder vanishes (FIPS 186-5, A.2.1).
    number = Hidden(int.from_bytes(cookie.key("certificate authority", 48), "big"))
    key = ec.derive_private_key(number.reveal() % (_P256_ORDER - 1) + 1, ec.SECP256R1())
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _common_name(f"kinfolk {key_id.digest.hex()}")
    builder = (
        _certificate(name, name, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
    )
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def issue_leaf(authority: Certificate) -> Certificate:
    """A fresh key with a certificate of this authority, good for both ends of a connection."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _certificate(_common_name(SERVER_NAME), authority.public.subject, key.public_key(), authority.key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    )
    return Certificate(builder.sign(authority.key, hashes.SHA256()), key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _context(protocol: int, leaf: Certificate, trusted: Sequence[bytes]) -> ssl.SSLContext:
    context = _strict_context(protocol)
    for der in trusted:
        context.load_verify_locations(cadata=der)
    _load(context, leaf)
    return context


def _own_context(protocol: int, own: OwnCertificates) -> ssl.SSLContext:
    context = _strict_context(protocol)
    context.check_hostname = False  # hosts are named as the authority's owner pleases; what counts is the URI
    context.load_verify_locations(own.authority)

    def ask() -> NoReturn:  # instead of OpenSSL, which would ask the terminal
        raise ValueError("the key is encrypted, and nodes start without anybody to ask: store it unencrypted")

    context.load_cert_chain(own.certificate, own.key, ask)
    return context


def _uris(leaf: x509.Certificate) -> frozenset[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(names.get_values_for_type(x509.UniformResourceIdentifier))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _strict_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # TLS 1.3 resumes by these alone
    return context


def _load(context: ssl.SSLContext, leaf: Certificate) -> None:
    """Give the context our certificate and key. The ssl module takes them from a path only, so they are encrypted."""
    password = Hidden(secrets.token_hex(32))
    encryption = BestAvailableEncryption(password.reveal().encode())
    encrypted = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    with _private_file(leaf.public.public_bytes(Encoding.PEM) + encrypted) as path:
        context.load_cert_chain(path, password=password.reveal())


@contextmanager
def _private_file(content: bytes) -> Generator[str]:
    """A path under which only we can read this content, while the block runs: in memory where the system can."""
    if sys.platform == "linux" and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("kinfolk"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        fd, path = tempfile.mkstemp(prefix="kinfolk-")  # of mode 0600
        try:
            with open(fd, "wb") as file:
                file.write(content)
            yield path
        finally:
            os.unlink(path)
