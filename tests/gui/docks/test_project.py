"""The dock *Project*: a table of all slides that is read lazily, and what one does with it by mouse and keys."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtGui import QFontMetrics
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit, QStyle, QStyleOptionViewItem
from typer.testing import CliRunner

from napari_pbip import cli, samples
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.sample_project import sample_project
from napari_pbip.gui.panels.cohort_table import AREAS, MAP, MODEL, MPP, SLIDE, STATE, TISSUE
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.project import Project
from napari_pbip.results import ScoreStore, write_labels
from napari_pbip.results.cohort import summarise
from napari_pbip.results.places import FURTHER_MAPS, result_folder
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.taxonomy import BCSS
from tests.gui.docks.test_segment import QUICK, drop
from tests.gui.napari_privates import main_window
from tests.gui.qt_helpers import Settle, click, type_text
from tests.gui.state.project_process import make_store
from tests.results import stores

MANY = 300
STALL = 0.2
"""Seconds of work between which the window has to come to itself; 0.06 is usual."""


@pytest.fixture
def study(viewer: Any, widget: Any, settle: Settle, tmp_path: Path) -> Path:
    """Three slides of which one has a result, in the table."""
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(samples.slide(), folder / "skin.svs")
    shutil.copy(samples.tumour(), folder / "tumour.tif")
    shutil.copy(samples.frozen_section(), folder / "frozen.svs")
    with open_slide(folder / "skin.svs") as slide:
        result = session_of(viewer).results_folder / f"skin-{slide.identity[:12]}"
        result.mkdir(parents=True)
        make_store(slide, result / "skin.ome.zarr")
    drop(widget, folder)
    all_known(widget, settle, 3)
    return folder


def all_known(widget: Any, settle: Settle, count: int) -> None:
    model = widget.table.cohort_model
    settle(lambda: len(model.entries) == count and all(entry.known for entry in model.entries), 180)


def shown(widget: Any, column: int) -> list[str]:
    model = widget.table.model()
    return [model.index(row, column).data() for row in range(model.rowCount())]


def row_of(widget: Any, name: str) -> int:
    return shown(widget, SLIDE).index(name)


def place(widget: Any, row: int, column: int) -> QPoint:
    index = widget.table.model().index(row, column)
    widget.table.scrollTo(index)
    return widget.table.visualRect(index).center()


def click_cell(widget: Any, row: int, column: int, *, twice: bool = False) -> None:
    spot, viewport = place(widget, row, column), widget.table.viewport()
    QTest.mouseClick(viewport, Qt.MouseButton.LeftButton, pos=spot)
    if twice:
        QTest.mouseDClick(viewport, Qt.MouseButton.LeftButton, pos=spot)


def select_all(widget: Any) -> None:
    """Click a row, and press Ctrl+A."""
    click_cell(widget, 0, MAP)
    QTest.keyClick(widget.table, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)


def type_mpp(widget: Any, settle: Settle, name: str, mpp: str) -> None:
    """Type the microns per pixel of a slide into its row."""
    click_cell(widget, row_of(widget, name), MPP, twice=True)
    [editor] = [one for one in widget.table.viewport().findChildren(QLineEdit) if one.isVisible()]
    QTest.keyClicks(editor, mpp)
    QTest.keyClick(editor, Qt.Key.Key_Return)
    settle(lambda: shown(widget, MPP)[row_of(widget, name)] == mpp)


def click_header(widget: Any, column: int) -> None:
    header = widget.table.horizontalHeader()
    x = header.sectionViewportPosition(column) + header.sectionSize(column) // 2
    QTest.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(x, header.height() // 2))


def header(widget: Any) -> list[str]:
    model = widget.table.model()
    return [model.headerData(n, Qt.Orientation.Horizontal) for n in range(model.columnCount())]


@contextmanager
def pulse() -> Iterator[list[float]]:
    """The work of the window's thread between two beats of its heart, which other processes do not lengthen."""
    beats, last = [], [time.thread_time()]

    def beat() -> None:
        now = time.thread_time()
        beats.append(now - last[0])
        last[0] = now

    timer = QTimer()
    timer.setInterval(10)
    timer.timeout.connect(beat)
    timer.start()
    yield beats
    timer.stop()


