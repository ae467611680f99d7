"""Real TLS between two ends in memory: who is let in, and who is not."""

import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.shell.tls import (
    SERVER_NAME,
    Certificate,
    Credentials,
    derive_authority,
    fingerprint,
    issue_leaf,
    peer_fingerprint,
    probable_cause,
)
from tests.wire.pair import COOKIE, OTHER_COOKIE

OLD, NEW = COOKIE, OTHER_COOKIE


class Connection:
    """Two ends, and the bytes on their way."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext, server_name: str | None = SERVER_NAME) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server, server_side=False, server_hostname=server_name)
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        steps: list[Callable[[], object]] = [self.client.do_handshake, self.server.do_handshake]
        while steps:
            for step in list(steps):
                try:
                    step()
                    steps.remove(step)
                except ssl.SSLWantReadError:
                    pass
        # In TLS 1.3 the client is done before the server has seen its certificate: a word each way makes it sure.
        self.server.write(b"welcome")
        self.client.write(b"thanks")
        assert (self.client.read(), self.server.read()) == (b"welcome", b"thanks")


def connect(dialling: Credentials, listening: Credentials) -> Connection:
    return Connection(dialling.client, listening.server)


def credentials(*cookies: Cookie) -> Credentials:
    return Credentials.from_cookies(cookies)


# --- who is let in ---


def test_who_knows_the_cookie_is_let_in_and_sees_the_others_fingerprint():
    ada, bob = credentials(OLD), credentials(OLD)
    connection = connect(ada, bob)
    assert connection.client.version() == "TLSv1.3"
    assert peer_fingerprint(connection.server) == ada.fingerprint
    assert peer_fingerprint(connection.client) == bob.fingerprint
    assert ada.fingerprint != bob.fingerprint


def test_a_free_text_cookie_works_as_well():
    cookie = Cookie("open sesame")
    connect(credentials(cookie), credentials(cookie))


@pytest.mark.parametrize(
    ("dialling", "listening"),
    [
        ([OLD], [OLD, NEW]),
        ([OLD, NEW], [OLD]),
        ([OLD, NEW], [NEW, OLD]),
        ([NEW, OLD], [OLD, NEW]),
        ([NEW, OLD], [NEW]),
        ([NEW], [NEW, OLD]),
    ],
)
def test_neighbouring_steps_of_a_rotation_connect(dialling: list[Cookie], listening: list[Cookie]):
    connect(credentials(*dialling), credentials(*listening))


# --- who is not ---


@pytest.mark.parametrize(
    ("dialling", "listening"), [([OLD], [NEW]), ([OLD], [NEW, OLD]), ([NEW, OLD], [OLD]), ([NEW], [OLD])]
)
def test_another_cookie_is_refused(dialling: list[Cookie], listening: list[Cookie]):
    with pytest.raises(ssl.SSLError) as info:
        connect(credentials(*dialling), credentials(*listening))
    assert "cookie" in probable_cause(info.value)


def test_a_listener_that_does_not_check_is_refused_by_the_dialler():
    ada, mallory = credentials(OLD), credentials(NEW)
    mallory.server.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(ada, mallory)


def stranger() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_client_without_a_certificate_is_refused():
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        Connection(stranger(), credentials(OLD).server)


def test_a_client_that_does_not_check_is_refused_by_the_listener():
    mallory = credentials(NEW)
    mallory.client.check_hostname = False
    mallory.client.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(mallory, credentials(OLD))


@pytest.mark.filterwarnings("ignore:.*TLSv1_2:DeprecationWarning")
def test_tls_1_2_is_refused_at_both_ends():
    ada, bob = credentials(OLD), credentials(OLD)
    old = stranger()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION"):
        Connection(old, bob.server)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION|VERSION_TOO_LOW|NO_SHARED_CIPHER"):
        Connection(ada.client, old)


def test_another_server_name_is_refused():
    ada, bob = credentials(OLD), credentials(OLD)
    with pytest.raises(ssl.SSLCertVerificationError):
        Connection(ada.client, bob.server, "example.org")


def test_a_leaf_cannot_issue_another_one(tmp_path: Path):
    """Who gets hold of a node's key, but not of the cookie, cannot make more members."""
    leaf = issue_leaf(derive_authority(OLD))
    forged = issue_leaf(leaf)
    chain = tmp_path / "chain.pem"
    pem = [certificate.public.public_bytes(Encoding.PEM) for certificate in (forged, leaf)]
    pem.append(forged.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    chain.write_bytes(b"".join(pem))
    context = stranger()
    context.load_cert_chain(chain)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        Connection(context, credentials(OLD).server)


def test_no_session_is_resumed():
    ada, bob = credentials(OLD), credentials(OLD)
    first = connect(ada, bob)
    assert first.client.session is None or not first.client.session.has_ticket
    assert not first.client.session_reused
    assert not connect(ada, bob).client.session_reused


# --- what a certificate says ---


def parsed(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.der)


def test_the_authority_is_the_same_wherever_it_is_derived():
    one, other = (
        derive_authority(OLD),
        derive_authority(Cookie("kfc1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-RJn6K")),
    )
    assert one.key.private_numbers() == other.key.private_numbers()
    assert parsed(one).subject == parsed(other).subject
    assert one.key.private_numbers() != derive_authority(NEW).key.private_numbers()


def test_the_authority_of_the_document():
    authority = derive_authority(OLD)
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    point = authority.key.public_key().public_numbers()
    assert f"{point.x:064x}" in text
    assert f"{point.y:064x}" in text
    (name,) = parsed(authority).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert f"`{name.value!s}`" in text


def test_a_leaf_says_nothing_about_its_node_or_cluster():
    leaf = parsed(issue_leaf(derive_authority(OLD)))
    assert leaf.subject.rfc4514_string() == f"CN={SERVER_NAME}"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(SERVER_NAME)]
    assert fingerprint(leaf.public_bytes(Encoding.DER)) != fingerprint(issue_leaf(derive_authority(OLD)).der)


