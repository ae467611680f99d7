"""The kept inputs: one file for each target, one input a line, in hexadecimal."""

from collections.abc import Iterable
from pathlib import Path

DIRECTORY = Path(__file__).with_name("corpus")


def kept(target: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    return [bytes.fromhex(line) for line in (DIRECTORY / f"{target}.hex").read_text().splitlines()]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Keep exactly these."""
    lines = sorted({data.hex() for data in inputs}, key=lambda line: (len(line), line))
    (DIRECTORY / f"{target}.hex").write_text("".join(f"{line}\n" for line in lines))