def give_maps(slides: Sequence[Path], results: Path, scratch: Path) -> None:
    """Give slides copies of small maps, each of which shows another class everywhere."""
    made = [stores.create(scratch / "maps" / f"{n}.ome.zarr", (32, 32)) for n in range(len(BCSS))]
    for n, store in enumerate(made):
        scores = np.where(np.arange(len(BCSS)) == n, 1, -1)[:, None, None] * np.ones((stores.TILE, stores.TILE))
        stores.segment(store, lambda row, column, scores=scores: (scores, np.ones(len(BCSS))))
        write_labels(store, ThresholdSettings())
    for n, path in enumerate(slides):
        with open_slide(path) as slide:
            facts = SlideFacts.from_slide(slide).model_dump(mode="json")
        store = result_folder(results, facts["name"], facts["identity"]) / f"{facts['name']}.ome.zarr"
        shutil.copytree(made[n % len(made)].path, store)
        document = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
        document["attributes"]["pbip"]["slide"] = facts
        (store / "zarr.json").write_text(json.dumps(document), encoding="utf-8")


def test_three_hundred_slides_leave_the_window_alive(
    viewer: Any, widget: Any, settle: Settle, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    session, folder = session_of(viewer), tmp_path / "many"
    folder.mkdir()
    for n in range(MANY):
        part = sample_pixels[4 * n : 4 * n + 512, 600:1112]
        tifffile.imwrite(
            folder / f"slide {n:03}.tif", part, tile=(256, 256), compression="jpeg", photometric="rgb",
            resolution=(20_000 + 10 * n,) * 2, resolutionunit="CENTIMETER",
        )  # fmt: skip
    mapped = sorted(folder.iterdir())[::3]
    give_maps(mapped, session.results_folder, tmp_path)
    with pulse() as beats:
        drop(widget, folder)
        all_known(widget, settle, MANY)
        settle()
        assert len({entry.row.mpp for entry in widget.table.cohort_model.entries}) == MANY
        visible = widget.table.viewport().height() // widget.table.rowHeight(0) + 2
        assert 0 < len(session.cohort._pictures._values) <= 3 * visible  # not all are read
        click_header(widget, MPP)
        settle()
        assert shown(widget, MPP) == sorted(shown(widget, MPP), key=float)
        click_header(widget, MPP)
        settle()
        assert shown(widget, MPP) == sorted(shown(widget, MPP), key=float, reverse=True)
        type_text(widget.search, "slide 29")
        settle()
        assert sorted(shown(widget, SLIDE)) == [f"slide 29{n}.tif" for n in range(10)]
        type_text(widget.search, "")
        for column in range(AREAS, AREAS + 2 * len(BCSS), 2):  # each class fills the maps of some slides
            widget.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
            settle()
            areas = [float(text or "-inf") for text in shown(widget, column)]
            assert areas == sorted(areas, reverse=True)
            assert sum(area > 0.05 for area in areas) == len(mapped) // len(BCSS)
        assert 0 < len(session.cohort._maps) < len(mapped)
        widget.table.setCurrentIndex(widget.table.model().index(0, SLIDE))
        for _ in range(20):
            QTest.keyClick(widget.table, Qt.Key.Key_PageDown)
            settle(lambda: not widget._soon.isActive())
        QTest.keyClick(widget.table, Qt.Key.Key_End, Qt.KeyboardModifier.ControlModifier)
        assert widget.table.currentIndex().row() == MANY - 1
        widget.table.selectAll()
        session.classes.recolour(BCSS.names[0], "#123456")
        settle()
        assert len(widget.table.selected()) == MANY
        widget.write(tmp_path / "all.csv")
        earlier = shown(widget, column)
        session.folder = tmp_path / "another project"
        settle()
        assert not shown(widget, SLIDE)
        session.folder = tmp_path / "project"
        all_known(widget, settle, MANY)
        settle()
        assert shown(widget, column) == earlier
    assert max(beats) < STALL, f"the window was busy for {max(beats):.2f} s"
    assert not len(session.slides)
    assert len(Project.open(session.folder).slides) == MANY
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row["TUM mm2"] for row in csv.DictReader(file)}
    assert len(rows) == MANY
    assert {name for name, area in rows.items() if area} == {path.stem for path in mapped}


