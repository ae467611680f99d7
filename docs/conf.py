"""The site: Sphinx with Furo and MyST, built by `make docs`. Warnings are errors."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

project = "kinfolk"
author = "the kinfolk authors"
release = version_of("kinfolk")
sys.path.insert(0, str(Path(__file__).parent))

extensions = ["test_role", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kinfolk"
html_static_path: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_use_ivar = True
