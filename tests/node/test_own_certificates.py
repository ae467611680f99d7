"""Certificates of an own authority: a node is who its certificate says, at both ends; and the cookie still counts."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinfolk import AuthenticationFailed, Cookie, Node, OwnCertificates, new_cookie
from kinfolk.observer import Observer
from kinfolk.shell.tls import Credentials, node_uri
from tests.authority import CLIENT, DAY, NOW, SERVER, Authority
from tests.node.nodes import Nodes, echo, until
from tests.system.fleet import free_port


class Pki:
    """An authority, and nodes with its certificates."""

    def __init__(self, nodes: Nodes, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.authority = Authority(directory)
        self.directory = directory
        self._nodes = nodes
        self._log = caplog
        caplog.set_level(logging.DEBUG)

    def name(self, word: str) -> str:
        """A name with a port that is free: a certificate must know it before the node starts."""
        return f"{word}@127.0.0.1:{free_port()}"

    def issue(self, name: str, **settings: Any) -> OwnCertificates:
        """A certificate for the node with this name."""
        return self.authority.issue(name.partition("@")[0], node_uri("kinfolk", name), **settings)

    async def start(self, name: str, *join: Node, **settings: Any) -> Node:
        """A node with its own certificate, or with the one that is given."""
        if "tls" not in settings:
            settings["tls"] = self.issue(name)
        return await self._nodes.start(name, *join, **settings)

    async def refused(self, name: str, at: Node, *, reason: str = "certificate", **settings: Any) -> tuple[str, str]:
        """A node that is not let in: what it is told, and what the other one writes to its log."""
        node = await self.start(name, **settings)
        self._log.clear()
        with pytest.raises(AuthenticationFailed) as refusal:
            await node.connect(at.name)
        assert at.peers() == []
        lines = await until(lambda: self.lines("did not become a session"))
        assert len(set(lines)) == 1, lines
        assert refusal.value.reason == reason
        return str(refusal.value), lines[0]

    def lines(self, part: str) -> list[str]:
        """What was logged as a warning with this in it."""
        return [
            record.getMessage()
            for record in self._log.records
            if record.levelno >= logging.WARNING and part in record.getMessage()
        ]


@pytest.fixture
def pki(nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Pki:
    """A directory for an authority."""
    directory = tmp_path / "pki"
    directory.mkdir()
    return Pki(nodes, directory, caplog)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch):
    """Nodes start with a certificate that is not for them, as a thief's would."""
    monkeypatch.setattr(Credentials, "check_name", lambda self, uri: None)


async def test_nodes_with_certificates_of_one_authority_are_a_mesh(pki: Pki):
    ada = await pki.start(pki.name("ada"))
    bob = await pki.start(pki.name("bob"), ada)
    carl = await pki.start(pki.name("carl"), bob)
    await until(lambda: all(len(node.peers()) == 2 for node in (ada, bob, carl)))
    await carl.names.register("echo", carl.spawn(echo))
    assert await ada.call("echo", "hi") == "hi"


async def test_an_authority_may_let_others_issue(pki: Pki):
    department = Authority(pki.directory, "department", above=pki.authority)
    ada = await pki.start(pki.name("ada"))
    name = pki.name("bob")
    bob = await pki.start(name, ada, tls=department.issue("bob", node_uri("kinfolk", name)))
    assert ada.peers() == [bob.name]


async def test_one_certificate_may_name_several_nodes(pki: Pki):
    ada, bob = pki.name("ada"), pki.name("bob")
    both = pki.authority.issue("machine", *(node_uri("kinfolk", name) for name in (ada, bob)))
    first = await pki.start(ada, tls=both)
    second = await pki.start(bob, first, tls=both)
    assert first.peers() == [second.name]


# --- what is noticed at once, by the node itself ---


@pytest.mark.parametrize(
    ("uri", "has"),
    [
        (None, "it has none"),
        ("kinfolk://kinfolk/eve@127.0.0.1:4370", "it has kinfolk://kinfolk/eve@127.0.0.1:4370"),
        ("kinfolk://elsewhere/{name}", "it has kinfolk://elsewhere/ada"),
    ],
)
async def test_a_node_does_not_start_with_a_certificate_that_is_not_for_it(pki: Pki, uri: str | None, has: str):
    name = pki.name("ada")
    uris = [] if uri is None else [uri.format(name=name)]
    with pytest.raises(ValueError, match="is not for it") as wrong:
        await pki.start(name, tls=pki.authority.issue("wrong", *uris))
    assert f"it must have the URI kinfolk://kinfolk/{name}" in str(wrong.value)
    assert has in str(wrong.value)


