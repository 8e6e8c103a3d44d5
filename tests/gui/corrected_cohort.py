"""What docs/how-to/from-a-map-to-a-corrected-cohort.md describes, with mouse and keys, for a test and for pictures.

Every part is a method that waits until the window shows the outcome.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QScrollArea

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.panels.cohort_table import STATE, TISSUE
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from tests.gui.docks.test_project import header, select_all, shown, type_mpp
from tests.gui.napari_privates import canvas_of
from tests.gui.qt_helpers import Settle, answer, choose_entry, choose_files, click, drag, open_workflow, type_text
from tests.gui.reader import Reader

THREAD = ((60, 470), (430, 470), (430, 620), (60, 620))
"""Corners of the region that is left out, in micrometres (x, y) of the sample slide."""
STROKE = ((480, 1330), (690, 1400))
"""What is painted."""
SUGGESTED = 10


class CorrectedCohort:
    """One reading of the page.

    Parameters
    ----------
    viewer
        A shown viewer.
    settle
        Function that runs the event loop until a condition holds.
    reader
        Ticks off the names of controls that the page has.
    shot
        Function that is called with the name of a picture when there is something to see.
    """

    def __init__(
        self, viewer: Any, settle: Settle, reader: Reader, shot: Callable[[str], None] = lambda name: None
    ) -> None:
        self.viewer, self.settle, self.reader, self.shot = viewer, settle, reader, shot
        self.session, self.canvas = session_of(viewer), canvas_of(viewer)
        self._labelled: Mapping[Any, Any] = {}
        reader.named("Workflow")
        self.panel = open_workflow(viewer, settle)

    @property
    def result(self) -> Any:
        """The map of the sample slide."""
        return self.session.results[0]

    def page(self, name: str) -> Any:
        """Go to a step by its name; return its page."""
        self.reader.press(self.panel, name)
        self.settle()
        return self.panel.pages[Step(name)]

    def at(self, x: float, y: float) -> QPointF:
        """Return the place of a position in micrometres on the canvas."""
        camera = camera_of(self.viewer)
        dy, dx = (np.array([y, x]) - np.array(camera.center)[-2:]) * camera.zoom
        return QPointF(round(self.canvas.width() / 2 + dx), round(self.canvas.height() / 2 + dy))

    def draw(self, corners: Sequence[tuple[float, float]]) -> None:
        """Draw along corners with the button down."""
        places = [self.at(*corner) for corner in corners]
        between = [a + (b - a) * step / 5 for a, b in itertools.pairwise(places) for step in range(1, 6)]
        drag(self.canvas, [places[0], *between])
        self.settle()

    def scroll_to(self, widget: Any) -> None:
        """Scroll a widget into view, as far as it fits."""
        area = widget
        while not isinstance(area, QScrollArea):
            area = area.parentWidget()
        area.ensureWidgetVisible(widget)
        self.settle()

    def counted(self) -> None:
        """Wait until every cell of the map is counted."""
        self.settle(lambda: self.result.areas.exact and not self.result.areas.counting and not self.session.jobs)
        self.settle()

    def right(self) -> tuple[float, float]:
        """Return how much the model's own map agrees with the corrections, and with the tiles of the sample project."""
        store, size = self.result.store, self.session.labelling.labels.size
        scores = np.nan_to_num(np.asarray(store.scores[0][:], np.float32), nan=-np.inf)
        best = np.where(np.isfinite(scores.max(0)), scores.argmax(0) + 1, 0)
        corrected = store.corrections.cells
        there = (best > 0) & (corrected > 0)
        side, known = size.microns / store.cell_um, []
        for (column, row), classes in self._labelled.items():
            ys, xs = (slice(round(i * side), round((i + 1) * side)) for i in (row, column))
            if len(classes) == 1:
                known.append((best[ys, xs] == next(iter(classes)) + 1)[best[ys, xs] > 0])
        return float((best == corrected)[there].mean()), float(np.concatenate(known).mean())

    def follow(self, others: Mapping[Path, float]) -> None:
        """Do all that the page says after the project was opened, with other slides and their microns per pixel."""
        self.first_map()
        self.leave_out()
        self.correct()
        self.teach()
        self.answer_suggestions()
        self.map_again()
        self.compare()
        self.cohort(others)

    # the parts of the page -----------------------------------------------------------------------------------

    def open_project(self) -> None:
        """Open the sample project."""
        self.page("1 Slides")
        self.reader.press(self.panel, "Open the sample project")
        self.settle(
            lambda: len(self.session.slides) == 1 and not self.session.jobs and not self.session.project.opening
        )

    def first_map(self) -> None:
        """Map its slide."""
        labelling = self.page("2 Label tiles").slide_labels
        self.settle(lambda: self.session.labelling.grid is not None)
        self.reader.press(labelling, "Map the whole slide")
        self.settle(lambda: "Next: 6 Tune" in labelling.live.whole_note.text() and not self.session.jobs, seconds=400)
        self.counted()

    def leave_out(self) -> None:
        """Draw around what does not count."""
        slides = self.page("1 Slides")
        assert slides.regions.title() == self.reader.named("Regions")
        assert slides.regions.analyse_button.text() == self.reader.named("Analyse…")
        before = sum(row.area_mm2 for row in self.result.areas.rows)
        self.reader.press(slides, "Leave out…")
        self.settle()
        self.draw((*THREAD, THREAD[0]))
        self.settle(lambda: len(self.session.regions.of(self.session.slides[0])) == 1)
        self.counted()
        assert sum(row.area_mm2 for row in self.result.areas.rows) < before
        self.shot("corrected-regions")

    def correct(self) -> None:
        """Paint over the map."""
        tune = self.page("6 Tune")
        type_text(tune.correct.who, "A. Person")
        self.reader.named("Paint")
        self.reader.press(tune, "Correct")
        self.settle()
        choose_entry(tune.correct.paints, tune.correct.paints.itemText(1))
        self.draw(STROKE)
        self.settle(lambda: self.result.store.corrections.sittings)
        self.counted()
        self.settle(lambda: "mm² corrected by hand" in tune.legend.exactness.text())
        self.scroll_to(tune.correct)
        self.shot("corrected-paint")
        self.reader.press(tune, "Correct")
        assert "A. Person" in tune.correct.about.text()
        self.reader.press(tune, "Take back…")
        answer(tune.correct, self.settle, "Take back")
        correcting = self.session.correcting
        self.settle(lambda: correcting.saved and not self.result.store.corrections.sittings)
        self.reader.press(tune, "Undo")
        self.settle(lambda: correcting.saved and self.result.store.corrections.sittings)
        self.counted()

    def teach(self) -> None:
        """Label the tiles that the corrections tell the class of."""
        teach = self.panel.pages[Step.TUNE].correct.teach
        labels = self.session.labelling.labels
        before, self._labelled = len(labels), dict(labels.tiles(self.session.slides[0].slide.identity))
        self.reader.press(teach, "Teach the model…")
        self.settle(lambda: teach.label_button.isVisible() and not self.session.jobs)
        self.settle()
        self.scroll_to(teach)
        self.shot("corrected-teach")
        first, last = self.reader.named("Label … tiles").split("…")
        assert teach.label_button.text().startswith(first)
        assert teach.label_button.text().endswith(last)
        click(teach.label_button)
        labelled = len(labels)
        assert labelled > before
        self.reader.press(self.panel.pages[Step.TUNE], "Undo")
        assert len(labels) == before
        click(self.panel.pages[Step.TUNE].undo.redo_button)
        assert len(labels) == labelled

    def answer_suggestions(self) -> None:
        """Answer with the class that the map shows in the middle of a tile; one of them is skipped."""
        labelling = self.page("2 Label tiles").slide_labels
        suggestions, side = self.session.suggestions, self.session.labelling.labels.size.microns
        before = len(self.session.labelling.labels)
        self.reader.press(labelling, "Suggest tiles")
        self.settle(lambda: suggestions.tile is not None and not self.session.jobs)
        self.settle()
        self.shot("corrected-suggest")
        for number in range(SUGGESTED):
            _, (column, row) = suggestions.tile
            label, _ = self.result.value_at(((row + 0.5) * side, (column + 0.5) * side))
            known = number > 0 and 0 < label <= len(self.result.taxonomy)
            self.canvas.setFocus()
            QTest.keyClick(self.canvas, Qt.Key(Qt.Key.Key_0.value + label) if known else Qt.Key.Key_K)
            self.settle()
        assert suggestions.tile is None
        assert suggestions.skipped
        assert len(self.session.labelling.labels) > before
        self.reader.press(labelling, "Suggest tiles")
        self.settle(lambda: suggestions.tile is not None and not self.session.jobs)
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, Qt.Key.Key_Escape)
        self.settle(lambda: suggestions.tile is None)

    def map_again(self) -> None:
        """Map the slide with a probe of all labels; corrections and regions stay."""
        labelling = self.panel.pages[Step.LABEL_TILES].slide_labels
        corrected, before = self.result.store.corrections.cells.copy(), self.right()
        self.reader.press(labelling, "Map the whole slide")
        self.settle(lambda: labelling.live.whole_problem.isVisible() and not self.session.jobs, seconds=400)
        assert "has a tissue map already" in labelling.live.whole_problem.text()
        assert labelling.live.keep_button.isVisible()
        assert labelling.live.keep_button.text() == self.reader.named("Keep both")
        self.reader.press(labelling, "Replace it")
        answer(labelling.live, self.settle, "Replace it")
        self.settle(lambda: "Next: 6 Tune" in labelling.live.whole_note.text() and not self.session.jobs, seconds=400)
        self.counted()
        np.testing.assert_array_equal(self.result.store.corrections.cells, corrected)
        assert len(self.result.store.regions) == 1
        now = self.right()
        assert now[0] > before[0]
        assert now[1] > before[1] - 0.02

    def compare(self) -> None:
        """Compare two thresholds, as a table and side by side."""
        tune = self.page("6 Tune")
        self.reader.named("All classes")
        tune.controls.delta.slider.setFocus()
        for _ in range(4):
            QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
        self.counted()
        compare = tune.compare
        self.reader.press(tune, "What changed?")
        self.settle(lambda: compare.beside_button.isVisible() and not self.session.jobs)
        assert "have another label" in compare.notice.text()
        assert compare.other_button.text() == self.reader.named("Compare with…")
        self.reader.press(tune, "Side by side")
        self.settle(lambda: "Left:" in compare.beside_notice.text() and not self.session.jobs)
        self.settle(lambda: self.session.slides[0].pyramid.pending == 0)
        self.scroll_to(compare)
        self.shot("corrected-compare")
        self.reader.press(tune, "Side by side")
        assert not compare.beside_notice.text()

    def cohort(self, others: Mapping[Path, float]) -> None:
        """Map other slides, given with their microns per pixel, with the new model."""
        project = self.page("Project")
        self.reader.press(project, "Add slides…")
        choose_files(project, self.settle, *others)
        self.settle(lambda: len(shown(project, STATE)) == 1 + len(others) and not self.session.jobs)
        for path, mpp in others.items():
            type_mpp(project, self.settle, path.name, f"{mpp:g}")
        self.reader.named("Model")
        newest = max(self.session.training.models, key=lambda name: (name.startswith("model"), name))
        choose_entry(project.model, newest)
        self.settle(lambda: len(shown(project, STATE)) == 1 + len(others) and not self.session.jobs)
        select_all(project)
        self.reader.press(project, "Segment")
        self.settle(
            lambda: shown(project, STATE) == ["done"] * (1 + len(others)) and not self.session.jobs, seconds=900
        )
        self.settle(lambda: all(shown(project, TISSUE)))
        assert any("mm²" in one for one in header(project))
        self.shot("corrected-cohort")
