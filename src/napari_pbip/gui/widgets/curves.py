"""Plots of a training: the loss, with its terms on request, and below it the validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_pbip.gui.curves import Curves, Line, thinned
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.plot import ZOOM_TIP, DockPlot
from napari_pbip.gui.widgets.words import rich

# Colours of medium luminance (0.19 to 0.22), with a contrast of at least 3:1 on the light and the dark theme, which the
# colour-blind can distinguish. Further lines use the same colours with dashes.
COLOURS = ("#D55E00", "#3B82C4", "#008A63", "#B3659F", "#8F8000", "#808080")
_REDRAW_MS = 300
_HEIGHT = 180
"""Least height in pixels of a plot with its legend."""


class CurvesPlot(QWidget):
    """Widget that draws :class:`Curves`, at most a few times per second."""

    def __init__(self) -> None:
        super().__init__()
        self._curves = Curves()
        self.loss, self.score = _Panel("loss"), _Panel("mIoU %", dots=True)
        self.score.plot.setXLink(self.loss.plot)
        self.score.hide()
        self.terms = QCheckBox("Terms of the loss")
        self.terms.setToolTip("Also draw what the loss is the weighted sum of")
        self.terms.hide()
        self.terms.toggled.connect(self._on_terms)
        self.setMinimumHeight(_HEIGHT)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.loss, 3)
        layout.addWidget(self.terms, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.score, 2)
        self._timer = single_shot(_REDRAW_MS, self.redraw, self)

    def show_curves(self, curves: Curves) -> None:
        """Draw these curves: at once if they are new, and a moment later if they have grown."""
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
        lines = dict(self._curves.terms)
        self.terms.setVisible(len(lines) > 1)
        self.loss.draw(lines if self.terms.isChecked() else {name: lines[name] for name in lines if name == "loss"})
        scores = dict(self._curves.scores)
        self.score.draw(scores)
        self.score.setVisible(bool(scores))
        self.setMinimumHeight(_HEIGHT if not scores else 2 * _HEIGHT)

    def _on_terms(self) -> None:
        self.loss.see_all()
        self.redraw()


class _Panel(QWidget):
    """A plot over the steps with a legend below it."""

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
        """Show the lines from end to end, also when they grow."""
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
    """Return the name of a loss or score for the legend."""
    known = {"oracle": "with the true classes", "predicted": "with the predicted classes"}
    return known.get(name, name.replace("_", " "))