def open_to_others(own: OwnCertificates, _: OwnCertificates) -> OwnCertificates:
    Path(own.key).chmod(0o640)
    return own


def missing_key(own: OwnCertificates, _: OwnCertificates) -> OwnCertificates:
    Path(own.key).unlink()
    return own


def other_key(own: OwnCertificates, other: OwnCertificates) -> OwnCertificates:
    return OwnCertificates(own.certificate, other.key, own.authority)


def no_pem(own: OwnCertificates, _: OwnCertificates) -> OwnCertificates:
    Path(own.certificate).write_text("a certificate")
    return own


def missing_authority(own: OwnCertificates, _: OwnCertificates) -> OwnCertificates:
    return OwnCertificates(own.certificate, own.key, "nowhere.pem")


def directory_for_key(own: OwnCertificates, _: OwnCertificates) -> OwnCertificates:
    return OwnCertificates(own.certificate, Path(own.key).parent, own.authority)


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (
            open_to_others,
            PermissionError,
            r"the key file .*ada\.key is open to other users: run `chmod 600 .*ada\.key`",
        ),
        (missing_key, FileNotFoundError, r"ada\.key"),
        (missing_authority, FileNotFoundError, r"nowhere\.pem"),
        (other_key, ValueError, r"do not make a TLS identity .*the key that of the certificate"),
        (no_pem, ValueError, r"do not make a TLS identity .*PEM"),
        (directory_for_key, ValueError, r"must be a regular file"),
    ],
)
async def test_files_that_do_not_fit_are_told_with_the_remedy(
    pki: Pki, spoil: Callable[..., OwnCertificates], kind: type[Exception], says: str
):
    name = pki.name("ada")
    tls = spoil(pki.issue(name), pki.issue(pki.name("bob")))
    with pytest.raises(kind, match=says):
        await pki.start(name, tls=tls)


async def test_an_encrypted_key_is_refused_and_the_terminal_is_not_asked(pki: Pki):
    name = pki.name("ada")
    with pytest.raises(ValueError, match=r"the key is encrypted.*store it unencrypted"):
        await pki.start(name, tls=pki.issue(name, password=b"open sesame"))


async def test_certificates_without_a_cookie_are_not_enough():
    with pytest.raises(ValueError, match="do not replace the cookie"):
        Credentials.from_files(OwnCertificates("a", "b", "c"), [])


# --- what the other end notices ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("whose", ["nobody's", "another node's", "another cluster's"])
async def test_a_dialler_is_no_other_than_its_certificate_names(pki: Pki, whose: str):
    ada, eve = await pki.start(pki.name("ada")), pki.name("eve")
    uris = {
        "nobody's": [],
        "another node's": [node_uri("kinfolk", pki.name("bob"))],
        "another cluster's": [node_uri("elsewhere", eve)],
    }[whose]
    told, logged = await pki.refused(eve, ada, tls=pki.authority.issue("eve", *uris))
    says = f"the certificate of {eve} does not name it: it must have the URI kinfolk://kinfolk/{eve}"
    assert says in told
    assert says in logged


@pytest.mark.usefixtures("unchecked")
async def test_a_listener_is_no_other_than_its_certificate_names(pki: Pki):
    eve = await pki.start(pki.name("eve"), tls=pki.issue(pki.name("bob")))
    told, logged = await pki.refused(pki.name("ada"), eve)
    says = f"the certificate of {eve.name} does not name it: it must have the URI kinfolk://kinfolk/{eve.name}"
    assert says in told
    assert says in logged


async def test_a_certificate_of_another_authority_is_refused_at_both_ends(pki: Pki):
    ada, eve = await pki.start(pki.name("ada")), pki.name("eve")
    stranger = Authority(pki.directory, "stranger")
    told, logged = await pki.refused(eve, ada, tls=stranger.issue("eve", node_uri("kinfolk", eve)))
    # Each end refuses the other; the dialler comes first.
    assert "the certificate there is not accepted here (self-signed certificate in certificate chain)" in told
    assert "an authority that the other trusts" in told
    assert "one that does not accept our certificate" in logged