def test_a_row_says_what_the_map_says(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    row = row_of(widget, "skin.svs")
    assert shown(widget, STATE)[row] == "done"
    assert shown(widget, MODEL)[row] == "run"
    assert float(shown(widget, TISSUE)[row]) > 0.5
    assert header(widget)[AREAS : AREAS + 2] == ["TUM\nmm²", "TUM\n%"]
    margin = 2 * (widget.table.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin) + 1)
    for column in (MPP, TISSUE, *range(AREAS, len(header(widget)))):  # a figure without its last digits is another one
        wide = widget.table.fontMetrics().horizontalAdvance(shown(widget, column)[row])
        assert wide + margin < widget.table.columnWidth(column), header(widget)[column]
    index = widget.table.model().index(row, MAP)
    assert not index.data(Qt.ItemDataRole.DecorationRole).isNull()
    settle(lambda: widget.table.model().index(row, SLIDE).data(Qt.ItemDataRole.DecorationRole) is not None)
    click_cell(widget, row, SLIDE, twice=True)
    settle(lambda: len(session.results) and not session.project.opening)
    assert session.current_slide.slide.path == study / "skin.svs"
    result = session.results[0]
    result.display.thresholds = ThresholdSettings(delta=0.6)
    settle(lambda: result.areas.exact and not session.jobs)
    areas = [area for area in result.areas.rows if area.name == "TUM"]
    settle(lambda: float(shown(widget, AREAS)[row]) == pytest.approx(areas[0].area_mm2, abs=5e-4))
    viewer.layers.remove(result.layer)  # without the layer, by the thresholds that it had
    settle()
    assert not len(session.results)
    settle(lambda: float(shown(widget, AREAS)[row]) == pytest.approx(areas[0].area_mm2, abs=5e-4))


@pytest.mark.parametrize("typed", ["0.25", "0,25"])
def test_microns_per_pixel_are_edited_in_the_table(
    viewer: Any, widget: Any, settle: Settle, study: Path, typed: str
) -> None:
    session = session_of(viewer)
    row = row_of(widget, "tumour.tif")
    assert shown(widget, MPP)[row] == "unknown"
    for text, kept in (("much", "unknown"), ("25", "unknown"), (typed, "0.25")):
        click_cell(widget, row, MPP, twice=True)
        [editor] = widget.table.viewport().findChildren(QLineEdit)
        QTest.keyClicks(editor, text[:2])
        session.cohort.changed.emit()  # as when a map or a picture has been read
        settle(lambda: not widget._soon.isActive())
        settle()
        QTest.keyClicks(editor, text[2:])
        QTest.keyClick(editor, Qt.Key.Key_Return)
        settle()
        assert shown(widget, MPP)[row] == kept
        assert widget.notice.isVisible() is (kept == "unknown")
    assert json.loads((study / "tumour.tif.mpp.json").read_text()) == {"mpp": 0.25}
    session.project.save()
    saved = {slide.path.name: slide for slide in Project.open(session.folder).slides}
    assert (saved["tumour.tif"].mpp, saved["tumour.tif"].mpp_from) == (0.25, "user")
    assert session.slides.open(study / "tumour.tif").slide.mpp == 0.25


