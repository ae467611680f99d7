"""Settings: what goes before what, and what each wrong one is told. The real home is never touched."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.ids import Address
from kinfolk.settings import DEFAULT_CLUSTER, home, resolve

STRONG, OTHER = new_cookie(), new_cookie()
PUBLIC, LOOPBACK = "ada@10.0.0.1:4370", "ada@127.0.0.1:4370"


@pytest.fixture
def place(tmp_path):
    """An empty working directory, a home that does not exist yet, and nothing in the environment but that home."""
    directory, user = tmp_path / "work", tmp_path / "home"
    directory.mkdir()
    environ = {"KINFOLK_HOME": str(user)}

    def settings(**arguments):
        return resolve(environ=environ, directory=directory, **arguments)

    def refusal(**arguments):
        with pytest.raises(ValueError, match=r".") as caught:
            settings(**arguments)
        return str(caught.value)

    def toml(text):
        (directory / "kinfolk.toml").write_text(text)

    def cookie_file(text, mode=0o600):
        path = tmp_path / f"cookie-{len(list(tmp_path.iterdir()))}"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return SimpleNamespace(
        settings=settings, refusal=refusal, toml=toml, cookie_file=cookie_file, environ=environ, home=user
    )


# --- nothing given ---


def test_without_any_setting_a_node_is_on_loopback_and_finds_its_neighbours(place):
    settings = place.settings()
    assert settings.name.endswith("@127.0.0.1:0")
    assert settings.listen == Address("127.0.0.1", 0)
    assert settings.cluster == DEFAULT_CLUSTER
    assert settings.join == ()
    assert settings.neighbours


def test_a_name_is_made_of_the_package_that_runs(place, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/lib/python3/uvicorn/__main__.py", "shop:web"])
    assert place.settings().name.startswith("uvicorn-")


def test_names_made_up_differ(place):
    assert place.settings().name != place.settings().name


def test_without_a_cookie_the_users_own_is_made_once(place):
    assert not place.home.exists()
    first, second = place.settings().cookies, place.settings().cookies
    assert first == second and len(first) == 1 and not first[0].weak
    assert (place.home / "cookie").stat().st_mode & 0o777 == 0o600


def test_the_users_cookie_is_not_made_when_another_is_given(place):
    place.settings(cookie=STRONG)
    assert not place.home.exists()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ValueError, match="set KINFOLK_HOME"):
        home({})
    assert home({"KINFOLK_HOME": "/somewhere"}) == Path("/somewhere")


def test_home_is_where_the_environment_says():
    assert home({"KINFOLK_HOME": "/somewhere"}) == Path("/somewhere")
    assert home({}) == home({"KINFOLK_HOME": ""}) == Path.home() / ".kinfolk"


# --- argument before environment before file ---


@pytest.mark.parametrize(
    ("key", "values", "read"),
    [
        ("name", ["arg@127.0.0.1:1", "env@127.0.0.1:2", "toml@127.0.0.1:3"], lambda s: s.name),
        ("listen", ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], lambda s: str(s.listen)),
        ("cluster", ["arg", "env", "toml"], lambda s: s.cluster),
        ("join", ["arg@127.0.0.1:1", "env@127.0.0.1:2", "toml@127.0.0.1:3"], lambda s: ",".join(map(str, s.join))),
    ],
)
def test_an_argument_goes_before_the_environment_before_the_file(place, key, values, read):
    argument, environment, file = values
    place.toml(f'{key} = "{file}"')
    assert read(place.settings()) == file
    place.environ[f"KINFOLK_{key.upper()}"] = environment
    assert read(place.settings()) == environment
    assert read(place.settings(**{key: [argument] if key == "join" else argument})) == argument


@pytest.mark.parametrize("key", ["high_water", "max_outbox"])
def test_a_number_of_bytes_goes_the_same_way(place, key):
    place.toml(f"{key} = 3000")
    assert getattr(place.settings(), key) == 3000
    place.environ[f"KINFOLK_{key.upper()}"] = "2000"
    assert getattr(place.settings(), key) == 2000
    assert getattr(place.settings(**{key: 1000}), key) == 1000


def test_the_high_water_mark_is_half_of_what_may_wait(place):
    assert place.settings().high_water == place.settings().max_outbox // 2 == 32 * 1024 * 1024
    assert place.settings(max_outbox=1001).high_water == 500


def test_of_cookies_too_the_argument_goes_first_then_the_environment_then_the_file(place):
    texts = [new_cookie() for _ in range(5)]
    cookies = [(Cookie(text),) for text in texts]
    place.toml(f'cookie_file = "{place.cookie_file(texts[0])}"')
    assert place.settings().cookies == cookies[0]
    place.environ["KINFOLK_COOKIE"] = texts[1]
    assert place.settings().cookies == cookies[1]
    place.environ["KINFOLK_COOKIE_FILE"] = place.cookie_file(texts[2])
    assert place.settings().cookies == cookies[2]
    assert place.settings(cookie_file=place.cookie_file(texts[3])).cookies == cookies[3]
    assert place.settings(cookie=texts[4]).cookies == cookies[4]


def test_an_empty_variable_is_none(place):
    place.environ |= {"KINFOLK_NAME": "", "KINFOLK_COOKIE": "", "KINFOLK_COOKIE_FILE": "", "KINFOLK_CLUSTER": ""}
    settings = place.settings()
    assert settings.name.endswith("@127.0.0.1:0") and settings.cluster == DEFAULT_CLUSTER and settings.neighbours


def test_the_real_environment_is_not_read_when_one_is_given(place, monkeypatch):
    monkeypatch.setenv("KINFOLK_NAME", "real@127.0.0.1:1")
    assert not place.settings().name.startswith("real@")


def test_the_real_environment_is_the_default(place, monkeypatch, tmp_path):
    monkeypatch.setenv("KINFOLK_NAME", "real@127.0.0.1:1")
    assert resolve(cookie=STRONG, directory=tmp_path).name == "real@127.0.0.1:1"


def test_the_current_directory_is_the_default_and_may_be_left_out(place, monkeypatch, tmp_path):
    (tmp_path / "kinfolk.toml").write_text('cluster = "here"')
    monkeypatch.chdir(tmp_path)
    assert resolve(cookie=STRONG, environ=place.environ).cluster == "here"
    assert resolve(cookie=STRONG, environ=place.environ, directory=None).cluster == DEFAULT_CLUSTER


# --- names and addresses ---


def test_a_word_alone_is_a_name_on_loopback(place):
    assert place.settings(name="ada").name == "ada@127.0.0.1:0"


def test_a_name_is_written_in_the_one_form_of_its_address(place):
    assert place.settings(name="ada@[0:0::1]:04370").name == "ada@[::1]:4370"


def test_a_node_listens_where_its_name_says_or_elsewhere(place):
    def listen(text):
        return place.settings(name=PUBLIC, cookie=STRONG, listen=text).listen

    assert listen(None) == ("10.0.0.1", 4370)
    assert listen("0.0.0.0") == ("0.0.0.0", 4370)
    assert listen("0.0.0.0:5000") == ("0.0.0.0", 5000)
    assert listen("[::]") == ("::", 4370)
    assert listen("[::]:5000") == ("::", 5000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "a b"}, "the node name is 'a b': it must be 1 to 64 letters"),
        ({"name": "ada@localhost"}, "needs a host and a port"),
        ({"name": "ada@10.0.0.256:1"}, "is no IPv4 address"),
        ({"listen": "127.0.0.1:99999"}, "port '99999' in '127.0.0.1:99999' must be a number"),
        ({"listen": "::1"}, "put it in brackets"),
        ({"cluster": "my cluster"}, "the cluster's name is 'my cluster'"),
        ({"join": ["bob"]}, "needs a host and a port"),
        ({"join": ["bob@127.0.0.1:0"]}, "port 0 is no port"),
        ({"join": {"bob@127.0.0.1:1": 1}}, "join must be a list of nodes, as in ['ada@10.0.0.1:4370']"),
        ({"join": [1]}, "join must be a list of nodes"),
        ({"cookie": []}, "cookie is an empty list"),
        ({"cookie_file": []}, "cookie_file is an empty list"),
        ({"cookie": "  "}, "the cookie from an argument must be one line of text"),
        ({"cookie": STRONG[:-1]}, "is damaged"),
        ({"cookie": STRONG, "cookie_file": "x"}, "give cookie or cookie_file, not both"),
    ],
)
def test_a_wrong_argument_is_told_what_is_wrong(place, arguments, says):
    assert says in place.refusal(**arguments)


# --- whom to join ---


def test_seeds_come_from_a_list_or_from_a_text_with_commas(place):
    expected = ["bob@127.0.0.1:1", "127.0.0.1:2"]
    assert [str(seed) for seed in place.settings(join=expected).join] == expected
    place.environ["KINFOLK_JOIN"] = " bob@127.0.0.1:1 ,127.0.0.1:2,"
    assert [str(seed) for seed in place.settings().join] == expected
    del place.environ["KINFOLK_JOIN"]
    place.toml('join = ["bob@127.0.0.1:1", "127.0.0.1:2"]')
    assert [str(seed) for seed in place.settings().join] == expected


def test_join_names_where_to_look_besides_whom_to_dial(place):
    settings = place.settings(join=["dns://kin.example:4370", "bob@10.0.0.1:4370", "dns+srv://_kinfolk._tcp.example"])
    assert settings.discover == ("dns://kin.example:4370", "dns+srv://_kinfolk._tcp.example")
    assert [str(seed) for seed in settings.join] == ["bob@10.0.0.1:4370"]
    assert not settings.neighbours and settings.discover_every == 5.0


def test_all_etcds_in_join_are_members_of_one_and_take_its_settings(place):
    place.environ["KINFOLK_JOIN"] = "etcd://10.0.0.1:2379, etcd://10.0.0.2:2379"
    place.environ["KINFOLK_ETCD_USER"], place.environ["KINFOLK_ETCD_PASSWORD"] = "kin", "sesame"
    [etcd] = place.settings().discover
    assert etcd.endpoints == ("10.0.0.1:2379", "10.0.0.2:2379") and etcd.user == "kin"
    assert "leave it out of join" in place.refusal(registry="etcd://10.0.0.1:2379")


@pytest.mark.parametrize(
    ("join", "told"),
    [
        ("dns://kin.example", "needs a host and a port"),
        ("dns://kin.example:0", "port 0 is no port"),
        ("dns+srv://kin.example", "as in dns+srv://_kinfolk._tcp.example.org"),
        ("blue://sky", "nothing here finds nodes by blue://"),
        ("etcd://", "needs a host and a port"),
    ],
)
def test_a_place_to_look_that_is_wrong_is_told_what_is_right(place, join, told):
    assert told in place.refusal(join=[join])


@pytest.mark.parametrize("seconds", [0, float("inf")])
def test_between_two_looks_some_seconds_must_pass(place, seconds):
    assert "positive number of seconds" in place.refusal(discover_every=seconds)


def test_neighbours_are_joined_only_when_nothing_was_said_of_whom_to_join_and_no_cookie_given(place):
    assert place.settings(name=LOOPBACK).neighbours
    assert not place.settings(join=[]).neighbours
    assert not place.settings(join=["127.0.0.1:1"]).neighbours
    assert not place.settings(cookie=STRONG).neighbours
    place.environ["KINFOLK_JOIN"] = ""
    assert not place.settings().neighbours
    del place.environ["KINFOLK_JOIN"]
    place.toml("join = []")
    assert not place.settings().neighbours


# --- cookies ---


@pytest.mark.parametrize(
    "where",
    [
        {"name": PUBLIC},
        {"name": "ada@db.example.com:1"},
        {"name": LOOPBACK, "listen": "0.0.0.0"},
        {"name": PUBLIC, "listen": "127.0.0.1:1"},
        {"name": LOOPBACK, "listen": "[::]:1"},
    ],
)
def test_a_node_that_others_could_reach_needs_a_good_cookie(place, where):
    refusal = place.refusal(**where)
    assert "can be reached by other machines, so it needs a cookie: make one with `kinfolk cookie new`" in refusal
    assert not place.home.exists()
    weak = place.refusal(**where, cookie="xyzzy")
    assert "a free-text cookie can be guessed" in weak and "allow_weak_cookie=True" in weak
    assert "xyzzy" not in weak
    assert "can be guessed" in place.refusal(**where, cookie=[STRONG, "xyzzy"])
    assert "can be guessed" in place.refusal(**where, cookie_file=place.cookie_file("xyzzy"))
    assert place.settings(**where, cookie="xyzzy", allow_weak_cookie=True).cookies == (Cookie("xyzzy"),)
    assert place.settings(**where, cookie=STRONG).cookies == (Cookie(STRONG),)


def test_a_weak_cookie_is_enough_on_loopback(place):
    assert place.settings(name=LOOPBACK, cookie="xyzzy").cookies[0].weak


def test_several_cookies_keep_their_order(place):
    assert place.settings(cookie=[STRONG, Cookie(OTHER)]).cookies == (Cookie(STRONG), Cookie(OTHER))
    assert place.settings(cookie=(OTHER, STRONG)).cookies == (Cookie(OTHER), Cookie(STRONG))


def test_several_cookie_files_keep_their_order_and_the_same_cookie_counts_once(place):
    one, other = place.cookie_file(STRONG), place.cookie_file(OTHER)
    expected = (Cookie(STRONG), Cookie(OTHER))
    assert place.settings(cookie_file=[one, Path(other)]).cookies == expected
    assert place.settings(cookie_file=[one, other, place.cookie_file(STRONG)]).cookies == expected
    assert place.settings(cookie=[STRONG, OTHER, STRONG]).cookies == expected
    place.toml(f'cookie_file = ["{one}", "{other}"]')
    assert place.settings().cookies == expected
    place.toml(f'cookie_file = "{other}, {one}"')
    assert place.settings().cookies == expected[::-1]
    place.environ["KINFOLK_COOKIE_FILE"] = f"{one},{other}"
    assert place.settings().cookies == expected


def test_a_cookie_file_is_read_and_must_be_private(place):
    assert place.settings(cookie_file=Path(place.cookie_file(STRONG + "\n"))).cookies == (Cookie(STRONG),)
    with pytest.raises(FileNotFoundError):
        place.settings(cookie_file="no such file")
    if os.name == "posix":
        with pytest.raises(PermissionError, match="chmod 600"):
            place.settings(cookie_file=place.cookie_file(STRONG, 0o644))


def test_a_cookie_says_where_it_came_from(place):
    place.environ["KINFOLK_COOKIE"] = STRONG[:-1]
    assert "the cookie from KINFOLK_COOKIE is damaged" in place.refusal()


def test_no_cookie_is_shown_in_a_repr(place):
    assert STRONG not in repr(place.settings(cookie=STRONG))
    assert "xyzzy" not in repr(place.settings(cookie="xyzzy"))


# --- the file ---


def test_a_cookie_never_stands_in_the_file(place):
    place.toml(f'cookie = "{STRONG}"')
    refusal = place.refusal()
    assert "holds a cookie: put it into a file of mode 0600 and name that as cookie_file" in refusal
    assert STRONG not in refusal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "is not valid TOML"),
        (
            'nmae = "ada"',
            "has unknown keys nmae: known are cluster, cookie_file, discover_every, drain_timeout",
        ),
        ("name = 5", "kinfolk.toml: name must be a string"),
        ("cluster = 0", "kinfolk.toml: cluster must be a string"),
        ("cookie_file = [5]", "kinfolk.toml: cookie_file must be a file, or a list of files"),
        ("high_water = 0", "high_water=0: give a number of bytes, at least 1"),
        ("max_outbox = 'much'", "max_outbox='much': give a number of bytes"),
        ("max_outbox = 1000\nhigh_water = 501", "high_water=501 is too high for max_outbox=1000: give at most half"),
        ("join = 5", "join must be a list of nodes"),
        ("join = [5]", "join must be a list of nodes"),
        ("drain_timeout = true", "kinfolk.toml: drain_timeout must be a number of seconds, 0 or more"),
        ("drain_timeout = -1", "kinfolk.toml: drain_timeout must be a number of seconds, 0 or more"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(place, text, says):
    place.toml(text)
    assert says in place.refusal()


def test_sessions_rest_after_a_minute_unless_the_file_the_environment_or_the_argument_says_otherwise(place):
    assert place.settings().idle_after == 60.0
    place.toml("idle_after = 5")
    assert place.settings().idle_after == 5
    place.environ["KINFOLK_IDLE_AFTER"] = "inf"
    assert place.settings().idle_after == float("inf")
    assert place.settings(idle_after=0.5).idle_after == 0.5
    assert "give a positive number of seconds" in place.refusal(idle_after=0)


def test_the_drain_timeout_is_25_s_unless_the_file_the_environment_or_the_argument_says_otherwise(place):
    assert place.settings().drain_timeout == 25.0
    place.toml("drain_timeout = 1")
    assert place.settings().drain_timeout == 1
    place.environ["KINFOLK_DRAIN_TIMEOUT"] = "2.5"
    assert place.settings().drain_timeout == 2.5
    assert place.settings(drain_timeout=0).drain_timeout == 0
    place.environ["KINFOLK_DRAIN_TIMEOUT"] = "soon"
    assert place.refusal() == "KINFOLK_DRAIN_TIMEOUT must be a number of seconds, 0 or more, as in 25"
    assert "drain_timeout cannot be nan" in place.refusal(drain_timeout=float("nan"))
