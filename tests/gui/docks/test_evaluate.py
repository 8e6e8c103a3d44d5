"""Comparing a result with a mask, and exporting it."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import dask.array as da
import napari
import numpy as np
import pytest
import zarr
from napari.utils.theme import get_theme
from PIL import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDesktopServices
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit, QMessageBox

from napari_pbip import samples
from napari_pbip.bank import load_tiles
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import FORMATS
from napari_pbip.engine.outputs.export_tiles import TILE_FORMATS
from napari_pbip.gui.docks.evaluate import EvaluateWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import ScoreStore
from napari_pbip.sharing import REPORT
from napari_pbip.taxonomy import BCSS
from tests import qupath
from tests.gui.qt_helpers import click
from tests.results import stores

SHAPE = (300, 520)
THRESHOLDS = ThresholdSettings(delta=0.7)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "result" / "slide.ome.zarr"
    path.parent.mkdir()
    made = stores.create(path, SHAPE)
    stores.segment(made, stores.network(stores.smooth_field(SHAPE)))
    return path


@pytest.fixture
def widget(viewer, store: Path, settle) -> EvaluateWidget:
    result = session_of(viewer).results.open(store)
    settle(lambda: result.areas.exact)  # the largest scores are estimated at first
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    settle()
    return widget


def shown_labels(viewer) -> np.ndarray:
    return session_of(viewer).results[0].view.labels(0, slice(None), slice(None))


def cells(widget: EvaluateWidget) -> dict[str, list[str]]:
    table = widget.table
    return {
        table.verticalHeaderItem(row).text(): [table.item(row, column).text() for column in range(2)]
        for row in range(table.rowCount())
    }


def compare(widget: EvaluateWidget, settle) -> None:
    QTest.mouseClick(widget.compare_button, Qt.MouseButton.LeftButton)
    settle(lambda: widget.job_bar.job is not None and widget.job_bar.job.state.ended)


def test_a_result_agrees_with_itself_and_not_with_another(viewer, widget, settle):
    labels = shown_labels(viewer)
    viewer.add_labels(np.where(labels == 255, 0, labels), name="drawn by hand", scale=(8, 8), units=("um", "um"))
    widget.mask_box.setCurrentIndex(widget.mask_box.findText("drawn by hand"))
    compare(widget, settle)
    assert cells(widget)["mIoU"][0] == "100.0"
    assert cells(widget)["IoU STR"] == ["100.0", "100.0 to 100.0"]
    assert widget.confusion.isVisible()
    session_of(viewer).results[0].display.thresholds = (
        session_of(viewer).results[0].thresholds.model_copy(update={"delta": 0.7})
    )
    compare(widget, settle)
    figure, interval = cells(widget)["mIoU"]
    assert float(figure) < 90
    low, high = interval.split(" to ")
    assert float(low) < float(figure) < float(high)
    assert widget.table.toolTip() == "The 95 % bootstrap intervals are over 15 squares of 1 mm."


def test_figures_and_confusion_of_each_protocol_and_calibration(viewer, widget, settle):
    labels = shown_labels(viewer) % 255
    labels[:, :100] = 2
    viewer.add_labels(labels, name="drawn by hand", scale=(8, 8), units=("um", "um"))
    widget.mask_box.setCurrentIndex(widget.mask_box.findText("drawn by hand"))
    compare(widget, settle)
    names = [widget.protocol.itemText(row) for row in range(3)]
    assert names == ["predicted", "oracle (background)", "oracle (class labels)"]
    assert [widget.picture.itemText(row) for row in range(2)] == ["Confusion", "Calibration: presence"]
    shown, drawn = [], []
    widget.protocol.setFocus()
    for _ in names:
        settle()
        shown.append(cells(widget))
        drawn.append(widget.confusion.grab().toImage())
        QTest.keyClick(widget.protocol, Qt.Key.Key_Down)
    assert shown[0] == shown[1] != shown[2]  # in this numbering, a mask knows no background
    assert drawn[0] == drawn[1] != drawn[2]
    assert "new slide" not in widget.protocol.toolTip()
    widget.picture.setFocus()
    QTest.keyClick(widget.picture, Qt.Key.Key_Down)
    settle()
    assert widget.calibration.isVisible()
    assert not widget.confusion.isVisible()


def test_a_mask_file_and_the_numbering_of_its_classes(viewer, widget, settle, tmp_path):
    labels = shown_labels(viewer)
    file = tmp_path / "mask.png"
    Image.fromarray(np.where(labels == 255, 255, labels - 1).astype(np.uint8)).save(file)
    widget.choose_file(file)
    assert widget.mask_box.currentText() == "mask.png"
    widget.numbering.setFocus()
    QTest.keyClick(widget.numbering, Qt.Key.Key_Down)
    compare(widget, settle)
    assert cells(widget)["mIoU"][0] == "100.0"


def test_exported_annotations_are_as_the_legend_shows_classes_and_are_a_mask(viewer, widget, settle, tmp_path):
    classes = session_of(viewer).classes
    classes.give("LYM", "Lymphocytes", BCSS.names)
    classes.recolour("LYM", "#12ab34")
    widget.exports.export(tmp_path / "mask.geojson", "geojson")
    settle(lambda: widget.exports.bar.job.state.ended)
    objects = qupath.read(tmp_path / "mask.geojson")
    assert {one.colour for one in objects if one.names == ("Lymphocytes",)} == {(0x12, 0xAB, 0x34)}
    assert ("LYM",) not in {one.names for one in objects}
    widget.choose_file(tmp_path / "mask.geojson")
    compare(widget, settle)
    assert cells(widget)["mIoU"][0] == "100.0"


def test_wrong_masks_are_told_at_the_place(viewer, widget, settle, tmp_path):
    QTest.mouseClick(widget.compare_button, Qt.MouseButton.LeftButton)
    assert "choose a labels layer or a file" in widget.notice.text()
    file = tmp_path / "mask.png"
    Image.fromarray(np.ones((50, 50), np.uint8)).save(file)
    widget.choose_file(file)
    compare(widget, settle)
    assert "proportions" in widget.job_bar.notice.text()
    assert widget.table.rowCount() == 0


def test_results_are_handed_on(viewer, widget, settle, tmp_path, store):
    labels = shown_labels(viewer)
    for name, form in (("areas.csv", "csv"), ("labels.ome.zarr", "ome-zarr")):
        widget.exports.export(tmp_path / name, form)
        settle(lambda: widget.exports.bar.job.state.ended)
    with (tmp_path / "areas.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert int(rows["LYM"]["cells"]) == (labels == 3).sum()
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")["0"][:], labels)
    assert ScoreStore.open(store).progress[0] > 0
    widget.exports.export(tmp_path / "overlay.png", "png")  # the slide of this store is nowhere
    settle(lambda: widget.exports.bar.job.state.ended)
    assert "slide of slide.ome.zarr is gone" in widget.exports.bar.notice.text()
    session_of(viewer).results[0].display.thresholds = THRESHOLDS
    widget.exports.export(tmp_path / "report.html", "report")
    settle(lambda: widget.exports.bar.job.state.ended)
    assert "<dt>threshold delta</dt><dd>0.7</dd>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    widget.exports.export(tmp_path / "labels.ome.zarr", "ome-zarr")
    settle(lambda: widget.exports.bar.job.state.ended)
    assert (zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")["0"][:] != labels).any()
    widget.exports.export(tmp_path, "ome-zarr")
    settle(lambda: widget.exports.bar.job.state.ended)
    assert "no earlier export" in widget.exports.bar.notice.text()


def save_as(widget, settle, name: str, answer: str | None = None) -> None:
    """Press *Export…*, type a name, press *Save*; answer the question whether to replace a file."""

    def visible(kind):
        return next((one for one in QApplication.topLevelWidgets() if isinstance(one, kind) and one.isVisible()), None)

    asked = []

    def press() -> None:
        if (box := visible(QMessageBox)) is not None:
            asked.append(box.text())
            words = {"Yes": ("Yes", "Replace"), "No": ("No", "Cancel")}[answer]  # of Qt's question, and of ours
            QTest.mouseClick(next(b for b in box.buttons() if b.text().strip("&") in words), Qt.MouseButton.LeftButton)

    QTest.mouseClick(widget.exports.button, Qt.MouseButton.LeftButton)
    settle(lambda: visible(QFileDialog) is not None)
    dialog = visible(QFileDialog)
    line = dialog.findChild(QLineEdit, "fileNameEdit")
    line.setCompleter(None)  # its list would take the click
    dialog.activateWindow()
    line.setFocus()
    settle(line.hasFocus)  # Qt writes what it finds on the disk into a line that has no focus
    line.selectAll()
    QTest.keyClicks(line, name)
    timer = QTimer()
    timer.timeout.connect(press)
    timer.start(20)
    click(dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Save))
    settle(lambda: asked or answer is None)
    if answer == "No" and visible(QFileDialog) is not None:  # Qt's dialog stays, for another name
        dialog.reject()
    settle(lambda: visible(QFileDialog) is None and visible(QMessageBox) is None)  # notifications are dialogs, too
    timer.stop()
    assert bool(asked) == (answer is not None), asked
    settle(lambda: not session_of(napari.current_viewer()).jobs)


def test_a_format_is_explained_and_decides_what_is_written(widget, settle, tmp_path):
    formats = {**FORMATS, "report": REPORT, **TILE_FORMATS}
    told = set()
    widget.exports.format.setFocus()
    for position, form in enumerate(formats.values()):
        assert widget.exports.format.itemText(position) == form.title
        assert widget.exports.about.text() == f"{form.about}."
        told.add(widget.exports.about.text())
        QTest.keyClick(widget.exports.format, Qt.Key.Key_Down)
    assert len(told) == len(formats)
    assert not widget.exports.button.isEnabled()  # there are no labelled tiles
    session = session_of(napari.current_viewer())
    session.change(data=session.settings.data.model_copy(update={"folder": samples.tiles()}))
    save_as(widget, settle, str(tmp_path / "mine"))
    assert load_tiles(tmp_path / "mine.tiles").counts == load_tiles(samples.tiles()).counts
    QTest.keyClick(widget.exports.format, Qt.Key.Key_Home)
    for _ in range(list(formats).index("geojson")):
        QTest.keyClick(widget.exports.format, Qt.Key.Key_Down)
    save_as(widget, settle, str(tmp_path / "map"))
    names = {
        one["properties"]["classification"]["name"]
        for one in json.loads((tmp_path / "map.geojson").read_text())["features"]
    }
    assert names >= set(BCSS.names)


def test_an_export_asks_before_it_replaces_and_says_where(widget, settle, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(Path(url.toLocalFile())))
    save_as(widget, settle, str(tmp_path / "mine"))
    assert widget.exports.written.text() == f"Written: {tmp_path / 'mine.csv'}"
    click(widget.exports.folder_button)
    assert opened == [tmp_path]
    for name in ("mine", "mine.csv"):
        (tmp_path / "mine.csv").write_text("of mine")
        save_as(widget, settle, str(tmp_path / name), "No")
        assert (tmp_path / "mine.csv").read_text() == "of mine"
        save_as(widget, settle, str(tmp_path / name), "Yes")
        assert (tmp_path / "mine.csv").read_text().startswith("name,label")
    save_as(widget, settle, str(tmp_path / "slide.2"))
    assert (tmp_path / "slide.2.csv").exists()
    (tmp_path / "slide.2.csv").write_text("of mine")
    save_as(widget, settle, str(tmp_path / "slide.2"), "No")
    assert (tmp_path / "slide.2.csv").read_text() == "of mine"
    save_as(widget, settle, str(tmp_path / "slide.2"), "Yes")
    assert (tmp_path / "slide.2.csv").read_text() != "of mine"


def test_without_a_result_there_is_nothing_to_do(viewer, settle):
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    assert not widget.compare_button.isEnabled()
    assert not widget.exports.button.isEnabled()
    assert "segment a slide first" in widget.result_name.text()


def test_only_masks_are_offered_as_masks(viewer, widget, settle):
    session = session_of(viewer)
    slide = session.slides.open(samples.slide())
    session.labelling.open()
    session.labelling.show_in(widget, True)
    settle(lambda: session.labelling.grid is not None)
    session.labelling.labels.label(slide.slide.identity, [(1, 1)], [0])
    session.labelling.lines = True
    settle(lambda: {"Labelled tiles", "Tile grid"} <= {layer.name for layer in viewer.layers})
    viewer.add_labels(np.ones((30, 52), np.uint8), name="drawn by hand")
    settle()
    assert [widget.mask_box.itemText(n) for n in range(widget.mask_box.count())] == ["drawn by hand", "A file…"]


def test_the_picture_of_confusions_follows_the_theme(viewer, widget, settle):
    viewer.add_labels(np.ones(SHAPE, np.uint8), name="drawn by hand", scale=(8, 8), units=("um", "um"))
    widget.mask_box.setCurrentIndex(widget.mask_box.findText("drawn by hand"))
    compare(widget, settle)
    for theme in ("light", "dark"):
        viewer.theme = theme
        settle()
        corner = widget.confusion.grab().toImage().pixelColor(12, 12)
        red, green, blue = get_theme(theme).background.as_rgb_tuple()[:3]
        assert (corner.red(), corner.green(), corner.blue()) == (red, green, blue)


def test_what_is_drawn_is_read_beside_the_window(viewer, widget, settle):
    threads = []

    def read(block):
        threads.append(threading.current_thread())
        return np.ones_like(block)

    lazy = da.zeros(SHAPE, np.uint8, chunks=SHAPE).map_blocks(read, meta=np.zeros((0, 0), np.uint8))
    viewer.add_labels(lazy, name="on a slow disk", scale=(8, 8), units=("um", "um"), visible=False)
    threads.clear()
    widget.mask_box.setCurrentIndex(widget.mask_box.findText("on a slow disk"))
    compare(widget, settle)
    assert threads
    assert threading.main_thread() not in threads
