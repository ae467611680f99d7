"""A cluster of two nodes, both of `kinfolk run`, and two ways to run a command: as a user does, and faster."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kinfolk.cli import main
from tests.cli.commands import Ended, Served, Shell


@dataclass
class Cluster:
    """Two nodes that found each other; ada holds all names."""

    shell: Shell
    ada: str
    bob: str
    process_of_bob: Served


@pytest.fixture
def shell(tmp_path) -> Iterator[Shell]:
    """A directory with nothing in it but programs."""
    opened = Shell(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two nodes."""
    shell = Shell(tmp_path_factory.mktemp("cluster"))
    try:
        ada = shell.serve("shop", "--name", "ada").ready()
        served = shell.serve("shop", "--name", "bob")
        yield Cluster(shell, ada, served.ready(), served)
    finally:
        shell.close()


@pytest.fixture
def inside(monkeypatch, capsys) -> Callable[..., Ended]:
    """Runs a command as `Shell.run` does, but in this process, which saves the time of starting another."""

    def run(shell: Shell, *arguments: str, **environ: str) -> Ended:
        with monkeypatch.context() as changed:
            changed.chdir(shell.directory)
            changed.setattr(os, "environ", {**shell.environ, **environ})
            changed.setattr(sys, "path", list(sys.path))
            changed.setattr(sys, "argv", ["kinfolk"])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        assert isinstance(ended.value.code, int)
        out, err = capsys.readouterr()
        return Ended(out, err, ended.value.code)

    return run
