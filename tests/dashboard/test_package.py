"""The files of the pages: each that is named is there, and all are in what is installed."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kinfolk.dashboard.assets import PLACE

ROOT = Path(__file__).parents[2]


def test_every_file_that_a_page_names_is_there():
    index = (PLACE / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="static/([^"]+)"', index))
    for script in PLACE.glob("*.js"):
        named |= set(re.findall(r'(?:from|import)\(? ?"\./([^"]+)"', script.read_text()))
    assert named | {"index.html"} == {path.name for path in PLACE.iterdir()}


def test_every_symbol_that_is_used_is_in_the_page():
    index = (PLACE / "index.html").read_text()
    symbols = set(re.findall(r'<symbol id="i-([a-z]+)"', index))
    used = set(re.findall(r'<use href="#i-([a-z]+)"', index))
    for script in PLACE.glob("*.js"):
        used |= set(re.findall(r'icon\("([a-z]+)"\)', script.read_text()))
    assert used == symbols


@pytest.mark.slow
def test_what_is_installed_has_all_files(tmp_path: Path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("kinfolk/dashboard/static/")}
    assert inside == {f"kinfolk/dashboard/static/{path.name}" for path in PLACE.iterdir()}
