"""Letters find entries in the list or combo box that has the focus; elsewhere they are keys of the window."""

from __future__ import annotations

from napari._qt.containers import QtLayerList
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QApplication, QComboBox, QWidget


class LettersFindEntries(QObject):
    """Gives letters to the list or combo box that has the focus before keys of the window are looked for.

    napari's list of layers keeps none: it passes keys on.

    Parameters
    ----------
    window
        Main window, which owns this object.
    """

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        if isinstance(application := QApplication.instance(), QApplication):
            application.focusChanged.connect(self._follow)

    def _follow(self, before: QWidget | None, now: QWidget | None) -> None:
        if before is not None and isalive(before):  # type: ignore[no-untyped-call]
            before.removeEventFilter(self)
        if isinstance(now, QComboBox | QAbstractItemView) and not isinstance(now, QtLayerList):
            now.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Accept a letter, so that Qt sends it to the widget instead of looking for a key of the window."""
        if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.ShortcutOverride:
            return False
        letter = event.text().isalpha() and not event.modifiers() & ~Qt.KeyboardModifier.ShiftModifier
        found = letter and (isinstance(watched, QComboBox) or _has_text(watched))
        if found:
            event.accept()
        return found


def _has_text(view: QObject | None) -> bool:
    """Return whether letters can find something in a view, whose entries may be pictures.

    Qt begins at the current entry, or at the first one if none is current, as after a change of the whole list.
    """
    if not isinstance(view, QAbstractItemView) or (model := view.model()) is None:
        return False
    current = view.currentIndex()
    return isinstance((current if current.isValid() else model.index(0, 0)).data(), str)
