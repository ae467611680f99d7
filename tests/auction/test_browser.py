"""The auction as people see it: two of them, in real browsers, on two of the three nodes."""

import itertools
from collections.abc import Callable, Generator
from typing import Any

import pytest

from examples.auction.__main__ import WORDS
from tests.auction.programs import House

pytestmark = pytest.mark.slow
PATIENCE = 60_000
"""Milliseconds."""


class Person:
    """Somebody in front of a page."""

    def __init__(self, browser: Any, house: House, word: str, name: str) -> None:
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.word = word
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{house.url(word)}/#1")
        self.page.fill("#who", name)
        self.is_on(word)

    def is_on(self, word: str) -> None:
        """Wait until the page hears from this node."""
        self.page.wait_for_function(
            "word => document.querySelector('#where').textContent.includes(word)", arg=f"you are on {word};"
        )

    def bid(self, amount: int) -> None:
        """Bid, and wait until it is accepted."""
        self.page.fill("#amount", str(amount))
        self.page.click("#form button")
        self.reads("#said", f"your bid of {amount} is accepted")

    def reads(self, where: str, text: str) -> None:
        """Wait until this stands there."""
        self.page.wait_for_function(
            "([where, text]) => document.querySelector(where).textContent === text", arg=[where, text]
        )


Meet = Callable[[str, str], Person]


@pytest.fixture
def meet(chromium: Any, house: House) -> Generator[Meet]:
    """Lets people open pages; no script of theirs may fail."""
    people: list[Person] = []

    def meet(word: str, name: str) -> Person:
        people.append(Person(chromium, house, word, name))
        return people[-1]

    yield meet
    errors = [error for person in people for error in person.errors]
    for person in people:
        person.page.close()
    assert errors == []


def test_people_on_two_nodes_see_each_others_bids_as_they_are_made(meet: Meet) -> None:
    ada, bob = meet("ada", "Ada"), meet("bob", "<i>Bob</i>")
    bob.reads("#people", "2 people watch.")
    ada.bid(10)
    bob.reads("#price", "10")
    bob.bid(20)
    ada.reads("#price", "20")
    ada.reads("#bids li:first-child", "<i>Bob</i>20")
    ada.page.fill("#amount", "15")
    ada.page.click("#form button")
    ada.reads("#said", "<i>Bob</i> offers 20: bid more")
    bob.page.fill("#what", "A <b>kite</b>")
    bob.page.click("#sell button")
    bob.reads("#title", "A <b>kite</b>")
    ada.page.click("text=A <b>kite</b>")
    ada.reads("#title", "A <b>kite</b>")
    bob.bid(3)
    ada.reads("#price", "3")
    ada.page.click("text=the cluster")
    ada.page.wait_for_url("**/kinfolk/")


def test_the_auction_lives_on_when_its_node_is_killed(house: House, meet: Meet) -> None:
    runs_on = house.lot("ada")["runs_on"].partition("@")[0]
    stays = next(word for word in WORDS if word != runs_on)
    there, here = meet(runs_on, "There"), meet(stays, "Here")
    there.bid(10)
    here.reads("#price", "10")
    house.kill(runs_on)
    here.bid(20)
    here.reads("#bids", "Here20There10")
    there.is_on(runs_on)  # it was started again, and the page has found it
    there.reads("#price", "20")
    there.bid(30)
    here.reads("#price", "30")


def test_a_rolling_restart_while_people_bid_loses_no_accepted_bid(house: House, meet: Meet) -> None:
    people = [meet("ada", "Ada"), meet("bob", "Bob")]
    restart = house.rolling_restart()
    amount = 0
    for person in itertools.cycle(people):
        amount += 1
        person.bid(amount)
        if restart.poll() is not None:
            break
    said, _ = restart.communicate()
    assert restart.returncode == 0, said
    for person in people:
        person.is_on(person.word)
        person.reads("#price", str(amount))
    answer = house.get("carl", "/api/lots/1")
    assert answer is not None
    assert [bid["amount"] for bid in answer.json()] == list(range(amount, 0, -1))
    assert amount > 10, "there was a load"
