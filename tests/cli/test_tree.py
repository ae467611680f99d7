"""`kinfolk tree`."""

import json


def test_shows_supervisors_with_what_is_below_them(shell, inside):
    node = shell.serve("tree", "--name", "ada").ready()
    rows = [line.split("\t") for line in inside(shell, "tree").out.splitlines()]
    assert [row[0] for row in rows] == ["supervisor", "  shop/db", "  body", "  Supervisor", "    body"]
    assert [row[1] for row in rows] == ["", "shop/db", "", "", ""]
    assert all(row[2].startswith(f"{node}/") for row in rows)
    assert [row[3] for row in rows] == [
        "Supervisor (one_for_all)",
        "body",
        "body",
        "Supervisor (rest_for_one)",
        "body",
    ]
    assert all(row[4:] == ["running", "0"] for row in rows)
    (root,) = json.loads(inside(shell, "tree", "--json").out)
    assert root["children"][0]["pid"] == rows[1][2]
    assert root["children"][2]["children"][0]["id"] == "body"


def test_a_node_without_supervisors_has_an_empty_tree(shell, inside):
    shell.serve("shop", "--name", "ada").ready()
    assert inside(shell, "tree").out == ""
    assert json.loads(inside(shell, "tree", "--json").out) == []
