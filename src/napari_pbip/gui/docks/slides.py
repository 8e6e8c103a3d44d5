"""The dock widget that opens slides, asks what they do not say, and shows where there is tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari.viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
)

from napari_pbip.errors import PbipError
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.parts.dropped import DropZone
from napari_pbip.gui.parts.job_bar import Notice, listen
from napari_pbip.gui.parts.tissue import TissuePanel
from napari_pbip.gui.session import session_of
from napari_pbip.slides import save_mpp, slides_in


class SlidesWidget(DropZone):
    """Slides: a drop zone, the list of open slides, the microns per pixel, and the tissue."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session = session_of(viewer)
        self.open_button = QPushButton("Open slides…")
        self.open_button.setToolTip("SVS, NDPI, MRXS, SCN, BIF, DICOM, (OME-)TIFF, OME-Zarr, PNG or JPEG")
        self.open_button.clicked.connect(self._choose)
        self.list = QListWidget()
        self.list.setToolTip("Click a slide to bring it into view")
        self.list.setMaximumHeight(110)
        self.list.currentItemChanged.connect(self._show_chosen)
        self.notice = Notice()
        hint = QLabel("Drop slides or folders here, or")
        row = QHBoxLayout()
        row.addWidget(hint)
        row.addWidget(self.open_button)
        row.addStretch()
        self.facts = QLabel()
        self.facts.setWordWrap(True)
        self.mpp = MppPanel()
        self.mpp.given.connect(self._set_mpp)
        self.tissue = TissuePanel(self._session)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self.list)
        layout.addWidget(self.notice)
        layout.addWidget(self.facts)
        layout.addWidget(self.mpp)
        layout.addWidget(self.tissue)
        layout.addLayout(self._project_row())
        layout.addStretch()
        session = self._session
        listen(
            self,
            (session.slides.changed, self._fill),
            (session.slide_selected, self._show),
            (session.folder_changed, self._show_folder),
        )
        self._fill()

    def take(self, paths: Sequence[Path]) -> None:
        """Open slides and folders of slides; what cannot be opened is told, the others open."""
        self.notice.clear()
        faults = []
        for path in paths:
            for one in slides_in(path):
                try:
                    self._session.slides.open(one)
                except PbipError as error:
                    faults.append(str(error))
        if faults:
            self.notice.error(" ".join(faults))

    # slides --------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Open slides")
        self.take([Path(name) for name in names])

    def _fill(self) -> None:
        self.list.blockSignals(True)
        self.list.clear()
        for slide in self._session.slides:
            item = QListWidgetItem(slide.slide.path.name)
            item.setToolTip(str(slide.slide.path))
            item.setData(Qt.ItemDataRole.UserRole, slide)
            self.list.addItem(item)
        self.list.blockSignals(False)
        self._show(self._session.current_slide)

    def _show_chosen(self, item: QListWidgetItem | None) -> None:
        if item is None:
            return
        self._session.slides.show(item.data(Qt.ItemDataRole.UserRole))

    def _show(self, slide: SlideLayer | None) -> None:
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) is slide:
                self.list.blockSignals(True)
                self.list.setCurrentRow(row)
                self.list.blockSignals(False)
        self.facts.setText("" if slide is None else describe(slide))
        self.mpp.show_for(slide)
        self.tissue.show_for(slide)

    def _set_mpp(self, mpp: float) -> None:
        slide = self._session.current_slide
        if slide is None:
            return
        try:
            save_mpp(slide.slide.path, mpp)
        except PbipError as error:
            # the folder may be read-only: the value still holds until the slide is closed
            self.notice.warn(error)
        slide.slide.mpp_xy = (mpp, mpp)
        slide.place()
        self._session.slides.show(slide)
        self._session.slides.changed.emit()

    # the project folder --------------------------------------------------------------------------------------

    def _project_row(self) -> QHBoxLayout:
        self.folder = QLineEdit()
        self.folder.setReadOnly(True)
        self.folder.setToolTip("Tiles, image bank, models and results of this project are written here")
        button = QPushButton("Change…")
        button.clicked.connect(self._choose_folder)
        row = QHBoxLayout()
        row.addWidget(QLabel("Project folder"))
        row.addWidget(self.folder, 1)
        row.addWidget(button)
        self._show_folder(self._session.folder)
        return row

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Project folder", str(self._session.folder))
        if name:
            self._session.folder = Path(name)

    def _show_folder(self, folder: Path) -> None:
        self.folder.setText(str(folder))
        self.folder.setCursorPosition(len(str(folder)))


class MppPanel(QGroupBox):
    """How large a pixel is: asked once, in plain words, where the slide does not say."""

    given = Signal(float)
    """Microns per level-0 pixel."""

    def __init__(self) -> None:
        super().__init__("How large is a pixel?")
        self.value = QDoubleSpinBox()
        self.value.setDecimals(4)
        self.value.setRange(0, 100)
        self.value.setSpecialValueText("unknown")  # at 0: nothing is guessed
        self.value.setSingleStep(0.05)
        self.value.setSuffix(" µm")
        self.value.setToolTip("Microns per pixel of the slide at full resolution; the scanner's report says it")
        self.button = QPushButton("Remember")
        self.button.setToolTip("Kept in a small file beside the slide, from now on")
        self.button.clicked.connect(lambda: self.given.emit(self.value.value()))
        self.button.setEnabled(False)
        self.value.valueChanged.connect(lambda value: self.button.setEnabled(value > 0))
        note = QLabel(
            "This slide does not say its microns per pixel, which areas and models need. "
            "A 40x scan has about 0.25, a 20x scan about 0.5."
        )
        note.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.value)
        row.addWidget(self.button)
        row.addStretch()
        layout = QVBoxLayout(self)
        layout.addWidget(note)
        layout.addLayout(row)

    def show_for(self, slide: SlideLayer | None) -> None:
        """Ask about a slide that does not say; be hidden for others."""
        self.setVisible(slide is not None and slide.slide.mpp_xy is None)
        self.value.setValue(0)


def describe(slide: SlideLayer) -> str:
    """Size, pixel size and pyramid of a slide in one line."""
    it = slide.slide
    text = f"{it.width:,} x {it.height:,} pixels"
    if it.size_um is not None and it.mpp is not None:
        text += f" of {it.mpp:.4g} µm: {it.size_um[0] / 1000:.2f} x {it.size_um[1] / 1000:.2f} mm"
    return text
