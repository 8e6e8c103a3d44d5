"""Run the tests of the window with the oldest napari that is supported, in place of the one in this environment.

The environment keeps that napari afterwards; ``tox run -r -e py`` makes it anew.
"""

from __future__ import annotations

import subprocess
import sys

OLDEST = "napari==0.6.6"


def main() -> None:
    """Install it and run the tests."""
    python = sys.executable
    subprocess.run([python, "-m", "pip", "install", "--quiet", OLDEST], check=True)
    raise SystemExit(subprocess.run([python, "-m", "pytest", "tests/gui", *sys.argv[1:]], check=False).returncode)


if __name__ == "__main__":
    main()
