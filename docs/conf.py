"""The documentation: Markdown pages, the API from the docstrings, and tutorials that are run while it is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tubelet.version import __version__

project = "Tubelet"
author = "the Tubelet authors"
copyright = "2026, the Tubelet authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5", "sg_execution_times.rst"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

html_theme = "furo"
html_title = f"Tubelet {version}"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "reset_modules": ("matplotlib",),
    "write_computation_times": False,
}
suppress_warnings = ["config.cache"]


def run_the_notebook_page(app: Any) -> None:
    """Run the code of the page "In a notebook", block after block, so that it cannot fall behind the library."""
    page = Path(__file__).with_name("python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(compile("\n".join(blocks), "docs/python.md", "exec"), {})


def setup(app: Any) -> None:
    app.connect("builder-inited", run_the_notebook_page)
