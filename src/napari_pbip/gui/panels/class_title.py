"""The dialog in which the user types the title of a class."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog, QWidget

from napari_pbip.errors import DataError
from napari_pbip.gui.state.shown_classes import ShownClasses


def ask_title(parent: QWidget, shown: ShownClasses, name: str, classes: Sequence[str], problem: str = "") -> None:
    """Ask for the title of one of these classes in a dialog that does not block the window.

    ``problem`` says what is wrong with the last answer.
    """
    dialog = QInputDialog(parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle("Title of a class")
    dialog.setLabelText(f"{problem}\n\nShow “{name}” in the window, in reports and in exports as:".lstrip())
    dialog.setTextValue(shown.title(name))

    def give(title: str) -> None:
        try:
            shown.give(name, title, classes)
        except DataError as error:
            ask_title(parent, shown, name, classes, str(error))

    dialog.textValueSelected.connect(give)
    dialog.open()