def test_names_and_unknown_sizes_can_be_read_in_the_panel(viewer: Any, widget: Any, settle: Settle) -> None:
    main_window(viewer).resize(1366, 768)
    session_of(viewer).project.add([samples.tumour()])
    all_known(widget, settle, 1)
    table = widget.table
    unknown, name = table.model().index(0, MPP), table.model().index(0, SLIDE)
    assert unknown.data() == "unknown"
    assert QFontMetrics(unknown.data(Qt.ItemDataRole.FontRole) or table.font()).horizontalAdvance("unknown") < (
        table.columnWidth(MPP) - 2 * (table.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin) + 1)
    )
    # a line of the name may end after an underscore
    option = QStyleOptionViewItem()
    table.itemDelegateForColumn(SLIDE).initStyleOption(option, name)
    assert option.text.split("\u200b") == ["CPTAC_", "C3L-00601-26_", "pyramid.tif"]


def test_one_report_of_all(widget: Any, settle: Settle, study: Path, tmp_path: Path) -> None:
    assert widget.report_button.isEnabled()
    widget.report(tmp_path / "all.html")
    settle(lambda: widget.bar.job is not None and widget.bar.job.state.ended, 60)
    settle()
    assert widget.notice.text() == f"Written: {tmp_path / 'all.html'}"
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "<h2>skin</h2>" in page
    assert "Slides of the project without a map: tumour, frozen." in page or "without a map: frozen, tumour." in page


def test_one_csv_of_all(widget: Any, settle: Settle, study: Path, tmp_path: Path) -> None:
    type_text(widget.search, "skin")
    settle()
    assert shown(widget, SLIDE) == ["skin.svs"]
    widget.write(tmp_path / "all.csv")
    assert widget.notice.text().endswith("Saved as all.csv.")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"skin", "tumour", "frozen"}
    assert float(rows["skin"]["TUM percent"]) > 0
    assert rows["tumour"]["TUM percent"] == ""
    widget.write(tmp_path / "all.parquet")
    assert set(pd.read_parquet(tmp_path / "all.parquet")["slide"]) == {"skin", "tumour", "frozen"}


def test_statistics_of_all_maps_are_at_the_thresholds_of_the_window(
    viewer: Any, widget: Any, settle: Settle, study: Path, tmp_path: Path
) -> None:
    session = session_of(viewer)
    row = row_of(widget, "skin.svs")
    click_cell(widget, row, SLIDE, twice=True)
    settle(lambda: len(session.results) and not session.project.opening)
    result = session.results[0]
    result.display.thresholds = ThresholdSettings(delta=0.6)
    settle(lambda: result.areas.exact and not session.jobs)
    widget.write_statistics(tmp_path / "statistics.parquet")
    settle(lambda: widget.notice.text().endswith("Saved as statistics.parquet."))
    table = pd.read_parquet(tmp_path / "statistics.parquet")
    assert set(table["slide"]) == {"skin"}
    areas = table[table["quantity"] == "area"].set_index("class")
    for area in result.areas.rows:
        assert areas["value"][area.name] == pytest.approx(area.area_mm2)
    tumour = areas.loc["TUM"]
    assert tumour["range"] == "thresholds"
    assert tumour["low"] <= tumour["value"] <= tumour["high"]
    session.project.remove([study / "skin.svs"])
    settle(lambda: not widget.statistics_button.isEnabled())


