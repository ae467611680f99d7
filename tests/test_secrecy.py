"""No secret shows: in no repr, in no exception, not even with the variables of its traceback."""

import asyncio
import copy
import gc
import hashlib
import hmac
import logging
import os
import pickle
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import kinfolk
import kinfolk.cookie
from kinfolk import Cookie, KinfolkError, Node, new_cookie, settings
from kinfolk.cookie import Hidden, read_cookie_file, user_cookie
from kinfolk.observer import Observer
from kinfolk.shell import tls
from kinfolk.shell.tls import Credentials
from tests.secrecy import dump, parts_in, secrets_in, shown

STRONG, OTHER, WEAK = new_cookie(), new_cookie(), "correct horse battery staple"
MISTYPED = STRONG[:-1] + ("A" if STRONG[-1] != "A" else "B")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with nothing in it, and an environment with no setting but a home."""
    for key in [key for key in os.environ if key.startswith("KINFOLK_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file(content: str | bytes, name: str = "cookie") -> str:
    path = Path(name)
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def raised(action: Callable[[], object]) -> str:
    """All that can be seen of the exception that comes of this."""
    with pytest.raises((ValueError, TypeError, OSError, RuntimeError, KinfolkError)) as caught:
        action()
    return dump(caught.value)


def test_a_hidden_secret_is_neither_shown_nor_copied_and_equals_its_like():
    secret = Hidden(STRONG)
    assert secret.reveal() == STRONG
    assert STRONG not in f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    assert secret == Hidden(STRONG) != Hidden(OTHER)
    assert secret != STRONG
    assert len({secret, Hidden(STRONG), Hidden(OTHER)}) == 2
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            way(secret)


def test_this_test_finds_what_it_looks_for():
    def seen(error: BaseException) -> str:
        return dump(error, "tests")

    class Holder:
        secret = OTHER

    holder = Holder()
    variable = STRONG
    with pytest.raises(ZeroDivisionError) as caught:
        print(variable, holder.secret, 1 / 0)
    assert parts_in(seen(caught.value), STRONG), "a variable"
    assert parts_in(seen(caught.value), OTHER), "an attribute on the line"
    del variable
    later = ValueError("later")
    later.__context__, later.__suppress_context__ = KeyError(STRONG), True
    assert parts_in(seen(later), STRONG), "an earlier exception"
    key = Cookie(STRONG).proof_keys().dialler.reveal()
    for form in (key.hex(), repr(key), repr([key]), STRONG):
        assert secrets_in(form, STRONG)


@pytest.mark.parametrize(
    "action",
    [
        lambda: Cookie(MISTYPED),
        lambda: Cookie(cast("str", MISTYPED.encode())),
        lambda: Cookie(f"{MISTYPED}\n{MISTYPED}"),
        lambda: Cookie(MISTYPED[5:] + "\udcff"),
        lambda: Cookie(MISTYPED.replace("kfc1", "kfc2")),
        lambda: Node(cookie=MISTYPED),
        lambda: Node(cookie=[STRONG, MISTYPED]),
        lambda: Node(cookie=[MISTYPED, STRONG]),
        lambda: Node(cookie=cast("str", MISTYPED.encode())),
        lambda: Node(cookie_file=file(MISTYPED)),
        lambda: Node(cookie_file=file(MISTYPED * 100)),
        lambda: Node(cookie_file=file(MISTYPED[5:].encode() + b"\xff")),
        lambda: Node("ada", cookie=MISTYPED, heartbeat=-1),
        lambda: asyncio.run(kinfolk.start("ada", cookie=MISTYPED)),
        lambda: read_cookie_file(Path(file(MISTYPED))),
        lambda: settings.resolve(cookie=MISTYPED),
        lambda: (file(f'cookie = "{MISTYPED}"', "kinfolk.toml"), Node()),
        lambda: (file(f'[kinfolk]\ncookie = "{MISTYPED}"', "kinfolk.toml"), Node()),
        lambda: (file(f'cookie = "{MISTYPED}', "kinfolk.toml"), Node()),
    ],
)
def test_a_mistyped_cookie_does_not_show(action: Callable[[], object]):
    text = raised(action)
    assert not parts_in(text, MISTYPED[5:]), text


@pytest.mark.parametrize(
    "action",
    [
        lambda **cookie: Node("no name", **cookie),
        lambda **cookie: Node("ada", cluster="no cluster", **cookie),
        lambda **cookie: Node("ada", join=["nobody"], **cookie),
        lambda **cookie: Node("ada", heartbeat=-1, **cookie),
        lambda **cookie: Node("ada", messages=[cast("type", 1)], **cookie),
        lambda **cookie: Node("ada@192.0.2.1:1", allow_weak_cookie=True, **cookie).name,
        lambda **cookie: (file("nonsense = 1", "kinfolk.toml"), Node("ada", **cookie)),
        lambda **cookie: asyncio.run(kinfolk.start("no name", **cookie)),
    ],
)
@pytest.mark.parametrize("given", ["argument", "list", "file", "environment"])
@pytest.mark.parametrize("cookie", [STRONG, WEAK], ids=["strong", "weak"])
def test_a_right_cookie_does_not_show_when_something_else_is_wrong(
    action: Callable[..., object], given: str, cookie: str, monkeypatch: pytest.MonkeyPatch
):
    arguments: dict[str, Any] = {}
    match given:
        case "argument":
            arguments = {"cookie": cookie}
        case "list":
            arguments = {"cookie": [OTHER, cookie]}
        case "file":
            arguments = {"cookie_file": file(cookie)}
        case _:
            monkeypatch.setenv("KINFOLK_COOKIE", cookie)
    text = raised(lambda: action(**arguments))
    assert not parts_in(text, cookie), text


def test_a_weak_cookie_that_is_refused_does_not_show(monkeypatch: pytest.MonkeyPatch):
    assert not parts_in(raised(lambda: Node("ada@10.0.0.1:4370", cookie=WEAK)), WEAK)
    monkeypatch.setenv("KINFOLK_COOKIE", WEAK)
    assert not parts_in(raised(lambda: Node("ada@10.0.0.1:4370")), WEAK)


async def test_a_cookie_that_a_running_node_refuses_does_not_show():
    async with Node("ada", cookie=STRONG, join=[]) as node:
        text = raised(lambda: node.rekey(cookie=MISTYPED)) + raised(lambda: node.rekey(cookie=[OTHER, MISTYPED]))
        assert not parts_in(text, MISTYPED[5:]) and not secrets_in(text, OTHER)
    text = raised(lambda: node.rekey(cookie=OTHER))
    assert not secrets_in(text, OTHER) and not secrets_in(text, STRONG)


def broken(*_: object, **__: object) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize(
    ("where", "cookie"),
    [
        ((hashlib, "scrypt"), WEAK),
        ((kinfolk.cookie, "HKDF"), WEAK),
        ((kinfolk.cookie, "HKDF"), STRONG),
        ((Cookie, "key"), STRONG),
        ((ec, "derive_private_key"), STRONG),
        ((ec, "generate_private_key"), STRONG),
        ((x509.CertificateBuilder, "sign"), STRONG),
        ((ssl.SSLContext, "load_verify_locations"), STRONG),
        ((tls, "_private_file"), STRONG),
    ],
    ids=["scrypt", "HKDF weak", "HKDF", "key", "derive", "generate", "sign", "trust", "file"],
)
def test_whatever_breaks_while_keys_are_made_shows_none(
    where: tuple[object, str], cookie: str, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        patched.setattr(where[0], where[1], broken)
        with pytest.raises(RuntimeError) as caught:
            Credentials.from_cookies([Cookie(cookie), Cookie(OTHER)])
    text = dump(caught.value)
    assert "broken on purpose" in text
    assert not secrets_in(text, cookie) and not secrets_in(text, OTHER), text


def test_a_leafs_key_does_not_show_when_it_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch):
    made: list[Hidden[Any]] = []
    make = Hidden.__init__

    def noted(self: Hidden[Any], value: Any) -> None:
        make(self, value)
        made.append(self)

    def refuse(context: ssl.SSLContext, path: str, password: str) -> None:
        raise ssl.SSLError("broken on purpose")

    monkeypatch.setattr(Hidden, "__init__", noted)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
    text = raised(lambda: Credentials.from_cookies([Cookie(STRONG)]))
    passwords = [hidden.reveal() for hidden in made if isinstance(hidden.reveal(), str) and hidden.reveal() != STRONG]
    assert passwords and not any(password in text for password in passwords), "without it, the key is worth nothing"
    assert not secrets_in(text, STRONG)


@pytest.mark.parametrize("what", ["link", "fsync", "write"])
def test_a_cookie_that_cannot_be_stored_does_not_show(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made: list[str] = []

    def noted() -> str:
        made.append(new_cookie())
        return made[-1]

    monkeypatch.setattr("kinfolk.cookie.new_cookie", noted)
    if what == "write":
        monkeypatch.setattr("tempfile.mkstemp", lambda **_: (os.open(os.devnull, os.O_RDONLY), os.devnull + "/none"))
    else:
        monkeypatch.setattr(os, what, broken)
    with pytest.raises((RuntimeError, OSError)) as caught:
        user_cookie(tmp_path / "home")
    assert made and not secrets_in(dump(caught.value), made[0])


async def test_nodes_that_refuse_each_other_show_nothing(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    texts: list[str] = []
    async with Node("ada", cookie=[STRONG, OTHER], join=[]) as ada:
        for cookies, cluster in (([new_cookie()], "kinfolk"), ([STRONG], "elsewhere")):
            stranger = Node("bob", cookie=cookies, cluster=cluster, join=[ada.name])
            with pytest.raises(KinfolkError) as caught:
                await stranger.start()
            texts.append(dump(caught.value))
            with pytest.raises(KinfolkError) as caught:
                await Observer(ada.name, cookies=[Cookie(cookies[0])], cluster=cluster).open()
            texts.append(dump(caught.value))
    texts += [record.getMessage() + str(record.exc_text) + repr(record.args) for record in caplog.records]
    assert any("did not become a session" in text for text in texts)
    for cookie in (STRONG, OTHER):
        assert not secrets_in("\n".join(texts), cookie)


async def test_a_proof_that_breaks_shows_no_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []
    async with Node("ada", cookie=STRONG, join=[]) as ada:
        bob = Node("bob", cookie=STRONG, join=[ada.name], join_timeout=0.2)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        monkeypatch.setattr(hmac, "digest", broken)
        with pytest.raises(KinfolkError) as caught:
            async with bob:
                raise kinfolk.NodeUnreachable("it starts alone")
        monkeypatch.undo()
        loop.set_exception_handler(None)
    text = "\n".join([*map(dump, errors), dump(caught.value), caplog.text])
    assert "broken on purpose" in text
    assert not secrets_in(text, STRONG)


async def test_no_object_of_ours_shows_a_secret(caplog: pytest.LogCaptureFixture):
    async with (
        Node("ada", cookie=[STRONG, OTHER], join=[]) as ada,
        Node("bob", cookie=[OTHER, STRONG], join=[ada.name]) as bob,
        Observer(ada.name, cookies=[Cookie(STRONG)], cluster="kinfolk") as seen,
    ):
        await seen.call(["info"])
        bob.rekey(cookie=WEAK)
        # Not every type says its module as a text: those of protobuf have a descriptor there.
        ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).split(".")[0] == "kinfolk"]
        assert {
            "Node",
            "Transport",
            "Link",
            "Session",
            "Dialler",
            "Listener",
            "Credentials",
            "ProofKeys",
            "Cookie",
        } <= {type(thing).__name__ for thing in ours}
        text = "\n".join(map(shown, ours))
        for cookie in (STRONG, OTHER, WEAK):
            assert not secrets_in(text, cookie)
