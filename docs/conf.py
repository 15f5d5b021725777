"""The site's settings: `make site` builds it into docs/_build/html, and a warning is an error."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import dynaconv

project = "dynaconv"
author = "the dynaconv authors"
copyright = "2026, the dynaconv authors"
release = version = dynaconv.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "evidence"]
nitpicky = False

# Pages are Markdown, as they are read on GitHub too; headings get anchors, so that a link may name one.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Notebooks are executed when the site is built, in a folder of their own.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "model_config"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Docstrings are read in the source, where a name stands in single backquotes.
default_role = "code"
python_maximum_signature_line_length = 100

# `make links`: what a server on the reader's own machine would show cannot be checked.
linkcheck_ignore = [r"http://127\.0\.0\.1"]
linkcheck_timeout = 30
linkcheck_retries = 2

html_theme = "furo"
html_title = "dynaconv"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def short_signature(app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returned: str) -> Any:
    """Settings are listed one by one with their types; a signature of a hundred lines of them hides the rest."""
    from pydantic import BaseModel

    if what == "class" and issubclass(thing, BaseModel):
        return "(**settings)", None
    return None


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", short_signature)
