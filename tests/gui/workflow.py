"""What docs/tutorials/one-slide.md says, done with mouse and keys, for a test and for its pictures.

Every section of the page is a method, which waits until the window shows the outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from napari_pbip.gui.widgets.class_table import NAME, TILES
from tests.gui.napari_privates import canvas_of, main_window
from tests.gui.qt_helpers import click, double_click, open_workflow, save_as, type_text
from tests.gui.reader import Reader
from tests.gui.sample_labels import SKIN, Lesson

PAGE = "tutorials/one-slide.md"
MENU = "Plugins > PBIP tissue segmentation > Workflow"
LEFT, NO, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier


def enter(box: Any, value: float) -> None:
    """Type a number into a box."""
    box.selectAll()
    QTest.keyClicks(box, f"{value:g}")
    QTest.keyClick(box, Qt.Key.Key_Return)


def name_of(table: Any, row: int) -> Any:
    """Return the place of the name of a class in the table, which is scrolled to it, a ``QPoint``."""
    item = table.item(row, NAME)
    table.scrollToItem(item)
    return table.visualItemRect(item).center()


class Workflow:
    """One reading of the page.

    Parameters
    ----------
    viewer
        A shown viewer, whose window keeps its size.
    settle
        Function that runs the event loop until a condition holds.
    reader
        Reads the page.
    shot
        Function that is called with the name of a picture when there is something to see.
    lesson
        The slide and its labels; those of the page by default.
    """

    def __init__(
        self,
        viewer: Any,
        settle: Callable[..., None],
        reader: Reader,
        shot: Callable[[str], None] = lambda name: None,
        lesson: Lesson = SKIN,
    ) -> None:
        self.viewer, self.settle, self.reader, self.shot, self.lesson = viewer, settle, reader, shot, lesson
        self.session, self._size = session_of(viewer), main_window(viewer).size()
        reader.named(MENU)
        # the numbered steps are about the slide of the page
        self.step: Callable[[str], str] = reader.step if lesson is SKIN else lambda begins: begins
        self.panel = open_workflow(viewer, settle)

    def resize(self, width: int, height: int) -> None:
        """Make the window as large as a screen, in points; it stays so from page to page."""
        main_window(self.viewer).resize(width, height)
        self.settle()
        self._size = main_window(self.viewer).size()
        assert (self._size.width(), self._size.height()) == (width, height), self._size

    def page(self, step: Step) -> Any:
        """Go to a step, with the button for the next one if it leads there; return the dock on its page."""
        following = f"Next: {step.value}"
        if self.panel.next_button.text() == following and following in self.reader.names:
            self.reader.press(self.panel, following)
        else:
            click(self.panel.buttons[step])
        self.settle()
        assert self.panel.pages[step].isVisible()
        assert main_window(self.viewer).size() == self._size, step
        return self.panel.pages[step]

    def done(self, step: Step) -> None:
        """Wait until the step that is shown has its tick, after which nothing is said to be missing."""
        self.settle(lambda: "✓" in self.panel.buttons[step].text())
        assert not self.panel.missing.text()

    def at(self, column: float, row: float) -> QPoint:
        """Return the position of the middle of a tile on the canvas."""
        canvas, camera = canvas_of(self.viewer), camera_of(self.viewer)
        microns = np.array([row + 0.5, column + 0.5]) * self.session.labelling.labels.size.microns
        y, x = (microns - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(canvas.width() / 2 + x), round(canvas.height() / 2 + y))

    def click_tile(self, column: int, row: int, modifiers: Any = NO) -> None:
        canvas = canvas_of(self.viewer)
        QTest.mouseMove(canvas, self.at(column, row))
        QTest.mouseClick(canvas, LEFT, modifiers, self.at(column, row))
        self.settle()

    # the sections of the page --------------------------------------------------------------------------------

    def start(self) -> None:
        """See what is there when the panel has opened."""
        self.step("Type `napari`")
        self.step("Choose")
        assert self.panel.buttons[Step.SLIDES].text() == self.reader.named("1 Slides")
        assert self.panel.pages[Step.SLIDES].isVisible()

    def look(self) -> None:
        """Open the slide, enter its microns per pixel if they are missing, and find tissue."""
        self.step("Press *Open the sample slide*")
        slides = self.panel.pages[Step.SLIDES]
        if self.lesson is SKIN:
            self.reader.press(slides, "Open the sample slide")
        else:
            self.viewer.open(str(self.lesson.slide), plugin="napari-pbip")
        self.settle(lambda: len(self.session.slides) == 1 and not self.session.slides[0].pyramid.pending)
        if self.lesson.mpp is None:
            assert slides.mpp.known.text() == self.reader.named("0.499 µm per pixel, as the slide says")
        else:
            enter(slides.mpp.value, self.lesson.mpp)
            click(slides.mpp.button)
            self.viewer.reset_view()
            self.settle(lambda: self.session.slides[0].pyramid.pending == 0)
        self.step("Press *Find tissue*")
        self.reader.press(slides, "Find tissue")
        slide = self.session.slides[0]
        self.settle(lambda: self.session.tissue.mask(slide) is not None and not self.session.jobs)
        self.settle()
        assert "mm² of tissue" in slides.tissue.text.text()
        self.shot("slides")
        self.session.tissue.mask(slide).layer.visible = False
        self.done(Step.SLIDES)

    def label_tiles(self) -> None:
        """Label tiles on the slide, some of them with two classes, and show the live map."""
        reader, lesson = self.reader, self.lesson
        self.step("Press *Next: 2 Label tiles*")
        part = self.page(Step.LABEL_TILES).slide_labels
        table, size = part.table, part.tile_size
        assert size.side.text() == reader.named("224 px at 0.5 µm = 112 µm")
        self.settle(size.propose_button.isVisible)
        self.step("Press *Use 112 px")
        if lesson is SKIN:
            reader.press(size, "Use 112 px at 0.5 µm = 56 µm")
        else:
            enter(size.pixels, lesson.size.pixels)
            enter(size.mpp, lesson.size.mpp)
        assert self.session.labelling.labels.size == lesson.size
        self.step("The table has two classes")
        assert self.session.labelling.labels.taxonomy.names == (reader.named("tumour"), reader.named("stroma"))
        for row, name in enumerate(lesson.classes):
            assert lesson is not SKIN or f"**{name}**" in reader.page
            if row == table.rowCount():
                self.step("Press *Add class*")
                reader.press(part, "Add class")
            else:
                double_click(table.viewport(), name_of(table, row))
            self.settle()
            editor = next(e for e in table.findChildren(QLineEdit) if e.isVisible())
            editor.selectAll()
            QTest.keyClicks(editor, name)
            QTest.keyClick(editor, Qt.Key.Key_Return)
            self.settle()
        assert self.session.labelling.labels.taxonomy.names == lesson.classes
        self.step("Press *Label tiles*")
        reader.press(part, "Label tiles")
        for row, name in enumerate(lesson.classes):
            self.step(f"Click the row **{name}**")
            QTest.mouseClick(table.viewport(), LEFT, pos=name_of(table, row))
            for place in lesson.tiles[name]:
                self.click_tile(*place)
        counts = self.step("Click the row **epidermis** again").rpartition("The table says ")[2]
        for name in lesson.classes:
            QTest.mouseClick(table.viewport(), LEFT, pos=name_of(table, lesson.classes.index(name)))
            for place, names in lesson.mixed.items():
                if name in names:
                    self.click_tile(*place, SHIFT)
        given = self.session.labelling.labels.snapshot().tiles[0]
        singles = {place: {row} for row, name in enumerate(lesson.classes) for place in lesson.tiles[name]}
        mixed = {place: {lesson.classes.index(n) for n in names} for place, names in lesson.mixed.items()}
        assert given == singles | mixed
        assert table.horizontalHeaderItem(TILES).text() == reader.named("Tiles")
        if lesson is SKIN:
            assert counts == "{}, {} and {}.".format(*self.session.labelling.labels.counts)
        self.settle(lambda: self.session.settings.data.folder == self.session.tiles_folder)
        self.settle(lambda: not self.session.jobs)
        self.done(Step.LABEL_TILES)
        self.shot("label-tiles")
        assert self.viewer.layers["Labelled tiles"].visible
        live = self.session.live_map
        self.step("Press *Live map*, further down")
        reader.press(part, "Live map")
        self.settle(lambda: live.layer is not None and live.checked and not self.session.jobs)
        self.settle()
        self.shot("live-map")
        self.step("Press *Live map* again")
        reader.press(part, "Live map")
        assert live.layer is None

    def build_bank(self) -> None:
        """Build the image bank, remove its first tile, and put it back."""
        reader, work = self.reader, self.session.bank
        self.step("Press *Next: 3 Image bank*")
        bank = self.page(Step.BANK)
        assert self.viewer.layers["Labelled tiles"].visible  # a click on one finds it in the bank
        self.settle(lambda: work.tiles is not None)
        self.settle()
        reader.press(bank, "Build image bank")
        self.settle(lambda: work.bank is not None and work.places)
        self.done(Step.BANK)
        self.shot("bank")
        self.step("Suppose that the first tile")
        first = bank.clusters.clusters.index(1, 0)
        QTest.mouseClick(bank.clusters.pane, LEFT, NO, bank.clusters.visualRect(first).center())
        self.settle()
        for name, removed in (("Remove", 1), ("Undo", 0)):
            before = work.bank
            reader.press(bank, name)
            self.settle(lambda before=before: work.job is None and work.bank is not before)
            assert len(work.bank.removed) == removed

    def train(self, epochs: int | None = None) -> None:
        """Train PBIP, for as many epochs as it has by default or so many."""
        reader, training = self.reader, self.session.training
        step = self.step("Press *Next: 4 Train*")
        train = self.page(Step.TRAIN)
        assert not self.viewer.layers["Labelled tiles"].visible  # they would cover what comes
        self.settle(lambda: training.devices)
        self.settle()
        if epochs is not None:
            assert f"type **{epochs}** into *{reader.named('Epochs')}*" in step
            editor = train.form.editor("train.epochs")
            type_text(editor, str(epochs))
            QTest.keyClick(editor, Qt.Key.Key_Return)
            assert self.session.settings.train.epochs == epochs
        self.step("Press *Train*")
        reader.press(train, "Train")
        self.settle(lambda: training.job is not None)
        self.settle(lambda: training.job is None and not self.session.jobs, seconds=3600)
        self.done(Step.TRAIN)
        self.shot("train")

    def segment(self) -> None:
        """Segment the slide with the model."""
        self.step("Press *Next: 5 Segment*")
        segment = self.page(Step.SEGMENT)
        self.settle(lambda: segment.segment_button.isEnabled())
        self.step("Press *Segment*")
        self.reader.press(segment, "Segment")
        self.settle(lambda: len(self.session.results) == 1)
        self.settle(lambda: not self.session.jobs)
        self.done(Step.SEGMENT)
        self.shot("segment")

    def tune(self) -> None:
        """Move the threshold, show the map and the areas, and save the labels."""
        reader = self.reader
        self.step("Press *Next: 6 Tune*")
        tune = self.page(Step.TUNE)
        result = self.session.results[0]
        before = np.array(result.view.labels(0, slice(None), slice(None)))
        self.step("Drag the slider *All classes*")
        reader.named("All classes")
        slider = tune.controls.delta
        slider.setFocus()
        for _ in range(12):
            QTest.keyClick(slider.slider, Qt.Key.Key_Right)
        self.settle(lambda: result.thresholds.delta > 0.2)
        self.settle(lambda: result.areas.exact)
        assert (result.view.labels(0, slice(None), slice(None)) != before).any()
        assert reader.named("not assigned") in {row.name for row in result.areas.rows}
        assert tune.legend.isVisible()
        self.shot("tune")
        assert self.panel.missing.text()
        self.step("Press *Save labels*")
        reader.press(tune, "Save labels")
        self.settle(lambda: not self.session.jobs)
        self.done(Step.TUNE)

    def export(self, folder: Path) -> None:
        """Export the areas."""
        reader = self.reader
        self.step("Press *Next: Evaluate and export*")
        exports = self.page(Step.EVALUATE).exports
        assert exports.title() == reader.named("Export")
        assert exports.format.currentText() == reader.named("Areas (CSV)")
        self.shot("evaluate")
        self.step("Press *Export…*")
        reader.press(exports, "Export…")
        save_as(exports, self.settle, folder / "areas.csv")
        self.settle(lambda: not self.session.jobs)
        assert "areas.csv" in exports.written.text()
        self.done(Step.EVALUATE)

    def project(self) -> None:
        """See the table of the slides, and save the commands that make the project again."""
        self.step("Press *Project*")
        self.reader.press(self.panel, "Project")
        project = self.page(Step.PROJECT)
        table = project.table.cohort_model
        self.settle(lambda: table.entries and table.entries[0].row.result is not None and not self.session.jobs)
        self.shot("project")
        self.step("Press *Save steps*")
        self.reader.press(project, "Save steps")
        self.settle(project.notice.isVisible)
        name = self.session.folder.name
        assert project.notice.text() == (
            f'Saved as steps.sh in the project folder; napari-pbip replay "{name}" --out COPY runs them.'
        )

    def open_again(self) -> None:
        """Accept the project that is offered, and wait until it is as it was left."""
        slides = self.panel.pages[Step.SLIDES]
        assert slides.project.offer.text().endswith("Last time you worked in the project project.")
        self.reader.press(slides, "Open it")
        self.settle(lambda: len(self.session.slides) == 1 and not self.session.project.opening)
        self.settle(lambda: not self.session.jobs and not self.session.slides[0].pyramid.pending)
