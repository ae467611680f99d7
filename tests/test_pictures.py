"""What notebooks show: tables that are short, and harmless whatever a name holds."""

from kinfolk import Pid
from kinfolk.pictures import ROWS, facts, listing


def test_a_table_shows_the_first_rows_and_says_how_many_more_there_are():
    names = {f"name/{number:05}": number for number in reversed(range(10_000))}
    shown = listing("names", ("name", "held by"), names)
    assert shown.count("<tr>") == 1 + ROWS + 1
    assert shown.index(">name/00000<") < shown.index(">name/00001<") < shown.index(f"and {10_000 - ROWS:,} more")
    assert len(shown) < 5000
    assert "more" not in listing("names", ("name", "held by"), dict(list(names.items())[:ROWS]))


def test_no_text_becomes_markup_or_turns_the_line_around():
    evil = "<script>alert('x')</script>\u202e&\x1b[31m\""
    for shown in (listing(evil, (evil, evil), {evil: evil}), facts(evil, {evil: evil})):
        assert "<script" not in shown and "\x1b" not in shown and "\u202e" not in shown
        assert "&lt;script&gt;alert(&#x27;x&#x27;)" in shown and "&quot;" in shown


def test_a_pid_shows_itself_as_its_text():
    assert Pid("ada@127.0.0.1:4370", 255, 7)._repr_html_() == "<code>ada@127.0.0.1:4370/ff/7</code>"
    assert "<b>" not in Pid("<b>", 1, 1)._repr_html_()
