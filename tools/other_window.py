"""Run tests of the window with another napari, or another Qt, than that of this environment.

``oldest`` is the oldest supported napari, which replaces the present one; ``tox run -r -e py`` creates the environment
again. ``pyside6`` is Qt by PySide6 instead of PyQt6, which stays beside it. The tests are those that depend on either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Window:
    """What the window is made of, and its tests."""

    package: str
    """What is installed."""
    tests: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of the tests."""


WINDOWS = {
    # layers, canvas, docks, readers and writers; forms and number boxes depend only on Qt
    "oldest": Window(
        "napari==0.6.6",
        (
            "tests/gui/layers/test_slides.py",
            "tests/gui/panels/test_regions.py",
            "tests/gui/test_workflow.py",
            "tests/gui/test_saved_labels.py",
        ),
    ),
    # widgets, and every page of the panel
    "pyside6": Window(
        "pyside6-essentials",
        (
            "tests/gui/widgets",
            "tests/gui/test_workflow_panel.py",
            "tests/gui/docks/test_tune.py::test_without_a_result_it_says_what_to_do",
        ),
        {"QT_API": "pyside6"},
    ),
}


def main() -> None:
    """Install it and run the tests."""
    name, *arguments = sys.argv[1:]
    window, python = WINDOWS[name], sys.executable
    subprocess.run([python, "-m", "pip", "install", "--quiet", window.package], check=True)
    command = [python, "-m", "pytest", *window.tests, *arguments]
    raise SystemExit(subprocess.run(command, env={**os.environ, **window.environment}, check=False).returncode)


if __name__ == "__main__":
    main()
