"""The dock *Evaluate and export*: compares a result with a mask, and exports results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import napari.viewer
import numpy as np
import pyqtgraph as pg
from napari.layers import Labels
from napari.utils.theme import get_theme
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.engine.outputs.score_result import RESULT_PROTOCOLS, Truth, annotated_truth, read_mask, score_result
from napari_pbip.events import Job
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import State
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.panels.export import ExportPanel
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.results import ScoreStore
from napari_pbip.results.figures import about_intervals, figure_rows
from napari_pbip.results.resampling import LEVEL
from napari_pbip.slides.geojson import SUFFIXES as ANNOTATIONS

_FILE = "A file…"
_PICTURES = {
    "confusion": "Confusion",
    "presence": "Calibration: presence",
    "scores": "Calibration: scores",
}


class EvaluateWidget(QWidget):
    """Widget with the metrics of the current result against a mask under each protocol, and its exports."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session = session_of(viewer)
        self._file: Path | None = None
        self._summary: Mapping[str, Any] = {}
        self.result_name = PlainLabel()
        self.mask_box = QComboBox()
        self.mask_box.setToolTip(
            "What is true on the whole slide: a labels layer, a PNG or TIFF, or a GeoJSON of QuPath"
        )
        self.mask_box.activated.connect(self._mask_chosen)
        self.numbering = QComboBox()
        self.numbering.addItem("1 is the first class, 0 is left out", 1)
        self.numbering.addItem("0 is the first class", 0)
        self.numbering.setToolTip("Which number is which class; numbers above that of the last class are left out")
        self.compare_button = push_button("Compare", clicked=self._compare)
        self.job_bar = JobBar()
        self.notice = Notice()
        self.protocol = QComboBox()
        self.protocol.setAccessibleName("Protocol")
        self.protocol.currentIndexChanged.connect(self._show_figures)
        self.table = QTableWidget(0, 2)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setHorizontalHeaderLabels(["per cent", f"{LEVEL} % interval"])
        header = self.table.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.picture = QComboBox()
        self.picture.setAccessibleName("Picture")
        self.picture.currentIndexChanged.connect(self._draw)
        self.confusion = ConfusionPicture(viewer)
        self.calibration = CalibrationPicture(viewer)
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Result", self.result_name)
        form.addRow("Mask", self.mask_box)
        form.addRow("Class numbers in the mask", self.numbering)
        form.addRow("", self.compare_button)
        self._scores = QWidget()
        scores = QVBoxLayout(self._scores)
        scores.setContentsMargins(0, 0, 0, 0)
        choice = QHBoxLayout()
        choice.addWidget(self.protocol, 1)
        choice.addWidget(self.picture, 1)
        scores.addLayout(choice)
        scores.addWidget(self.table)
        scores.addWidget(self.confusion)
        scores.addWidget(self.calibration)
        self._scores.hide()
        self.exports = ExportPanel(self._session)
        layout = scrolling_layout(self)
        layout.addLayout(form)
        layout.addWidget(self.notice)
        layout.addWidget(self.job_bar)
        layout.addWidget(self._scores)
        layout.addWidget(self.exports)
        layout.addStretch()
        session = self._session
        layers = session.viewer.layers.events
        for signal in (session.results.changed, session.results.selected, layers.inserted, layers.removed):
            listen(self, (signal, self._fill))
        self._fill()

    @property
    def result(self) -> ResultLayer | None:
        """The result that is compared."""
        return self._session.results.current

    def choose_file(self, path: Path) -> None:
        """Compare with this mask file."""
        self._file = path
        self._fill()
        self.mask_box.setCurrentIndex(self.mask_box.findData(path))

    # what there is -------------------------------------------------------------------------------------------

    def _fill(self, *_: object) -> None:
        result = self.result
        self.result_name.setText("none: segment a slide first" if result is None else result.layer.name)
        chosen = self.mask_box.currentData()
        with QSignalBlocker(self.mask_box):
            self.mask_box.clear()
            for layer in self._session.viewer.layers:
                if isinstance(layer, Labels) and SLIDE not in layer.metadata:  # layers of this plugin belong to a slide
                    self.mask_box.addItem(layer.name, layer)
            if self._file is not None:
                self.mask_box.addItem(self._file.name, self._file)
            self.mask_box.addItem(_FILE, None)
            self.mask_box.setCurrentIndex(max(0, self.mask_box.findData(chosen)) if chosen is not None else 0)
        self.compare_button.setEnabled(result is not None)

    def _mask_chosen(self, index: int) -> None:
        if self.mask_box.itemText(index) == _FILE and self.mask_box.itemData(index) is None:
            formats = f"Masks (*.png *.tif *.tiff{''.join(f' *{one}' for one in ANNOTATIONS)})"
            ask_for(self, "Mask", Mode.ExistingFile, lambda files: self.choose_file(files[0]), formats=formats)

    # comparing -----------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        result, chosen = self.result, self.mask_box.currentData()
        self.notice.clear()
        if result is None:
            return
        if chosen is None:
            self.notice.error("There is no mask to compare with; choose a labels layer or a file.")
            return
        path, thresholds, first = result.store.path, result.thresholds, int(self.numbering.currentData())
        refine, shown = self._session.settings.refine, self._session.classes.display
        drawn = None if isinstance(chosen, Path) else chosen.data[0] if chosen.multiscale else chosen.data

        def make() -> Job:  # called in the thread, because the layer may be read from a file only now
            if drawn is not None:
                truth = Truth(np.asarray(drawn), first)
            elif chosen.suffix.lower() in ANNOTATIONS:
                truth = annotated_truth(chosen, ScoreStore.open(path), shown)
            else:
                truth = Truth(read_mask(chosen), first)
            return score_result(path, truth, thresholds, refine)

        job = self._session.start(make, reads_maps=True)
        self.job_bar.follow(job)
        self.compare_button.setEnabled(False)

        def ended(state: State) -> None:
            self.compare_button.setEnabled(self.result is not None)
            if job.result is not None:
                self._show(job.result.summary)

        job.ended.connect(ended)

    def _show(self, summary: Mapping[str, Any]) -> None:
        self._summary = summary
        # what is true of a new slide comes first
        there = reversed([name for name in RESULT_PROTOCOLS if name in summary["protocols"]])
        _fill(self.protocol, {name: RESULT_PROTOCOLS[name].title for name in there})
        _fill(self.picture, {name: _PICTURES[name] for name in ("confusion", *summary["calibration"])})
        self._show_figures()
        self._scores.show()

    def _show_figures(self) -> None:
        if not self._summary:
            return
        name = self.protocol.currentData()
        self.protocol.setToolTip(RESULT_PROTOCOLS[name].about)
        report = self._summary["protocols"][name]
        rows = figure_rows(report, digits=1, title=self._session.classes.title)
        self.table.setRowCount(len(rows))
        self.table.setVerticalHeaderLabels([heading for heading, *_ in rows])
        for row, (_, *texts) in enumerate(rows):
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, column, item)
        self.table.setToolTip(about_intervals(report))
        self.table.resizeRowsToContents()
        header = self.table.horizontalHeader()
        height = sum(self.table.rowHeight(row) for row in range(len(rows))) + (header.height() if header else 0) + 4
        self.table.setFixedHeight(height)
        self._draw()

    def _draw(self) -> None:
        chosen, summary = self.picture.currentData(), self._summary
        self.confusion.setVisible(chosen == "confusion")
        self.calibration.setVisible(chosen != "confusion")
        if chosen == "confusion":
            counts = summary["confusion"][self.protocol.currentData()]
            self.confusion.draw(np.array(counts), tuple(map(self._session.classes.title, summary["classes"])))
        else:
            self.calibration.draw(summary["calibration"][chosen])


