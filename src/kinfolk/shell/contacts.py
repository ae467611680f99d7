"""Contacts: known nodes, each reached over a session that opens when there is something to say, and ends when not.

To the data plane a contact is a link that is there as long as the node is a peer. What is said to it goes into the
session's link, if there is one and it is not about to end; else it waits here, in its order, and the kernel is told
that it does. When the peer is lost, what waits is dropped and counted, like all that waits for a link that is lost.

    apart       -- said something -->  waits here, and the kernel dials     -- attach -->  attached
    attached    -- hold -->            held: waits here                     -- go_on -->   attached
    held        -- detach -->          apart, and the kernel dials if anything waits
    any         -- drop -->            gone: nothing waits any more
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kinfolk import effects as fx
from kinfolk.shell.gate import Gate
from kinfolk.wire import frames

if TYPE_CHECKING:
    from kinfolk.shell.dataplane import Waiting
    from kinfolk.shell.transport import Link

_ITEM_BYTES = 200
"""What something that waits costs beside its body, about."""
_SIGNS_BYTES = 4096
"""What may wait of signs of life and the like; it leaves before a goodbye."""
_MESSAGES = frozenset(kind.TAG for kind in (frames.Sent, frames.SentToName, frames.Broadcast))
"""What is counted when it is dropped; of everything else somebody is told."""

Say = Callable[["Link"], None]


class Contact:
    """A known node.

    Args:
        contacts: of which it is one.
        name, creation: of the node.
    """

    def __init__(self, contacts: "Contacts", name: str, creation: int) -> None:
        self._contacts = contacts
        self._link: Link | None = None
        self._held = False
        self._told = False  # whether the kernel knows that something waits
        self._gone = False
        self._waiting: deque[tuple[int, Say]] = deque()
        self._size = 0
        self.conn = 0
        self.name = name
        self.creation = creation
        self.calls: dict[int, Waiting] = {}
        """The calls that wait for an answer from there."""
        self.gate = Gate()
        """Who waits until it is not congested."""
        self.used = contacts.clock()
        """When something was said to or by processes there for the last time."""

    def __repr__(self) -> str:
        return f"<contact {self.name}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a session: a late answer is not worth opening one."""
        return self._link is not None and self._link.is_open

    @property
    def congested(self) -> bool:
        """Whether no user's message may be added to what waits for it."""
        link = self._ready
        return self._size > self._contacts.high_water if link is None else link.congested

    @property
    def waiting(self) -> int:
        """Bytes that wait for it."""
        return self._size + (0 if self._link is None else self._link.waiting)

    @property
    def _ready(self) -> "Link | None":
        return None if self._held else self._link

    @property
    def has_to_say(self) -> bool:
        """Whether anything waits for a session."""
        return bool(self._waiting)

    # --- what is said ---

    def post(self, operation: frames.Operation) -> None:
        """See `Link.post`."""
        self._say(operation.TAG, 0, lambda link: link.post(operation))

    def post_ahead(self, operation: frames.Operation) -> None:
        """See `Link.post_ahead`."""
        self._say(operation.TAG, 0, lambda link: link.post_ahead(operation))

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        """See `Link.post_from`. A call that still waits when its caller gives up is not made."""

        def say(link: "Link") -> None:
            if type(operation) is not frames.Called or operation.reference in self.calls:
                link.post_from(operation, sender, target, size)

        self._say(operation.TAG, size, say)

    def post_encoded_from(self, tag: int, operation: bytes, sender: int, target: int | None) -> None:
        """See `Link.post_encoded_from`."""
        self._say(tag, len(operation), lambda link: link.post_encoded_from(tag, operation, sender, target))

    def post_fields(
        self, tag: int, fields: tuple[object, ...], sender: int, target: int | None, max_message: int
    ) -> bool:
        """See `Link.post_fields`. What has to wait here is encoded before: it must not change meanwhile."""
        link = self._ready
        if link is None or not link.post_fields(tag, fields, sender, target, max_message):
            return False
        self.used = self._contacts.clock()
        return True

    def _say(self, tag: int, size: int, say: Say) -> None:
        self.used = self._contacts.clock()
        link = self._ready
        if link is not None:
            say(link)
        elif not self._gone:
            self._waiting.append((tag, say))
            before, self._size = self._size, self._size + size + _ITEM_BYTES
            self._count(before, self._contacts.high_water, "links_congested")
            self._count(before, self._contacts.max_outbox, "outbox_overflows")
            self._tell()

    def _count(self, before: int, limit: int, counter: str) -> None:
        """Count that more waits now than this limit, and did not before."""
        if before <= limit < self._size:
            self._contacts.counters[counter] += 1

    def _tell(self) -> None:
        """Let the kernel know that something waits, or that too much does."""
        if self._size > self._contacts.max_outbox:
            text = f"{self._size} bytes wait for it, more than max_outbox allows, and it is not connected"
            self._contacts.submit(fx.Unsaid(self.name, text))
        elif self._link is None and not self._told:
            self._told = True
            self._contacts.submit(fx.Reach(self.name))

    # --- sessions come and go ---

    def attach(self, link: "Link") -> None:
        """A session is open: what waits goes over it, and all that is said from now on."""
        self._link, self._held, self._told = link, False, False
        self.used = self._contacts.clock()
        link.contact, link.gate = self, self.gate
        self._flush()

    def detach(self, conn: int) -> None:
        """This session has ended, if it is still the one that is used."""
        if self._link is None or self._link.conn != conn:
            return
        self._link.contact, self._link.gate = None, Gate()
        self._link, self._held = None, False
        if self._waiting or self.gate:
            self._tell()

    def hold(self) -> None:
        """The session may be about to end: let everything wait."""
        self._held = True

    def go_on(self) -> None:
        """It goes on after all."""
        self._held = False
        self._flush()

    def _flush(self) -> None:
        link = self._link
        assert link is not None, "there is a session"
        self._size = 0
        while self._waiting:
            _, say = self._waiting.popleft()
            say(link)
        while not link.congested and self.gate.let_in():
            pass

    def drop(self) -> None:
        """The peer is lost: nothing waits for it any longer."""
        self._gone = True
        dropped = sum(tag in _MESSAGES for tag, _ in self._waiting)
        self._contacts.counters["sends_to_lost_nodes"] += dropped
        self._waiting.clear()
        self._size = 0

    # --- rest ---

    @property
    def quiet(self) -> float:
        """For how many seconds nothing was said; 0 if a call, or anything else, waits."""
        busy = self._link is not None and self._link.waiting > _SIGNS_BYTES
        if busy or self._waiting or self.calls or self.gate:
            return 0.0
        return self._contacts.clock() - self.used


