"""Run ``napari-pbip demo`` and open its pictures, if there is a desktop."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import webbrowser
from pathlib import Path


def main() -> None:
    """Run the demo into a folder, replacing an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("demo-result"), help="folder of the results")
    parser.add_argument("--full", action="store_true", help="train for longer: some five times the time")
    arguments = parser.parse_args()
    out: Path = arguments.out
    command = ["napari-pbip", "demo", "--out", str(out), "--overwrite", *(["--full"] if arguments.full else [])]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)
    overlay = (out / "overlay.png").resolve(strict=True)
    print(f"Report: {(out / 'report.json').resolve(strict=True)}\nSegmented slide: {overlay}", flush=True)
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(overlay.as_uri())


if __name__ == "__main__":
    main()
