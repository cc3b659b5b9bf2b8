"""How Sphinx builds the documentation: `make docs`, then open docs/_build/html/index.html."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from sglc import __version__  # noqa: E402

project = "sglc"
copyright = "the sglc authors"
version = release = __version__
html_title = f"sglc {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "diagnostic_pages"]
myst_heading_anchors = 2
exclude_patterns = ["_build"]
html_theme = "furo"
html_copy_source = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
