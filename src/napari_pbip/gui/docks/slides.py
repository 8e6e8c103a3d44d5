"""The dock *Slides*: opens slides, asks for missing microns per pixel, finds tissue, and draws regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari.viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
)

from napari_pbip.errors import OutputError, PbipError
from napari_pbip.gui.connections import listen, while_alive
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.panels.mpp_panel import MppPanel
from napari_pbip.gui.panels.opening import OpeningNotice
from napari_pbip.gui.panels.project import ProjectPanel
from napari_pbip.gui.panels.regions import RegionsPanel
from napari_pbip.gui.panels.tissue import TissuePanel
from napari_pbip.gui.panels.undo import UndoButtons
from napari_pbip.gui.panels.welcome import Welcome
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.dropped import DropZone
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.words import PlainLabel, tip
from napari_pbip.slides import slides_in


class SlidesWidget(DropZone):
    """Widget with a drop zone, the list of open slides, the microns per pixel, the tissue mask, and the regions."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session = session_of(viewer)
        self.open_button = push_button(
            "Open slides…", "SVS, NDPI, MRXS, SCN, BIF, DICOM, (OME-)TIFF, OME-Zarr, PNG or JPEG", self._choose
        )
        self.list = QListWidget()
        self.list.setToolTip("Click a slide to bring it into view")
        self.list.setAccessibleName("Open slides")
        self.list.setMaximumHeight(110)
        self.list.currentItemChanged.connect(self._show_chosen)
        self.opening = OpeningNotice(self._session)
        self.notice = Notice()
        self._faults: list[str] = []
        hint = QLabel("Drop slides or folders here, or")
        row = QHBoxLayout()
        row.addWidget(hint)
        row.addWidget(self.open_button)
        row.addStretch()
        self.welcome = Welcome(self._session)
        self.facts = PlainLabel()
        self.facts.setWordWrap(True)
        self.slide_notice = Notice()
        self.mpp = MppPanel()
        self.mpp.given.connect(self._set_mpp)
        self.tissue = TissuePanel(self._session)
        self.regions = RegionsPanel(self._session)
        self.project = ProjectPanel(self._session)
        self.undo = UndoButtons(self._session, self)
        layout = scrolling_layout(self)
        layout.addWidget(self.welcome)
        layout.addLayout(row)
        layout.addWidget(self.list)
        layout.addWidget(self.opening)
        layout.addWidget(self.notice)
        layout.addWidget(self.facts)
        layout.addWidget(self.slide_notice)
        layout.addWidget(self.mpp)
        layout.addWidget(self.tissue)
        layout.addWidget(self.regions)
        layout.addWidget(self.undo)
        layout.addWidget(self.project)
        layout.addStretch()
        session = self._session
        listen(
            self,
            (session.slides.changed, self._fill),
            (session.slide_selected, self._show),
        )
        self._fill()

    def take(self, paths: Sequence[Path]) -> None:
        """Open slides and folders of slides; show the errors of those that cannot be opened."""
        self.notice.clear()
        self._faults = []
        if any(path.is_dir() for path in paths):
            self.notice.info("Looking for slides…")
            self._session.in_thread(
                lambda: [slide for path in paths for slide in slides_in(path)],
                while_alive(self._open),
                while_alive(self.notice.error),
            )
        else:
            self._open(paths)

    def _open(self, paths: Sequence[Path]) -> None:
        self.notice.error(" ".join(self._faults))
        for path in paths:
            self._session.opening.slide(path, otherwise=while_alive(self._fail))

    def _fail(self, error: PbipError) -> None:
        self._faults.append(str(error))
        self.notice.error(" ".join(self._faults))

    # slides --------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        ask_for(self, "Open slides", Mode.ExistingFiles, self.take)

    def _fill(self) -> None:
        self.list.blockSignals(True)
        self.list.clear()
        for slide in self._session.slides:
            item = QListWidgetItem(slide.slide.path.name)
            item.setToolTip(tip(slide.slide.path))
            item.setData(Qt.ItemDataRole.UserRole, slide)
            self.list.addItem(item)
        self.list.blockSignals(False)
        some = len(self._session.slides) > 0
        self.welcome.setVisible(not some)
        for part in (self.list, self.tissue, self.regions, self.undo):
            part.setVisible(some)
        self._show(self._session.current_slide)

    def _show_chosen(self, item: QListWidgetItem | None) -> None:
        if item is None:
            return
        self.notice.clear()
        self._session.slides.show(item.data(Qt.ItemDataRole.UserRole))

    def _show(self, slide: SlideLayer | None) -> None:
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) is slide:
                self.list.blockSignals(True)
                self.list.setCurrentRow(row)
                self.list.blockSignals(False)
        self.facts.setText("" if slide is None else describe(slide))
        self.slide_notice.warn("" if slide is None else " ".join(slide.slide.notes))
        self.mpp.show_for(slide)
        self.tissue.show_for(slide)
        self.regions.show_for(slide)

    def _set_mpp(self, mpp: float) -> None:
        slide = self._session.current_slide
        if slide is None:
            return
        self.notice.clear()
        try:
            self._session.project.give_mpp(slide.slide.path, mpp)
        except OutputError as error:
            reason = getattr(error.__cause__, "strerror", None) or "it cannot be written"
            self.notice.warn(
                f"These microns per pixel are kept in this project only: they cannot be written beside the slide "
                f"({reason})."
            )
        except PbipError as error:
            self.notice.error(error)


def describe(slide: SlideLayer) -> str:
    """Return the size of a slide in pixels and, if it is known, in millimetres."""
    it = slide.slide
    text = f"{it.width:,} x {it.height:,} pixels"
    if it.size_um is not None:
        text += f", {it.size_um[0] / 1000:.2f} x {it.size_um[1] / 1000:.2f} mm"
    return text