def test_which_map_is_counted_is_chosen_and_remembered(
    viewer: Any, widget: Any, settle: Settle, tmp_path: Path
) -> None:
    session, path = session_of(viewer), tmp_path / "skin.svs"
    shutil.copy(samples.slide(), path)
    with open_slide(path) as slide:
        folder = session.result_folder(slide)
        first = folder / "skin.ome.zarr"
        second = folder / FURTHER_MAPS / "2" / "skin.ome.zarr"
        for store in (first, second):
            store.parent.mkdir(parents=True)
        make_store(slide, first)
        make_store(slide, second, "second", 1)
    for store in (first, second):
        write_labels(ScoreStore.open(store), ThresholdSettings())
    drop(widget, path)
    all_known(widget, settle, 1)
    assert shown(widget, MODEL) == ["run"]
    assert shown(widget, STATE) == ["done, 2 maps"]
    assert not widget.maps.isVisible()
    click_cell(widget, 0, SLIDE)
    assert widget.maps.isVisible()
    assert widget.maps.currentText() == "run"
    before = shown(widget, AREAS)
    widget.maps.setFocus()
    QTest.keyClick(widget.maps, Qt.Key.Key_Down)
    settle(lambda: shown(widget, MODEL) == ["second"])
    assert shown(widget, AREAS) != before
    assert not len(session.slides)
    # everything that is written says so
    widget.write(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["model"], row["weights"]) for row in csv.DictReader(file)] == [("second", "weights 1")]
    widget.write_statistics(tmp_path / "statistics.csv")
    settle(lambda: widget.notice.text().endswith("Saved as statistics.csv."))
    assert set(pd.read_csv(tmp_path / "statistics.csv")["model"]) == {"second"}
    widget.report(tmp_path / "all.html")
    settle(lambda: widget.bar.job is not None and widget.bar.job.state.ended, 60)
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "has several maps: the one by “second” is reported here, and not that by “run”." in page
    session.project.save()
    done = CliRunner().invoke(cli.app, ["statistics", str(session.folder), "--out", str(tmp_path / "again.csv")])
    assert "because the project shows another one of their slide: 1." in done.output
    assert set(pd.read_csv(tmp_path / "again.csv")["model"]) == {"second"}

    def opened() -> list[Path]:
        settle(lambda: not session.project.opening and not session.jobs)
        settle()
        return [result.store.path for result in session.results if result.layer.visible]

    def reopen() -> None:
        folder = session.folder
        session.folder = tmp_path / "another project"
        session.folder = folder
        all_known(widget, settle, 1)

    reopen()
    click_cell(widget, 0, SLIDE, twice=True)
    assert opened() == [second]
    widget.maps.setFocus()
    QTest.keyClick(widget.maps, Qt.Key.Key_Up)
    assert opened() == [first]
    assert len(session.results) == 2
    assert session.results.current.store.path == first
    settle(lambda: shown(widget, MODEL) == ["run"])
    session.results.current.display.thresholds = ThresholdSettings(delta=0.7)
    reopen()
    assert opened() == [first]
    assert [result.thresholds.delta for result in session.results if result.store.path == first] == [0.7]
    assert [result.thresholds.delta for result in session.results if result.store.path == second] == [0.15]


