"""docs/tutorials/several-slides.md, followed word for word with mouse and keys; its two tumours are smaller here."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QLineEdit

from napari_pbip import samples
from napari_pbip.config import SegmentSettings
from napari_pbip.gui.panels.cohort_table import AREAS, MPP, SLIDE, STATE, TISSUE
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from napari_pbip.replay import SCRIPT
from napari_pbip.slides import open_slide
from tests.gui.docks.test_project import click_cell, click_header, header, shown
from tests.gui.napari_privates import canvas_of, main_window
from tests.gui.qt_helpers import Settle, click, open_workflow, save_as
from tests.gui.reader import Reader
from tests.gui.state.test_shown_classes import answer, double_click

PAGE = "tutorials/several-slides.md"


@pytest.fixture
def tumours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Parts of the two sample slides without microns per pixel, in their place."""
    paths = []
    for name in ("frozen_section", "tumour"):
        whole = getattr(samples, name)()
        path = tmp_path / f"{whole.stem}.tif"
        with open_slide(whole) as slide:
            pixels = slide.read_level(0, slide.width // 2 - 400, slide.height // 2 - 400, 800, 800)
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
        monkeypatch.setattr(samples, name, lambda path=path: path)
        paths.append(path)
    return paths


def test_the_page_can_be_followed(viewer: Any, settle: Settle, tmp_path: Path, tumours: list[Path]) -> None:
    reader, session = Reader(PAGE), session_of(viewer)
    session.folder = tmp_path / "documents" / "napari-pbip"
    session.change(segment=SegmentSettings(device="cpu", precision="float32", overlap=16))

    # the project
    reader.named("Workflow")
    panel = open_workflow(viewer, settle)
    reader.press(panel, "1 Slides")
    reader.press(panel, "Open the sample project")
    settle(lambda: len(session.slides) == 1 and not session.jobs)
    settle(lambda: reader.named("skin") in session.training.models and not session.project.opening)

    # its slides
    for key in ("frozen section", "tumour"):
        viewer.open_sample("napari-pbip", key)
    reader.press(panel, "Project")
    project = panel.pages[Step.PROJECT]
    table = project.table
    settle(lambda: len(shown(project, SLIDE)) == 3 and not session.jobs)
    assert reader.named("µm per pixel") == header(project)[MPP].replace("\n", " ")
    for path, mpp in zip(tumours, ("0.5", "1"), strict=True):
        row = shown(project, SLIDE).index(path.name)
        assert shown(project, MPP)[row] == reader.named("unknown")
        click_cell(project, row, MPP, twice=True)
        [editor] = [one for one in table.viewport().findChildren(QLineEdit) if one.isVisible()]
        QTest.keyClicks(editor, mpp)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        settle(lambda row=row, mpp=mpp: shown(project, MPP)[row] == mpp)

    # one model for all
    reader.named("Model")
    assert project.model.currentText() == "skin"
    click_cell(project, 0, SLIDE)
    QTest.keyClick(table, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    assert len(table.selected()) == 3
    reader.press(project, "Segment")
    assert header(project)[STATE] == reader.named("State")
    settle(lambda: shown(project, STATE) == ["done"] * 3 and not session.jobs, seconds=400)
    settle(lambda: len(header(project)) > AREAS and all(shown(project, TISSUE)))

    # looking at each slide
    names = shown(project, SLIDE)
    click_cell(project, 0, SLIDE, twice=True)
    settle(lambda: not session.project.opening and not session.jobs)
    assert session.current_slide.slide.path.name == names[0]
    canvas, window = canvas_of(viewer), main_window(viewer)
    window.activateWindow()
    settle(window.isActiveWindow)
    canvas.setFocus()
    for place, modifiers in ((1, Qt.KeyboardModifier.NoModifier), (0, Qt.KeyboardModifier.ShiftModifier)):
        QTest.keyClick(canvas, Qt.Key.Key_N, modifiers)
        settle(lambda: not session.project.opening and not session.jobs)
        settle()
        assert session.current_slide.slide.path.name == names[place]
    result = session.results.current
    QTest.keyPress(canvas, Qt.Key.Key_H)
    QTest.qWait(600)
    assert not result.layer.visible
    QTest.keyRelease(canvas, Qt.Key.Key_H)
    settle()
    assert result.layer.visible
    reader.press(panel, "6 Tune")
    tune = panel.pages[Step.TUNE]
    legend = tune.legend
    settle(lambda: result.areas.exact and not session.jobs)
    settle()
    before = shown(project, AREAS)
    tune.controls.delta.slider.setFocus()
    for _ in range(6):
        QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    settle(lambda: result.areas.exact and not session.jobs)
    settle(lambda: shown(project, AREAS)[0] != before[0])
    assert shown(project, AREAS)[1:] == before[1:]
    first = result.taxonomy.names[0]
    double_click(legend.rows[1].eye, QPoint(5, legend.rows[1].eye.height() // 2))
    answer(legend, settle, "my title")
    settle(lambda: header(project)[AREAS] == "my title\nmm²")
    for _ in range(2):
        reader.press(tune, "Undo")
    assert header(project)[AREAS] == f"{first}\nmm²"
    settle(lambda: result.areas.exact and not session.jobs)
    settle(lambda: shown(project, AREAS) == before)

    # comparing them
    click(panel.buttons[Step.PROJECT])
    settle()
    table.scrollTo(table.model().index(0, AREAS))
    click_header(project, AREAS)
    areas = [float(area) for area in shown(project, AREAS)]
    assert areas == sorted(areas, reverse=areas[0] > areas[-1])
    assert project.search.placeholderText() == reader.named("Filter by any column")
    QTest.keyClicks(project.search, "TCGA")
    assert shown(project, SLIDE) == [tumours[0].name]
    project.search.clear()
    reader.press(project, "Save table…")
    save_as(project, settle, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {Path(name).stem for name in names}
    assert {float(row["mpp"]): row["mpp_from"] for row in rows.values()}[1] == "user"
    assert {row["model"] for row in rows.values()} == {"skin"}
    assert any(first in column for column in next(iter(rows.values())))
    reader.press(panel, "Evaluate")
    evaluate = panel.pages[Step.EVALUATE]
    assert evaluate.exports.button.text() == reader.named("Export…")
    assert evaluate.exports.button.isEnabled()
    click(panel.buttons[Step.PROJECT])
    reader.press(project, "Save steps")
    settle(lambda: (session.folder / SCRIPT).exists() and not session.jobs)

    menus = {
        "Plugins > PBIP tissue segmentation",
        "File > Open Sample > PBIP tissue segmentation",
        "without microns per pixel",
        "Use thresholds of “…” for selection",  # the button has the name of the map in view
    }
    elsewhere = {"Open it", "Add slides…", "Enlarge", "Statistics…", "Report…"}  # which other tests press
    elsewhere |= {"Keep both", "Keep both for all", "Compare with…", "Delete…", "Resume", "Dismiss", "Remove"}
    reader.press(panel, "5 Segment")
    assert project.maps_label.text() == reader.named("Count the map by")
    texts = {one.text().rstrip(" ✓") for one in panel.findChildren(QAbstractButton)}
    assert elsewhere <= texts
    assert reader.names == reader.read | menus | elsewhere
