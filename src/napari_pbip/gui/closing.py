"""The question before a window is closed in which jobs are running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QMessageBox


class AskBeforeClosing(QObject):
    """Asks once for all running jobs whether a window of napari is to be closed; without jobs it does nothing.

    Parameters
    ----------
    window
        Main window of napari, which owns this object.
    running
        Returns what the running jobs do, each as a phrase.
    """

    def __init__(self, window: Any, running: Callable[[], Sequence[str]]) -> None:
        super().__init__(window)
        self._window, self._running = window, running
        self._question: QMessageBox | None = None
        self._agreed = False
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Refuse to close the window until the user has agreed."""
        if event is None or event.type() != QEvent.Type.Close or self._agreed:
            return False
        if self._window._qt_viewer.isHidden():  # a script closes the viewer, and napari has closed the canvas first
            return False
        running = self._running()
        if not running:
            return False
        event.ignore()
        if self._question is None:
            self._ask(running)
        return True

    def _ask(self, running: Sequence[str]) -> None:
        """Ask without blocking: Qt runs no event loop inside the event of closing."""
        quits = bool(self._window._quit_app)  # napari's mark of Quit, as opposed to Close Window
        if quits:
            self._window._quit_app = False  # napari would quit at the next Close Window after a Cancel
        box = self._question = QMessageBox(
            QMessageBox.Icon.Question,
            "Close napari?",
            f"Still running: {'; '.join(running)}.",
            parent=self._window,
        )
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setInformativeText("Closing stops it. What is finished is saved, and can be resumed. Close anyway?")
        close = box.addButton("Close anyway", QMessageBox.ButtonRole.DestructiveRole)
        box.setDefaultButton(box.addButton("Keep running", QMessageBox.ButtonRole.RejectRole))
        box.setEscapeButton(box.defaultButton())
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)

        def answered() -> None:
            self._question = None
            if box.clickedButton() is close:
                self._agreed = True
                self._window.close(quits) if quits else self._window.close()

        box.finished.connect(answered)
        box.open()