def _fill(box: QComboBox, choices: Mapping[str, str]) -> None:
    """Offer other choices, the texts by their data; the present one stays if it is among them."""
    chosen = box.currentData()
    with QSignalBlocker(box):
        box.clear()
        for data, text in choices.items():
            box.addItem(text, data)
        box.setCurrentIndex(max(0, box.findData(chosen)))


class _Picture(QWidget):
    """A plot in the colours of the viewer's theme, which is only looked at."""

    def __init__(self, viewer: napari.viewer.Viewer, bottom: str, left: str) -> None:
        super().__init__()
        self._viewer = viewer
        self.setMinimumHeight(180)  # so that the dock fits on a laptop, also among tabs
        self._plot = pg.PlotWidget()
        self._plot.setMouseEnabled(False, False)
        self._plot.hideButtons()
        self._plot.setMenuEnabled(False)
        self._plot.setLabel("bottom", bottom)
        self._plot.setLabel("left", left)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._plot)
        listen(self, (viewer.events.theme, self._dress))
        self._dress()

    def _dress(self, _: object = None) -> None:
        """Use the colours of the viewer's theme."""
        theme = get_theme(self._viewer.theme)
        self._plot.setBackground(theme.background.as_hex())
        for name in ("bottom", "left"):
            self._plot.getAxis(name).setPen(theme.text.as_hex())
            self._plot.getAxis(name).setTextPen(theme.text.as_hex())


