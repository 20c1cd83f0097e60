"""Sphinx settings. `sphinx-build -W -b html docs build/docs` builds the documentation and needs no network."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # importing the package must not initialize a GPU

import genbench  # noqa: E402

project = "genbench"
author = "the genbench authors"
copyright = "the genbench authors, Apache-2.0"
version = release = genbench.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
exclude_patterns = ["_ext"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
language = "en"

# Markdown
myst_enable_extensions = ["html_image"]  # <img width="...">, which also works on GitHub
myst_heading_anchors = 3  # Sphinx then checks links to headings
nb_execution_mode = "off"  # notebooks are shown with their stored outputs; tests/test_notebooks.py executes them

# API reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# HTML
html_theme = "furo"
html_title = "genbench"
html_static_path = ["_static"]
html_css_files = ["genbench.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": False}
