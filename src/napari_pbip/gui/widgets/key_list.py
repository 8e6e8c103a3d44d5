"""The dialog that lists the keys of the window."""

from __future__ import annotations

from itertools import groupby

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.keys import Key

_MAC = "On macOS, Ctrl is the Command key."


def show_keys(parent: QWidget) -> QDialog:
    """Open the list of the keys over a widget; the window stays alive."""
    dialog = QDialog(parent)
    dialog.setWindowTitle("Keyboard shortcuts")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    layout, grid = QVBoxLayout(dialog), QGridLayout()
    grid.setColumnStretch(1, 1)
    for place, keys in groupby(Key, lambda key: key.place):
        grid.addWidget(QLabel(f"<b>{place}</b>"), grid.rowCount(), 0, 1, 2)
        for key in keys:
            line = grid.rowCount()
            grid.addWidget(QLabel(key.keys), line, 0)
            grid.addWidget(QLabel(key.does), line, 1)
    layout.addLayout(grid)
    layout.addWidget(QLabel(_MAC))
    dialog.show()
    return dialog
