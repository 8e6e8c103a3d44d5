"""The dock *Label tiles*: labels tiles on slides, or opens a folder of labelled tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.errors import DataError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.keys import Key
from napari_pbip.gui.panels.import_annotations import ImportAnnotations
from napari_pbip.gui.panels.label_tool import LabelTool
from napari_pbip.gui.panels.live_map import LiveMapPanel
from napari_pbip.gui.panels.suggest import SuggestPanel
from napari_pbip.gui.panels.tile_folder import TileFolder
from napari_pbip.gui.panels.tile_size import TileSizePanel
from napari_pbip.gui.panels.undo import UndoButtons
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.class_table import ClassTable
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.words import rich, tip

if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = (
    "<b>Click</b> a tile, or point at it and press its class's <b>number</b>. With <b>Shift</b> the tile keeps the "
    "labels it has. <b>Shift + drag</b> labels a rectangle. <b>Delete</b> or <b>0</b> removes labels; "
    "<b>Ctrl+Z</b> undoes. Dragging moves the view, the wheel zooms."
)
_HELP_RECTANGLES = (
    "<b>Drag</b> a rectangle: all tiles in it get the class; with <b>Shift</b> they keep the labels they have. "
    "A <b>click</b> or a <b>number</b> labels one tile, <b>Delete</b> or <b>0</b> removes labels, <b>Ctrl+Z</b> "
    "undoes. The wheel zooms."
)
_HELP_REGIONS = (
    "<b>Draw</b> around tissue: all tiles with their centre inside get the class. A <b>number</b> gives them another "
    "one (with <b>Shift</b>, one more), and <b>Delete</b> or <b>0</b> removes their labels. The layer controls have "
    "rectangles, ellipses and polygons, too."
)


class LabelTilesWidget(QWidget):
    """Widget for labels in either of the two ways, which shows which tiles the bank and the training use."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        session = session_of(viewer)
        self._session = session
        self.used = QLabel()
        self.used.setWordWrap(True)
        self.use_button = push_button(
            "Use these tiles", "Have the bank and training use the tiles of this page", self._use
        )
        self.slide_labels = SlideLabelling(session)
        self.folder = TileFolder(session)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.slide_labels, "Label on the slide")
        self.tabs.addTab(self.folder, "Folder of tiles")
        if (bar := self.tabs.tabBar()) is not None:
            bar.setAccessibleName("Where the labelled tiles are from")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self.tabs, 1)
        layout.addLayout(_row(self.used, self.use_button))
        self.tabs.currentChanged.connect(self._show_used)
        listen(self, (session.settings_changed, self._show_used), (session.labelling.changed, self._show_used))
        self._show_used()
        if session.settings.data.folder not in (None, session.tiles_folder):
            self.tabs.setCurrentWidget(self.folder)

    def _show_used(self, _: object = None) -> None:
        folder = self._session.settings.data.folder
        if folder is None:
            text = "The bank and training have no labelled tiles yet."
        elif folder == self._session.tiles_folder:
            text = "The bank and training use the tiles <b>labelled on slides</b>."
        else:
            text = f"The bank and training use the tiles of the folder <b>{rich(folder.name)}</b>."
        self.used.setText(text)
        self.used.setToolTip("" if folder is None else tip(folder))
        if self.tabs.currentWidget() is self.slide_labels:
            offered = len(self._session.labelling.labels) > 0 and folder != self._session.tiles_folder
        else:
            offered = bool(self.folder.path.text()) and folder == self._session.tiles_folder
        self.use_button.setVisible(offered)

    def _use(self) -> None:
        (self._session.labelling if self.tabs.currentWidget() is self.slide_labels else self.folder).use()


