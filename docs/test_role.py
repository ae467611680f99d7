"""The role ``{test}`` names a test, as pytest does, and links to its file. One that is not there fails the build."""

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).parent.parent


class TestRole(SphinxRole):
    """``{test}`tests/system/test_names.py::test_of_nodes_that_race```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The name of the test in words, as a link to its file."""
        file, _, name = self.text.partition("::")
        if name not in tests_in(ROOT / file):
            message = self.inliner.reporter.error(f"there is no test {self.text}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        link = addnodes.download_reference(self.rawtext, reftarget=f"/../{file}", refdoc=self.env.docname)
        link += nodes.emphasis(text=name.removeprefix("test_").replace("_", " "))
        return [link], []


def tests_in(path: Path) -> set[str]:
    """The names of the test functions in a file."""
    functions = ast.FunctionDef, ast.AsyncFunctionDef
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_role("test", TestRole())
    return {"parallel_read_safe": True}
