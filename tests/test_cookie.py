import copy
import os
import pickle
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.cookie import Cookie, new_cookie, read_cookie_file, user_cookie

GOOD = "kfc1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-RJn6K"
BASE64URL = string.ascii_letters + string.digits + "-_"

posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")


# --- generated cookies ---


def test_every_new_cookie_is_another_one_and_strong():
    texts = {new_cookie() for _ in range(50)}
    assert len(texts) == 50
    assert not any(Cookie(text).weak for text in texts)


def test_a_new_cookie_survives_the_shell_and_a_double_click():
    assert set(new_cookie()) <= set(BASE64URL)


@given(st.integers(5, len(GOOD) - 1), st.sampled_from(BASE64URL))
def test_a_mistyped_character_is_noticed(at: int, character: str):
    text = GOOD[:at] + character + GOOD[at + 1 :]
    if text != GOOD:
        with pytest.raises(ValueError, match=r"damaged.*copy it again"):
            Cookie(text)


@pytest.mark.parametrize(
    "text",
    [
        GOOD[:-1],
        GOOD + "A",
        GOOD[:20] + GOOD[21:],
        GOOD[:5],
        GOOD.replace("AAECA", "AAEAC"),
        GOOD.upper(),
        GOOD.replace("kfc1", "KFC1"),
        GOOD.replace("kfc1", "kfc"),
        GOOD[:-1] + "=",
        GOOD[:-1] + "\N{CYRILLIC CAPITAL LETTER KA}",
        GOOD[:-2] + " K",
    ],
)
def test_what_begins_like_a_generated_cookie_is_never_taken_for_free_text(text: str):
    with pytest.raises(ValueError, match="damaged") as info:
        Cookie(text, "the test")
    assert "the test" in str(info.value)
    assert text[5:] not in str(info.value) or len(text) == 5


def test_a_cookie_of_a_later_kind_asks_for_an_upgrade():
    with pytest.raises(ValueError, match="later version of kinfolk"):
        Cookie(GOOD.replace("kfc1", "kfc2"))


def test_a_cookie_is_text():
    with pytest.raises(TypeError, match="the cookie from the test must be a str, not bytes"):
        Cookie(cast("str", GOOD.encode()), "the test")


def test_white_space_around_a_cookie_does_not_matter():
    assert Cookie(f"  {GOOD}\r\n") == Cookie(GOOD)
    assert Cookie(" open sesame\n") == Cookie("open sesame")


# --- free text ---


def test_free_text_is_weak_and_stretched_once(monkeypatch: pytest.MonkeyPatch):
    cookie = Cookie("open sesame")
    assert cookie.weak
    first = cookie.key("a")
    monkeypatch.setattr("hashlib.scrypt", None)
    assert cookie.key("a") == first
    assert cookie.key("b") != first


@pytest.mark.parametrize("text", ["", "  \n", "two\nlines", "two\rlines"])
def test_a_cookie_is_one_line(text: str):
    with pytest.raises(ValueError, match=r"one line.*kinfolk cookie new"):
        Cookie(text)


def test_text_that_is_not_unicode_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="not valid UTF-8") as info:
        Cookie("hunter2\udcff")
    assert info.value.__cause__ is None
    assert info.value.__context__ is None
    assert not isinstance(info.value, UnicodeError)
    assert "hunter2" not in str(info.value)


# --- keys ---


def test_keys_differ_by_label_cookie_and_role():
    one, other = Cookie(GOOD), Cookie(new_cookie())
    keys = [one.key("a"), one.key("b"), other.key("a"), other.key("b")]
    proofs = [one.proof_keys().dialler.reveal(), one.proof_keys().listener.reveal()]
    assert len({*keys, *proofs}) == 6
    assert {len(key) for key in keys + proofs} == {32}
    assert len(one.key("a", 48)) == 48


def test_equal_cookies_have_equal_keys():
    assert Cookie(GOOD).proof_keys() == Cookie(GOOD, "elsewhere").proof_keys()
    assert hash(Cookie(GOOD)) == hash(Cookie(GOOD))
    assert Cookie(GOOD) != Cookie(new_cookie())
    assert Cookie(GOOD) != GOOD


