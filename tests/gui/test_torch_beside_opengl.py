"""Networks are loaded after the window, whose graphics driver may have loaded other libraries."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import PATIENCE

CODE = """
import napari
from napari.qt import get_qapp
viewer = napari.Viewer()
for _ in range(20):
    get_qapp().processEvents()
import sys
assert "torch" not in sys.modules
import napari_pbip.engine.training.train
viewer.close()
"""


def test_networks_can_be_loaded_after_the_window_was_drawn(display: None) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
