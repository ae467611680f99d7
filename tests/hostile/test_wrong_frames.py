"""Every state of a session times every wrong frame: it ends that session at most, and one line of the log says why."""

from collections.abc import Callable, Iterator
from itertools import islice
from math import inf

import pytest

from kinfolk.shell.transport import MAX_DIALS
from kinfolk.wire import frames
from kinfolk.wire.frames import FRAMES, Operation, encode_frame
from kinfolk.wire.reader import frame_name
from tests.hostile.stage import Stage, Visit
from tests.hostile.table import (
    HANDSHAKES,
    REACH,
    SYNCED,
    TABLE,
    UNKNOWN,
    WATCHERS,
    At,
    entry_of,
    example,
    heads,
    misshapen,
    out_of_place,
)

PLACES = pytest.mark.parametrize("at", At, ids=lambda at: at.name)
KINDS = pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A node with an honest peer."""
    with pytest.MonkeyPatch.context() as patch:
        # Here all that comes is taken in within the same turn of the loop, however long it takes.
        patch.setattr("kinfolk.shell.transport.READ_SLICE", inf)
        patch.setenv("KINFOLK_HOME", str(tmp_path_factory.mktemp("home")))
        stage = Stage()
        stage.open()
        try:
            yield stage
        finally:
            stage.close()


def saying(frame: bytes) -> Callable[[Visit], bytes]:
    """The same in every session."""
    return lambda _: frame


async def ends(stage: Stage, at: At, what: str, says: str, attack: Callable[[Visit], bytes]) -> None:
    """This ends the session and nothing else; one line says why, and the same is said to whoever has proved itself."""
    visit = await REACH[at](stage)
    visit.pipe.feed(attack(visit))
    assert visit.pipe.is_closing(), f"{what}: the session goes on"
    farewell = visit.last_frame()
    complaints = await stage.leave(visit)
    assert len(complaints) == 1, f"{what}: {complaints}"
    assert complaints[0].startswith("WARNING ") and says in complaints[0], f"{what}: {complaints[0]}"
    if at in HANDSHAKES:
        assert farewell is None or isinstance(farewell[0], frames.Refusal), f"{what}: a stranger is told {farewell}"
    else:
        assert farewell is not None, f"{what}: nobody is told why"
        (goodbye,) = farewell
        assert isinstance(goodbye, frames.Goodbye) and goodbye.code == "protocol" and says in goodbye.detail, what


@KINDS
def test_every_kind_of_frame_has_an_entry_and_every_type_of_field_its_wrong_values(kind: type[Operation]):
    assert entry_of(kind).at
    assert list(misshapen(example(kind)))


def test_the_table_has_no_entry_of_a_kind_that_is_gone():
    assert set(TABLE) == set(FRAMES)


def test_a_kind_without_an_entry_is_missed_with_the_remedy():
    class New(Operation, frozen=True):
        TAG = 0x7F

    with pytest.raises(AssertionError, match=r"no entry for New: add one to TABLE in tests\.hostile\.table"):
        entry_of(New)


@PLACES
def test_a_right_frame_is_taken(stage: Stage, at: At):
    """Else what is wrong with the others would prove nothing."""

    async def takes(kind: type[Operation]) -> None:
        visit = await REACH[at](stage)
        entry = entry_of(kind)
        visit.pipe.feed(encode_frame([entry.right(visit)]))
        assert visit.pipe.is_closing() == entry.ends, kind
        if not entry.ends:
            visit.listen()
            if at not in HANDSHAKES:
                assert visit.is_answered(77) or at not in WATCHERS | SYNCED, kind
        complaints = await stage.leave(visit)
        leaves = at in HANDSHAKES - {At.ACK} and kind is not frames.ChallengeReply  # in the middle of the handshake
        withdraws = at is At.WATCHER_ADMITTED and kind is frames.Goodbye
        assert len(complaints) == (kind is frames.Refusal or entry.warns or leaves or withdraws), complaints

    for kind in FRAMES:
        if at in entry_of(kind).at:
            stage.run(takes(kind))


@PLACES
@pytest.mark.parametrize("share", [pytest.param(1, id="all", marks=pytest.mark.slow), pytest.param(5, id="fifth")])
def test_a_frame_that_cannot_be_read_ends_the_session(stage: Stage, at: At, share: int):
    for number, kind in enumerate(FRAMES):
        if at in entry_of(kind).at:
            # A frame may be made of what the session has said before: so there is one session to make it.
            visit = stage.run(REACH[at](stage))
            right = entry_of(kind).right(visit)
            stage.run(stage.leave(visit))
            for what, frame in islice(misshapen(right), number % share, None, share):
                says = f"{frame_name(kind.TAG)} "
                stage.run(ends(stage, at, f"{kind.__name__}, {what}", says, saying(frame)))


@PLACES
def test_a_frame_that_is_too_long_or_empty_ends_the_session(stage: Stage, at: At):
    for what, head, says in heads(at):
        stage.run(ends(stage, at, what, says, saying(head)))


@PLACES
def test_a_frame_out_of_its_place_ends_the_session(stage: Stage, at: At):
    for kind, says in out_of_place(at):
        frame = encode_frame([example(kind)])
        stage.run(ends(stage, at, kind.__name__, says, saying(frame)))


@PLACES
def test_a_frame_that_says_what_cannot_be_ends_the_session(stage: Stage, at: At):
    for kind in FRAMES:
        for wrong in entry_of(kind).wrong:
            if at in (entry_of(kind).at & wrong.at if wrong.at == set(At) else wrong.at):
                stage.run(ends(stage, at, f"{kind.__name__}, {wrong.what}", wrong.says, wrong.frames))


@pytest.mark.parametrize("at", sorted(SYNCED, key=str), ids=lambda at: at.name)
def test_what_nobody_has_asked_for_or_what_comes_late_changes_nothing(stage: Stage, at: At):
    async def idle() -> None:
        visit = await REACH[at](stage)
        before = stage.state()
        for kind in FRAMES:
            for number, operation in enumerate(entry_of(kind).idle):
                assert visit.say(operation).is_answered(number), operation
                assert stage.state() == before, operation
        assert await stage.leave(visit) == []

    stage.run(idle())


@PLACES
def test_a_frame_of_a_later_version_is_ignored_after_the_handshake_alone(stage: Stage, at: At):
    async def ignored() -> None:
        visit = await REACH[at](stage)
        visit.pipe.feed(UNKNOWN * 3)
        assert not visit.pipe.is_closing()
        assert await stage.leave(visit) == []

    if at in HANDSHAKES:
        stage.run(ends(stage, at, "unknown", "unknown tag 0x7e", saying(UNKNOWN)))
    else:
        stage.run(ignored())


@PLACES
def test_a_connection_that_ends_within_a_frame_leaves_nothing_behind(stage: Stage, at: At):
    async def leaves(frame: bytes) -> None:
        visit = await REACH[at](stage)
        visit.pipe.feed(frame)
        complaints = await stage.leave(visit)
        assert len(complaints) == (at in HANDSHAKES | {At.WATCHER_ADMITTED}), complaints

    for size in range(6):
        stage.run(leaves(encode_frame([frames.Goodbye("closed", "bye")])[:size]))


def test_a_peer_that_tells_of_thousands_of_nodes_makes_us_dial_a_bounded_number_at_once(stage: Stage):
    async def tells() -> None:
        visit = await REACH[At.ADMITTED](stage)
        stage.loop.refuses.clear()
        visit.say(
            frames.Peers([f"phantom@10.0.{number // 250}.{number % 250}:1" for number in range(frames.MAX_PEERS)])
        )
        await stage.until(lambda: stage.loop.waiting)
        assert visit.is_answered(1)
        assert stage.loop.waiting == MAX_DIALS
        stage.loop.refuses.set()
        assert await stage.leave(visit) == []

    stage.run(tells())
