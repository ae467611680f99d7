"""`kinfolk dashboard`, and `kinfolk run --dashboard`: where they serve, and what they need."""

import httpx

from tests.system.fleet import free_port

TOKEN = "0123456789abcdef"


def test_a_node_shows_itself_and_beyond_loopback_wants_a_token(shell, inside):
    where = f"127.0.0.1:{free_port()}"
    ada = shell.serve("till", "--name", "ada", "--dashboard", where).ready()
    with httpx.Client(base_url=f"http://{where}", trust_env=False) as web:
        assert "<title>kinfolk</title>" in web.get("/").text
        assert web.get("/api/about").json()["node"] == ada
        assert [name for name, _ in web.get("/api/names").json()["names"]] == ["till"]
    ended = inside(shell, "dashboard", ada, "--listen", "0.0.0.0:0")
    assert ended.code == 2 and "give a token" in ended.only_line
    ended = inside(shell, "dashboard", ada, KINFOLK_DASHBOARD_TOKEN="short")
    assert ended.code == 2 and "at least 16 characters" in ended.only_line
    ended = inside(shell, "run", "shopping:till", "--dashboard", "0.0.0.0:0")
    assert ended.code == 2 and "give a token" in ended.err


def test_the_file_of_the_token_is_for_its_owner_alone(shell, inside):
    file = shell.directory / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    ended = inside(shell, "dashboard", "ada@127.0.0.1:1", "--token-file", str(file))
    assert ended.code == 2 and "chmod 600" in ended.only_line
    ended = inside(shell, "dashboard", "ada@127.0.0.1:1", "--token-file", "nowhere")
    assert ended.code == 2 and "nowhere: No such file" in ended.only_line


def test_a_node_that_cannot_be_reached_is_told_as_by_every_command(shell, inside):
    assert inside(shell, "dashboard", f"127.0.0.1:{free_port()}").code == 3
