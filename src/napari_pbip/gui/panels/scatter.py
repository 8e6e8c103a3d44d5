"""A scatter plot of the features of a bank's tiles, coloured by class, with a lasso to select tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.utils.theme import get_theme
from psygnal import Signal
from qtpy.QtCore import QPointF, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget
from skimage.measure import points_in_poly

from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.bank import BankWork
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.widgets.plot import ZOOM_TIP, DockPlot

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_SIZE, _SMALL_SIZE, _PICKED_SIZE = 8, 5, 12
_MANY = 500
"""Number of tiles from which points are small."""


class Scatter(QWidget):
    """Scatter plot in which the encoder's features of near tiles are similar; shares its selection with other views.

    Parameters
    ----------
    viewer
        The viewer, whose theme is used.
    work
        The bank.
    classes
        The titles and colours of its classes.
    """

    def __init__(self, viewer: ViewerModel, work: BankWork, classes: ShownClasses) -> None:
        super().__init__()
        self._viewer = viewer
        self._work = work
        self._classes = classes
        self._hashes: list[str] = []
        self._places: npt.NDArray[np.float64] = np.empty((0, 2))
        self._clouds: list[pg.ScatterPlotItem] = []
        self._box = _LassoBox()
        self._box.drawn.connect(self._lasso)
        self._box.clicked.connect(self._click)
        self.plot = DockPlot(viewBox=self._box)
        self.plot.setAccessibleName("Scatter of the features")
        self.plot.setToolTip(
            "Each point is a tile; near ones look alike to the encoder. Draw around points to select them (with Shift: "
            f"more of them), {ZOOM_TIP}, drag with the right button to move."
        )
        self.plot.hideAxis("bottom")
        self.plot.hideAxis("left")
        self.plot.setMinimumHeight(140)
        self._rings = _Points(brush=None, size=_PICKED_SIZE)
        self._rings.setZValue(1)
        self.plot.addItem(self._rings)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        listen(
            self,
            (work.changed, self.redraw),
            (classes.changed, self.redraw),
            (work.places_changed, self.redraw),
            (work.selection_changed, self._show_picked),
            (viewer.events.theme, self._dress),
        )
        self._dress()

    def place(self, tile_hash: str) -> QPointF:
        """Return where a tile is drawn, in pixels of the plot widget."""
        x, y = self._work.places[tile_hash]
        scene = self._box.mapViewToScene(QPointF(x, y))
        return QPointF(self.plot.mapFromScene(scene))

    def redraw(self) -> None:
        """Draw the tiles of the bank whose positions have been computed."""
        bank, places = self._work.bank, self._work.places
        for item in self._clouds:
            self.plot.removeItem(item)
        self._clouds = []
        tiles = [] if bank is None else [t for t in bank.tiles if t.hash in places]
        self._hashes = [t.hash for t in tiles]
        self._places = np.array([places[h] for h in self._hashes], float).reshape(-1, 2)
        of_class = np.array([t.class_index for t in tiles], int)
        size = _SIZE if len(tiles) < _MANY else _SMALL_SIZE
        if bank is not None and tiles:
            for n, tissue in enumerate(self._classes.coloured(bank.taxonomy)):
                item = _Points(pen=None, brush=pg.mkBrush(tissue.colour), size=size, pos=self._places[of_class == n])
                self.plot.addItem(item)
                self._clouds.append(item)
        self._show_picked()

    def _show_picked(self) -> None:
        selected = self._work.selected
        rows = [row for row, tile_hash in enumerate(self._hashes) if tile_hash in selected]
        self._rings.setData(pos=self._places[rows], pen=pg.mkPen(self._ink, width=2))

    def _lasso(self, outline: npt.NDArray[np.float64], add: bool) -> None:
        inside = points_in_poly(self._places, outline)  # type: ignore[no-untyped-call]
        chosen = {self._hashes[row] for row in np.flatnonzero(inside)}
        self._work.select(chosen | self._work.selected if add else chosen)

    def _click(self, at: QPointF, add: bool) -> None:
        """Select the tile nearest to a point if it is close enough, else none."""
        distance = np.hypot(*((self._places - (at.x(), at.y())) / self._box.viewPixelSize()).T)
        near = {self._hashes[int(distance.argmin())]} if len(distance) and distance.min() <= _PICKED_SIZE else set()
        self._work.select(self._work.selected ^ near if add else near)

    def _dress(self) -> None:
        theme = get_theme(self._viewer.theme)
        self._ink = theme.text.as_hex()
        self.plot.setBackground(theme.background.as_hex())
        self._box.ink = self._ink
        self.redraw()


class _Points(pg.ScatterPlotItem):  # type: ignore[misc]  # pyqtgraph has no types
    """Points that ignore clicks, which the view handles because it has the points of all classes."""

    def mouseClickEvent(self, event: Any) -> None:
        event.ignore()


class _LassoBox(pg.ViewBox):  # type: ignore[misc]  # pyqtgraph has no types
    """A view in which the left button draws a line around points instead of moving the view."""

    drawn = Signal(object, bool)
    """Emitted with the corners of the lasso, shape (P, 2), and whether Shift was held."""
    clicked = Signal(QPointF, bool)
    """Emitted with the position of a click, and whether Shift or Ctrl was held."""

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self.ink = "gray"
        self._line: pg.PlotCurveItem | None = None
        self._corners: list[tuple[float, float]] = []

    def mouseDragEvent(self, event: Any, axis: int | None = None) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            if event.button() == Qt.MouseButton.RightButton:
                event.accept()
                moved = self.mapToView(event.lastPos()) - self.mapToView(event.pos())
                self.translateBy(x=moved.x(), y=moved.y())
            return
        event.accept()
        if event.isStart():
            self._corners = [self._at(event.buttonDownPos())]
            self._line = pg.PlotCurveItem(pen=pg.mkPen(self.ink, width=1, style=Qt.PenStyle.DashLine))
            self.addItem(self._line, ignoreBounds=True)
        self._corners.append(self._at(event.pos()))
        outline = np.array(self._corners)
        if self._line is not None:
            self._line.setData(*np.vstack([outline, outline[:1]]).T)
        if event.isFinish():
            self.removeItem(self._line)
            self._line = None
            self.drawn.emit(outline, bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier))

    def mouseClickEvent(self, event: Any) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            event.accept()
            held = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.ControlModifier
            self.clicked.emit(self.mapToView(event.pos()), bool(event.modifiers() & held))

    def _at(self, position: QPointF) -> tuple[float, float]:
        place = self.mapToView(position)
        return place.x(), place.y()
