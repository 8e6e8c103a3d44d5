"""The program ``napari-pbip``, also as ``python -m napari_pbip``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl+C ends it quietly also while Python is still loading it, which takes a second."""
    try:
        from napari_pbip.signals import answer_signals

        answer_signals()
        from napari_pbip.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
