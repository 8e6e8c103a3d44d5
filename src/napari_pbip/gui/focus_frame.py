"""The frame around the control that has the focus, which napari's themes do not show."""

from __future__ import annotations

from qtpy.compat import isalive
from qtpy.QtCore import QObject
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QApplication, QFocusFrame, QWidget

COLOUR = "#1F7AE0"
"""Colour of the frame, with a contrast of more than 3:1 to the background of the dark and of the light theme."""
_WIDTH = 2


class FocusFrames(QObject):
    """Frames the control that has the focus, if it belongs to a widget of this package.

    Parameters
    ----------
    window
        Main window, which owns this object.
    """

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._window = window
        self._frame: _Frame | None = None
        if isinstance(application := QApplication.instance(), QApplication):
            application.focusChanged.connect(self._follow)

    def _follow(self, _: QWidget | None, now: QWidget | None) -> None:
        if self._frame is None or not isalive(self._frame):  # type: ignore[no-untyped-call]  # it dies with a dock
            self._frame = _Frame(self._window)
        self._frame.setWidget(now if self._is_ours(now) else None)

    def _is_ours(self, widget: QWidget | None) -> bool:
        """Return whether a widget is in a dock of this package, docked in the window or floating beside it."""
        ours = False
        while widget is not None and widget is not self._window:
            ours = ours or type(widget).__module__.startswith("napari_pbip.")
            widget = widget.parentWidget()
        return ours and widget is self._window


class _Frame(QFocusFrame):
    """A frame of one colour; those of most styles are invisible."""

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setPen(QPen(QColor(COLOUR), _WIDTH))
        painter.drawRect(self.rect().adjusted(1, 1, -1, -1))
