"""What a training says of itself, as curves: a line per loss term, and below it the validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_pbip.gui.curves import Curves, Line, thinned
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.plot import ZOOM_TIP, DockPlot
from napari_pbip.gui.widgets.words import rich

# Mid-luminance (0.19 to 0.22): at least 3:1 on the light and on the dark theme; told apart by the colour-blind, and
# the second round of them by its dashes.
COLOURS = ("#D55E00", "#3B82C4", "#008A63", "#B3659F", "#8F8000", "#808080")
_REDRAW_MS = 300


class CurvesPlot(QWidget):
    """Draws :class:`Curves`, at most a few times a second however often it is told that they grew."""

    def __init__(self) -> None:
        super().__init__()
        self._curves = Curves()
        self.loss, self.score = _Panel("loss"), _Panel("mIoU %", dots=True)
        self.score.plot.setXLink(self.loss.plot)
        self.score.hide()
        self.setMinimumHeight(320)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.loss, 3)
        layout.addWidget(self.score, 2)
        self._timer = single_shot(_REDRAW_MS, self.redraw, self)

    def show_curves(self, curves: Curves) -> None:
        """Draw these: others at once, the same again, since they grew, a moment later."""
        if curves is not self._curves:
            self._curves = curves
            self.loss.see_all()
            self.score.see_all()
            self.redraw()
        elif not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw now."""
        self._timer.stop()
        self.loss.draw(dict(self._curves.terms))
        scores = dict(self._curves.scores)
        self.score.draw(scores)
        self.score.setVisible(bool(scores))


class _Panel(QWidget):
    """A plot over the steps, and below it a legend that never covers a line."""

    def __init__(self, name: str, *, dots: bool = False) -> None:
        super().__init__()
        self._dots = dots
        self.lines: dict[str, pg.PlotDataItem] = {}
        self.plot = DockPlot()
        self.plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.plot.setToolTip(f"Drag to move, {ZOOM_TIP}, double-click to see all")
        self.plot.setLabel("left", name)
        self.plot.getAxis("left").setWidth(50)
        self.plot.showGrid(y=True, alpha=0.2)
        self.plot.hideButtons()
        self.plot.setMenuEnabled(False)
        self.plot.scene().sigMouseClicked.connect(self._on_click)
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.plot, 1)
        layout.addWidget(self.legend)
        self._take_colours()

    def see_all(self) -> None:
        """Show the lines from end to end, and follow them."""
        self.plot.enableAutoRange()

    def draw(self, lines: Mapping[str, Line]) -> None:
        """Draw these lines and no others."""
        if list(lines) != list(self.lines):
            self._make(list(lines))
        for name, line in lines.items():
            self.lines[name].setData(*thinned(line), connect="finite")

    def _make(self, names: Sequence[str]) -> None:
        self.plot.clear()
        self.lines, entries = {}, []
        for number, name in enumerate(names):
            colour = COLOURS[number % len(COLOURS)]
            dashed = number >= len(COLOURS)
            style = Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine
            pen = pg.mkPen(colour, width=2 if number == 0 or self._dots else 1, style=style)
            dots: dict[str, Any] = {"symbol": "o", "symbolSize": 6, "symbolBrush": colour, "symbolPen": None}
            self.lines[name] = self.plot.plot(pen=pen, **(dots if self._dots else {}))
            mark = "- -" if dashed else "&mdash;"
            entries.append(f"<b style='color:{colour}'>{mark}</b>&nbsp;{rich(_words(name)).replace(' ', '&nbsp;')}")
        self.legend.setText(" &nbsp; ".join(entries))

    def _on_click(self, event: Any) -> None:
        if event.double():
            self.see_all()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            self._take_colours()

    def _take_colours(self) -> None:
        self.plot.setBackground(self.palette().color(QPalette.ColorRole.Window))
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).setPen(ink)
            self.plot.getAxis(side).setTextPen(ink)


def _words(name: str) -> str:
    """A figure's name as the legend says it."""
    known = {"oracle": "with the true classes", "predicted": "with the predicted classes"}
    return known.get(name, name.replace("_", " "))
