"""What a node's service finds in long tables: the first in order, with little sorted, and never too far into them."""

import random
from typing import Any

import pytest

from kinfolk import Process, finding
from tests.node.nodes import Nodes, idle


class Compared:
    """A row that counts how often it is compared with another."""

    times = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: "Compared") -> bool:
        Compared.times += 1
        return self.value < other.value


@pytest.mark.parametrize("count", [0, 1, 20, 21, 22, 41, 42, 43, 3000])
@pytest.mark.parametrize("limit", [1, 20, 700, 5000])
async def test_the_first_are_those_that_sorting_all_would_put_first(count: int, limit: int):
    values = list(range(count))
    random.Random(count).shuffle(values)
    for after in (None, -1, count // 3, count):
        beyond = [value for value in sorted(values) if value % 3 and (after is None or after < value)]
        found = await finding.first(values, limit, lambda value: value % 3 != 0, after)
        assert (found.rows, found.more) == (beyond[:limit], len(beyond) > limit)
        assert found.matching == sum(value % 3 != 0 for value in values)


async def test_many_are_not_sorted_again_for_a_few_more():
    values = list(range(20_000))
    random.Random(1).shuffle(values)
    before = Compared.times
    found = await finding.first([Compared(value) for value in values], 25_000)
    assert [row.value for row in found.rows] == sorted(values) and not found.more
    assert Compared.times - before < 20_000 * 15


async def test_of_very_many_processes_nobody_skips_more_than_so_many(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finding, "DEEPEST", 6)
    ada = await nodes.start("ada")

    async def sought(me: Process) -> None:
        await me.receive()

    pids = [str(ada.spawn(sought)) for _ in range(20)]
    ada.spawn(idle)

    async def page(skip: int) -> dict[str, Any]:
        told = await ada.call(("kinfolk", ada.name), ["find processes", "sought", "start", skip, 5])
        return {"pids": [row["pid"] for row in told["processes"]], "more": told["more"], "count": told["count"]}

    assert await page(5) == {"pids": pids[5:10], "more": True, "count": 20}
    assert await page(6) == {"pids": pids[6:11], "more": False, "count": 20}
    assert await page(2**64 - 1) == {"pids": pids[6:11], "more": False, "count": 20}
