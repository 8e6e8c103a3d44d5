"""Run ``napari-pbip demo`` and show what it made, on the desktop if there is one."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from pathlib import Path


def main(out: Path) -> None:
    """Run the demo into ``out``, in place of an earlier one."""
    command = ["napari-pbip", "demo", "--out", str(out), "--overwrite"]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)
    overlay = (out / "overlay.png").resolve(strict=True)
    print(f"Report: {(out / 'report.json').resolve(strict=True)}\nSegmented slide: {overlay}", flush=True)
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(overlay.as_uri())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
