"""The panel with the regions of the current slide: what is analysed, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_pbip.gui.connections import listen
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.state.queued_slide import QueuedSlide
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.slides.geojson import SUFFIXES
from napari_pbip.slides.regions import Kind, Region, Regions

_NAME, _KIND, _AREA = range(3)
_ROWS = 4
_KINDS = {Kind.ANALYSE: "analyse", Kind.LEAVE_OUT: "leave out"}


class RegionsPanel(QGroupBox):
    """Panel that draws, names and removes regions of the current slide."""

    def __init__(self, session: Session) -> None:
        super().__init__("Regions")
        self._session = session
        self._regions = session.regions
        self._slide: SlideLayer | None = None
        self.analyse_button = push_button(
            "Analyse…",
            "Draw what is to be analysed with the lasso, or napari's polygon and rectangle; the rest does not count",
            partial(self._draw, Kind.ANALYSE),
        )
        self.leave_out_button = push_button(
            "Leave out…", "Draw what does not count, such as pen and folds", partial(self._draw, Kind.LEAVE_OUT)
        )
        self.import_button = push_button(
            "Import…", "Read annotations of QuPath as regions; its class Ignore* is left out", self._ask
        )
        self.table = _table()
        self.table.itemChanged.connect(self._on_item)
        self.remove_button = push_button("Remove", "Remove the selected regions", self._remove)
        self.about = PlainLabel()
        self.about.setWordWrap(True)
        self.notice = Notice()
        row, below = QHBoxLayout(), QHBoxLayout()
        for button in (self.analyse_button, self.leave_out_button, self.import_button):
            row.addWidget(button)
        below.addWidget(self.about, 1)
        below.addWidget(self.remove_button)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self.table)
        layout.addLayout(below)
        layout.addWidget(self.notice)
        # later, because a layer must not be added while napari is selecting one
        self._restore = single_shot(0, self._show_earlier, self)
        listen(
            self,
            (self._regions.changed, self._show),
            (session.folder_changed, self._show_earlier),
            (session.segmenting.updated, self._on_segmented),
        )

    def show_for(self, slide: SlideLayer | None) -> None:
        """Show and change the regions of this slide."""
        self._slide = slide
        self._show()
        self._restore.start()

    def read(self, path: Path) -> None:
        """Add the regions in a GeoJSON file to those of the present slide."""
        if (slide := self._slide) is None:
            return
        self.notice.clear()

        def work() -> Regions:
            found = Regions.read(path)
            found.check_on(slide.slide)
            return found

        def then(found: Regions) -> None:
            self._change(slide, (*self._regions.of(slide), *found))

        self._session.in_thread(work, then, self.notice.error)

    def _show_earlier(self, _: object = None) -> None:
        if self._slide is not None:
            self._regions.show(self._slide)
            self._show()

    def _on_segmented(self, queued: QueuedSlide) -> None:
        if not queued.status.active:  # there may be scores where there were none
            self._show()

    def _show(self) -> None:
        slide = self._slide
        regions = Regions() if slide is None else self._regions.of(slide)
        problem = None if slide is None else self._regions.problems.get(slide.slide.path)
        self.setEnabled(slide is not None and slide.slide.is_square())
        self.notice.error("" if problem is None else problem)
        if slide is not None and problem is None and (missing := self._regions.tiles_to_segment(slide)):
            self.notice.warn(f"{missing:,} tiles in the regions have no scores yet; segment the slide again.")
        self.table.blockSignals(True)
        self.table.setRowCount(len(regions))
        for number, region in enumerate(regions):
            self._fill(number, region, None if slide is None else slide.slide.mpp)
        self.table.blockSignals(False)
        self.table.setFixedHeight(self.table.rowHeight(0) * min(len(regions), _ROWS) + _header_height(self.table))
        for part in (self.table, self.remove_button, self.about):
            part.setVisible(len(regions) > 0)
        self.about.setText(
            "Only what lies inside the regions to analyse counts."
            if regions.shapes
            else "All of the slide counts, but what is left out."
        )

    def _fill(self, number: int, region: Region, mpp: float | None) -> None:
        self.table.setItem(number, _NAME, QTableWidgetItem(region.name))
        area = QTableWidgetItem("" if mpp is None else f"{region.shape.area * (mpp / 1000) ** 2:.3f}")
        area.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
        area.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.table.setItem(number, _AREA, area)
        kind = self.table.cellWidget(number, _KIND)
        if not isinstance(kind, QComboBox):
            kind = QComboBox()
            kind.setAccessibleName(f"What region {number + 1} is for")
            for value, words in _KINDS.items():
                kind.addItem(words, value)
            kind.activated.connect(partial(self._set_kind, number, kind))
            self.table.setCellWidget(number, _KIND, kind)
        kind.setCurrentIndex(list(_KINDS).index(region.kind))

    # changes -------------------------------------------------------------------------------------------------

    def _draw(self, kind: Kind) -> None:
        if self._slide is not None:
            self.notice.clear()
            self._regions.draw(self._slide, kind)

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() == _NAME:
            name = item.text().strip()
            if name:
                self._replace(item.row(), name=name)
            else:
                self._show()

    def _set_kind(self, number: int, kind: QComboBox, _: int) -> None:
        self._replace(number, kind=Kind(kind.currentData()))

    def _replace(self, number: int, **changes: object) -> None:
        if self._slide is not None:
            regions = list(self._regions.of(self._slide))
            regions[number] = replace(regions[number], **changes)  # type: ignore[arg-type]
            self._change(self._slide, tuple(regions))

    def _remove(self) -> None:
        if self._slide is not None:
            chosen = {index.row() for index in self.table.selectedIndexes()}
            self._change(
                self._slide, tuple(one for n, one in enumerate(self._regions.of(self._slide)) if n not in chosen)
            )

    def _change(self, slide: SlideLayer, items: tuple[Region, ...]) -> None:
        self._regions.change(slide, Regions(items))

    def _ask(self) -> None:
        formats = f"Annotations ({' '.join(f'*{one}' for one in SUFFIXES)})"
        ask_for(self, "Import regions", Mode.ExistingFile, lambda files: self.read(files[0]), formats=formats)


def _table() -> QTableWidget:
    table = QTableWidget(0, 3)
    table.setHorizontalHeaderLabels(("Name", "", "mm²"))
    table.setAccessibleName("Regions")
    table.setToolTip("Double-click a name to change it; regions with the same name are one in tables")
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setTabKeyNavigation(False)
    vertical, header = table.verticalHeader(), table.horizontalHeader()
    if vertical is not None and header is not None:
        vertical.hide()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
    return table


def _header_height(table: QTableWidget) -> int:
    header = table.horizontalHeader()
    return 2 * table.frameWidth() + (0 if header is None else header.sizeHint().height()) + 4