class SlideLabelling(QWidget):
    """Widget with the classes, the tool and the number of labels on slides."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._labelling = session.labelling
        self.slide_label = QLabel()
        self.slide_label.setWordWrap(True)
        self.tile_size = TileSizePanel(session)
        self.slide_notice = Notice()
        self.restart_button = push_button(
            "Remove this slide's labels", "Remove all labels of this slide and start again", self._restart
        )
        self.table = ClassTable(own=True)
        self.tool = LabelTool(session.viewer, self._labelling, session.suggestions, self)
        self.tool.class_chosen.connect(self.table.choose)
        self.table.renamed.connect(self._rename)
        self.table.recoloured.connect(session.classes.recolour)
        self.table.chosen.connect(self._choose)
        self.add_button = push_button("Add class", "Add a tissue class", self._add_class)
        self.rename_button = push_button("Rename", "Change the name of the selected class (F2)", self._edit_name)
        self.colour_button = push_button("Colour…", "Change the colour of the selected class", self._pick_colour)
        self.remove_button = push_button("Remove", "Remove the selected class; its tiles lose it", self._remove_class)
        self.class_notice = Notice()
        self.tool_button = toggle_button(
            "Label tiles",
            f"Show the tiles of the slide and label them by mouse and keys ({Key.LABEL_TILES.keys})",
            self._switch,
        )
        self.tool_button.setObjectName(Key.LABEL_TILES.name)
        self.rectangle_button = toggle_button(
            "Rectangles", "Dragging labels a rectangle of tiles instead of moving the view", self._switch_dragging
        )
        self.region_button = toggle_button(
            "Draw a region", "Draw around tissue; all tiles in the region get the class", self._switch_dragging
        )
        self.region_notice = Notice()
        self.tool.region_labelled.connect(self._on_region)
        self.tool.region_ended.connect(lambda: self.region_button.setChecked(False))
        self.help = QLabel()
        self.help.setWordWrap(True)
        self.undo = UndoButtons(session, self)
        self.clear_button = push_button("Remove all labels", "Of all slides; can be undone", self._clear)
        self.total = QLabel()
        self.total.setWordWrap(True)
        self.bar = JobBar(keeps=True)
        self.suggest = SuggestPanel(session)
        self.suggest.asked.connect(self._switch_on)
        self.live = LiveMapPanel(session)
        self.annotations = ImportAnnotations(session)
        self._lay_out()
        listen(
            self,
            (self._labelling.changed, self._show),
            (session.classes.changed, self._show),
            (session.regions.changed, self._show_total),
            (self._labelling.cutting, self._follow),
            (self._labelling.tool_taken, self._on_taken),
        )
        self._labelling.open()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Slide", self.slide_label)
        form.addRow("Tile", self.tile_size)
        layout = scrolling_layout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.slide_notice)
        layout.addWidget(self.restart_button)
        layout.addWidget(self.table)
        layout.addLayout(_row(self.add_button, self.rename_button, self.colour_button, self.remove_button))
        layout.addWidget(self.class_notice)
        layout.addLayout(_row(self.tool_button, self.rectangle_button, self.region_button))
        layout.addWidget(self.help)
        layout.addWidget(self.region_notice)
        layout.addWidget(self.suggest)
        layout.addLayout(_row(self.undo, self.clear_button))
        layout.addWidget(self.total)
        layout.addWidget(self.bar)
        layout.addWidget(self.live)
        layout.addWidget(self.annotations)
        layout.addStretch(1)

    # what there is -------------------------------------------------------------------------------------------

    def _show(self) -> None:
        labelling = self._labelling
        labels, facts, grid = labelling.labels, labelling.facts, labelling.grid
        broken = labelling.problem is not None
        classes = self._session.classes
        self.table.show_classes(classes.coloured(labels.taxonomy), labels.counts, classes.title)
        self.tool.chosen = max(0, min(self.table.currentRow(), len(labels.taxonomy) - 1))
        if labelling.slide is None:
            self.slide_label.setText("none")
        else:
            slide = labelling.slide.slide
            microns = "" if facts is None else f", {facts.mpp:.4g} µm per pixel"
            self.slide_label.setText(f"<b>{rich(slide.name)}</b>{microns}")
        self.restart_button.setVisible(not broken and isinstance(labelling.refusal, DataError) and self._moved())
        if broken:
            self.slide_notice.error(labelling.problem)
        elif labelling.refusal is not None:
            self.slide_notice.error(labelling.refusal)
        elif labelling.slide is None:
            several = len(self._session.slides) > 1
            self.slide_notice.info(
                "Select the slide to label in the layer list."
                if several
                else "Drop a slide on the window, or open one in Slides."
            )
        else:
            self.slide_notice.clear()
        for part in (self.table, self.add_button, self.rename_button, self.colour_button):
            part.setEnabled(not broken)
        self.remove_button.setEnabled(not broken and len(labels.taxonomy) > 1)
        self.clear_button.setEnabled(len(labels) > 0)
        self.tool_button.setEnabled(not broken and grid is not None)
        self._show_total()
        self._switch()

    def _show_total(self) -> None:
        labels = self._labelling.labels
        failed = self.bar.job is not None and self.bar.job.state is State.FAILED
        if not len(labels):
            self.total.setText("No tiles are labelled yet.")
            return
        text = f"{_many(len(labels), 'labelled tile')} on {_many(labels.slides, 'slide')}; "
        text += "not saved." if failed else "saved as you go."
        if left_out := self._left_out():
            text += f" {left_out:,} on this slide {'lies' if left_out == 1 else 'lie'} outside of what its regions "
            text += f"analyse; the model learns from {'it' if left_out == 1 else 'them'} all the same."
        self.total.setText(text)

    def _left_out(self) -> int:
        """Return the number of labelled tiles of this slide whose centre does not count by its regions."""
        labelling = self._labelling
        slide, facts, grid = labelling.slide, labelling.facts, labelling.grid
        if slide is None or facts is None or grid is None or not (regions := self._session.regions.of(slide)):
            return 0
        y, x = (np.arange(0.5, count) * grid.side for count in (grid.rows, grid.columns))
        counted = regions.counted(y, x)
        return sum(not counted[row, column] for column, row in labelling.labels.tiles(facts.identity))

    def _follow(self, job: RunningJob) -> None:
        self.bar.follow(job)
        job.ended.connect(self._show_total)

    def _moved(self) -> bool:
        """Return whether the slide has labels that were given at other microns per pixel."""
        slide = self._labelling.slide
        return slide is not None and bool(self._labelling.labels.tiles(slide.slide.identity))

    # classes -------------------------------------------------------------------------------------------------

    def _choose(self, index: int) -> None:
        self.tool.chosen = index

    def _add_class(self) -> None:
        if (index := self._try(self._labelling.labels.add_class)) is not None:
            self.table.choose(index)
            self._edit_name()

    def _edit_name(self) -> None:
        self.table.edit_name()

    def _pick_colour(self) -> None:
        self.table.pick_colour(self.tool.chosen)

    def _rename(self, index: int, name: str) -> None:
        """Change what is shown: the title of a class that has one, else its name."""
        labels, classes = self._labelling.labels, self._session.classes
        names = labels.taxonomy.names
        if names[index] in classes.display.titles:
            self._try(lambda: classes.give(names[index], name, names))
        else:
            self._try(lambda: labels.rename_class(index, name))

    def _remove_class(self) -> None:
        labels = self._labelling.labels
        name = self._session.classes.title(labels.taxonomy.names[self.tool.chosen])
        if lost := self._try(lambda: labels.remove_class(self.tool.chosen)):
            self.class_notice.info(f"{_many(lost, 'tile')} lost the class {name}; Undo brings it back.")

    def _try(self, change: Callable[[], int | None]) -> int | None:
        """Apply a change to the classes; show the error below the table if it is refused."""
        self.class_notice.clear()
        try:
            return change()
        except DataError as error:
            self.class_notice.error(error)
            return None

    # tiles ---------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self.tile_size.notice.clear()
        self._labelling.labels.clear()

    def _restart(self) -> None:
        self._labelling.restart_slide()

    # the tool ------------------------------------------------------------------------------------------------

    def _switch_dragging(self, on: bool) -> None:
        """Drag in one of the two other ways, or in none of them."""
        if on:
            other = self.rectangle_button if self.sender() is self.region_button else self.region_button
            other.setChecked(False)
        self._switch()

    def _switch(self) -> None:
        wanted = self.tool_button.isChecked()
        self.tool.rectangles = self.rectangle_button.isChecked()
        on = wanted and self.isVisible() and self._labelling.grid is not None
        if on and not self.tool.on:
            self._labelling.tool_taken.emit(self)
        self.tool.on = on
        self.tool.regions = on and self.region_button.isChecked()
        for button in (self.rectangle_button, self.region_button):
            button.setEnabled(wanted)
        self.region_notice.clear()
        self.help.setText(_HELP_REGIONS if self.tool.regions else _HELP_RECTANGLES if self.tool.rectangles else _HELP)

    def _switch_on(self) -> None:
        """Switch the tool on for single tiles."""
        self.tool_button.setChecked(True)
        self.region_button.setChecked(False)

    def _on_region(self, tiles: int) -> None:
        if tiles:
            self.region_notice.info(f"{_many(tiles, 'tile')} in the region.")
        else:
            self.region_notice.warn("No tile has its centre in the region; draw around more tissue.")

    def _on_taken(self, dock: object) -> None:
        if dock is not self:
            self.tool_button.setChecked(False)

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._labelling.show_in(self, True)
        self._switch()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Switch the tool off, because the button that shows its state is not visible any more."""
        super().hideEvent(event)
        self.region_button.setChecked(False)
        self.tool.on = False
        self._labelling.show_in(self, False)


def _row(*parts: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for part in parts:
        row.addWidget(part)
    return row


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