async def test_one_who_trusts_us_but_whom_we_do_not_trust_is_refused_and_both_ends_say_why(pki: Pki):
    ada, eve = await pki.start(pki.name("ada")), pki.name("eve")
    issued = Authority(pki.directory, "stranger").issue("eve", node_uri("kinfolk", eve))
    trusting = OwnCertificates(issued.certificate, issued.key, pki.authority.file)
    told, logged = await pki.refused(eve, ada, tls=trusting)
    assert "probably it does not accept our certificate; its log says why" in told
    assert "unable to get local issuer certificate" in logged and "an authority that the other trusts" in logged


@pytest.mark.parametrize(
    ("flaw", "says"),
    [({"valid_until": NOW - DAY}, "certificate has expired"), ({"usage": [SERVER]}, "unsuitable certificate purpose")],
)
async def test_a_certificate_that_is_not_valid_for_a_dialler_is_refused(pki: Pki, flaw: dict[str, Any], says: str):
    ada, eve = await pki.start(pki.name("ada")), pki.name("eve")
    told, logged = await pki.refused(eve, ada, tls=pki.issue(eve, **flaw))
    assert "probably it does not accept our certificate; its log says why" in told
    assert says in logged


async def test_a_certificate_that_is_only_for_clients_is_no_listeners(pki: Pki):
    name = pki.name("eve")
    eve = await pki.start(name, tls=pki.issue(name, usage=[CLIENT]))
    told, logged = await pki.refused(pki.name("ada"), eve)
    assert "the certificate there is not accepted here (unsuitable certificate purpose)" in told
    assert "one that does not accept our certificate" in logged


async def test_a_right_certificate_with_a_wrong_cookie_is_refused_and_both_ends_say_why(pki: Pki):
    ada, eve = await pki.start(pki.name("ada")), pki.name("eve")
    told, logged = await pki.refused(eve, ada, reason="cookie", cookie=new_cookie())
    says = f"{eve} has not proved to {ada.name} that it knows the cookie: give both nodes the same one"
    assert says in told
    assert says in logged


async def test_a_right_cookie_without_a_certificate_is_refused(pki: Pki):
    ada = await pki.start(pki.name("ada"))
    told, logged = await pki.refused(pki.name("eve"), ada, reason="cookie", tls=None)
    assert "did not let us in" in told
    assert "one that does not accept our certificate" in logged


# --- observers ---


async def asked(node: Node, cookie: Cookie, tls: OwnCertificates) -> str:
    async with Observer(node.name, cookies=[cookie], cluster=node.cluster, tls=tls) as seen:
        info: dict[str, str] = await seen.call(["info"])
        return info["name"]


async def test_an_observer_may_have_any_certificate_of_the_authority(pki: Pki, nodes: Nodes):
    ada = await pki.start(pki.name("ada"))
    assert await asked(ada, nodes.cookie, pki.authority.issue("operator")) == ada.name
    stranger = Authority(pki.directory, "stranger").issue("eve")
    with pytest.raises(AuthenticationFailed, match="not accepted here"):
        await asked(ada, nodes.cookie, stranger)
    with pytest.raises(AuthenticationFailed, match="knows the cookie"):
        await asked(ada, Cookie(new_cookie()), pki.authority.issue("operator"))


@pytest.mark.usefixtures("unchecked")
async def test_an_observer_is_not_taken_in_by_a_node_with_another_nodes_certificate(pki: Pki, nodes: Nodes):
    eve = await pki.start(pki.name("eve"), tls=pki.issue(pki.name("bob")))
    with pytest.raises(AuthenticationFailed, match=f"the certificate of {eve.name} does not name it") as refusal:
        await asked(eve, nodes.cookie, pki.authority.issue("operator"))
    assert refusal.value.reason == "certificate"


# --- new ones ---


async def test_a_new_certificate_is_used_without_a_restart_and_a_new_cookie_leaves_the_certificates(pki: Pki):
    ada = await pki.start(pki.name("ada"))
    bob = await pki.start(pki.name("bob"), ada)
    before = await certificate_of(ada)
    pki.issue(ada.name)  # into the same files
    ada.rekey()
    assert await certificate_of(ada) != before
    new = new_cookie()
    for node in (ada, bob):
        node.rekey(cookie=new)
    carl = await pki.start(pki.name("carl"), ada, cookie=new)
    assert set(carl.peers()) == {ada.name, bob.name}


async def certificate_of(node: Node) -> bytes:
    """What a stranger sees of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = node.name.partition("@")[2].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown
