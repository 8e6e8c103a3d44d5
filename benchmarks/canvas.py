"""What the benchmarks of the window share."""

from __future__ import annotations

from napari.qt import get_qapp
from qtpy.QtOpenGLWidgets import QOpenGLWidget


def canvas_of_window() -> QOpenGLWidget:
    """The widget that napari draws on, of the one window there is; it says when a frame is swapped."""
    (canvas,) = [found for one in get_qapp().topLevelWidgets() for found in one.findChildren(QOpenGLWidget)]
    return canvas
