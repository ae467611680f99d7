"""Node names, addresses and pids: what is valid, what each error says, and the one text form of each."""

import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.ids import (
    MAX_CREATION,
    MAX_NAME_BYTES,
    Address,
    Pid,
    Seed,
    check_name,
    check_node_name,
    check_word,
    node_address,
)

words = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
ports = st.integers(1, 65535)
hosts = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{1,10}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: ip.compressed),
)
node_names = st.builds(lambda word, host, port: f"{word}@{Address(host, port)}", words, hosts, ports)
numbers = st.integers(0, MAX_CREATION)
pids = st.builds(Pid, node_names, numbers, numbers)


def error_of(call, *args) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        call(*args)
    return str(caught.value)


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:4370", "10.0.0.1", 4370),
        ("localhost:0", "localhost", 0),
        ("db-1.example.com:65535", "db-1.example.com", 65535),
        ("db_1.svc.cluster.local.:1", "db_1.svc.cluster.local.", 1),
        ("[::1]:4370", "::1", 4370),
        ("[2001:db8:0:0:0:0:0:1]:4370", "2001:db8::1", 4370),
        ("[fe80::1%eth0.1]:4370", "fe80::1%eth0.1", 4370),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    assert Address.parse(text) == (host, port)


@given(hosts, st.integers(0, 65535))
def test_the_text_of_an_address_parses_back(host, port):
    address = Address(host, port)
    assert Address.parse(str(address)) == address
    assert ("[" in str(address)) == (":" in host)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs a host and a port"),
        ("localhost", "needs a host and a port"),
        (":4370", "needs a host and a port"),
        ("localhost:", "port '' in 'localhost:' must be a number from 0 to 65535"),
        ("localhost:http", "port 'http'"),
        ("localhost:65536", "port '65536'"),
        ("localhost:-1", "port '-1'"),
        ("localhost: 1", "port ' 1'"),
        ("localhost:١", "port '١'"),
        ("localhost:" + "9" * 5000, "must be a number from 0 to 65535"),
        ("::1:4370", "looks like IPv6: put it in brackets"),
        ("[::1:4370", "looks like IPv6: put it in brackets"),
        ("[::g]:4370", "is no IPv6 address"),
        ("[]:4370", "is no IPv6 address"),
        ("[10.0.0.1]:4370", "is no IPv6 address"),
        ("[fe80::1%a b]:4370", "must be the name of a network interface"),
        ("[fe80::1%a\nb]:4370", "must be the name of a network interface"),
        ("[fe80::1%x@y]:4370", "must be the name of a network interface"),
        ("10.0.0.256:4370", "is no IPv4 address"),
        ("10.0.1:4370", "is no IPv4 address"),
        ("-db:4370", "neither a host name nor an IP address"),
        ("db-:4370", "neither a host name nor an IP address"),
        ("a..b:4370", "neither a host name nor an IP address"),
        ("a b:4370", "neither a host name nor an IP address"),
        ("a\n:4370", "neither a host name nor an IP address"),
        ("bücher.example:4370", "neither a host name nor an IP address"),
        ("x" * 64 + ":4370", "neither a host name nor an IP address"),
        (".".join(["x" * 60] * 5) + ":4370", "neither a host name nor an IP address"),
    ],
)
def test_a_bad_address_is_told_which_part_is_wrong(text, says):
    assert says in error_of(Address.parse, text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "fe80::1")),
    ],
)
def test_loopback_is_what_other_machines_cannot_reach(host, loopback):
    assert Address(host, 1).is_loopback is loopback


# --- node names ---


@given(words, hosts, ports)
def test_a_node_name_holds_its_address(word, host, port):
    name = f"{word}@{Address(host, port)}"
    assert node_address(name) == (host, port)
    assert check_node_name(name) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ada", "has no '@': expected name@host:port, as in ada@10.0.0.1:4370"),
        ("@localhost:1", "the part before '@' is '' in '@localhost:1': it must be 1 to 64 letters"),
        ("a b@localhost:1", "it must be 1 to 64 letters, digits, '_', '.' or '-'"),
        ("ada\n@localhost:1", "it must be 1 to 64 letters"),
        ("ådå@localhost:1", "it must be 1 to 64 letters"),
        ("a" * 65 + "@localhost:1", "it must be 1 to 64 letters"),
        ("ada@localhost", "needs a host and a port"),
        ("ada@bob@localhost:1", "neither a host name nor an IP address"),
        ("ada@localhost:1/2", "port '1/2'"),
    ],
)
def test_a_bad_node_name_is_told_which_part_is_wrong(name, says):
    assert says in error_of(node_address, name)
    assert says in error_of(check_node_name, name)


def test_port_0_is_an_address_but_no_final_name():
    assert node_address("ada@localhost:0") == ("localhost", 0)
    assert "becomes a real port when the node starts" in error_of(check_node_name, "ada@localhost:0")


