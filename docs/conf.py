"""Sphinx configuration of the manual (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from patchattn import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "patchattn"
author = "patchattn contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "commands", "docstrings", "mathml"]
exclude_patterns = ["_extensions"]
nitpicky = True
suppress_warnings = ["toc.empty_glob"]  # a page that a pattern is for may not be there
smartquotes = False  # "--option" keeps its two hyphens

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Signatures with names and defaults; types and shapes are described in the text.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"patchattn {__version__}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

# GitHub makes the headings' anchors of its pages by program.
linkcheck_anchors_ignore_for_url = ["https://github.com/.*"]
linkcheck_timeout = 20
