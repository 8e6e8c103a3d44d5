"""The buttons *Undo* and *Redo* of a dock, and their keys."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button


class UndoButtons(QWidget):
    """Buttons that take the last change back, whichever dock it was made in, or make it again.

    Parameters
    ----------
    session
        The session.
    dock
        Widget in which Ctrl+Z and Ctrl+Shift+Z do the same.
    """

    def __init__(self, session: Session, dock: QWidget) -> None:
        super().__init__()
        self._history = session.history
        self.undo_button = push_button("Undo", clicked=self._history.undo)
        self.redo_button = push_button("Redo", clicked=self._history.redo)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for button, keys in ((self.undo_button, "Ctrl+Z"), (self.redo_button, "Ctrl+Shift+Z")):
            layout.addWidget(button)
            shortcut = QShortcut(QKeySequence(keys), dock)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(button.click)
        listen(self, (self._history.changed, self._show))
        self._show()

    def _show(self) -> None:
        for button, step, what, keys in (
            (self.undo_button, self._history.last, "Undo the last change", "Ctrl+Z"),
            (self.redo_button, self._history.next, "Redo the last change that was undone", "Ctrl+Shift+Z"),
        ):
            button.setEnabled(bool(step))
            button.setToolTip(f"{what}{f': {step}' if step else ''} ({keys})")
