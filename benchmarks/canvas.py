"""Code that the benchmarks of the window share."""

from __future__ import annotations

from napari.qt import get_qapp
from qtpy.QtOpenGLWidgets import QOpenGLWidget


def canvas_of_window() -> QOpenGLWidget:
    """Return the widget on which napari draws in the only window; it emits a signal when a frame is swapped."""
    (canvas,) = [found for one in get_qapp().topLevelWidgets() for found in one.findChildren(QOpenGLWidget)]
    return canvas