def test_selected_slides_get_the_thresholds_of_the_map_in_view(
    viewer: Any, widget: Any, settle: Settle, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    session, folder = session_of(viewer), tmp_path / "slides"
    folder.mkdir()
    stores = {}
    for n, (name, model) in enumerate({"a": 0, "b": 0, "c": 0, "d": 1, "e": None}.items()):
        path = folder / f"{name}.tif"
        tifffile.imwrite(
            path, sample_pixels[8 * n : 8 * n + 512, 600:1112], tile=(256, 256), compression="jpeg",
            photometric="rgb", resolution=(20_000,) * 2, resolutionunit="CENTIMETER",
        )  # fmt: skip
        if model is not None:
            with open_slide(path) as slide:
                stores[name] = session.result_folder(slide) / f"{name}.ome.zarr"
                stores[name].parent.mkdir(parents=True)
                make_store(slide, stores[name], "run" if model == 0 else "other", model)
    write_labels(ScoreStore.open(stores["c"]), ThresholdSettings(delta=0.4))
    drop(widget, folder)
    all_known(widget, settle, 5)

    def counted() -> dict[str, float]:
        settle(lambda: all(result.areas.exact for result in session.results))
        settle(lambda: all(entry.known for entry in session.cohort.entries()) and not session.jobs)
        settle(lambda: not widget._soon.isActive())
        with_map = [entry.row for entry in widget.table.cohort_model.entries if entry.row.result is not None]
        return {row.slide: row.result.areas[0].area_mm2 for row in with_map}

    def own(delta: float) -> dict[str, float]:
        thresholds = ThresholdSettings(delta=delta)
        return {name: summarise(store, thresholds).areas[0].area_mm2 for name, store in stores.items()}

    usual, high = own(ThresholdSettings().delta), own(0.6)
    before = usual | {"c": own(0.4)["c"]}
    assert counted() == pytest.approx(before)
    assert not widget.thresholds_button.isVisible()
    widget.table.selectAll()
    settle()
    assert widget.thresholds_button.text() == "Use thresholds of the map in view for selection"
    assert not widget.thresholds_button.isEnabled()
    for name in "ba":
        click_cell(widget, row_of(widget, f"{name}.tif"), SLIDE, twice=True)
        settle(lambda: session.results.current is not None and not session.project.opening)
    settle()
    first, second = (session.results.of_store(stores[name]) for name in "ab")
    assert session.results.current is first
    assert not widget.thresholds_button.isEnabled()  # only its own slide is selected
    first.display.thresholds = ThresholdSettings(delta=0.6)
    tuned = usual | {"a": high["a"], "c": before["c"]}
    assert counted() == pytest.approx(tuned)
    widget.table.selectAll()
    settle()
    assert widget.thresholds_button.text() == "Use thresholds of “a” for selection"
    click(widget.thresholds_button)
    assert second.thresholds.delta == 0.6  # at once
    assert not widget.save_button.isEnabled()  # the areas of the others are being counted
    assert widget.notice.text() == (
        "⚠  The thresholds of a are used for b, c; areas in italics are being counted again. Left out, because their "
        "maps are by another model or of other classes: d. Without a map: e."
    )
    areas = widget.table.model().index(row_of(widget, "c.tif"), AREAS)
    assert areas.data(Qt.ItemDataRole.FontRole).italic()
    assert not areas.siblingAtColumn(MAP).data()  # the picture of before stays, and no sign that it is read
    used = high | {"d": usual["d"]}
    assert counted() == pytest.approx(used)
    assert areas.data(Qt.ItemDataRole.FontRole) is None
    widget.write(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert {row["slide"]: row["TUM delta"] for row in csv.DictReader(file)} == {
            "a": "0.6", "b": "0.6", "c": "0.6", "d": "0.15", "e": "",
        }  # fmt: skip
    session.project.save()
    saved = {result.path: result.thresholds.delta for result in Project.open(session.folder).results}
    assert saved == {stores["a"]: 0.6, stores["b"]: 0.6, stores["c"]: 0.6}
    click(widget.undo.undo_button)
    assert second.thresholds.delta == ThresholdSettings().delta
    assert counted() == pytest.approx(tuned)
    viewer.layers.remove(second.layer)
    click(widget.undo.redo_button)
    assert counted() == pytest.approx(used)
    session.project.show(folder / "c.tif")
    settle(lambda: session.results.of_store(stores["c"]) is not None and not session.project.opening)
    assert session.results.of_store(stores["c"]).thresholds.delta == 0.6
    click(widget.undo.undo_button)
    assert session.results.of_store(stores["c"]).thresholds.delta == 0.4
    assert counted() == pytest.approx(tuned)
    click(widget.undo.undo_button)
    assert first.thresholds.delta == ThresholdSettings().delta
    assert counted() == pytest.approx(before)


def test_selected_slides_are_segmented_and_removed(
    viewer: Any,
    widget: Any,
    settle: Settle,
    study: Path,
    runs: Path,
) -> None:
    session = session_of(viewer)
    shutil.copytree(runs, session.models_folder)
    session.change(segment=QUICK)
    session.training.refresh()
    settle(lambda: widget.model.count() == 3)
    assert not widget.segment_button.isEnabled()
    row = row_of(widget, "tumour.tif")
    session.project.give_mpp(study / "tumour.tif", 0.5)
    settle()
    states: list[str] = []
    widget.table.cohort_model.dataChanged.connect(lambda *_: states.append(shown(widget, STATE)[row]))
    click_cell(widget, row, SLIDE)
    widget.model.setCurrentText("first")
    click(widget.segment_button)
    settle(lambda: session.segmenting.slides[0].done, 180)
    session.segmenting.stop()
    settle(lambda: shown(widget, MODEL)[row] == "first", 180)
    assert states[-1] == "stopped"
    session.segmenting.resume(session.segmenting.slides[0])
    settle(lambda: shown(widget, STATE)[row] == "done", 180)
    settle(lambda: not session.jobs)
    [queued] = session.segmenting.slides
    after = states[states.index("stopped") :]
    assert {state.split()[0] for state in after} <= {"stopped", "waiting", "running", "done"}
    assert not any(state.startswith("stopped at") for state in after)  # what was read before does not count
    assert queued.status is Status.DONE
    assert queued.run.name == "first"
    assert shown(widget, MODEL)[row] == "first"
    assert not len(session.slides)  # nothing was opened for it
    click(widget.remove_button)
    settle()
    assert sorted(shown(widget, SLIDE)) == ["frozen.svs", "skin.svs"]
    assert queued.store.exists()


def test_slides_that_cannot_be_read_are_told(viewer: Any, widget: Any, settle: Settle, tmp_path: Path) -> None:
    (tmp_path / "no.svs").write_bytes(b"no slide")
    drop(widget, tmp_path / "no.svs", samples.slide())
    all_known(widget, settle, 1)
    assert "no.svs" in widget.project.problem.text()


def test_what_cannot_be_made_again_is_said_when_the_steps_are_saved(
    viewer: Any, widget: Any, settle: Settle, tmp_path: Path
) -> None:
    folder = session_of(viewer).folder
    click(widget.script_button)
    settle(widget.notice.isVisible)
    assert widget.notice.text() == "⚠  There is no image bank, model or map yet."
    with open_slide(samples.slide()) as slide:
        (folder / "results" / "skin").mkdir(parents=True)
        make_store(slide, folder / "results" / "skin" / "skin.ome.zarr")
    click(widget.script_button)
    settle(widget.notice.isVisible)
    assert widget.notice.text() == "⚠  The map “skin” cannot be made again: its model “run” does not exist any more."
    assert not (folder / "steps.sh").exists()
    *_, _ = sample_project(folder / "tiles", folder / "bank", folder / "models" / "sample")
    click(widget.script_button)
    settle(lambda: "Saved as steps.sh" in widget.notice.text())
    assert "The map “skin” cannot be made again: " in widget.notice.text()
    script = (folder / "steps.sh").read_text(encoding="utf-8")
    assert [line.split()[1] for line in script.splitlines() if line.startswith("napari-pbip ")] == ["bank", "train"]
    assert "# Note: The map “skin” cannot be made again: " in script


def test_the_table_has_room_in_a_window_of_its_own(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    table, main = widget.table, main_window(viewer)
    click(widget.sheet.button)
    window = table.window()
    assert window is not main
    third_class = AREAS + 5
    settle(lambda: table.columnViewportPosition(third_class + 1) <= table.viewport().width() and window.isVisible())
    assert {"skin.svs", "tumour.tif"} < set(shown(widget, SLIDE))
    row = row_of(widget, "skin.svs")
    assert "0.499 µm per pixel, as the slide says." in table.model().index(row, SLIDE).data(Qt.ItemDataRole.ToolTipRole)
    click_cell(widget, row, SLIDE)
    assert widget.remove_button.isEnabled()  # what is done with the selected slides stays in the dock
    window.close()
    settle(lambda: table.isVisible() and table.window() is main)
    assert not widget.sheet.button.isChecked()
    click(widget.sheet.button)
    window = table.window()
    viewer.window.remove_dock_widget(widget)
    settle(lambda: not window.isVisible())
