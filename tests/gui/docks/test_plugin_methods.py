"""A method of another package appears in the form of the window, without code for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.plugin_packages import install_page, with_site

CODE = """
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import JobSettings
from napari_pbip.gui.widgets.settings_form import SettingsForm

app = QApplication([])
form = SettingsForm(JobSettings(), only=("method",))
form.show()
box = form.editor("method.name")
QTest.keyClick(box, Qt.Key.Key_End)
print(box.currentText(), form.value().method.sharpness, form.editor("method.sharpness").isVisible())
print(form.editor("method.sharpness").toolTip())
"""


def test_a_method_of_another_package_can_be_chosen(display: None, tmp_path: Path) -> None:
    install_page("add-a-method", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=with_site(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "LSE 5.0 True",
        "<qt>Sharpness of the pooling: near 0 it is the mean, far above 1 the maximum.</qt>",
    ]
