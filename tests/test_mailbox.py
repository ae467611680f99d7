"""The mailbox: order, selection, bounds, and that cancelling loses nothing."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.errors import MailboxFull
from kinfolk.mailbox import Mailbox


def filled(*messages: object, limit: int | None = None) -> Mailbox:
    mailbox = Mailbox(limit)
    for message in messages:
        mailbox.put(message)
    return mailbox


async def waiting(coroutine: Any) -> "asyncio.Task[Any]":
    """A task that has run until it waits."""
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_messages_are_received_in_the_order_of_their_arrival():
    mailbox = filled(1, 2, 3)
    assert [await mailbox.receive() for _ in range(3)] == [1, 2, 3]


async def test_receive_waits_for_a_message():
    mailbox = Mailbox()
    receiving = await waiting(mailbox.receive())
    mailbox.put("hello")
    mailbox.put("again")
    assert await receiving == "hello"
    assert await mailbox.receive() == "again"


async def test_none_is_a_message():
    assert await filled(None).receive() is None


async def test_selective_receive_takes_the_oldest_match_and_leaves_the_rest_in_order():
    mailbox = filled(1, "a", 2, "b", 3)
    assert await mailbox.receive(lambda message: isinstance(message, str)) == "a"
    assert await mailbox.receive(lambda message: message == 3) == 3
    assert mailbox.take_all() == [1, 2, "b"]


async def test_a_waiting_receive_examines_each_message_once():
    examined: list[object] = []

    def wanted(message: object) -> bool:
        examined.append(message)
        return message == "x"

    mailbox = filled(1, 2)
    receiving = await waiting(mailbox.receive(wanted))
    for message in (3, 4):
        mailbox.put(message)
        await asyncio.sleep(0)
    mailbox.put(5)
    mailbox.put("x")
    mailbox.put(6)
    assert await receiving == "x"
    assert examined == [1, 2, 3, 4, 5, "x"]
    assert mailbox.take_all() == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20), st.integers(0, 3))
def test_selective_receive_is_a_search_in_the_order_of_arrival(before, after, wanted):
    async def run():
        mailbox = filled(*before)
        receiving = asyncio.ensure_future(mailbox.receive(lambda message: message == wanted))
        await asyncio.sleep(0)
        for message in after:
            mailbox.put(message)
            await asyncio.sleep(0)
        everything = before + after
        if wanted in everything:
            assert await receiving == wanted
            everything.remove(wanted)
        else:
            receiving.cancel()
            await asyncio.wait([receiving])
        assert mailbox.take_all() == everything

    asyncio.run(run())


async def test_a_predicate_that_raises_takes_nothing():
    mailbox = filled(1, 0)
    with pytest.raises(ZeroDivisionError):
        await mailbox.receive(lambda message: 1 // message == 5)
    assert mailbox.take_all() == [1, 0]


@pytest.mark.parametrize("match", [None, lambda _: True])
async def test_cancelling_a_receive_loses_no_message(match):
    mailbox = Mailbox()
    receiving = await waiting(mailbox.receive(match))
    mailbox.put("precious")  # It is on its way to the receiver,
    receiving.cancel()  # who goes before it gets there.
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert await mailbox.receive(match) == "precious"


async def test_two_receives_at_once_are_an_error():
    mailbox = Mailbox()
    receiving = await waiting(mailbox.receive())
    with pytest.raises(RuntimeError, match="two receives at once"):
        await mailbox.receive()
    mailbox.put(1)
    with pytest.raises(RuntimeError, match="two receives at once"):
        await mailbox.receive()
    assert await receiving == 1


async def test_a_full_mailbox_refuses_what_comes_and_takes_it_once_there_is_room():
    mailbox = filled(1, 2, limit=2)
    with pytest.raises(MailboxFull, match="2 messages wait"):
        mailbox.put(3)
    assert len(mailbox) == 2
    assert await mailbox.receive() == 1
    mailbox.put(3)
    assert mailbox.take_all() == [2, 3]


async def test_what_the_node_has_to_say_goes_in_whatever_the_bound():
    mailbox = filled(1, limit=1)
    mailbox.put_always("name lost")
    assert mailbox.take_all() == [1, "name lost"]
    receiving = await waiting(mailbox.receive())
    mailbox.put_always("again")
    assert await receiving == "again"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_bound_below_one_is_refused(limit):
    with pytest.raises(ValueError, match="at least 1"):
        Mailbox(limit)


# --- taking back what has arrived ---


def test_discard_takes_out_what_matches_and_keeps_the_order_of_the_rest():
    mailbox = filled(1, "a", 2, "b")
    mailbox.discard(lambda message: isinstance(message, str))
    assert list(mailbox.messages) == [1, 2]


async def test_a_receive_that_waits_misses_nothing_when_something_is_discarded():
    mailbox = filled("a", "b", "c")
    waiting = asyncio.ensure_future(mailbox.receive(lambda message: message in (1, 2)))
    await asyncio.sleep(0)
    mailbox.discard(lambda message: message in ("a", "c"))
    mailbox.put(1)
    assert await waiting == 1
    assert list(mailbox.messages) == ["b"]


async def test_what_is_discarded_before_a_waiting_receive_sees_it_is_not_received():
    mailbox = Mailbox()
    waiting = asyncio.ensure_future(mailbox.receive(lambda message: message in (1, 2)))
    await asyncio.sleep(0)
    mailbox.put(1)
    mailbox.discard(lambda message: message == 1)
    mailbox.put(2)
    assert await waiting == 2