class Contacts:
    """The contacts of one node.

    Args:
        clock: in seconds.
        submit: gives the kernel an input.
        counters: of the node.
        hangs_on: whether a link, a monitor or a spawn between processes needs the session with a peer.
        high_water: bytes that may wait for one before users' messages are refused.
        max_outbox: bytes that may wait for one at all.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        submit: Callable[[fx.Input], None],
        counters: Counter[str],
        hangs_on: Callable[[str], bool],
        high_water: int,
        max_outbox: int,
    ) -> None:
        self.clock = clock
        self.submit = submit
        self.counters = counters
        self._hangs_on = hangs_on
        self.high_water = high_water
        self.max_outbox = max_outbox
        self._all: dict[str, Contact] = {}

    def up(self, peer: str, creation: int) -> Contact:
        """A node is a peer from now on."""
        contact = self._all[peer] = Contact(self, peer, creation)
        return contact

    def down(self, peer: str) -> None:
        """A peer is lost."""
        contact = self._all.pop(peer, None)
        if contact is not None:
            contact.drop()

    def connected(self, peer: str, link: "Link") -> None:
        """A session with a peer is open."""
        self._all[peer].attach(link)

    def disconnected(self, effect: fx.Disconnected) -> None:
        """A session has ended."""
        contact = self._all.get(effect.peer)
        if contact is not None:
            contact.detach(effect.conn)

    @property
    def waits(self) -> bool:
        """Whether anything waits for a session."""
        return any(contact.has_to_say for contact in self._all.values())

    def hold(self, effect: fx.Hold) -> None:
        """A session may be about to end."""
        self._all[effect.peer].hold()

    def go_on(self, effect: fx.GoOn) -> None:
        """It goes on."""
        self._all[effect.peer].go_on()

    def say(self, effect: fx.Say) -> None:
        """Say what the kernel has to say, after all that waits."""
        contact = self._all.get(effect.peer)
        if contact is not None:
            contact.post(effect.operation)

    def quiet(self, peer: str) -> float:
        """For how many seconds nothing was said to or by processes of a peer; 0 if anything needs the session."""
        contact = self._all.get(peer)
        return 0.0 if contact is None or self._hangs_on(peer) else contact.quiet
