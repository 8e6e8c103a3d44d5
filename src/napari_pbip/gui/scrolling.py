"""Scrolling a widget into view."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QScrollArea, QWidget

from napari_pbip.gui.timers import single_shot

_LAID_OUT_MS = 50
"""Milliseconds after which widgets that have just appeared have their places."""


def scroll_to(widget: QWidget) -> None:
    """Scroll all areas in which a widget is until it is in view."""
    above = widget.parentWidget()
    while above is not None:
        if isinstance(above, QScrollArea):
            above.ensureWidgetVisible(widget)
        above = above.parentWidget()


def scrolling_to(widget: QWidget) -> QTimer:
    """Return a timer that scrolls to a widget when what appears with it is laid out."""
    return single_shot(_LAID_OUT_MS, lambda: scroll_to(widget), widget)
