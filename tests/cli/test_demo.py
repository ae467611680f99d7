"""`kinfolk demo`: it shows what it promises, and notices when it does not."""

import os
import re
import signal
import subprocess

import pytest

from kinfolk.demo import etcd, story
from kinfolk.demo.checks import Broken, Reply, State, differences, failed, succeeded, winner
from kinfolk.demo.stage import Member, stage
from tests.cli.commands import KINFOLK

ADA, BOB, CARL = "ada@127.0.0.1:1", "bob@127.0.0.1:2", "carl@127.0.0.1:3"
NAMES = {"clock": f"{ADA}/a/1", "db": f"{BOB}/b/1"}


def states(**changes: State) -> list[State]:
    agreed = {
        "ada": State(ADA, [BOB, CARL], NAMES),
        "bob": State(BOB, [ADA, CARL], NAMES),
        "carl": State(CARL, [ADA, BOB], NAMES),
    }
    return list({**agreed, **changes}.values())


def test_the_demo_keeps_every_promise(shell):
    ended = shell.run("demo", TMPDIR=str(shell.directory))
    assert ended.code == 0, ended
    assert re.findall(r"^ +(\d+)  ", ended.out, re.MULTILINE) == list("123456789")
    assert len(re.findall(r"✓ .* \d+ ms$", ended.out, re.MULTILINE)) == 9
    assert "\x1b" not in ended.out
    assert ended.out.splitlines()[-1].startswith("All as promised")
    assert ended.err == ""
    assert not list(shell.directory.glob("kinfolk-demo-*"))


@pytest.mark.slow
def test_the_demo_keeps_every_promise_with_names_in_an_etcd_that_it_starts_itself(shell):
    if not etcd.is_installed():
        pytest.skip(etcd.HOW_TO_INSTALL)
    ended = shell.run("demo", "--registry", "etcd", TMPDIR=str(shell.directory))
    assert ended.code == 0, ended
    assert "names in etcd" in ended.out.splitlines()[0]
    assert len(re.findall(r"✓ .* \d+ ms$", ended.out, re.MULTILINE)) == 9
    assert ended.out.splitlines()[-1].startswith("All as promised")
    assert ended.err == ""
    assert not list(shell.directory.glob("kinfolk-demo-*"))


def test_the_demo_says_how_to_install_an_etcd_that_is_not_there(shell):
    ended = shell.run("demo", "--registry", "etcd", PATH=str(shell.directory))
    assert ended.code == 2
    assert "apt install etcd-server" in ended.err


def test_a_broken_promise_ends_the_demo_with_1_and_is_told(capsys, monkeypatch):
    monkeypatch.setattr(story, "differences", lambda states, names: ["ada thinks otherwise"])
    monkeypatch.setattr(story, "PATIENCE", 0.0)
    assert story.run() == 1
    out = capsys.readouterr().out
    assert "✗ ada thinks otherwise" in out
    assert "All as promised" not in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(shell, number):
    demo = shell.start("demo", TMPDIR=str(shell.directory))
    while demo.line()[:1] != ["1"]:
        pass
    demo.signal(number)
    ended = demo.end()
    assert ended.code == 128 + number
    assert "Traceback" not in ended.err
    assert not list(shell.directory.glob("kinfolk-demo-*"))


def test_a_demo_that_nobody_reads_ends_as_any_command_does(shell):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as pipe:
        done = subprocess.run([*KINFOLK, "demo"], env=shell.environ, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


async def test_the_stage_is_cleared_whatever_happens():
    async def fail() -> None:
        async with stage() as here:
            members.extend(await here.enter("ada", "bob"))
            await members[0].start()
            raise ZeroDivisionError

    members: list[Member] = []
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [member.exit_code for member in members] == [0, 0]


async def test_a_member_that_dies_is_noticed():
    async with stage() as here:
        (member,) = await here.enter("ada")
        await member.kill()
        with pytest.raises(Broken, match="ada has died"):
            await member.do("state")


# --- the checks ---


def test_nodes_that_agree_show_no_differences():
    assert differences(states(), NAMES) == []


@pytest.mark.parametrize(
    ("bob", "difference"),
    [
        (State(BOB, [ADA], NAMES), f"{BOB} is not connected to {CARL}"),
        (State(BOB, [ADA, CARL, "eve@127.0.0.1:4"], NAMES), f"{BOB} is still connected to eve@127.0.0.1:4"),
        (State(BOB, [ADA, CARL], {"db": NAMES["db"]}), f"nobody, not to {NAMES['clock']}"),
        (State(BOB, [ADA, CARL], {**NAMES, "db": f"{BOB}/a/1"}), f"{BOB}/a/1, not to {NAMES['db']}"),
        (State(BOB, [ADA, CARL], {**NAMES, "mail": f"{ADA}/a/2"}), f"{ADA}/a/2, not to nobody"),
    ],
)
def test_each_kind_of_difference_is_found(bob, difference):
    (found,) = differences(states(bob=bob), NAMES)
    assert difference in found


def test_the_winner_of_a_race_is_the_one_who_was_not_refused():
    taken = Reply(error="NameTaken", value=NAMES["db"])
    assert winner([taken, Reply(NAMES["db"]), taken]) == 1


@pytest.mark.parametrize(
    "replies",
    [
        [Reply(NAMES["db"]), Reply(NAMES["clock"])],
        [Reply(error="NameTaken", value=NAMES["db"])] * 2,
        [Reply(NAMES["db"]), Reply(error="NameTaken", value=NAMES["clock"])],
        [Reply(NAMES["db"]), Reply(error="NotConfirmed")],
        [],
    ],
)
def test_a_race_with_two_winners_or_none_or_a_lie_is_broken(replies):
    with pytest.raises(Broken):
        winner(replies)


def test_success_and_failure_are_checked_both():
    assert succeeded(Reply(5)) == 5
    failed(Reply(error="NoProcess"), "NoProcess")
    with pytest.raises(Broken, match="NoProcess: it is dead"):
        succeeded(Reply(error="NoProcess", detail="it is dead"))
    for other in (Reply("hello"), Reply(error="NodeLost")):
        with pytest.raises(Broken, match="expected NoProcess"):
            failed(other, "NoProcess")
