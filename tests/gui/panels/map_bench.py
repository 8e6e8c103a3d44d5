"""A map in a viewer, and what a user does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import samples
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_of
from tests.gui.napari_privates import canvas_of
from tests.gui.qt_helpers import click

LEFT, NO = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
ALL = slice(None)


class Bench:
    """A viewer with the slide, its map and *Tune*, and methods that use mouse and keys."""

    def __init__(self, viewer: Any, settle: Any, path: Path) -> None:
        self.viewer, self.settle, self.path = viewer, settle, path
        self.session = session_of(viewer)
        self.session.slides.open(samples.slide())
        self.tune = TuneWidget(viewer)
        viewer.window.add_dock_widget(self.tune, name="Tune")
        self.tune.open(path)
        settle(lambda: self.session.results)
        viewer.reset_view()
        self.result = self.session.results[0]
        self.counted()
        self.panel = self.tune.correct
        self.canvas = canvas_of(viewer)

    def counted(self) -> None:
        self.settle(lambda: self.result.areas.exact and not self.result.areas.counting)

    @property
    def cells(self) -> dict[str, int]:
        self.saved()
        self.settle()  # the areas are estimated, and then counted
        self.counted()
        return {row.name: row.cells for row in self.result.areas.rows}

    def correct(self) -> None:
        """Press *Correct*, and wait until there is something to paint on."""
        click(self.panel.correct_button)
        self.settle(lambda: self.session.correcting.layer is not None)

    def saved(self) -> None:
        """Wait until what was painted, undone or taken back is on disk."""
        self.settle(lambda: self.session.correcting.saved)

    @property
    def labels(self) -> np.ndarray:
        self.saved()
        return np.array(self.result.view.labels(0, ALL, ALL))

    def at(self, row: float, column: float) -> QPoint:
        """Return the place of a cell on the canvas."""
        camera, um = camera_of(self.viewer), self.result.store.cell_um
        y, x = (np.array([row, column]) + 0.5) * um - np.array(camera.center)[-2:]
        return QPoint(
            round(self.canvas.width() / 2 + x * camera.zoom), round(self.canvas.height() / 2 + y * camera.zoom)
        )

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        a, b = QPointF(self.at(*start)), QPointF(self.at(*end))
        QTest.mouseMove(self.canvas, a.toPoint())
        QTest.mousePress(self.canvas, LEFT, NO, a.toPoint())
        for step in range(1, 6):
            QTest.qWait(30)  # napari reports no two moves in quick succession
            place = a + (b - a) * step / 5
            everywhere = QPointF(self.canvas.mapToGlobal(place.toPoint()))
            move = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, Qt.MouseButton.NoButton, LEFT, NO)
            QApplication.sendEvent(self.canvas, move)
        QTest.mouseRelease(self.canvas, LEFT, NO, b.toPoint())
        self.settle()

    def choose(self, name: str) -> None:
        box = self.panel.paints
        assert box.isEnabled()
        while box.currentText() != name:
            QTest.keyClick(box, Qt.Key.Key_Down if box.findText(name) > box.currentIndex() else Qt.Key.Key_Up)
        self.settle()
