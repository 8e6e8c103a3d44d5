"""Scrolling a widget into view."""

from __future__ import annotations

from qtpy.QtWidgets import QScrollArea, QWidget


def scroll_to(widget: QWidget) -> None:
    """Scroll all areas in which a widget is until it is in view."""
    above = widget.parentWidget()
    while above is not None:
        if isinstance(above, QScrollArea):
            above.ensureWidgetVisible(widget)
        above = above.parentWidget()
