"""The pytest plugin, in runs of pytest of its own: with pytest-asyncio, with anyio, and with neither."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from kinfolk.testing.plugin import KinSim

ECHO = """
    async def echo(me):
        async for call in me.calls():
            call.reply(call.body)
"""
TALKS = """
        async with kin_cluster(3) as nodes:
            ada, bob, carl = nodes
            await ada.names.register("echo", ada.spawn(echo))
            assert await carl.call("echo", 5) == 5
            await nodes.crash(ada)
            await nodes.settled()
            assert bob.names.whereis("echo") is None
"""


def run(directory: Path, test: str, *options: str, without: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run pytest on one file. Its exit code, and what it printed."""
    lines = test.split("\n")
    (directory / "test_it.py").write_text("\n".join(line.removeprefix("    ") for line in lines))
    ini = "[pytest]\n" if "asyncio" in without else "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    (directory / "pytest.ini").write_text(ini)
    off = [word for plugin in without for word in ("-p", f"no:{plugin}")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist", *off, *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_nodes_under_pytest_asyncio_and_under_anyio(tmp_path: Path):
    code, said = run(
        tmp_path,
        f"""
    import pytest
    {ECHO}
    @pytest.mark.asyncio
    async def test_with_pytest_asyncio(kin_cluster):
        {TALKS}
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_with_anyio(kin_cluster, anyio_backend):
        {TALKS}
    @pytest.fixture
    async def nodes(kin_cluster, anyio_backend):
        async with kin_cluster(2) as nodes:
            yield nodes

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_in_a_fixture(nodes, anyio_backend):
        assert nodes[0].peers() == [nodes[1].name]
    """,
        "--asyncio-mode=strict",
    )
    assert code == 0 and "3 passed" in said, said


FAILS_AT_3 = """
    import asyncio, pytest

    class TestIt:
        @pytest.mark.parametrize("what", ["a b"])
        def test_seeds(self, kin_sim, what):
            seen = []
            async def scenario():
                seed = asyncio.get_running_loop().seed
                print("under", seed)
                assert seed < 3, what
            kin_sim(scenario)

    def test_by_fail(kin_sim):
        async def scenario():
            pytest.fail("no good")
        kin_sim(scenario)

    def test_skips(kin_sim):
        async def scenario():
            pytest.skip("not here")
        kin_sim(scenario)
"""


@pytest.mark.slow
def test_a_failure_prints_the_command_that_replays_it(tmp_path: Path):
    code, said = run(tmp_path, FAILS_AT_3, "-rs", without=("asyncio", "anyio", "timeout"))
    assert code == 1 and "2 failed, 1 skipped" in said, said
    assert [seed for seed in range(9) if f"under {seed}\n" in said] == [0, 1, 2, 3]
    assert "with seed 0; to run it again: pytest test_it.py::test_by_fail --kin-seed=0" in said
    found = re.search(r"to run it again: pytest '(test_it.py::TestIt::test_seeds\[a b\])' --kin-seed=(3)\n", said)
    assert found, said
    code, said = run(tmp_path, FAILS_AT_3, found[1], f"--kin-seed={found[2]}", "-s")
    assert code == 1 and "1 failed" in said
    assert [seed for seed in range(9) if f"under {seed}\n" in said] == [3]


class Options:
    """As much of pytest's as a KinSim asks for."""

    def __init__(self, seed: int | None = None, seeds: int | None = None, ini: str | None = None) -> None:
        self._given = {"--kin-seed": seed, "--kin-seeds": seeds, "kin_seeds": ini}
        self.getoption = self.getini = self._given.__getitem__
        self.invocation_params = self
        self.dir = Path()


@pytest.mark.parametrize(
    ("options", "usual", "own"),
    [
        (Options(), range(20), range(7)),
        (Options(ini="3"), range(3), range(7)),
        (Options(seeds=5, ini="3"), range(5), range(5)),
        (Options(seed=8, seeds=5), [8], [8]),
    ],
)
def test_how_many_seeds_is_said_by_the_command_line_then_the_test_then_the_settings(options: Any, usual: Any, own: Any):
    kin_sim = KinSim(cast("Any", None), options)
    assert list(kin_sim.seeds()) == list(usual)
    assert list(kin_sim.seeds(7)) == list(own)


async def test_a_simulation_within_a_loop_is_refused_with_the_remedy(kin_sim):
    async def scenario() -> None:
        raise AssertionError("never runs")

    with pytest.raises(RuntimeError, match="from a plain function"):
        kin_sim(scenario)
