"""The settings of the documentation site, which Sphinx builds from this folder: ``tox run -e docs``.

Two pages are made while it is built: the command line describes itself, and the settings are those of their models.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent

project = "napari-pbip"
author = "The napari-pbip developers"
version = release = installed("napari-pbip")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.autodoc_pydantic",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]  # what an earlier build has left
suppress_warnings = ["config.cache"]

# Markdown
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4  # pages link to each other's headings
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True  # notebooks write beside themselves

os.environ["JUPYTER_COLUMNS"] = "72"  # progress bars, as wide as a page

# docstrings
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
autodoc_pydantic_model_show_json = False
autodoc_pydantic_model_show_config_summary = False
autodoc_pydantic_model_show_validator_summary = False
autodoc_pydantic_model_show_validator_members = False
autodoc_pydantic_model_show_field_summary = False
autodoc_pydantic_field_list_validators = False
autodoc_pydantic_field_doc_policy = "description"

html_theme = "furo"
html_title = "napari-pbip"
html_favicon = "../src/napari_pbip/gui/icon.svg"
html_show_copyright = False
copybutton_prompt_text = "$ "


def _command_line(_: object) -> None:
    """Write the page of the command line, as it describes itself."""
    page = HERE / "reference" / "command-line.md"
    arguments = ["napari_pbip.cli", "utils", "docs", "--name", "napari-pbip", "--title", "Command line"]
    subprocess.run(
        [sys.executable, "-m", "typer", *arguments, "--output", str(page)], check=True, stdout=subprocess.DEVNULL
    )


def setup(app: object) -> None:
    """Make the page of the command line before the pages are read."""
    app.connect("builder-inited", _command_line)  # type: ignore[attr-defined]
