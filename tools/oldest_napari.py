"""Run tests of the window with the oldest napari that is supported, in place of the one in this environment.

Those of what another napari can change: layers, canvas, docks, readers and writers. Forms and number boxes are Qt's.
The environment keeps that napari afterwards; ``tox run -r -e py`` makes it anew.
"""

from __future__ import annotations

import subprocess
import sys

OLDEST = "napari==0.6.6"
TESTS = ["tests/gui/layers/test_slides.py", "tests/gui/test_workflow.py", "tests/gui/test_saved_labels.py"]


def main() -> None:
    """Install it and run the tests."""
    python = sys.executable
    subprocess.run([python, "-m", "pip", "install", "--quiet", OLDEST], check=True)
    raise SystemExit(subprocess.run([python, "-m", "pytest", *TESTS, *sys.argv[1:]], check=False).returncode)


if __name__ == "__main__":
    main()
