"""The keys of `kinfolk run`: read again at SIGHUP; and certificates of an own authority, for it and who asks it."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from kinfolk import AuthenticationFailed, Cookie, OwnCertificates, new_cookie
from kinfolk.observer import Observer
from kinfolk.shell.tls import node_uri
from tests.authority import Authority
from tests.cli.commands import Served, Shell
from tests.secrecy import secrets_in
from tests.system.fleet import free_port


def cookie_file(shell: Shell, word: str) -> str:
    """A new cookie in a file of this name; its text."""
    path = shell.directory / word
    path.touch(mode=0o600)
    path.write_text(new_cookie())
    return path.read_text()


def lets_in(node: str, cookie: str) -> bool:
    """Whether a node lets an observer with this cookie in."""

    async def ask() -> bool:
        async with Observer(node, cookies=[Cookie(cookie)], cluster="kinfolk") as seen:
            return bool(await seen.call(["info"]))

    try:
        return asyncio.run(ask())
    except AuthenticationFailed:
        return False


def log_until(served: Served, part: str) -> str:
    """Read its log until a line has this in it."""
    assert served.process.stderr is not None
    for line in served.process.stderr:
        if part in line:
            return line
    raise AssertionError(f"it never logs {part!r}")


def test_sighup_reads_the_keys_again_and_says_so(shell):
    old, new = cookie_file(shell, "old"), cookie_file(shell, "new")
    settings = shell.directory / "kinfolk.toml"
    settings.write_text('cookie_file = "old"')
    served = shell.serve("quick", "--name", "ada")
    name = served.ready()
    assert lets_in(name, old) and not lets_in(name, new)
    settings.write_text('cookie_file = ["new", "old"]')
    served.signal(signal.SIGHUP)
    line = log_until(served, "has read its keys again")
    assert "it uses the cookie from the file new, and accepts as well that from the file old" in line
    assert lets_in(name, new)
    settings.write_text('cookie_file = ["newer"]')
    served.signal(signal.SIGHUP)
    assert "newer: No such file or directory" in log_until(served, "keeps its keys")
    assert lets_in(name, new)
    command_line = Path(f"/proc/{served.process.pid}/cmdline").read_text()
    served.signal(signal.SIGTERM)
    ended = served.end()
    assert ended.code == 0
    for cookie in (old, new):
        assert not secrets_in(ended.out + ended.err + command_line, cookie)


def test_files_of_the_command_line_are_read_again_as_well(shell):
    first, second = cookie_file(shell, "one"), cookie_file(shell, "two")
    served = shell.serve("quick", "--name", "ada", "--cookie-file", "one", "--cookie-file", "two")
    name = served.ready()
    assert lets_in(name, first)
    (shell.directory / "one").write_text(second)
    served.signal(signal.SIGHUP)
    log_until(served, "has read its keys again")
    assert lets_in(name, second) and not lets_in(name, first)


def test_sighup_on_a_terminal_is_the_same_unless_the_terminal_has_gone(shell):
    terminal = shell.start_on_terminal("run", "shopping:quick", "--name", "ada")
    terminal.until("ready")
    os.kill(terminal.process.pid, signal.SIGHUP)
    terminal.until("has read its keys again")
    terminal.hang_up()
    assert terminal.process.wait(20) is not None


class Own:
    """Certificates of an own authority, as settings in the environment."""

    def __init__(self, shell: Shell) -> None:
        self.authority = Authority(shell.directory)
        self.cookie = cookie_file(shell, "cookie")

    def issue(self, word: str, *nodes: str) -> OwnCertificates:
        """A certificate for these nodes."""
        return self.authority.issue(word, *(node_uri("kinfolk", node) for node in nodes))

    def settings(self, own: OwnCertificates) -> dict[str, str]:
        """What names it, and the cookie."""
        return {
            "KINFOLK_COOKIE_FILE": "cookie",
            "KINFOLK_TLS_CERTIFICATE": str(own.certificate),
            "KINFOLK_TLS_KEY": str(own.key),
            "KINFOLK_TLS_AUTHORITY": str(own.authority),
        }


@pytest.fixture
def own(shell) -> Own:
    """An authority, in the directory where commands are run."""
    return Own(shell)


def test_nodes_and_observers_take_own_certificates_from_the_environment(inside, shell, own):
    ada, bob = (f"{word}@127.0.0.1:{free_port()}" for word in ("ada", "bob"))
    environ = own.settings(own.issue("ada", ada))
    shell.serve("quick", "--name", ada, "--join", "", **environ).ready()
    served = shell.serve("quick", "--name", bob, "--join", ada, **own.settings(own.issue("bob", bob)))
    assert served.line()[2] == "1"
    operator = own.settings(own.issue("operator"))
    ended = inside(shell, "nodes", "--node", ada, **operator)
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == [ada, bob]
    ended = inside(
        shell, "watch", "--node", bob, "--count", "1", "--timeout", "0.2", **{**operator, "KINFOLK_TLS_KEY": ""}
    )
    assert ended.code == 2 and "tls_key is missing" in ended.only_line
    # Without a certificate, with one of another authority, and with one but another cookie.
    ended = inside(shell, "nodes", "--node", ada, KINFOLK_COOKIE_FILE="cookie")
    assert ended.code == 3 and "did not let us in" in ended.only_line
    stranger = Authority(shell.directory, "stranger").issue("eve")
    ended = inside(shell, "nodes", "--node", ada, **own.settings(stranger))
    assert ended.code == 3 and "the certificate there is not accepted here" in ended.only_line
    cookie_file(shell, "other")
    ended = inside(shell, "nodes", "--node", ada, **{**operator, "KINFOLK_COOKIE_FILE": "other"})
    assert ended.code == 3 and "has not proved" in ended.only_line and "the file other" in ended.only_line


def test_a_node_with_certificates_that_do_not_fit_ends_with_2(inside, shell, own):
    name = f"ada@127.0.0.1:{free_port()}"
    ended = inside(shell, "run", "shopping:quick", "--name", name, **own.settings(own.issue("eve")))
    assert ended.code == 2 and f"it must have the URI kinfolk://kinfolk/{name}" in ended.only_line
    issued = own.issue("ada", name)
    Path(issued.key).chmod(0o644)
    ended = inside(shell, "run", "shopping:quick", "--name", name, **own.settings(issued))
    assert ended.code == 2 and f"run `chmod 600 {issued.key}`" in ended.only_line
