"""How nodes get into etcd, and what they say when they do not."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kinfolk import AuthenticationFailed, Etcd, Node, NodeUnreachable
from kinfolk.demo import etcd
from kinfolk.settings import resolve
from tests.authority import Authority
from tests.etcd.nodes import EtcdNodes, nodes_of
from tests.node.nodes import ended, idle, until


@pytest.fixture
async def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdNodes]:
    """Nodes that are told themselves where etcd is."""
    async with nodes_of("mesh", tmp_path, monkeypatch) as made:
        yield made


@contextmanager
def serving(directory: Path, *options: str) -> Generator[etcd.Server]:
    """An etcd with these options."""
    if not etcd.is_installed():
        pytest.skip(etcd.HOW_TO_INSTALL)
    server = etcd.Server(directory, options=options)
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


async def test_an_etcd_that_is_not_there_is_told_within_the_join_timeout(placed: EtcdNodes):
    node = placed.make("ada", registry="etcd://127.0.0.1:9", join_timeout=0.2)
    error = await ended(node.start())
    assert isinstance(error, NodeUnreachable)
    assert "etcd at 127.0.0.1:9 did not answer in time" in str(error) and "refused" in str(error)


@pytest.mark.slow
async def test_tls_with_certificates_of_both_ends(placed: EtcdNodes, tmp_path: Path):
    authority = Authority(tmp_path)
    theirs = authority.issue("etcd", addresses=["127.0.0.1"])
    ours = authority.issue("node")
    options = {"--cert-file": theirs.certificate, "--key-file": theirs.key, "--trusted-ca-file": theirs.authority}
    arguments = [text for option, file in options.items() for text in (option, os.fspath(file))]
    with serving(tmp_path, *arguments, "--client-cert-auth") as server:
        member = server.members[0].endpoint
        way_in = Etcd(member, authority=ours.authority, certificate=ours.certificate, key=ours.key)
        ada, bob = [await placed.start(word, registry=way_in) for word in ("ada", "bob")]
        pid = (await ada.names.register("x", ada.spawn(idle))).pid
        await until(lambda: bob.names.whereis("x") == pid)
        stranger = Authority(tmp_path, "stranger")
        for wrong in (Etcd(member), Etcd(member, authority=stranger.file), Etcd(member, authority=ours.authority)):
            refused = placed.make("eve", registry=wrong, join_timeout=0.5)
            assert isinstance(await ended(refused.start()), NodeUnreachable)
        os.chmod(ours.key, 0o644)
        with pytest.raises(PermissionError, match="chmod 600"):
            _ = placed.make("eve", registry=way_in).name


@pytest.mark.slow
async def test_a_user_with_a_password(placed: EtcdNodes, tmp_path: Path):
    with serving(tmp_path) as server:
        member = server.members[0].endpoint
        url = server.url

        def control(*arguments: str) -> None:
            environment = {**os.environ, "ETCDCTL_API": "3"}
            done = subprocess.run(
                ["etcdctl", "--endpoints", member, *arguments], env=environment, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr

        prefix = f"/kinfolk/{placed.cluster}/"
        for command in (
            ["user", "add", "root:top"],
            ["user", "grant-role", "root", "root"],
            ["role", "add", "kinfolk"],
            ["role", "grant-permission", "kinfolk", "readwrite", prefix, "--prefix=true"],
            ["user", "add", "kin:secret"],
            ["user", "grant-role", "kin", "kinfolk"],
            ["user", "add", "stranger:secret"],
            ["auth", "enable"],
        ):
            await asyncio.to_thread(control, *command)
        password = tmp_path / "password"
        password.touch(0o600)
        password.write_text("secret\n")
        ada = await placed.start("ada", registry=Etcd(member, user="kin", password_file=password))
        bob = await placed.start("bob", registry=Etcd(member, user="kin", password="secret"))
        pid = (await ada.names.register("x", ada.spawn(idle))).pid
        await until(lambda: bob.names.whereis("x") == pid)
        for way_in, text in (
            (Etcd(member, user="kin", password="wrong"), "check the user and the password"),
            (Etcd(member, user="stranger", password="secret"), "grant its user reading and writing"),
        ):
            refused = await ended(placed.make("eve", registry=way_in, join_timeout=1.0).start())
            assert isinstance(refused, AuthenticationFailed) and refused.reason == "registry"
            assert text in str(refused) and url.removeprefix("etcd://") in str(refused)
        # A token that etcd knows no longer, as after its restart, is replaced.
        client = ada._parts.client
        assert client is not None
        client._token = "no token.1"
        await ada.names.register("y", ada.spawn(idle), timeout=10)


def test_where_etcd_is_comes_from_argument_environment_or_file(tmp_path: Path):
    def found(argument: str | Etcd | None = None, **environ: str) -> Etcd | None:
        home = {"KINFOLK_HOME": str(tmp_path)}
        return resolve(name="ada", registry=argument, environ={**home, **environ}, directory=tmp_path).registry

    assert found() is None and found("mesh", KINFOLK_REGISTRY="etcd://a:1") is None
    (tmp_path / "kinfolk.toml").write_text('registry = "etcd://a:2379,b:2379"\netcd_user = "kin"\n')
    with pytest.raises(ValueError, match="needs a password"):
        found()
    there = found(KINFOLK_ETCD_PASSWORD="secret")
    assert there is not None and there.endpoints == ("a:2379", "b:2379")
    assert (there.user, there.password.reveal()) == ("kin", "secret")
    assert "secret" not in repr(there) and "secret" not in repr(vars(there))
    given = Etcd("c:1")
    assert found(given) is given


@pytest.mark.parametrize(
    ("registry", "error"),
    [
        ("zookeeper://a:1", "it is 'mesh', or etcd://"),
        ("etcd://", "address"),
        ("etcd://a", "port"),
        ("etcd://a:0", "port"),
    ],
)
def test_a_wrong_registry_is_told_what_is_wrong(tmp_path: Path, registry: str, error: str):
    with pytest.raises(ValueError, match=error):
        Node("ada", registry=registry)


def test_what_does_not_go_together_is_refused(tmp_path: Path):
    for wrong, error in (
        (lambda: Etcd(), "at least"),
        (lambda: Etcd("a:1", certificate="c", key="k"), "authority"),
        (lambda: Etcd("a:1", authority="a", certificate="c"), "its key"),
        (lambda: Etcd("a:1", user="u"), "needs a password"),
        (lambda: Etcd("a:1", user="u", password="p", password_file="f"), "not both"),
    ):
        with pytest.raises(ValueError, match=error):
            wrong()
    readable = tmp_path / "password"
    readable.write_text("secret")
    readable.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Etcd("a:1", user="u", password_file=readable)
