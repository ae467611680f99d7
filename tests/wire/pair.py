"""Two ends of a connection in one test: no socket, no loop, no chance."""

from collections.abc import Iterable

from kinfolk.cookie import Cookie
from kinfolk.errors import RemoteProtocolError
from kinfolk.wire.frames import HEADER_BYTES, Operation, decode_payload, encode_frame
from kinfolk.wire.handshake import Dialler, Fingerprints, Identity, Listener, Proved, Purpose
from kinfolk.wire.session import Event, Operations, Session

COOKIE = Cookie("kfc1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-RJn6K")
OTHER_COOKIE = Cookie("kfc1_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj_2pgbj")

ADA = "ada@10.0.0.1:4370"
BOB = "bob@10.0.0.2:4370"

ADA_LEAF = bytes([0xA1]) * 32
BOB_LEAF = bytes([0xB2]) * 32
ADA_NONCE = bytes([0x0A]) * 32
BOB_NONCE = bytes([0x0B]) * 32


def identity(
    name: str,
    *,
    creation: int = 1,
    cluster: str = "kinfolk",
    cookies: Iterable[Cookie] = (COOKIE,),
    features: tuple[str, ...] = (),
) -> Identity:
    return Identity(name, creation, cluster, tuple(cookie.proof_keys() for cookie in cookies), features)


def dialler(
    me: Identity | None = None,
    *,
    expects: str = BOB,
    purpose: Purpose = "peer",
    own: bytes = ADA_LEAF,
    peer: bytes = BOB_LEAF,
    nonce: bytes = ADA_NONCE,
) -> Dialler:
    me = me or identity(ADA)
    return Dialler(me, fingerprints=Fingerprints(own, peer), nonce=nonce, expects=expects, purpose=purpose)


def listener(
    me: Identity | None = None, *, own: bytes = BOB_LEAF, peer: bytes = ADA_LEAF, nonce: bytes = BOB_NONCE
) -> Listener:
    return Listener(me or identity(BOB, creation=2), fingerprints=Fingerprints(own, peer), nonce=nonce)


class Pair:
    """A dialler's and a listener's session, and all that each has told its owner."""

    def __init__(self, dialling: Dialler | None = None, listening: Listener | None = None, admit: bool = True) -> None:
        self.dialler = Session(dialling or dialler())
        self.listener = Session(listening or listener())
        self.at_dialler: list[Event] = []
        self.at_listener: list[Event] = []
        self.admit = admit

    def run(self) -> "Pair":
        """Carry bytes to and fro until both have said all they have to say."""
        while len(self.dialler.outbox) or len(self.listener.outbox):
            for event in self.listener.feed(self.dialler.outbox.take()):
                self.at_listener.append(copied(event))
                if isinstance(event, Proved) and self.admit:
                    self.listener.admit()
            self.at_dialler += [copied(event) for event in self.dialler.feed(self.listener.outbox.take())]
        return self

    def open(self, first: Operation) -> "Pair":
        """Run the handshake and the first frame of each end; forget the events."""
        self.run()
        self.dialler.outbox.encode(first)
        self.run()
        self.listener.outbox.encode(first)
        self.run()
        self.at_dialler.clear()
        self.at_listener.clear()
        return self


def copied(event: Event) -> Event:
    """An event that outlives the read buffer (its bodies are views into that)."""
    if not isinstance(event, Operations):
        return event
    operations = decode_payload(event.tag, encode_frame(event.operations)[HEADER_BYTES:])
    assert operations is not None
    return Operations(event.tag, operations)


def breach(session: Session, data: bytes) -> RemoteProtocolError:
    """The error that these bytes raise in this session."""
    try:
        for _ in session.feed(data):
            pass
    except RemoteProtocolError as error:
        return error
    raise AssertionError("taken in without an error")