@pytest.mark.parametrize("name", ["ada@[0:0::1]:4370", "ada@[::1]:04370"])
def test_a_node_has_one_name(name):
    assert error_of(check_node_name, name).endswith("must be written ada@[::1]:4370")
    assert Seed.parse(name).expects == "ada@[::1]:4370"


def test_a_word_says_what_it_is_the_name_of():
    assert check_word("a" * 64, "the cluster's name") == "a" * 64
    assert error_of(check_word, "a b", "the cluster's name").startswith("the cluster's name is 'a b': it must")


# --- seeds ---


def test_a_seed_is_a_node_or_only_an_address():
    named, bare = Seed.parse("ada@10.0.0.1:4370"), Seed.parse("10.0.0.1:4370")
    assert (named.address, named.expects, str(named)) == (("10.0.0.1", 4370), "ada@10.0.0.1:4370", "ada@10.0.0.1:4370")
    assert (bare.address, bare.expects, str(bare)) == (("10.0.0.1", 4370), "", "10.0.0.1:4370")


@pytest.mark.parametrize("text", ["ada@10.0.0.1:0", "10.0.0.1:0"])
def test_a_seed_has_a_port(text):
    assert "port 0 is no port; name the port the node listens on" in error_of(Seed.parse, text)


@pytest.mark.parametrize("text", ["", "ada", "a b@10.0.0.1:1", "10.0.0.1"])
def test_a_bad_seed_is_refused(text):
    assert error_of(Seed.parse, text)


# --- pids ---


@given(pids)
def test_the_text_of_a_pid_parses_back(pid):
    assert Pid.parse(str(pid)) == pid
    assert repr(pid) == f"<pid {pid}>"


@given(st.text(max_size=60))
def test_a_text_is_a_pid_only_in_its_one_form(text):
    try:
        pid = Pid.parse(text)
    except ValueError:
        return
    assert str(pid) == text


@given(pids, pids)
def test_pids_are_equal_hashed_and_ordered_by_node_creation_and_number(one, other):
    def key(pid):
        return pid.node, pid.creation, pid.local

    twin = Pid(*key(one))
    assert twin == one and hash(twin) == hash(one)
    assert (one == other) == (key(one) == key(other))
    assert (one < other) == (key(one) < key(other))


def test_every_part_of_a_pid_counts():
    pids = [Pid("a@h:1", 1, 1), Pid("a@h:2", 1, 1), Pid("a@h:1", 2, 1), Pid("a@h:1", 1, 2)]
    assert len({*pids, Pid("a@h:1", 1, 1)}) == 4


@given(pids)
def test_a_pid_is_a_value(pid):
    assert pickle.loads(pickle.dumps(pid)) == copy.deepcopy(pid) == pid
    with pytest.raises(AttributeError):
        pid.local = 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada@h:1",
        "ada@h:1/1",
        "ada@h:1/1/",
        "ada@h:1//1",
        "ada@h:1/1/1/1",
        "ada@h:1/g/1",
        "ada@h:1/F/1",
        "ada@h:1/1/f",
        "ada@h:1/1/-1",
        "ada@h:1/01/1",
        "ada@h:1/1/01",
        "ada@h:1/1/1\n",
        "ada@h:1/ffffffffffffffff/1",
        "ada@h:1/1/9223372036854775808",
        "ada@h:1/1/" + "9" * 5000,
        "ada/1/1",
        "ada@h:0/1/1",
        "ada@h:01/1/1",
    ],
)
def test_what_is_no_pid_is_refused(text):
    assert error_of(Pid.parse, text)


def test_the_error_shows_what_a_pid_looks_like():
    assert "expected name@host:port/creation/number, as str(pid) prints it" in error_of(Pid.parse, "echo")


# --- names of processes ---


@given(st.text(min_size=1))
def test_a_name_has_1_to_255_bytes(name):
    fits = len(name.encode()) <= MAX_NAME_BYTES
    if fits:
        assert check_name(name) == name
    else:
        assert "at most 255 are allowed" in error_of(check_name, name)


@pytest.mark.parametrize("char", ["a", "é", "€", "🐙"])
def test_the_bound_of_a_name_counts_bytes_not_characters(char):
    most = MAX_NAME_BYTES // len(char.encode())
    assert check_name(char * most)
    size = (most + 1) * len(char.encode())
    assert re.search(rf"is {size} bytes of UTF-8: at most 255 are allowed", error_of(check_name, char * (most + 1)))


def test_what_is_no_name_is_told_why():
    assert error_of(check_name, "") == "a name must not be empty"
    assert "lone surrogate" in error_of(check_name, "a\ud800")
    with pytest.raises(TypeError, match="a name must be a str, not bytes"):
        check_name(b"db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a name must be a str, not NoneType"):
        check_name(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
