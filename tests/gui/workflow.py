"""The workflow of a user from a slide to a tuned tissue map, with mouse and keys, for a test and the tutorial.

Every step is a method that acts on its page of the workflow panel and waits until the window shows the outcome.
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
from tests.gui.napari_privates import canvas_of
from tests.gui.qt_helpers import click, open_workflow
from tests.gui.sample_labels import SKIN, Lesson

LEFT, NO, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier


def enter(box: Any, value: float) -> None:
    """Type a number into a box."""
    box.selectAll()
    QTest.keyClicks(box, f"{value:g}")
    QTest.keyClick(box, Qt.Key.Key_Return)


class Workflow:
    """One run of the workflow.

    Parameters
    ----------
    viewer
        A shown viewer.
    settle
        Function that runs the event loop until a condition holds.
    shot
        Function that is called with a name when there is something to see.
    lesson
        The slide and its labels.
    """

    def __init__(
        self,
        viewer: Any,
        settle: Callable[..., None],
        shot: Callable[[str], None] = lambda name: None,
        lesson: Lesson = SKIN,
    ) -> None:
        self.viewer, self.settle, self.shot, self.lesson = viewer, settle, shot, lesson
        self.session = session_of(viewer)
        self.panel = open_workflow(viewer, settle)

    def page(self, step: Step) -> Any:
        """Go to a step, with the button *Next* if it leads there; return its page."""
        leads_there = self.panel.next_button.text() == f"Next: {step.value}"
        click(self.panel.next_button if leads_there else self.panel.buttons[step])
        self.settle()
        page = self.panel.pages[step]
        assert page.isVisible()
        return page

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

    # the steps -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Open the slide, enter its microns per pixel if they are missing, and find tissue."""
        slides = self.page(Step.SLIDES)
        self.viewer.open(str(self.lesson.slide), plugin="napari-pbip")
        self.settle(lambda: self.session.slides[0].pyramid.pending == 0)
        if self.lesson.mpp is not None:
            enter(slides.mpp.value, self.lesson.mpp)
            click(slides.mpp.button)
            self.viewer.reset_view()
            self.settle(lambda: self.session.slides[0].pyramid.pending == 0)
        click(slides.tissue.button)
        slide = self.session.slides[0]
        self.settle(lambda: self.session.tissue.mask(slide) is not None and not self.session.jobs)
        self.settle()
        self.shot("slides")
        self.session.tissue.mask(slide).layer.visible = False
        self.done(Step.SLIDES)

    def label_tiles(self) -> None:
        """Label tiles on the slide, some of them with two classes, and show the live map."""
        teach = self.page(Step.LABEL_TILES)
        part = teach.slide_labels
        table, lesson = part.table, self.lesson
        enter(part.tile_size.pixels, lesson.size.pixels)
        enter(part.tile_size.mpp, lesson.size.mpp)
        while table.rowCount() < len(lesson.classes):
            click(part.add_button)
        for row, name in enumerate(lesson.classes):
            table.choose(row)
            table.edit_name()
            self.settle()
            editor = next(e for e in table.findChildren(QLineEdit) if e.isVisible())
            editor.selectAll()
            QTest.keyClicks(editor, name)
            QTest.keyClick(editor, Qt.Key.Key_Return)
            self.settle()
        click(part.tool_button)
        for row, name in enumerate(lesson.classes):
            table.choose(row)
            for place in lesson.tiles[name]:
                self.click_tile(*place)
        for place, names in lesson.mixed.items():
            for name in names:
                table.choose(lesson.classes.index(name))
                self.click_tile(*place, SHIFT)
        given = self.session.labelling.labels.snapshot().tiles[0]
        singles = {place: {row} for row, name in enumerate(lesson.classes) for place in lesson.tiles[name]}
        mixed = {place: {lesson.classes.index(n) for n in names} for place, names in lesson.mixed.items()}
        assert given == singles | mixed
        self.settle(lambda: self.session.settings.data.folder == self.session.tiles_folder)
        self.settle(lambda: not self.session.jobs)
        self.done(Step.LABEL_TILES)
        self.shot("label-tiles")
        assert self.viewer.layers["Labelled tiles"].visible
        live = self.session.live_map
        click(part.live.live_button)
        self.settle(lambda: live.layer is not None and live.checked and not self.session.jobs, seconds=300)
        self.settle()
        self.shot("live-map")
        click(part.live.live_button)
        assert live.layer is None

    def build_bank(self) -> None:
        """Build the image bank."""
        bank = self.page(Step.BANK)
        assert self.viewer.layers["Labelled tiles"].visible  # a click on one finds it in the bank
        self.settle(lambda: self.session.bank.tiles is not None)
        self.settle()
        click(bank.build_button)
        self.settle(lambda: self.session.bank.bank is not None and self.session.bank.places)
        self.done(Step.BANK)
        self.shot("bank")

    def train(self, **settings: Any) -> None:
        """Train PBIP; ``settings`` are training settings that differ from the defaults."""
        train = self.page(Step.TRAIN)
        assert not self.viewer.layers["Labelled tiles"].visible  # they would cover what comes
        before = self.session.settings
        self.session.change(train=before.train.model_copy(update=settings))
        self.settle(lambda: self.session.training.devices)
        self.settle()
        click(train.start_button)
        self.settle(lambda: self.session.training.job is not None)
        self.settle(lambda: self.session.training.job is None and not self.session.jobs, seconds=1200)
        self.done(Step.TRAIN)
        self.shot("train")

    def segment(self) -> None:
        """Segment the slide with the model."""
        segment = self.page(Step.SEGMENT)
        self.settle(lambda: segment.segment_button.isEnabled())
        click(segment.segment_button)
        self.settle(lambda: len(self.session.results) == 1, seconds=120)
        self.settle(lambda: not self.session.jobs, seconds=300)
        self.done(Step.SEGMENT)
        self.shot("segment")

    def tune(self) -> None:
        """Move the threshold, show the map and the areas, and save the labels."""
        tune = self.page(Step.TUNE)
        result = self.session.results[0]
        before = np.array(result.view.labels(0, slice(None), slice(None)))
        tune.controls.delta.setFocus()
        slider = tune.controls.delta
        for _ in range(12):
            QTest.keyClick(slider.slider, Qt.Key.Key_Right)
        self.settle(lambda: result.thresholds.delta > 0.2)
        self.settle(lambda: result.areas.exact)
        assert (result.view.labels(0, slice(None), slice(None)) != before).any()
        self.shot("tune")
        assert self.panel.missing.text()
        click(tune.save_button)
        self.settle(lambda: not self.session.jobs)
        self.done(Step.TUNE)

    def export(self, folder: Path) -> None:
        """Export the areas."""
        evaluate = self.page(Step.EVALUATE)
        evaluate.exports.export(folder / "areas.csv", "csv")
        self.settle(lambda: (folder / "areas.csv").exists() and not self.session.jobs)
        self.done(Step.EVALUATE)
