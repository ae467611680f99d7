"""The programs of the guide that need more around them than a page's programs get in tests/test_docs.py."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "guides" / "integrations.md"
TEXT = PAGE.read_text()


def file(name: str) -> str:
    """The program that begins with its name."""
    (found,) = re.findall(rf"^```python\n(# {re.escape(name)}\n.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


def cells() -> list[str]:
    """What the page types into a notebook."""
    return re.findall(r"^```py\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
