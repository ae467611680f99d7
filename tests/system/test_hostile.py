"""Hostile input: a clear error where it comes from, one log line where it arrives, and no harm to anybody else."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.ids import Pid
from kinfolk.shell.tls import Credentials
from kinfolk.wire import frames
from kinfolk.wire.frames import encode_frame
from tests.secrecy import secrets_in
from tests.system.fleet import Fleet, Nursery, Raised, Worker, states, until
from tests.system.stranger import Stranger

pytestmark = pytest.mark.asyncio(loop_scope="module")

MALLORY = "aa-mallory@127.0.0.1:9"  # sorts first: no dial of the nodes to it goes before its own
NOISE = random.Random(1).randbytes(600)
FOUR_GIB = b"\xff\xff\xff\xff"


class Victim:
    """Two nodes with names and a session, one of them under attack."""

    def __init__(self, fleet: Fleet, ada: Worker, bob: Worker, names: dict[str, str]) -> None:
        self.fleet, self.ada, self.bob, self.names = fleet, ada, bob, names
        self.port = fleet.ports["ada"]
        self.cookie = fleet.cookie
        self.complaints = 0
        self.lines = 0
        self.starts = 0

    def complained(self) -> list[str]:
        """The lines in which ada complains."""
        return [line for line in self.ada.log() if not line.startswith("INFO ")]

    async def complains_once(self, *words: str) -> None:
        """Since the last time, ada has logged one line, with one of these in it; nobody is harmed."""
        await until(lambda: len(self.complained()) > self.complaints, "ada complains", 3.0)
        await self.is_unharmed()
        new = self.complained()[self.complaints :]
        self.complaints += len(new)
        lines, self.lines = self.lines, len(self.ada.log())
        assert len(new) == 1, new
        assert any(word in new[0] for word in words), new[0]
        why = new[0].rpartition(": ")[2]
        assert len([line for line in self.ada.log()[lines:] if why in line]) == 1, "said twice"

    async def is_unharmed(self) -> None:
        """Both nodes know each other and all names, and have since the beginning."""
        await agreed_without_mallory(self)
        assert (await self.bob.ask("call", target="ada/own", request=["echo", 1]))[1] == 1
        assert (await self.ada.ask("call", target="bob/own", request=["echo", 1]))[1] == 1
        for worker, peer in ((self.ada, self.bob), (self.bob, self.ada)):
            assert not [line for line in worker.log() if f"{peer.name} is down" in line]

    async def mallory(self, **settings) -> Stranger:
        """A peer that knows the cookie; each time it is a newer start of itself."""
        while True:
            self.starts += 1
            mallory = await Stranger.peer(self.port, self.cookie, name=MALLORY, creation=self.starts, **settings)
            if getattr(next(iter(mallory.events), None), "code", None) != "duplicate":
                return mallory
            mallory.writer.transport.abort()  # ada was dialling mallory at this very moment


async def agreed_without_mallory(victim: Victim) -> None:
    async def agree() -> bool:
        ada, bob = await states([victim.ada, victim.bob])
        return ada.names == bob.names == victim.names and ada.peers == [bob.name] and bob.peers == [ada.name]

    await until(agree, "mallory is gone and everything as before")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> AsyncIterator[Victim]:
    async with Fleet(tmp_path_factory.mktemp("hostile"), nursery) as fleet:
        ada, bob = await fleet.mesh("ada", "bob")
        names = {f"{worker}/own": await worker.ask("register", name=f"{worker}/own") for worker in (ada, bob)}
        victim = Victim(fleet, ada, bob, names)
        yield victim
        assert len(victim.complained()) == victim.complaints, "a complaint came late"
        counters = (await ada.state()).counters
        refused = counters.get("handshakes_failed", 0) + counters.get("protocol_errors", 0)
        assert refused > 0 or not victim.complaints, "of these attacks, this worker has had some or none"


@pytest.fixture
def victim(attacked: Victim) -> Victim:
    assert len(attacked.complained()) == attacked.complaints, "a complaint came late"
    return attacked


# --- cookies ---


async def enter_with(fleet: Fleet, word: str, cookie: str) -> Worker:
    return await fleet.enter(word, KINFOLK_COOKIE_FILE=str(fleet.write_cookie(f"{word}.cookie", cookie)))


async def test_a_node_with_another_cookie_is_refused_and_told_so(victim: Victim):
    other = new_cookie()
    eve = await enter_with(victim.fleet, "eve", other)
    raised = await eve.attempt("start", name=eve.name, join=[victim.ada.name])
    assert isinstance(raised, Raised) and raised.error == "AuthenticationFailed"
    assert "cookie" in raised.text and victim.ada.name in raised.text
    await victim.complains_once("cookie")
    assert not secrets_in("".join([*victim.ada.log(), *eve.log(), raised.text]), other)


async def test_dialling_a_node_with_another_cookie_is_refused_and_told_so(victim: Victim):
    frank = await enter_with(victim.fleet, "frank", new_cookie())
    await frank.ask("start", name=frank.name, join=[])
    raised = await victim.ada.attempt("connect", node=frank.name)
    assert isinstance(raised, Raised) and raised.error == "AuthenticationFailed" and "cookie" in raised.text
    await until(lambda: [line for line in frank.log() if line.startswith("WARNING")], "frank complains")
    await victim.complains_once("cookie")
    assert len([line for line in frank.log() if line.startswith("WARNING") and "cookie" in line]) == 1
    assert (await frank.state()).peers == []
    await frank.end()


async def test_a_wrong_proof_inside_tls_is_refused(victim: Victim):
    async with await victim.mallory(other_keys=new_cookie()) as mallory:
        await mallory.ended()
        (refused,) = mallory.events
        assert getattr(refused, "code", None) == "cookie"
    await victim.complains_once("has not proved")


async def test_another_cluster_is_refused(victim: Victim):
    async with await victim.mallory(cluster="elsewhere") as mallory:
        await mallory.ended()
        (refused,) = mallory.events
        assert getattr(refused, "code", None) == "cluster"
    await victim.complains_once("cluster")


async def test_an_older_start_of_a_node_is_refused_as_stale(victim: Victim):
    creation = (await victim.bob.state()).creation
    async with await Stranger.peer(victim.port, victim.cookie, name=victim.bob.name, creation=creation - 1) as impostor:
        await impostor.ended()
        (refused,) = impostor.events
        assert (getattr(refused, "code", None), getattr(refused, "number", None)) == ("stale", creation)
    await victim.complains_once("newer start")


# --- before TLS, and TLS of strangers ---


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: ada\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        NOISE,
        FOUR_GIB * 2,
        b"\x16\x03\x01\xff\xff" + NOISE,
    ],
    ids=["http", "ssh", "random bytes", "4 GiB", "half a TLS record"],
)
async def test_a_plain_tcp_client_is_turned_away(victim: Victim, said: bytes):
    async with await Stranger.tcp(victim.port) as stranger:
        await stranger.say(said)
        if said.startswith(b"\x16"):
            stranger.writer.write_eof()
        await stranger.ended()
    await victim.complains_once("TLS")


async def test_a_connection_that_says_nothing_and_closes_is_no_harm(victim: Victim):
    async with await Stranger.tcp(victim.port) as stranger:
        stranger.writer.write_eof()
        await stranger.ended()
    await victim.complains_once("closed the connection")


def context(**settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for key, value in settings.items():
        setattr(context, key, value)
    return context


async def test_a_tls_client_without_certificate_is_turned_away(victim: Victim):
    async with await Stranger.tls(victim.port, context()) as stranger:
        assert await stranger.ended() == b""
    await victim.complains_once("CERTIFICATE")


async def test_a_tls_client_with_a_certificate_of_another_cookie_is_turned_away(victim: Victim):
    careless = Credentials.from_cookies([Cookie(new_cookie())]).client
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with await Stranger.tls(victim.port, careless) as stranger:
        assert await stranger.ended() == b""
    await victim.complains_once("cookie")


async def test_tls_before_1_3_is_turned_away(victim: Victim):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await Stranger.tls(victim.port, context(maximum_version=ssl.TLSVersion.TLSv1_2))
    await victim.complains_once("TLS")


# --- inside TLS, before the proof ---


@pytest.mark.parametrize(
    "said",
    [
        NOISE,
        FOUR_GIB + b"\x01",
        b"\x00\x00\x00\x00",
        (4097).to_bytes(4, "little") + b"\x01",
        b"\x05\x00\x00\x00\x01\xdd\xff\xff\xff\xff",
        encode_frame([frames.Peers([])]),
        encode_frame([frames.Ping(1)]),
    ],
    ids=["random bytes", "4 GiB", "nothing", "4 KiB + 1", "4 Gi operations", "no handshake", "a ping"],
)
async def test_garbage_inside_tls_ends_the_connection(victim: Victim, said: bytes):
    client = Credentials.from_cookies([Cookie(victim.cookie)]).client
    async with await Stranger.tls(victim.port, client) as stranger:
        await stranger.say(said)
        await stranger.ended()
    await victim.complains_once("frame", "while waiting for NAME", "cannot be read")


# --- peers that know the cookie ---


def frame(tag: int, payload: bytes) -> bytes:
    return (len(payload) + 1).to_bytes(4, "little") + bytes((tag,)) + payload


LEDGER = frames.LedgerSynced(
    creation=1, position=0, done=True, names=[], locals=[], positions=[], stamps=[], confirmed=[]
)


@pytest.mark.parametrize(
    "said",
    [
        NOISE,
        FOUR_GIB + b"\x10",
        b"\x00\x00\x00\x00",
        (16 * 1024 * 1024 + 1).to_bytes(4, "little") + b"\x10",
        encode_frame([frames.Peers(["no node name"])]),
        encode_frame([frames.NameClaimed(7, "out of order", 1, 1)]),
        encode_frame([frames.NamesWithdrawn(1, ["never", "had"], [1])]),
        encode_frame([frames.Acknowledged([2**62])]),
        encode_frame([frames.Peers([])]),
        encode_frame([LEDGER]),
        encode_frame([frames.NameContested("ada/own", 1, "no node", 1, 1, 1, 1, True)]),
        encode_frame([frames.AskAnswered(1, "taken", holder=Pid("no node", 1, -1))]),
        encode_frame([frames.Hello(1, [], "peer", "kinfolk", MALLORY, 1, "", bytes(32))]),
        frame(0x1B, msgspec.msgpack.encode([[1, "", 1, 1]])),
        frame(0x1B, msgspec.msgpack.encode([[1, "x" * 256, 1, 1]])),
        frame(0x1B, msgspec.msgpack.encode([[1, "ä" * 200, 1, 1]])),
        frame(0x1B, msgspec.msgpack.encode([[-1, "x", 1, 1]])),
        frame(0x10, msgspec.msgpack.encode([])),
        frame(0x10, b"\x91" * 5000),
        *(frame(kind.TAG, b"\xc1") for kind in frames.FRAMES),
    ],
    ids=lambda said: said[:12].hex(),
)
async def test_a_garbage_frame_of_a_peer_ends_its_session_alone(victim: Victim, said: bytes):
    async with await victim.mallory() as mallory:
        # The mirror of mallory is complete, so what it says of its ledger is not excused by a sync under way.
        sync = msgspec.structs.replace(LEDGER, creation=victim.starts)
        await mallory.open([frames.Peers([]), sync])
        await mallory.say(said)
        goodbye = await mallory.ended()
        assert b"protocol" in goodbye, "it is told why"
    await victim.complains_once(MALLORY)


@pytest.mark.parametrize(
    "first",
    [LEDGER, frames.Ping(1), frames.Sent(1, None, msgspec.Raw(b"\xa2hi")), frames.ExitSignal(1, None, "kill")],
    ids=lambda first: type(first).__name__,
)
async def test_a_peer_that_begins_with_anything_but_its_peers_is_sent_away(victim: Victim, first: frames.Operation):
    async with await victim.mallory() as mallory:
        await mallory.open([first])
        await mallory.ended()
    await victim.complains_once("list of peers")


async def test_a_frame_of_a_later_version_is_ignored(victim: Victim):
    async with await victim.mallory() as mallory:
        sync = msgspec.structs.replace(LEDGER, creation=victim.starts)
        await mallory.open([frames.Peers([]), sync])
        await mallory.say(frame(0x7E, NOISE) + encode_frame([frames.Ping(77)]))
        assert mallory.session is not None
        while encode_frame([frames.Pong(77)]) not in b"".join(
            encode_frame([op]) for event in mallory.events for op in getattr(event, "operations", ())
        ):
            assert await mallory.turn()
    await victim.is_unharmed()


@pytest.mark.parametrize(
    "body", [b"\xc1", b"\xd9\xffx", b"\xc7\xff\x7f", b"\x91" * 3000], ids=["reserved", "cut text", "extension", "deep"]
)
async def test_a_message_that_cannot_be_read_costs_only_itself(victim: Victim, body: bytes):
    before = (await victim.ada.state()).counters.get("unreadable_messages", 0)
    pid = victim.names["ada/own"]
    local = int(pid.rpartition("/")[2])
    async with await victim.mallory() as mallory:
        sync = msgspec.structs.replace(LEDGER, creation=victim.starts)
        sent = frames.Sent(local, None, msgspec.Raw(body))
        called = frames.Called(local, None, 5, 1000, msgspec.Raw(msgspec.msgpack.encode(["echo", 9])))
        await mallory.open([frames.Peers([]), sync])
        await mallory.say(frame(0x10, b"\x91" + msgspec.msgpack.encode(sent)) + encode_frame([called]))
        await mallory.ended() if _ends(body) else await _answered(mallory)
    await victim.complains_once("dropped a message", "cannot be read")
    assert (await victim.ada.state()).counters.get("unreadable_messages", 0) - before == (0 if _ends(body) else 1)


def _ends(body: bytes) -> bool:
    """Whether the envelope cannot be told from the body any longer."""
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode([msgspec.Raw(body)]), type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return True
    return False


async def _answered(mallory: Stranger) -> None:
    async with asyncio.timeout(5):
        while not any(isinstance(op, frames.Answered) for e in mallory.events for op in getattr(e, "operations", ())):
            assert await mallory.turn()


# --- users who make mistakes ---


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "ä" * 128, "\ud800"], ids=["empty", "256", "128 of two bytes", "surrogate"]
)
async def test_an_empty_or_overlong_name_is_a_clear_error(victim: Victim, name: str):
    for order in ("register", "register_nowait"):
        raised = await victim.ada.attempt(order, name=name)
        assert isinstance(raised, Raised) and raised.error == "ValueError" and "name" in raised.text
    await victim.is_unharmed()
    assert len(victim.complained()) == victim.complaints


async def test_an_unserializable_message_or_answer_is_a_clear_error(victim: Victim):
    raised = await victim.ada.attempt("send_unserializable", target="bob/own")
    assert isinstance(raised, Raised) and raised.error == "NotSerializable"
    assert "body['numbers'][1]" in raised.text and "function" in raised.text
    raised = await victim.ada.attempt("call", target="bob/own", request=["unserializable"])
    assert isinstance(raised, Raised) and raised.error == "CallFailed" and "object" in raised.text
    (told,) = await victim.bob.ask("seen", pid=victim.names["bob/own"])
    assert "NotSerializable" in told
    raised = await victim.ada.attempt("send_bytes", target="bob/own", size=17 * 1024 * 1024)
    assert isinstance(raised, Raised) and raised.error == "MessageTooLarge" and "max_message" in raised.text
    await victim.is_unharmed()
    assert len(victim.complained()) == victim.complaints


async def test_no_cookie_is_on_a_command_line_in_a_log_or_in_the_environment(victim: Victim):
    for worker in (victim.ada, victim.bob):
        process = Path(f"/proc/{worker.pid}")
        said = process.joinpath("cmdline").read_text() + process.joinpath("environ").read_text()
        assert not secrets_in(said + "\n".join(worker.log()), victim.cookie)
