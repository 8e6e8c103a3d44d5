"""Leaving napari in its first seconds, while modules are still imported in a thread."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import PATIENCE

LEAVE = """
import sys, threading, napari
from napari.qt import get_qapp
from qtpy.QtCore import QTimer
viewer = napari.Viewer()
viewer.window.add_plugin_dock_widget("napari-pbip", "Workflow")
[thread] = [one for one in threading.enumerate() if one.name == "imports of napari-pbip"]

def leave():
    if "torch" in sys.modules:
        get_qapp().quit()
    else:
        QTimer.singleShot(1, leave)

leave()
napari.run()
thread.join()
print("complete" if "napari_pbip.engine.inference.segment" in sys.modules else "left out")
"""


def test_leaving_does_not_wait_for_all_modules(display: None) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "left out\n"), done.stderr
    assert "Traceback" not in done.stderr
