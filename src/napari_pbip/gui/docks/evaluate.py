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
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.engine.outputs.score_result import CORRECTED, Truth, annotated_truth, read_mask, score_result
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
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.results import ScoreStore
from napari_pbip.slides.annotations import SUFFIXES as ANNOTATIONS

_FILE = "A file…"
_PROTOCOLS = {"predicted": "model", "oracle": "classes given", CORRECTED: "corrected by hand"}
_FIGURES = {"miou": "mean IoU", "fwiou": "frequency-weighted IoU", "biou": "boundary IoU", "dice": "mean Dice"}


class EvaluateWidget(QWidget):
    """Widget with the metrics of the current result against a mask under both protocols, and its exports."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session = session_of(viewer)
        self._file: Path | None = None
        self._confusion: dict[str, np.ndarray] = {}
        self._names: tuple[str, ...] = ()
        self.result_name = PlainLabel()
        self.mask_box = QComboBox()
        self.mask_box.setToolTip(
            "What is true on the whole slide: a labels layer, a PNG or TIFF, or a GeoJSON of QuPath"
        )
        self.mask_box.activated.connect(self._mask_chosen)
        self.numbering = QComboBox()
        self.numbering.addItem("1 is the first class, 0 is not scored", 1)
        self.numbering.addItem("0 is the first class", 0)
        self.numbering.setToolTip("How the mask numbers the classes; values above the last class are not scored")
        self.compare_button = push_button("Compare", clicked=self._compare)
        self.job_bar = JobBar()
        self.notice = Notice()
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        header = self.table.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setToolTip(
            "Per cent. 'Model': the map as the model made it, at these thresholds. 'Classes given': the mask gives the "
            "classes that each tile shows, as in published evaluations; on a new slide they are not known. 'Corrected "
            "by hand': the model's map with your corrections"
        )
        self.protocol = QComboBox()
        self.protocol.currentIndexChanged.connect(self._draw_confusion)
        self.confusion = ConfusionPicture(viewer)
        form = QFormLayout()
        form.addRow("Result", self.result_name)
        form.addRow("Mask", self.mask_box)
        form.addRow("Numbers", self.numbering)
        form.addRow("", self.compare_button)
        self._scores = QWidget()
        scores = QVBoxLayout(self._scores)
        scores.setContentsMargins(0, 0, 0, 0)
        scores.addWidget(self.table)
        scores.addWidget(self.protocol)
        scores.addWidget(self.confusion)
        self._scores.hide()
        self.exports = ExportPanel(self._session)
        layout = QVBoxLayout(self)
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
        refine = self._session.settings.refine
        drawn = None if isinstance(chosen, Path) else chosen.data[0] if chosen.multiscale else chosen.data

        def make() -> Job:  # called in the thread, because the layer may be read from a file only now
            if drawn is not None:
                truth = Truth(np.asarray(drawn), first)
            elif chosen.suffix.lower() in ANNOTATIONS:
                truth = annotated_truth(chosen, ScoreStore.open(path))
            else:
                truth = Truth(read_mask(chosen), first)
            return score_result(path, truth, thresholds, refine)

        job = self._session.start(make)
        self.job_bar.follow(job)
        self.compare_button.setEnabled(False)

        def ended(state: State) -> None:
            self.compare_button.setEnabled(self.result is not None)
            if job.result is not None:
                self._show(job.result.summary)

        job.ended.connect(ended)

    def _show(self, summary: Mapping[str, Any]) -> None:
        protocols, self._names = summary["protocols"], tuple(summary["classes"])
        shown = {key: text for key, text in _PROTOCOLS.items() if key in protocols}
        rows = [(text, [protocols[p][key] for p in shown]) for key, text in _FIGURES.items()]
        rows += [(f"IoU of {name}", [protocols[p]["per_class"][name]["iou"] for p in shown]) for name in self._names]
        self.table.setColumnCount(len(shown))
        self.table.setHorizontalHeaderLabels(list(shown.values()))
        self.table.setRowCount(len(rows))
        self.table.setVerticalHeaderLabels([text for text, _ in rows])
        for row, (_, values) in enumerate(rows):
            for column, value in enumerate(values):
                item = QTableWidgetItem("–" if value is None else f"{value:.1f}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, column, item)
        self.table.resizeRowsToContents()
        header = self.table.horizontalHeader()
        height = sum(self.table.rowHeight(row) for row in range(len(rows))) + (header.height() if header else 0) + 4
        self.table.setFixedHeight(height)
        self._confusion = {key: np.array(summary["confusion"][key]) for key in shown}
        with QSignalBlocker(self.protocol):
            self.protocol.clear()
            for key, text in shown.items():
                self.protocol.addItem(text, key)
        self._draw_confusion()
        self._scores.show()

    def _draw_confusion(self) -> None:
        if self._confusion:
            self.confusion.draw(self._confusion[self.protocol.currentData()], self._names)


class ConfusionPicture(QWidget):
    """A confusion matrix as coloured squares, in percent of the cells of each true class."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.setMinimumHeight(180)  # so that the dock fits on a laptop, also among tabs
        self._plot = pg.PlotWidget()
        self._plot.setMouseEnabled(False, False)
        self._plot.hideButtons()
        self._plot.setMenuEnabled(False)
        self._plot.invertY(True)
        self._plot.setLabel("bottom", "labelled as")
        self._plot.setLabel("left", "true class, 100 % per row")
        self._image = pg.ImageItem(axisOrder="row-major")
        self._image.setColorMap(pg.colormap.get("cividis"))
        self._plot.addItem(self._image)
        self._texts: list[Any] = []
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
