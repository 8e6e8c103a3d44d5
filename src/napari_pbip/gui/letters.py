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
        # an entry without text, such as a picture, is not found by letters
        found = isinstance(watched, QComboBox) or (
            isinstance(watched, QAbstractItemView) and isinstance(watched.currentIndex().data(), str)
        )
        if letter and found:
            event.accept()
        return letter and found
