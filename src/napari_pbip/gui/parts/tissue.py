"""Where on the current slide there is tissue: found by a threshold, corrected with napari's own brush."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout
from superqt import QLabeledDoubleSlider

from napari_pbip.engine.tissue import outline_tissue
from napari_pbip.errors import PbipError
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.slides import METADATA, SlideLayer
from napari_pbip.gui.parts.job_bar import Notice
from napari_pbip.gui.session import Session
from napari_pbip.slides import TissueMask, TissueMeasure

_KIND = "tissue"
_SETTLE_MS = 150
"""Time that the slider must rest, or the brush, before work begins."""
_COLOUR = {None: "transparent", 0: "transparent", 1: "#56B4E9"}


class TissuePanel(QGroupBox):
    """Find tissue, move its threshold, paint it; the mask is kept with the results of the slide."""

    def __init__(self, session: Session) -> None:
        super().__init__("Tissue")
        self._session = session
        self._slide: SlideLayer | None = None
        self._job: RunningJob | None = None
        self._again = False
        self._measures: dict[Path, TissueMeasure] = {}
        self.button = QPushButton("Find tissue")
        self.button.setToolTip("Only tissue is analysed; paint or erase it with the brush of the layer 'tissue'")
        self.button.clicked.connect(self._find)
        self.slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0.01, 0.4)
        self.slider.setDecimals(3)
        self.slider.setToolTip("How dark a place must be to count as tissue; lower finds paler tissue")
        self.slider.valueChanged.connect(self._threshold_moved)
        self.text = QLabel()
        self.notice = Notice()
        row = QHBoxLayout()
        row.addWidget(self.button)
        row.addWidget(self.slider, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self.text)
        layout.addWidget(self.notice)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_SETTLE_MS)
        self._rest.timeout.connect(self._find)
        self._painted = QTimer(self)
        self._painted.setSingleShot(True)
        self._painted.setInterval(_SETTLE_MS)
        self._painted.timeout.connect(self._keep_painting)

        # later, since a layer must not be added while napari is busy selecting one
        self._restore = QTimer(self)
        self._restore.setSingleShot(True)
        self._restore.setInterval(0)
        self._restore.timeout.connect(self._show_earlier_mask)

    @property
    def layer(self) -> Labels | None:
        """The mask of the current slide, if it is a layer."""
        if self._slide is None:
            return None
        return next((one for one in self._session.viewer.layers if self._is_mask(one)), None)

    def show_for(self, slide: SlideLayer | None) -> None:
        """Work on this slide from now on."""
        self._slide = slide
        self.setEnabled(slide is not None and slide.slide.mpp_xy is not None)
        self.notice.clear()
        self.text.clear()
        measure = None if slide is None else self._measures.get(slide.slide.path)
        self.slider.setEnabled(measure is not None)
        self._restore.start()

    def _is_mask(self, layer: Layer) -> bool:
        path = None if self._slide is None else str(self._slide.slide.path)
        return bool(layer.metadata.get("kind") == _KIND and layer.metadata.get(METADATA) == path)

    def _file(self, slide: SlideLayer) -> Path:
        return self._session.tissue_file(slide.slide)

    def _threshold_moved(self, value: float) -> None:
        settings = self._session.settings
        tissue = settings.segment.tissue.model_copy(update={"threshold": round(value, 4)})
        self._session.change(segment=settings.segment.model_copy(update={"tissue": tissue}))
        self._rest.start()

    def _find(self) -> None:
        slide = self._slide
        if slide is None:
            return
        if self._job is not None:  # one at a time: the newest threshold is taken when it ends
            self._again = True
            return
        self.notice.clear()
        path, mpp, out = slide.slide.path, slide.slide.mpp, self._file(slide)
        settings, measure = self._session.settings.segment.tissue, self._measures.get(path)

        def make() -> Job:
            return outline_tissue(path, settings, out, mpp=mpp, measure=measure)

        self.text.setText("Looking for tissue…")
        self._job = self._session.start(make)
        self._job.ended.connect(lambda state: self._found(slide, state))

    def _found(self, slide: SlideLayer, state: State) -> None:
        job, self._job = self._job, None
        if job is None:
            return
        if state is State.FAILED:
            self.text.clear()
            self.notice.error(job.error)
        elif job.result is not None:
            self._measures[slide.slide.path] = job.result.summary["measure"]
            if slide in list(self._session.slides):
                self._show_mask(slide)
            if slide is self._slide:
                self.slider.setEnabled(True)
                with QSignalBlocker(self.slider):
                    self.slider.setValue(job.result.summary["threshold"])
        if self._again:
            self._again = False
            self._find()

    def _show_earlier_mask(self) -> None:
        """Bring back the mask of an earlier sitting."""
        slide = self._slide
        if slide is not None and slide.slide.mpp_xy is not None and self.layer is None and self._file(slide).exists():
            self._show_mask(slide)

    def _show_mask(self, slide: SlideLayer) -> None:
        """Put the mask on disk into the layer of its slide."""
        try:
            mask = TissueMask.read(self._file(slide), slide.slide)
        except PbipError as error:
            self.notice.error(error)
            return
        data = mask.array.astype(np.uint8)
        layer = self.layer if slide is self._slide else None
        if layer is not None and layer.data.shape == data.shape:
            with layer.events.labels_update.blocker(), layer.events.paint.blocker():
                layer.data = data
        else:
            layer = self._add_layer(slide, mask, data)
        self.text.setText(f"{mask.area_mm2:.2f} mm² of tissue")

    def _add_layer(self, slide: SlideLayer, mask: TissueMask, data: np.ndarray) -> Labels:
        viewer = self._session.viewer
        active = viewer.layers.selection.active
        layer: Labels = viewer.add_labels(
            data,
            name=f"tissue of {slide.slide.name}",
            colormap=DirectLabelColormap(color_dict=dict(_COLOUR)),
            opacity=0.35,
            scale=(mask.mpp, mask.mpp),
            translate=((mask.mpp - slide.slide.require_mpp()) / 2,) * 2,
            units=("um", "um"),
            metadata={METADATA: str(slide.slide.path), "kind": _KIND},
        )
        layer.brush_size = 20
        layer.events.paint.connect(self._on_paint)
        viewer.layers.selection.active = active
        return layer

    def _on_paint(self, event: Any) -> None:
        self._painted.start()

    def _keep_painting(self) -> None:
        """Write what the user painted: it is the mask from now on."""
        slide, layer = self._slide, self.layer
        if slide is None or layer is None:
            return
        array = np.asarray(layer.data) > 0
        mpp = float(layer.scale[0])
        mask = TissueMask(array, mpp / slide.slide.require_mpp(), mpp)
        try:
            mask.write(self._file(slide))
        except PbipError as error:
            self.notice.error(error)
            return
        self.text.setText(f"{mask.area_mm2:.2f} mm² of tissue, corrected by hand")
