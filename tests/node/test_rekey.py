"""Other keys for a node that runs: what is taken, from where, and what goes on undisturbed."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from kinfolk import AuthenticationFailed, Cookie, Node, NodeClosed, new_cookie
from kinfolk.observer import Observer
from tests.node.nodes import HEARTBEAT, Nodes, echo, until


async def lets_in(node: Node, cookie: str | Cookie) -> bool:
    """Whether an observer with this cookie is let in."""
    cookie = cookie if isinstance(cookie, Cookie) else Cookie(cookie)
    try:
        async with Observer(node.name, cookies=[cookie], cluster=node.cluster) as seen:
            return bool(await seen.call(["info"]))
    except AuthenticationFailed:
        return False


def write(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


async def test_new_keys_count_for_new_connections_and_open_sessions_go_on(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    await bob.names.register("echo", bob.spawn(echo))
    old, new = nodes.cookie, new_cookie()
    sessions = [node.kernel.session_of(peer) for node, peer in ((ada, bob.name), (bob, ada.name))]
    for node in (ada, bob):
        node.rekey(cookie=new)
    assert not await lets_in(ada, old) and await lets_in(ada, new)
    await asyncio.sleep(2 * HEARTBEAT)  # long enough for a session to miss a sign of life
    assert await ada.call("echo", 1) == 1
    assert [node.kernel.session_of(peer) for node, peer in ((ada, bob.name), (bob, ada.name))] == sessions


async def test_several_cookies_are_accepted_and_the_first_is_used(nodes: Nodes):
    old, new = nodes.cookie, new_cookie()
    ada = await nodes.start("ada", cookie=[old, new])
    only_old, only_new = await nodes.start("bob"), await nodes.start("carl", cookie=new)
    # Who dials shows a certificate of its first cookie, and so does who is dialled; the other end must know it.
    await ada.connect(only_old.name)
    with pytest.raises(AuthenticationFailed):
        await ada.connect(only_new.name, timeout=1.0)
    ada.rekey(cookie=[new, old])
    await ada.connect(only_new.name)
    assert ada.peers() == sorted([only_old.name, only_new.name])


async def test_what_is_left_out_is_read_again_from_where_it_came_from(nodes: Nodes, tmp_path: Path):
    texts = [new_cookie() for _ in range(4)]
    file = write(tmp_path / "cookie", texts[0])
    ada = await nodes.start("ada", cookie=None, cookie_file=file)
    write(file, texts[1])
    ada.rekey()
    assert await lets_in(ada, texts[1]) and not await lets_in(ada, texts[0])
    # What is given once stays given: a cookie takes the place of a file, and a file that of a cookie.
    ada.rekey(cookie=texts[2])
    write(file, texts[3])
    ada.rekey()
    assert await lets_in(ada, texts[2])
    ada.rekey(cookie_file=[file])
    assert await lets_in(ada, texts[3])


async def test_keys_of_the_environment_and_of_the_file_are_read_again(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, other = (write(tmp_path / word, new_cookie()) for word in ("one", "other"))
    write(tmp_path / "kinfolk.toml", 'cookie_file = "one"')
    ada = await nodes.start("ada", cookie=None)
    assert await lets_in(ada, one.read_text())
    write(tmp_path / "kinfolk.toml", 'cookie_file = ["other", "one"]')
    ada.rekey()
    assert await lets_in(ada, other.read_text()), "which proves that the node knows it, too"
    monkeypatch.setenv("KINFOLK_COOKIE_FILE", "one")
    ada.rekey()
    assert await lets_in(ada, one.read_text()) and not await lets_in(ada, other.read_text())


async def test_keys_that_cannot_be_read_change_nothing(nodes: Nodes, tmp_path: Path):
    ada = await nodes.start("ada")
    open_to_all = write(tmp_path / "open", new_cookie())
    open_to_all.chmod(0o644)
    mistakes: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"cookie": new_cookie()[:-1]}, ValueError, "damaged"),
        ({"cookie": []}, ValueError, "empty list"),
        ({"cookie_file": []}, ValueError, "empty list"),
        ({"cookie_file": tmp_path / "nowhere"}, FileNotFoundError, "nowhere"),
        ({"cookie_file": [open_to_all]}, PermissionError, "chmod 600"),
        ({"cookie": new_cookie(), "cookie_file": open_to_all}, ValueError, "not both"),
    ]
    for keys, kind, says in mistakes:
        with pytest.raises(kind, match=says):
            ada.rekey(**keys)
        assert await lets_in(ada, nodes.cookie)
    ada.rekey()
    assert await lets_in(ada, nodes.cookie), "nothing of it is remembered"


async def test_a_weak_cookie_is_refused_later_as_well_where_others_can_reach_the_node(nodes: Nodes):
    ada = await nodes.start("ada@10.1.2.3:4370", listen="127.0.0.1:0")
    with pytest.raises(ValueError, match=r"can be guessed.*kinfolk cookie new"):
        ada.rekey(cookie=[nodes.cookie, "xyzzy"])
    bob = await nodes.start("bob@10.1.2.3:4371", listen="127.0.0.1:0", allow_weak_cookie=True)
    bob.rekey(cookie=["xyzzy", nodes.cookie])


async def test_a_node_that_was_refused_for_its_keys_is_connected_soon_after_it_gets_the_right_ones(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    new = new_cookie()
    bob.rekey(cookie=new)
    bob._parts.transport.link(bob.kernel.session_of(ada.name) or 0).abort()
    await until(lambda: ada.peers() == bob.peers() == [])
    target = next(iter(ada.kernel.members.targets.values()))
    await until(lambda: target.refused)  # and would be dialled again in a minute
    ada.rekey(cookie=new)
    await until(lambda: ada.peers() == [bob.name] and bob.peers() == [ada.name], within=5.0)


async def test_the_log_says_where_the_keys_come_from(nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    one, other = (write(tmp_path / word, new_cookie()) for word in ("one", "other"))
    ada = await nodes.start("ada")
    caplog.set_level(logging.INFO)
    ada.rekey(cookie_file=[one, other])
    assert caplog.messages[-1] == (
        f"{ada.name} has read its keys again: it uses the cookie from the file {one},"
        f" and accepts as well that from the file {other}"
    )


async def test_a_closed_node_takes_no_keys(nodes: Nodes):
    ada = await nodes.start("ada")
    await ada.close()
    with pytest.raises(NodeClosed):
        ada.rekey(cookie=new_cookie())
