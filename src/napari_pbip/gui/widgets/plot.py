"""A plot for docks that scroll: the wheel scrolls the dock, and zooms the plot only with Ctrl."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QWheelEvent

ZOOM_TIP = "turn the wheel with Ctrl to zoom"


class DockPlot(pg.PlotWidget):  # type: ignore[misc]
    """A plot that the wheel zooms only with Ctrl."""

    def wheelEvent(self, event: QWheelEvent | None) -> Any:
        if event is not None and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.ignore()  # so that the dock scrolls
            return None
        return super().wheelEvent(event)
