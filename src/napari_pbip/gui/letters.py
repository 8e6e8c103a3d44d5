"""Letters find entries in the list or combo box that has the focus; elsewhere they are keys of the window."""

from __future__ import annotations

from napari._qt.containers import QtLayerList
from qtpy.QtWidgets import QAbstractItemView, QApplication, QComboBox


def find_entry(letter: str) -> bool:
    """Find an entry by a letter in the list or combo box that has the focus; return False if neither has it.

    Qt looks for keys of the window first, which call this. To take the letter from Qt before, in an event filter, is
    not reliable, because PyQt sometimes passes the event as one of another class, without its letter. napari's list of
    layers is not searched.
    """
    widget = QApplication.focusWidget()
    if isinstance(widget, QComboBox):
        _find_in(widget, letter)
        return True
    if isinstance(widget, QAbstractItemView) and _has_text(widget):
        widget.keyboardSearch(letter)
        return True
    return False


def _find_in(box: QComboBox, letter: str) -> None:
    """Choose the next entry that begins with a letter, as a combo box itself does for letters that are no keys."""
    view, model = box.view(), box.model()
    if view is None or model is None:
        return
    view.setCurrentIndex(model.index(box.currentIndex(), box.modelColumn()))
    view.keyboardSearch(letter)
    found = view.currentIndex().row()
    if found != box.currentIndex():
        box.setCurrentIndex(found)
        box.activated.emit(found)


def _has_text(view: QAbstractItemView) -> bool:
    """Return whether letters can find something in a view, whose entries may be pictures.

    Qt begins at the current entry, or at the first one if none is current, as after a change of the whole list.
    """
    if isinstance(view, QtLayerList) or (model := view.model()) is None:
        return False
    current = view.currentIndex()
    return isinstance((current if current.isValid() else model.index(0, 0)).data(), str)
