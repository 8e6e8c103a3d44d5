"""A file dialog for saving, which asks before it replaces a file, also if it has completed the name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget


def ask_where_to_save(
    parent: QWidget, title: str, start: Path, formats: Mapping[str, str], then: Callable[[Path], None]
) -> None:
    """Ask for the name of a new file without blocking the window.

    Parameters
    ----------
    parent
        Over which the dialog opens.
    title
        Of the dialog.
    start
        A name to begin with, without ending.
    formats
        What can be written: from the ending of a name, such as ``.ome.zarr``, to the words of the dialog.
    then
        Called with the file, whose name has one of the endings; what it replaces was asked about.
    """
    dialog = QFileDialog(parent, title, str(start))
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setFileMode(QFileDialog.FileMode.AnyFile)
    dialog.setNameFilters(list(formats.values()))
    endings = {words: ending for ending, words in formats.items()}

    def choose_format(words: str) -> None:
        dialog.setDefaultSuffix(endings[words].removeprefix("."))  # then Qt's own question is about the whole name

    def chosen(name: str) -> None:
        target = Path(name)
        if not name.lower().endswith(tuple(formats)):  # Qt leaves "slide.2" as it is
            target = target.with_name(target.name + endings[dialog.selectedNameFilter()])
            if target.exists():
                _ask_to_replace(parent, target, partial(then, target))
                return
        then(target)

    dialog.filterSelected.connect(choose_format)
    choose_format(dialog.selectedNameFilter())
    dialog.fileSelected.connect(chosen)
    dialog.open()


def _ask_to_replace(parent: QWidget, target: Path, then: Callable[[], None]) -> None:
    box = QMessageBox(parent)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(f"{target.name} already exists. Do you want to replace it?")
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    yes = box.button(QMessageBox.StandardButton.Yes)
    if yes is not None:
        yes.clicked.connect(lambda: then())
    box.open()
