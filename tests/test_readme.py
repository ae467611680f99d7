"""The programs of the README and the tour do what they say, in OS processes of their own, as a reader runs them."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALLEST, COUNTER, CLIENT, GLIMPSE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TOUR, ROOMS, JOBS, REMOTE, SERVERS, HANDED = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "tour.md").read_text(), re.DOTALL
)


def run(program: str, environment: dict[str, str], where: Path) -> str:
    file = where / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file)], cwd=where, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(program: str, environment: dict[str, str], where: Path) -> Generator[subprocess.Popen[str]]:
    file = where / "counter.py"
    file.write_text(program)
    with subprocess.Popen(
        [sys.executable, str(file)], cwd=where, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_smallest_program_says_hi(environment: dict[str, str], tmp_path: Path) -> None:
    assert run(SMALLEST, environment, tmp_path) == "hi\n"


def test_two_programs_find_each_others_names_with_no_setting_at_all(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with running(COUNTER, environment, tmp_path) as counter:
        assert counter.stdout is not None
        name = counter.stdout.readline().split()[0]
        assert run(CLIENT, environment, tmp_path) == f"found at {name}\nthe total is 5\n"
        assert run(CLIENT, environment, tmp_path) == f"found at {name}\nthe total is 10\n"
        asked = subprocess.run(
            [sys.executable, "-m", "kinfolk", "whereis", "counter"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.startswith(name)


def test_the_glimpse_of_a_singleton_is_a_program_with_three_nodes_around_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    classes, last = GLIMPSE.split("counter = Child")
    body = "".join(f"        {line}" for line in f"counter = Child{last}".splitlines(keepends=True))
    body = re.sub(r"await (carl\.call\(.*?\)\))", r"print(await \1)", body)
    program = (
        "import kinfolk\nfrom kinfolk import Child, Node, Request, Server\n\n\n"
        f"{classes}async def main():\n"
        '    async with Node("ada") as ada, Node("bob") as bob, Node("carl") as carl:\n'
        f"{body}\n\nkinfolk.run(main)\n"
    )
    assert run(program, environment, tmp_path) == "15\n"


def test_the_tour_does_what_it_shows(environment: dict[str, str], tmp_path: Path) -> None:
    lines = run(TOUR, environment, tmp_path).splitlines()
    assert lines[0] == "got {'any': 'MessagePack'}"
    assert lines[1] == "got more"
    assert lines[2] == "the total is 15"
    assert lines[3].startswith("the name 'counter' is held by program-")
    watched = [line for line in lines if line.startswith("watching:")]
    assert "NameAdded(name='counter'" in watched[0]
    assert "NameRemoved(name='counter'" in watched[1]
    assert lines[-1] == "the counter has ended: shutdown"


def test_a_broadcast_reaches_the_members_on_both_nodes_and_leaves_the_speaker_out(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lines = run(ROOMS, environment, tmp_path).splitlines()
    assert sorted(lines) == ["bob hears: ada: hi all", "eve hears: ada: hi all"]


def test_a_process_is_started_on_another_node_that_allows_it(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    first, second, third = run(REMOTE, environment, tmp_path).splitlines()
    assert first == "6 times 7 is 42, says bob"
    assert second.startswith("bob@127.0.0.1:") and "'os:system' is not on the list" in second
    assert third == "it ended: killed"


def test_a_singleton_counts_on_one_node_and_then_on_the_other(environment: dict[str, str], tmp_path: Path) -> None:
    assert run(SERVERS, environment, tmp_path).splitlines() == [
        "counting on ada",
        "the total is 15",
        "a counter only goes up",
        "counting on bob",
        "the total is 11",
    ]


def test_a_singleton_goes_on_with_its_state(environment: dict[str, str], tmp_path: Path) -> None:
    assert run(HANDED, environment, tmp_path) == "5 on ada\n6 on bob\n"
