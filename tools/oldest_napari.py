"""Run tests of the window with the oldest supported napari, which replaces the one in this environment.

These are the tests that depend on napari: of layers, canvas, docks, readers and writers. Forms and number boxes depend
only on Qt. The environment keeps that napari afterwards; ``tox run -r -e py`` creates it again.
"""

from __future__ import annotations

import subprocess
import sys

OLDEST = "napari==0.6.6"
TESTS = [
    "tests/gui/layers/test_slides.py",
    "tests/gui/panels/test_regions.py",
    "tests/gui/test_workflow.py",
    "tests/gui/test_saved_labels.py",
]


def main() -> None:
    """Install it and run the tests."""
    python = sys.executable
    subprocess.run([python, "-m", "pip", "install", "--quiet", OLDEST], check=True)
    raise SystemExit(subprocess.run([python, "-m", "pytest", *TESTS, *sys.argv[1:]], check=False).returncode)


if __name__ == "__main__":
    main()