# --- secrets stay secret ---


@pytest.mark.parametrize("text", [GOOD, "open sesame"])
@pytest.mark.parametrize("show", [repr, str, ascii, format, lambda cookie: f"{cookie!r:>90}"])
def test_no_way_of_showing_a_cookie_shows_the_secret(show: Callable[[object], str], text: str):
    cookie = Cookie(text, "the test")
    shown = show(cookie)
    assert "the test" in shown
    assert text[5:] not in shown
    assert show(cookie.proof_keys()).strip() == "ProofKeys()"


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_cookie_is_neither_copied_nor_pickled(way: Callable[[object], object]):
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        way(Cookie(GOOD))


# --- files ---


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a cookie"
    path.write_text(GOOD + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_a_cookie_file_is_read_and_named_as_the_origin(file: Path):
    cookie = read_cookie_file(file)
    assert cookie == Cookie(GOOD)
    assert cookie.origin == f"the file {file}"


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o610, 0o777])
def test_a_cookie_file_open_to_others_is_refused_with_the_remedy(file: Path, mode: int):
    file.chmod(mode)
    with pytest.raises(PermissionError, match=f"chmod 600 '{file}'"):
        read_cookie_file(file)


@posix
def test_a_cookie_file_may_be_read_only_and_a_symbolic_link(file: Path, tmp_path: Path):
    file.chmod(0o400)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_cookie_file(link) == Cookie(GOOD)


@posix
def test_of_a_cookie_file_that_is_not_there_it_is_said_how_to_make_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No such file .*: `kinfolk cookie new --file \S+/none` makes"):
        read_cookie_file(tmp_path / "none")


def test_a_cookie_file_must_be_a_regular_file(tmp_path: Path):
    with pytest.raises(ValueError, match="regular file"):
        read_cookie_file(Path("/dev/null"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ValueError, match="regular file"):
        read_cookie_file(pipe)
    with pytest.raises((ValueError, OSError), match=r"regular file|directory"):
        read_cookie_file(tmp_path)


def test_a_missing_cookie_file_is_a_plain_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_cookie_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "one line"), (b"a\nb\n", "one line"), (b"x" * 5000, "more than 4096 bytes"), (b"\xff\xfe", "UTF-8")],
)
def test_a_file_without_a_cookie_says_so(file: Path, content: bytes, text: str):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=text) as info:
        read_cookie_file(file)
    assert str(file) in str(info.value)


# --- the cookie of a user ---


def test_the_users_cookie_is_made_once(tmp_path: Path):
    home = tmp_path / "deep" / ".kinfolk"
    cookie = user_cookie(home)
    assert not cookie.weak
    assert user_cookie(home) == cookie
    assert [path.name for path in home.iterdir()] == ["cookie"]


@posix
def test_only_the_user_can_read_it(tmp_path: Path):
    home = tmp_path / ".kinfolk"
    user_cookie(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "cookie").stat().st_mode & 0o777 == 0o600


@posix
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_can_change_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    home = tmp_path / ".kinfolk"
    user_cookie(home)
    home.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 700"):
        user_cookie(home)


def test_a_damaged_file_is_not_replaced(tmp_path: Path):
    home = tmp_path / ".kinfolk"
    user_cookie(home)
    path = home / "cookie"
    path.write_text(path.read_text(encoding="utf-8")[:-3], encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        user_cookie(home)


def test_a_failed_attempt_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(source: str, target: str) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", no_links)
    with pytest.raises(PermissionError):
        user_cookie(tmp_path / ".kinfolk")
    assert list((tmp_path / ".kinfolk").iterdir()) == []


def test_programs_that_start_at_once_have_one_cookie(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from kinfolk.cookie import user_cookie;"
        "sys.stdin.read(); print(user_cookie(Path(sys.argv[1])).key('same').hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".kinfolk")]
    programs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for running in programs:
        assert running.stdin is not None
        running.stdin.close()  # lets it go on
        running.stdin = None
    keys = {running.communicate()[0] for running in programs}
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 64
