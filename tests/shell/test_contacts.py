"""What is said to a node reached on demand goes into its session, if there is one; if not, it is encoded before."""

from collections import Counter
from typing import Any, cast

from kinfolk import effects as fx
from kinfolk.shell.contacts import Contacts
from kinfolk.wire.frames import Sent

FIELDS = 7, None, "body"


class Link:
    """As much of a link as a contact needs."""

    conn, waiting, congested = 1, 0, False

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.posted: list[tuple[object, ...]] = []

    def post_fields(self, tag: int, fields: tuple[object, ...], *_: object) -> bool:
        if self.takes:
            self.posted.append(fields)
        return self.takes


def test_what_is_not_encoded_goes_into_the_session_or_nowhere():
    clock, submitted = [0.0], list[fx.Input]()
    contacts = Contacts(lambda: clock[0], submitted.append, Counter(), lambda _: False, 1000, 2000)
    contact = contacts.up("bob", 1)

    def post() -> bool:
        clock[0] += 1
        return contact.post_fields(Sent.TAG, FIELDS, 3, 7, 1000)

    assert not post(), "there is no session"
    assert not contact.has_to_say
    link = Link(takes=True)
    contacts.connected("bob", cast("Any", link))
    assert post()
    assert link.posted == [FIELDS]
    assert contact.used == clock[0]
    contact.hold()
    assert not post(), "the session may be about to end"
    contact.go_on()
    link.takes = False
    assert not post(), "the link takes no such message"
    assert contact.used == clock[0] - 2, "whoever encodes it says it again"
    assert link.posted == [FIELDS]
