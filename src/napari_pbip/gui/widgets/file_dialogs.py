"""File dialogs that do not block the window; the one for saving asks before it replaces a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_pbip.gui.widgets.question import ask

Mode = QFileDialog.FileMode


def ask_for(
    parent: QWidget,
    title: str,
    mode: Mode,
    then: Callable[[Sequence[Path]], object],
    *,
    start: Path | str = "",
    formats: str = "",
) -> None:
    """Ask for files or a folder that exist.

    Parameters
    ----------
    parent
        Over which the dialog opens.
    title
        Of the dialog.
    mode
        Whether a folder, a file or several files are chosen.
    then
        Called with what was chosen, and not called if the user cancels.
    start
        The folder to begin in, or the earlier choice.
    formats
        Which files are offered, in the words of Qt: ``CSV (*.csv)``. By default all are.
    """
    dialog = QFileDialog(parent, title, str(start), formats)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setFileMode(mode)
    dialog.filesSelected.connect(lambda names: then([Path(name) for name in names]))
    dialog.open()


def ask_where_to_save(
    parent: QWidget, title: str, start: Path, formats: Mapping[str, str], then: Callable[[Path], None]
) -> None:
    """Ask for the name of a new file, and before a file is replaced, also if the dialog has completed its name.

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
                question = f"{target.name} already exists. Do you want to replace it?"
                ask(parent, title, question, {"Replace": partial(then, target)})
                return
        then(target)

    dialog.filterSelected.connect(choose_format)
    choose_format(dialog.selectedNameFilter())
    dialog.fileSelected.connect(chosen)
    dialog.open()
