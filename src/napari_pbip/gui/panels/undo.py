"""The buttons *Undo* and *Redo* of a dock, and their keys."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.keys import Key, bind
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
        for button, key in ((self.undo_button, Key.UNDO), (self.redo_button, Key.REDO)):
            layout.addWidget(button)
            bind(key, dock, button.click, inside=True)
        listen(self, (self._history.changed, self._show))
        self._show()

    def _show(self) -> None:
        for button, step, what, key in (
            (self.undo_button, self._history.last, "Undo the last change", Key.UNDO),
            (self.redo_button, self._history.next, "Redo the last change that was undone", Key.REDO),
        ):
            button.setEnabled(bool(step))
            button.setToolTip(f"{what}{f': {step}' if step else ''} ({key.keys})")