def test_every_leaf_has_a_key_of_its_own():
    authority = derive_authority(OLD)
    keys = {issue_leaf(authority).key.private_numbers().private_value for _ in range(5)}
    assert len(keys) == 5


# --- secrets ---


def test_no_repr_shows_a_key():
    authority = derive_authority(OLD)
    shown = repr(authority) + repr(credentials(OLD))
    assert str(authority.key.private_numbers().private_value) not in shown
    assert "key=" not in shown
    assert OLD.proof_keys().dialler.reveal().hex() not in shown
    assert repr(OLD.proof_keys().dialler.reveal()) not in shown


@pytest.mark.parametrize("platform", sorted({sys.platform, "darwin"}))
def test_no_file_with_a_key_stays_behind(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On Linux there never is one; elsewhere it is encrypted, ours alone, and gone at once."""
    paths: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def watched(context: ssl.SSLContext, path: str, password: str) -> None:
        paths.append(path)
        assert b"ENCRYPTED PRIVATE KEY" in Path(path).read_bytes()
        assert os.stat(path).st_mode & 0o077 == 0 or path.startswith("/proc/self/fd/")
        assert list(tmp_path.iterdir()) == [Path(path)][: platform == "darwin"]
        load(context, path, password=password)

    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    connect(credentials(OLD), credentials(OLD))
    assert len(paths) == 4
    assert list(tmp_path.iterdir()) == []


def test_no_cookie_is_an_error_with_a_remedy():
    with pytest.raises(ValueError, match="kinfolk cookie new"):
        Credentials.from_cookies([])


# --- what users are told ---


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLCertVerificationError(1, "verify failed"), "has another cookie"),
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), "does not accept our cookie"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "does not accept our cookie"),
        (ssl_error("WRONG_VERSION_NUMBER"), "does not speak TLS,"),
        (ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), "TLS 1.3"),
        (ssl_error("SOMETHING_ELSE"), "probably the cookies differ"),
        (ConnectionResetError(), "probably the cookies differ"),
        (None, "probably the cookies differ"),
    ],
)
def test_the_probable_cause_of_a_failed_connection(error: BaseException | None, words: str):
    assert words in probable_cause(error)


def test_keys_are_on_the_curve_that_the_document_names():
    assert isinstance(derive_authority(Cookie(new_cookie())).key.curve, ec.SECP256R1)
