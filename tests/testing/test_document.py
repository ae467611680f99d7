"""docs/testing.md: its programs pass as they stand there, and it leaves out nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kinfolk.testing import Cluster

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "testing.md").read_text()


@pytest.mark.slow
def test_its_programs_pass(tmp_path: Path):
    programs = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    for number, program in enumerate(programs):
        (tmp_path / f"test_{number}.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(programs)} passed" in done.stdout


def test_it_tells_of_everything_that_can_be_done_to_a_cluster():
    methods = {name for name in vars(Cluster) if not name.startswith("_")}
    told = set(re.findall(r"`(?:await )?nodes\.(\w+)", DOCUMENT))
    assert told - methods == set()
    assert methods - told <= {"is_up", "connected", "keep_apart"}
