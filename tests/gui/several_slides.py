"""What docs/tutorials/several-slides.md says, done with mouse and keys in two sittings, each in a process of its own.

``python -m tests.gui.several_slides follow|open_again STUDY LOCALE`` prints what is left in the window, and what was
read. The two tumours are the small slides in the folder ``tumours`` of the study.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_pbip import samples
from napari_pbip.config import SegmentSettings
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.panels.cohort_table import AREAS, MAP, MODEL, MPP, SLIDE, STATE, TISSUE
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.gui.state.steps import Step
from napari_pbip.replay import SCRIPT
from tests.gui.docks.test_project import click_cell, click_header, header, row_of, select_all, shown, type_mpp
from tests.gui.napari_privates import canvas_of, main_window
from tests.gui.qt_helpers import (
    answer,
    answer_text,
    choose_colour,
    choose_entry,
    click,
    double_click,
    open_workflow,
    save_as,
    type_text,
)
from tests.gui.reader import Reader
from tests.gui.sitting import sit
from tests.gui.state.project_process import state

PAGE = "tutorials/several-slides.md"
TUMOURS = "frozen_section", "tumour"
"""Names of the functions of :mod:`napari_pbip.samples`."""
TITLE, COLOUR = "my title", "#123456"
SHIFT, NO = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.NoModifier


class SeveralSlides:
    """One reading of the page; every section of it is a method, which waits until the window shows the outcome.

    Parameters
    ----------
    viewer
        A shown viewer.
    settle
        Function that runs the event loop until a condition holds, or for a moment.
    reader
        Ticks off the names of controls that the page has.
    study
        Folder of what is written.
    """

    def __init__(self, viewer: Any, settle: Callable[..., None], reader: Reader, study: Path) -> None:
        self.viewer, self.settle, self.reader, self.study = viewer, settle, reader, study
        self.session = session_of(viewer)
        reader.named("Workflow")
        self.panel = open_workflow(viewer, settle)

    def follow(self) -> None:
        """Do all that the page says after the project was opened, until napari is closed."""
        self.open_slides()
        self.map_all()
        self.map_with_another_model()
        self.look_at_each()
        self.use_thresholds_for_others()
        self.compare()

    @property
    def project(self) -> Any:
        """The page *Project*."""
        return self.panel.pages[Step.PROJECT]

    def page(self, name: str) -> Any:
        """Go to a step by the name that the page gives its button."""
        self.reader.press(self.panel, name)
        self.settle()
        return self.panel.pages[next(step for step in Step if step.value.startswith(name))]

    def column(self, number: int) -> list[str]:
        """Return what a column of the table shows."""
        return shown(self.project, number)

    def areas(self) -> list[tuple[str, ...]]:
        """Return what the table shows of the areas of each slide."""
        columns = map(self.column, range(AREAS, len(header(self.project))))
        return [*zip(*columns, strict=True)]

    def at_rest(self) -> None:
        """Wait until nothing is read or computed any more, and the table shows it."""
        entries = self.session.cohort.entries
        self.settle(lambda: not self.session.jobs and not self.session.project.opening)
        self.settle(lambda: all(entry.known for entry in entries()) and not self.session.jobs)
        self.settle()

    def select_all(self) -> None:
        select_all(self.project)
        self.settle()
        assert len(self.project.table.selected()) == 3

    def save(self, button: str, name: str) -> None:
        """Press a button of the page *Project* that asks where to save, and wait until the file is written."""
        self.reader.press(self.project, button)
        save_as(self.project, self.settle, self.study / name)
        self.settle(lambda: name in self.project.notice.text() and not self.session.jobs)

    # the sections of the page --------------------------------------------------------------------------------

    def open_project(self) -> None:
        """Open the sample project, which has a slide and a model."""
        self.page("1 Slides")
        self.reader.press(self.panel, "Open the sample project")
        self.settle(lambda: len(self.session.slides) == 1 and not self.session.jobs)
        self.settle(lambda: [*self.session.training.models] == ["skin"] and not self.session.project.opening)

    def open_slides(self) -> None:
        """Open the two other slides, and give their microns per pixel in the table."""
        for key in ("frozen section", "tumour"):
            self.viewer.open_sample("napari-pbip", key)
        project = self.page("Project")
        self.settle(lambda: len(self.column(SLIDE)) == 3 and not self.session.jobs)
        assert header(project)[MPP].replace("\n", " ") == self.reader.named("µm per pixel")
        for said, mpp in (("TCGA", "0.5"), ("CPTAC", "1")):
            assert f"({said})" in self.reader.page
            name = next(name for name in self.column(SLIDE) if name.startswith(said))
            assert self.column(MPP)[row_of(project, name)] == self.reader.named("unknown")
            type_mpp(project, self.settle, name, mpp)

    def map_all(self) -> None:
        """Segment all slides with one model, and look at the table in a window of its own."""
        project, reader = self.project, self.reader
        reader.named("Model")
        choose_entry(project.model, reader.named("skin"))
        self.select_all()
        reader.press(project, "Segment")
        assert header(project)[STATE] == reader.named("State")
        self.settle(lambda: self.column(STATE) == ["done"] * 3 and not self.session.jobs)
        self.settle(lambda: len(header(project)) > AREAS and all(self.column(TISSUE)))
        assert all(map(all, self.areas()))
        reader.press(project, "Enlarge")
        table = project.table
        window = table.window()
        assert window is not main_window(self.viewer)
        self.settle(lambda: not table.horizontalScrollBar().maximum())  # all columns are in sight
        pictures = [table.model().index(row, MAP).data(Qt.ItemDataRole.DecorationRole) for row in range(3)]
        assert not any(picture.isNull() for picture in pictures)
        window.close()
        self.settle(lambda: table.window() is main_window(self.viewer) and table.isVisible())

    def map_with_another_model(self) -> None:
        """Fit a probe, keep both maps of each slide, choose which one is counted, and delete one and bring it back."""
        project, reader, queue = self.project, self.reader, self.session.segmenting
        first = self.areas()
        self._fit_probe()
        reader.press(self.panel, "Project")
        choose_entry(project.model, "model 1")
        self.select_all()
        reader.press(project, "Segment")
        self.settle(lambda: [one.status for one in queue.slides] == [Status.OCCUPIED] * 3 and not self.session.jobs)
        rows = self.page("5 Segment").queue.rows
        assert all("There is a map already, made with another model, “skin”" in row.notice.text() for row in rows)
        reader.press(rows[0], "Keep both")
        reader.press(self.panel, "Keep both for all")
        self.settle(lambda: [one.status for one in queue.slides] == [Status.DONE] * 3 and not self.session.jobs)
        reader.press(self.panel, "Project")
        self.settle(lambda: self.column(STATE) == ["done, 2 maps"] * 3)
        self.at_rest()
        assert self.column(MODEL) == ["model 1"] * 3
        second = self.areas()
        assert all(a != b for a, b in zip(first, second, strict=True)), (first, second)
        self.select_all()
        assert project.maps_label.text() == reader.named("Count the map by")
        choose_entry(project.maps, "skin")
        self.settle(lambda: self.column(MODEL) == ["skin"] * 3)
        self.at_rest()
        assert self.areas() == first
        assert [one.store.facts.model.run for one in self.session.results if one.layer.visible] == ["skin"]
        # one of them is counted by the other model, and deleted
        click_cell(project, 2, SLIDE)
        choose_entry(project.maps, "model 1")
        self.settle(lambda: self.column(MODEL) == ["skin", "skin", "model 1"])
        self.at_rest()
        reader.press(project, "Delete…")
        said = answer(project, self.settle, "Delete")
        assert f"Delete the map of {self.column(SLIDE)[2]} by “model 1”?" in said
        assert "made on 20" in said
        self.settle(lambda: self.column(STATE) == ["done, 2 maps", "done, 2 maps", "done"])
        self.at_rest()
        assert self.column(MODEL) == ["skin"] * 3
        assert self.areas() == first
        click(project.undo.undo_button)
        self.settle(lambda: self.column(STATE) == ["done, 2 maps"] * 3)
        self.at_rest()
        assert self.column(MODEL) == ["skin", "skin", "model 1"]
        assert self.areas() == [*first[:2], second[2]]

    def _fit_probe(self) -> None:
        """Train another model."""
        train, training, reader = self.page("4 Train"), self.session.training, self.reader
        self.settle(lambda: training.devices and not self.session.jobs)
        reader.named("Method")
        choose_entry(train.form.editor("method.name"), reader.named("Linear probe"))
        reader.press(train, "Train")
        name = reader.named("model 1")
        self.settle(lambda: name in training.models and training.models[name].finished)
        self.settle(lambda: not self.session.jobs)

    def look_at_each(self) -> None:
        """Go from slide to slide, hide the map, and change thresholds, a title and a colour, and take them back."""
        project, names = self.project, self.column(SLIDE)
        click_cell(project, 0, SLIDE, twice=True)
        self.at_rest()
        assert self.session.current_slide.slide.path.name == names[0]
        canvas, window = canvas_of(self.viewer), main_window(self.viewer)
        window.activateWindow()
        self.settle(window.isActiveWindow)
        canvas.setFocus()
        for place, modifiers in ((1, NO), (2, NO), (1, SHIFT), (0, SHIFT)):
            QTest.keyClick(canvas, Qt.Key.Key_N, modifiers)
            self.at_rest()
            assert self.session.current_slide.slide.path.name == names[place]
        result = self.session.results.current
        QTest.keyPress(canvas, Qt.Key.Key_H)
        QTest.qWait(600)
        assert not result.layer.visible
        QTest.keyRelease(canvas, Qt.Key.Key_H)
        self.settle()
        assert result.layer.visible
        tune = self.page("6 Tune")
        self.settle(lambda: result.areas.exact and not self.session.jobs)
        before, titles = self.areas(), header(project)[AREAS:]
        colour = result.taxonomy.classes[0].colour
        tuned = self._tune(tune)
        assert tuned[0] != before[0]
        assert tuned[1:] == before[1:]
        assert header(project)[AREAS:] != titles
        # each is taken back, and made again
        self.reader.press(tune, "Undo")
        self.settle(lambda: result.taxonomy.classes[0].colour == colour)
        self.reader.press(tune, "Undo")
        assert header(project)[AREAS:] == titles
        self.reader.press(tune, "Undo")
        self.at_rest()
        assert self.areas() == before
        assert self._tune(tune) == tuned
        camera = camera_of(self.viewer)
        camera.zoom, camera.center = 2 * camera.zoom, (700.0, 500.0)  # a place that another sitting has to find

    def _tune(self, tune: Any) -> list[tuple[str, ...]]:
        """Change a threshold, and title and colour of the first class; return the areas in the table."""
        result, legend = self.session.results.current, tune.legend
        slider = tune.controls.delta.slider
        slider.setFocus()
        for _ in range(6):
            QTest.keyClick(slider, Qt.Key.Key_PageUp)
        self.settle(lambda: result.areas.exact and not self.session.jobs)
        self.at_rest()
        double_click(legend.rows[1].eye, QPoint(5, legend.rows[1].eye.height() // 2))
        answer_text(legend, self.settle, TITLE)
        self.settle(lambda: header(self.project)[AREAS : AREAS + 2] == [f"{TITLE}\nmm²", f"{TITLE}\n%"])
        choose_colour(legend.rows[1].swatch, COLOUR)
        self.settle(lambda: result.taxonomy.classes[0].colour == COLOUR)
        return self.areas()

    def use_thresholds_for_others(self) -> None:
        """Use the thresholds of the slide in view for the others, of which one is left out; take it back, and do it."""
        project, names = self.page("Project"), [Path(name).stem for name in self.column(SLIDE)]
        deltas = [result.thresholds.delta for result in self._open_maps(names)]
        before = self.areas()
        click_cell(project, 1, SLIDE)
        QTest.keyClick(project.table, Qt.Key.Key_Down, SHIFT)
        self.settle()
        assert [path.stem for path in project.table.selected()] == names[1:]
        self._use_thresholds(names)
        click(project.undo.undo_button)
        assert [result.thresholds.delta for result in self._open_maps(names)] == deltas
        self.at_rest()
        assert self.areas() == before
        self._use_thresholds(names)
        now = self.areas()
        assert now == [before[0], now[1], before[2]]
        assert now[1] != before[1]

    def _open_maps(self, names: Sequence[str]) -> list[Any]:
        """Return the map of each slide that is counted."""
        stores = [entry.row.result.store for entry in self.session.cohort.entries()]
        assert [store.name.partition(".")[0] for store in stores] == [*names]
        return [self.session.results.of_store(store) for store in stores]

    def _use_thresholds(self, names: Sequence[str]) -> None:
        project = self.project
        first, last = self.reader.named("Use thresholds of “…” for selection").split("…")
        button, cell = project.thresholds_button, project.table.model().index(1, AREAS)
        assert button.text().startswith(first)
        assert button.text().endswith(last)
        source, used, left_out = self._open_maps(names)
        before = left_out.thresholds.delta
        click(button)
        assert used.thresholds.delta == source.thresholds.delta  # at once
        assert left_out.thresholds.delta == before != source.thresholds.delta
        assert f"are used for {names[1]}; areas in italics are being counted again." in project.notice.text()
        assert f"maps are by another model or of other classes: {names[2]}." in project.notice.text()
        assert cell.data(Qt.ItemDataRole.FontRole).italic()
        assert not project.save_button.isEnabled()
        self.at_rest()
        assert cell.data(Qt.ItemDataRole.FontRole) is None
        assert project.save_button.isEnabled()

    def compare(self) -> None:
        """Sort and filter the table, and write all that the page says."""
        project, reader = self.project, self.reader
        reader.press(self.panel, "Project")
        project.table.scrollTo(project.table.model().index(0, AREAS))
        click_header(project, AREAS)
        areas = [float(area) for area in self.column(AREAS)]
        assert areas == sorted(areas, reverse=areas[0] > areas[-1])
        assert project.search.placeholderText() == reader.named("Filter by any column")
        QTest.keyClicks(project.search, "TCGA")
        assert len(self.column(SLIDE)) == 1
        self.save("Save table…", "all.csv")  # of all slides, also of those that are not shown
        self.save("Statistics…", "statistics.csv")
        self.save("Report…", "report.html")
        exports = self.page("Evaluate").exports
        choose_entry(exports.format, "Polygons (GeoJSON)")
        reader.press(exports, "Export…")
        save_as(exports, self.settle, self.study / "map.geojson")
        self.settle(lambda: "map.geojson" in exports.written.text() and not self.session.jobs)
        reader.press(self.panel, "Project")
        reader.press(project, "Save steps")
        self.settle(lambda: f"Saved as {SCRIPT}" in project.notice.text() and not self.session.jobs)

    # another day ---------------------------------------------------------------------------------------------

    def leave_some(self) -> None:
        """Have slides wait for an answer, and take one of them off the list; the others stay undone."""
        queue, settings = self.session.segmenting, self.session.settings.segment
        self.session.change(segment=settings.model_copy(update={"overlap": settings.overlap + 16}))
        type_text(self.project.search, "")
        self.select_all()
        self.reader.press(self.project, "Segment")
        self.settle(lambda: [one.status for one in queue.slides] == [Status.OCCUPIED] * 3 and not self.session.jobs)
        rows = self.page("5 Segment").queue.rows
        self.reader.press(next(row for row in rows if row.slide.path == samples.slide()), "Remove")
        assert len(queue.slides) == 2
        self.session.change(segment=settings)
        self.reader.press(self.panel, "Project")
        type_text(self.project.search, "TCGA")
        self.settle()

    def open_again(self) -> None:
        """Open the project as it was left, and take what waits off the list."""
        assert not len(self.session.slides)
        self.reader.press(self.panel.pages[Step.SLIDES], "Open it")
        self.settle(lambda: len(self.session.slides) == 3 and not self.session.project.opening)
        self.at_rest()
        project = self.project
        waiting = {one.path.name for one in self.session.segmenting.slides}
        assert waiting == {getattr(samples, name)().name for name in TUMOURS}
        assert all(name in project.project.waiting.text() for name in waiting)
        [shown_state] = self.column(STATE)  # by the filter
        assert shown_state.startswith("waiting (stopped when the project was closed)")
        self.reader.press(project, "Dismiss")
        assert not project.project.waiting.isVisible()
        self.at_rest()

    def left(self) -> dict[str, Any]:
        """Return what the window shows."""
        model = self.project.table.cohort_model
        rows, columns = range(model.rowCount()), range(model.columnCount())
        return state(self.viewer, self.study) | {
            "titles": header(self.project),
            "table": [[model.data(model.index(row, column)) for column in columns] for row in rows],
        }


def main(what: str, study: Path, locale: str) -> None:
    """Follow the page until napari is closed, or open the project again."""
    for name, path in zip(TUMOURS, sorted((study / "tumours").glob("*.tif"), reverse=True), strict=True):
        setattr(samples, name, lambda path=path: path)

    def work(viewer: Any, settle: Callable[..., None]) -> dict[str, Any]:
        session, reader = session_of(viewer), Reader(PAGE)
        if what == "follow":
            session.folder = study / "documents" / "napari-pbip"
        slides = SeveralSlides(viewer, settle, reader, study)
        if what == "follow":
            slides.open_project()
            session.change(segment=SegmentSettings(device="cpu", precision="float32", overlap=0))
            slides.follow()
            left = slides.left()
            slides.leave_some()
        else:
            slides.open_again()
            left = slides.left()
        return {"left": left, "read": sorted(reader.read)}

    sit(work, study, locale, (1500, 950))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