class CalibrationPicture(_Picture):
    """A calibration curve: how often is true what is predicted with a probability."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "predicted probability, %", "true in % of cases")
        self._plot.setRange(xRange=(0, 100), yRange=(0, 100), padding=0.03)
        self._plot.plot([0, 100], [0, 100], pen=pg.mkPen("#888888", style=Qt.PenStyle.DashLine))
        self._curve = self._plot.plot(pen=pg.mkPen("#56b4e9", width=2), symbol="o", symbolSize=7, symbolBrush="#56b4e9")
        self._error = pg.TextItem(anchor=(0, 0))
        self._error.setPos(2, 98)
        self._plot.addItem(self._error)
        self.setToolTip("Dashed: what is predicted with 70 % is true in 70 of 100 cases")

    def draw(self, calibration: Mapping[str, Any]) -> None:
        """Show a report of :class:`~napari_pbip.results.calibration.Calibration`."""
        bins = calibration["bins"]
        self._curve.setData([one["predicted"] for one in bins], [one["observed"] for one in bins])
        self._error.setText(f"mean error {calibration['ece']:.1f} %")


class ConfusionPicture(_Picture):
    """A confusion matrix as coloured squares, in percent of the cells of each true class."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "labelled as", "true class, 100 % per row")
        self._plot.invertY(True)
        self._image = pg.ImageItem(axisOrder="row-major")
        self._image.setColorMap(pg.colormap.get("cividis"))
        self._plot.addItem(self._image)
        self._texts: list[Any] = []

    def draw(self, counts: np.ndarray, names: tuple[str, ...]) -> None:
        """Show counts of cells, (N, N + 1): true class, and predicted class or none."""
        share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        self._image.setImage(share, levels=(0, 100))
        while self._texts:
            self._plot.removeItem(self._texts.pop())
        for (row, column), value in np.ndenumerate(share):
            text = pg.TextItem(f"{value:.0f}", color="k" if value > 55 else "w", anchor=(0.5, 0.5))
            text.setPos(column + 0.5, row + 0.5)
            self._plot.addItem(text)
            self._texts.append(text)
        columns = [*names, "none"]
        self._plot.getAxis("bottom").setTicks([[(n + 0.5, name) for n, name in enumerate(columns)]])
        self._plot.getAxis("left").setTicks([[(n + 0.5, name) for n, name in enumerate(names)]])
        self._plot.setRange(xRange=(0, len(columns)), yRange=(0, len(names)), padding=0)
