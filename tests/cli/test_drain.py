"""`kinfolk drain`: a node is told to finish its work and leave."""

import json

import pytest


def test_a_node_finishes_its_work_and_leaves_and_its_program_ends(shell):
    busy = shell.serve("busy", "--name", "bob")
    bob = busy.ready()
    ended = shell.run("drain", bob)
    assert (ended.out, ended.code) == (f"{bob} has left\n", 0), ended
    done = busy.end()
    assert (done.out, done.code) == ("did 0\ndid 1\n", 0)


@pytest.mark.slow
def test_one_that_is_not_done_in_time_leaves_all_the_same_and_that_is_4(shell):
    stuck = shell.serve("stuck", "--name", "bob")
    bob = stuck.ready()
    ended = shell.run("drain", bob, "--drain-timeout", "1.5")
    assert (ended.out, ended.code) == (f"{bob} has left, though it was not done\n", 4), ended
    assert f"{bob} finishes what has come" in ended.err and f"{bob} runs dry" in ended.err, "it is shown how far it is"
    assert "(deaf): 1 messages, 0 calls" in ended.err
    assert (stuck.end().out, stuck.process.returncode) == ("tidy\n", 143)


def test_as_json(shell, inside):
    bob = shell.serve("stuck", "--name", "bob").ready()
    ended = inside(shell, "drain", "--node", bob, "--drain-timeout", "0", "--json")
    answer = json.loads(ended.out)
    assert (answer["node"], answer["done"], ended.code) == (bob, False, 4)
    assert len(answer["undone"]) == 1


def test_which_node_has_to_be_said(shell, inside):
    ended = inside(shell, "drain")
    assert ended.code == 2 and "say which node is to leave" in ended.only_line
    ended = inside(shell, "drain", "bob@127.0.0.1:1")
    assert ended.code == 3
    ended = inside(shell, "drain", "bob@127.0.0.1:1", "--drain-timeout", "-1")
    assert ended.code == 2 and "--drain-timeout cannot be -1" in ended.only_line
