"""The packages that an import loads, in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import napari_pbip

QT = ("PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy")
HEAVY = {"torch", "transformers", "timm", "sklearn", "napari", "magicgui", *QT}
PACKAGE = Path(napari_pbip.__file__).parent
MODULES = sorted(
    ".".join(("napari_pbip", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if "gui" not in path.relative_to(PACKAGE).parts
)


def brought_along(*modules: str) -> set[str]:
    """Return the top-level packages that importing these modules loads."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_package_is_light():
    assert not brought_along("napari_pbip") & {*HEAVY, "numpy", "pydantic", "rich"}


def test_slides_bank_results_replay_and_the_command_line_start_without_torch():
    modules = (f"napari_pbip.{name}" for name in ("cli", "slides", "bank", "results", "replay"))
    assert not brought_along(*modules) & {"torch", "transformers", "timm", "napari", "magicgui", *QT}


def test_jobs_with_the_default_network_start_without_transformers():
    """It takes one to two seconds to load, at every start of the command line and of a worker."""
    modules = (
        f"napari_pbip.engine.{name}" for name in ("inference.segment", "training.train", "compare", "banks.build_bank")
    )
    assert not brought_along(*modules, "napari_pbip.models.backbones.efficientnet") & {"transformers"}


def test_everything_but_the_window_works_without_napari_and_qt():
    assert "napari_pbip.engine.device" in MODULES
    assert not brought_along(*MODULES) & {"napari", "magicgui", *QT}


def test_the_state_of_the_window_has_no_widgets():
    """The state outlives every dock, and may use only those parts of Qt that a queue or timer needs."""
    modules = list((PACKAGE / "gui" / "state").glob("*.py"))
    assert modules
    named = {
        module.name: {
            node.module
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
        for module in modules
    }
    assert not [name for name, imported in named.items() if "qtpy.QtWidgets" in imported]


def test_docks_open_without_torch_and_sklearn():
    """Both take seconds to load and block the thread that imports them, so only jobs load them, in their threads."""
    docks = [path.stem for path in (PACKAGE / "gui" / "docks").glob("*.py") if path.stem != "__init__"]
    assert "train" in docks
    loaded = brought_along("napari_pbip.gui.workflow", *(f"napari_pbip.gui.docks.{name}" for name in docks))
    assert not loaded & {"torch", "transformers", "timm", "sklearn"}
