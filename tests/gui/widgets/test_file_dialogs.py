"""Files and folders are chosen in dialogs that do not stop the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QLineEdit, QWidget

from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from tests.gui.qt_helpers import Settle, click


@pytest.fixture
def parent(application: Any, settle: Settle) -> Any:
    widget = QWidget()
    widget.show()
    settle()
    yield widget
    widget.close()
    widget.deleteLater()


@pytest.mark.parametrize(
    ("mode", "typed", "chosen"),
    [
        (Mode.Directory, "{0}", [""]),
        (Mode.ExistingFile, "{0}/a.csv", ["a.csv"]),
        (Mode.ExistingFiles, '"a.csv" "b.csv"', ["a.csv", "b.csv"]),
    ],
)
def test_what_is_chosen_is_told_when_the_dialog_closes(
    parent: Any, settle: Settle, tmp_path: Path, mode: Mode, typed: str, chosen: list[str]
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    told: list[Any] = []
    ask_for(parent, "Choose", mode, told.append, start=tmp_path)
    assert told == []
    dialog = parent.findChild(QFileDialog)
    settle(dialog.isVisible)
    dialog.findChild(QLineEdit).setText(typed.format(tmp_path))
    button = dialog.findChild(QDialogButtonBox).buttons()[0]
    settle(button.isEnabled)
    click(button)
    settle(lambda: told)
    assert told == [[tmp_path / name for name in chosen]]
    settle(lambda: parent.findChild(QFileDialog) is None)


def test_nothing_is_told_if_the_user_cancels(parent: Any, settle: Settle, tmp_path: Path) -> None:
    told: list[Any] = []
    ask_for(parent, "Choose", Mode.Directory, told.append, start=tmp_path)
    dialog = parent.findChild(QFileDialog)
    settle(dialog.isVisible)
    click(dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Cancel))
    settle(lambda: parent.findChild(QFileDialog) is None)
    assert told == []
