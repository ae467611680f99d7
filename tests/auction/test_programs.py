"""The auction house on three nodes, asked by HTTP: what its pages rest on, without a browser."""

import json
import threading
from typing import Any

import httpx
import pytest

from examples.auction.__main__ import WORDS
from tests.auction.programs import House, accepted
from tests.background import until

pytestmark = pytest.mark.slow


class Watcher:
    """Somebody who watches a lot on a node, as the page does: what was told, and anew when the node is gone."""

    def __init__(self, house: House, word: str) -> None:
        self.seen: list[dict[str, Any]] = []
        self._house, self._word = house, word
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                url = f"{self._house.url(self._word)}/api/lots/1/events"
                with httpx.stream("GET", url, timeout=httpx.Timeout(5, read=1), trust_env=False) as stream:
                    for line in stream.iter_lines():
                        if line.startswith("data: "):
                            self.seen.append(json.loads(line.removeprefix("data: ")))
                        if self._closed.is_set():
                            return
            except httpx.TransportError:
                self._closed.wait(0.1)

    def hears(self, amount: int | None = None) -> dict[str, Any]:
        """Wait until it has heard of this bid, or of anything at all."""

        def look() -> dict[str, Any] | None:
            return next((lot for lot in self.seen if amount is None or amount in accepted(lot)), None)

        return until(look, lambda: f"the watcher on {self._word} hears of {amount or 'the lot'}")

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()


def test_a_bid_on_one_node_is_heard_on_the_others_and_a_lower_one_is_refused(house: House) -> None:
    watchers = [Watcher(house, word) for word in WORDS]
    for watcher in watchers:
        watcher.hears()
    house.must_bid("ada", "ada", 10)
    house.must_bid("bob", "bob", 20)
    heard = [watcher.hears(20) for watcher in watchers]
    assert len({lot["served_by"] for lot in heard}) == 3 and len({lot["runs_on"] for lot in heard}) == 1
    assert all(lot["watching"] == 3 for lot in heard)
    refused = house.bid("carl", "carl", 15)
    assert refused is not None and refused.status_code == 409 and refused.json()["error"] == "bob offers 20: bid more"
    wrong = house.bid("carl", "", 15)
    assert wrong is not None and wrong.status_code == 422
    unknown = house.bid("carl", "carl", 15, number=99)
    assert unknown is not None and unknown.status_code == 404
    said = house.stop()
    assert not [word for word in ("Traceback", "ERROR", "WARNING") if word in said], (
        said
    )  # open streams end with their node
    for watcher in watchers:
        watcher.close()


def test_when_the_node_that_runs_it_is_killed_the_auction_goes_on_with_every_accepted_bid(house: House) -> None:
    house.must_bid("ada", "ada", 10)
    runs_on = house.lot("ada")["runs_on"].partition("@")[0]
    (stays, _) = [word for word in WORDS if word != runs_on]
    house.kill(runs_on)
    lot = house.must_bid(stays, "bob", 20)
    assert accepted(lot) == [20, 10] and not lot["runs_on"].startswith(f"{runs_on}@")
    back = until(lambda: house.lots(runs_on).get(1), lambda: f"{runs_on} is started again: {house.log}")
    until(lambda: accepted(house.lot(runs_on)) == [20, 10] or None, lambda: "the new node has learnt what was bid")
    assert back["number"] == 1


def test_a_rolling_restart_loses_no_accepted_bid_and_keeps_nobody_waiting_long(house: House) -> None:
    watcher = Watcher(house, "carl")
    restart = house.rolling_restart()
    amounts: list[int] = []
    unsure: set[str] = set()
    while restart.poll() is None:
        for word in WORDS:
            amount = len(amounts) + 1
            answer = house.bid(word, word, amount)
            # A node that is away, or about to leave, says neither yes nor no: the bid may be accepted all the same.
            if answer is None or answer.status_code == 503:
                unsure.add(f"{word} offers {amount}: bid more")
            else:
                assert answer.status_code == 200 or answer.json()["error"] in unsure, answer.text
                amounts.append(amount)
    said, _ = restart.communicate()
    assert restart.returncode == 0, said
    assert [line for line in said.splitlines() if line.endswith("is back")] == [f"{word} is back" for word in WORDS]
    assert house.log.count(" starts: ") == 6
    last = house.must_bid("ada", "ada", len(amounts) + 1)["bids"]
    assert [bid["amount"] for bid in last] == list(range(len(amounts) + 1, 0, -1))[:10]
    assert len(amounts) > 10, "there was a load"
    watcher.hears(len(amounts) + 1)
    watcher.close()
    every = until(lambda: all_bids(house), lambda: "all are told")
    assert every == set(range(1, len(amounts) + 2))
    assert "Traceback" not in house.stop()


def all_bids(house: House) -> set[int] | None:
    """The amounts of all bids for the first lot."""
    answer = house.get("ada", "/api/lots/1")
    return None if answer is None else {bid["amount"] for bid in answer.json()}
