"""Correcting the map of real tissue with mouse and keys: what is painted is counted, saved, exported and taken back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
import scipy.ndimage
import zarr
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.outputs.export import export
from napari_pbip.engine.training.train import train
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.progress import run
from napari_pbip.results import ScoreStore
from napari_pbip.taxonomy import UNASSIGNED
from tests.engine.conftest import settings_for
from tests.gui.napari_privates import canvas_of, duplicate
from tests.gui.qt_helpers import answer, click, type_text
from tests.gui.sample_labels import SKIN

LEFT, NO = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
ALL = slice(None)
_OTHER = """
import json, sys
from napari_pbip.results import ScoreStore
from napari_pbip.results.areas import areas
store = ScoreStore.open(sys.argv[1])
who = [one.who for one in store.corrections.sittings]
print(json.dumps([who, {row.name: row.cells for row in areas(store)}]))
"""
"""Another process, which reads a result."""


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the map of the bundled slide by a linear probe, and its tiles beside it; it must not be changed."""
    folder = tmp_path_factory.mktemp("mapped")
    labelled = LabelledSlides.read(samples.project())
    assert labelled is not None
    (slide,) = labelled.slides
    here = LabelledSlides(
        labelled.taxonomy,
        labelled.size,
        (slide.model_copy(update={"path": samples.slide()}),),
        labelled.tiles,
    )
    list(cut_tiles(here, folder / "tiles"))
    settings = settings_for(
        folder / "tiles", data={"mpp": SKIN.size.mpp}, method={"name": "probe"}, bank={"encoder": "efficientnet-lite0"}
    )
    list(train(settings, folder / "run"))
    quick = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    list(segment(samples.slide(), folder / "run", folder / "result", quick, ThresholdSettings()))
    return next((folder / "result").glob("*.ome.zarr"))


class Bench:
    """A viewer with the slide, its map and *Tune*, and methods that use mouse and keys."""

    def __init__(self, viewer: Any, settle: Any, path: Path) -> None:
        self.viewer, self.settle, self.path = viewer, settle, path
        self.session = session_of(viewer)
        self.session.slides.open(samples.slide())
        self.tune = TuneWidget(viewer)
        viewer.window.add_dock_widget(self.tune, name="Tune")
        self.tune.open(path)
        viewer.reset_view()
        self.result = self.session.results[0]
        self.counted()
        self.panel = self.tune.correct
        self.canvas = canvas_of(viewer)

    def counted(self) -> None:
        self.settle(lambda: self.result.areas.exact and not self.result.areas.counting)

    @property
    def cells(self) -> dict[str, int]:
        self.settle(lambda: self.session.correcting.saved)
        self.settle()  # the areas are estimated, and then counted
        self.counted()
        return {row.name: row.cells for row in self.result.areas.rows}

    @property
    def labels(self) -> np.ndarray:
        return np.array(self.result.view.labels(0, ALL, ALL))

    def at(self, row: float, column: float) -> QPoint:
        """Return the place of a cell on the canvas."""
        camera, um = camera_of(self.viewer), self.result.store.cell_um
        y, x = (np.array([row, column]) + 0.5) * um - np.array(camera.center)[-2:]
        return QPoint(
            round(self.canvas.width() / 2 + x * camera.zoom), round(self.canvas.height() / 2 + y * camera.zoom)
        )

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        a, b = QPointF(self.at(*start)), QPointF(self.at(*end))
        QTest.mouseMove(self.canvas, a.toPoint())
        QTest.mousePress(self.canvas, LEFT, NO, a.toPoint())
        for step in range(1, 6):
            QTest.qWait(30)  # napari reports no two moves in quick succession
            place = a + (b - a) * step / 5
            everywhere = QPointF(self.canvas.mapToGlobal(place.toPoint()))
            move = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, Qt.MouseButton.NoButton, LEFT, NO)
            QApplication.sendEvent(self.canvas, move)
        QTest.mouseRelease(self.canvas, LEFT, NO, b.toPoint())
        self.settle()

    def choose(self, name: str) -> None:
        box = self.panel.paints
        assert box.isEnabled()
        while box.currentText() != name:
            QTest.keyClick(box, Qt.Key.Key_Down if box.findText(name) > box.currentIndex() else Qt.Key.Key_Up)
        self.settle()


@pytest.fixture
def path(mapped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(mapped, tmp_path / "result" / mapped.name)


@pytest.fixture
def bench(viewer: Any, settle: Any, path: Path) -> Bench:
    return Bench(viewer, settle, path)


def every_byte(folder: Path) -> dict[Path, bytes]:
    return {one.relative_to(folder): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_what_is_painted_is_counted_saved_exported_and_taken_back(bench: Bench, settle: Any, tmp_path: Path) -> None:
    model, untouched = bench.labels, every_byte(bench.path)
    before = bench.cells
    assert "computed from scores" in bench.panel.about.text()
    type_text(bench.panel.who, "A. Person")
    click(bench.panel.correct_button)
    settle()
    assert bench.viewer.layers.selection.active is bench.session.correcting.layer
    name = bench.result.taxonomy.names[1]
    bench.choose(name)
    height, width = model.shape
    bench.stroke((height * 0.4, width * 0.45), (height * 0.55, width * 0.5))
    settle(lambda: bench.result.store.corrections.sittings)
    painted = bench.result.store.corrections.cells.copy()
    assert set(np.unique(painted)) == {0, 2}
    expected = np.where((painted != 0) & (model != 0), painted, model)
    np.testing.assert_array_equal(bench.labels, expected)
    assert np.count_nonzero(expected != model) > 20
    after = bench.cells
    for n, one in enumerate(bench.result.taxonomy.names, 1):
        assert after[one] - before[one] == np.count_nonzero(expected == n) - np.count_nonzero(model == n)
    click(bench.panel.correct_button)
    assert bench.session.correcting.layer is None
    assert "A. Person" in bench.panel.about.text()

    done = subprocess.run([sys.executable, "-c", _OTHER, str(bench.path)], check=True, capture_output=True, text=True)
    who, cells = json.loads(done.stdout)
    assert who == ["A. Person"]
    assert cells == after
    run(export(bench.path, tmp_path / "map.ome.zarr", "ome-zarr", ThresholdSettings()))
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "map.ome.zarr", mode="r")["0"][:], expected)
    run(export(bench.path, tmp_path / "map.geojson", "geojson", ThresholdSettings()))
    document = json.loads((tmp_path / "map.geojson").read_text(encoding="utf-8"))
    corrected = document["napari_pbip"]["corrected_by_hand_mm2"]
    assert corrected == pytest.approx(sum(one.corrected_mm2 for one in bench.result.areas.rows), rel=1e-3)

    click(bench.panel.back_button)
    said = answer(bench.panel, settle, "Take back")
    assert sum(int(n) for n in re.findall(r": (\d+) cells", said)) == np.count_nonzero(painted)
    np.testing.assert_array_equal(bench.labels, model)
    assert bench.cells == before
    shutil.rmtree(bench.path / "corrections")  # its metadata alone
    assert every_byte(bench.path) == untouched


def test_the_bucket_fills_a_patch_of_the_map_and_undo_takes_it_back(bench: Bench, settle: Any) -> None:
    model = bench.labels
    parts, _ = scipy.ndimage.label(model == 2)
    largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
    row, column = np.argwhere(parts == largest)[np.count_nonzero(parts == largest) // 2]
    click(bench.panel.correct_button)
    layer = bench.session.correcting.layer
    layer.mode = "fill"
    bench.choose("not assigned")
    place = bench.at(row, column)
    QTest.mouseMove(bench.canvas, place)
    QTest.mouseClick(bench.canvas, LEFT, NO, place)
    settle(lambda: bench.result.store.corrections.sittings)
    np.testing.assert_array_equal(bench.labels, np.where(parts == largest, UNASSIGNED, model))
    click(bench.tune.undo.undo_button)
    np.testing.assert_array_equal(bench.labels, model)
    assert not layer.data.any()
    click(bench.tune.undo.redo_button)
    np.testing.assert_array_equal(bench.labels, np.where(parts == largest, UNASSIGNED, model))
    bench.viewer.layers.remove(layer)
    settle()
    assert not bench.panel.correct_button.isChecked()
    assert bench.session.correcting.layer is None
    click(bench.tune.undo.undo_button)  # also when nobody is correcting any more
    np.testing.assert_array_equal(bench.labels, model)
    assert not ScoreStore.open(bench.path).corrections.cells.any()


def test_another_window_shows_the_corrections_and_goes_on_with_them(bench: Bench, settle: Any) -> None:
    click(bench.panel.correct_button)
    height, width = bench.labels.shape
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    bench.session.correcting.flush()
    corrected = bench.labels
    other = napari.Viewer()
    session = session_of(other)
    result = session.results.open(bench.path)
    np.testing.assert_array_equal(np.array(result.view.labels(0, ALL, ALL)), corrected)
    session.correcting.begin(result)
    assert session.correcting.layer is None
    assert "in use" in str(session.correcting.problem)
    bench.viewer.layers.remove(bench.result.layer)  # the layer of the corrections has nothing to lie over then
    assert bench.session.correcting.layer is None
    session.correcting.begin(result, "B. Person")
    session.correcting.layer.data[0, 0] = 1
    session.close()
    other.close()
    settle()
    assert [one.who for one in ScoreStore.open(bench.path).corrections.sittings] == ["", "B. Person"]


def test_a_copy_of_the_corrections_says_that_it_is_one(bench: Bench, settle: Any) -> None:
    click(bench.panel.correct_button)
    layers, layer = bench.viewer.layers, bench.session.correcting.layer
    layers.selection = {layer}
    notification_manager.records.clear()
    duplicate(layers)
    [copy] = [one for one in layers if one.name == f"{layer.name} copy"]
    settle(lambda: notification_manager.records)
    assert f"draw in “{layer.name}”" in notification_manager.records[-1].message
    click(bench.panel.correct_button)
    assert layer not in layers
    assert copy in layers  # as a picture of what was corrected
    assert len(notification_manager.records) == 1


def test_corrected_places_become_labelled_tiles(bench: Bench, settle: Any) -> None:
    model, session = bench.labels, bench.session
    assert not bench.panel.teach.isVisible()
    dermis = bench.result.taxonomy.names.index("dermis") + 1
    parts, _ = scipy.ndimage.label(model == dermis)
    largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
    row, column = np.argwhere(parts == largest)[np.count_nonzero(parts == largest) // 2]
    click(bench.panel.correct_button)
    session.correcting.layer.mode = "fill"
    bench.choose("epidermis")
    place = bench.at(row, column)
    QTest.mouseMove(bench.canvas, place)
    QTest.mouseClick(bench.canvas, LEFT, NO, place)
    settle(lambda: bench.result.store.corrections.sittings)
    click(bench.panel.correct_button)
    teach, labelling = bench.panel.teach, session.labelling
    click(teach.find_button)
    settle(lambda: not session.jobs)
    assert teach.label_button.isVisible()
    proposed = set(teach._tiles["epidermis"])
    assert len(proposed) > 10
    assert not len(labelling.labels)
    settle()
    assert bench.viewer.layers["Labelled tiles"].visible
    size = labelling.labels.size.microns / bench.result.store.cell_um
    for x, y in proposed:
        tile = bench.labels[round(y * size) : round((y + 1) * size), round(x * size) : round((x + 1) * size)]
        assert np.mean(tile == bench.result.taxonomy.names.index("epidermis") + 1) > 0.75
    click(teach.label_button)
    identity = bench.result.store.facts.slide.identity
    assert set(labelling.labels.tiles(identity)) == proposed
    assert set(labelling.labels.origins(identity).values()) == {"corrected"}
    settle(lambda: not labelling.saving)
    read = LabelledSlides.read(session.tiles_folder)
    assert read is not None
    assert set(read.origins[0]) == proposed
    click(teach.find_button)
    settle(lambda: not session.jobs and teach.notice.isVisible())
    assert "No further tile" in teach.notice.text()
    click(bench.tune.undo.undo_button)
    assert not len(labelling.labels)


def test_labels_of_several_resolutions_can_be_painted_on_in_a_copy(
    viewer: Any, settle: Any, path: Path, tmp_path: Path
) -> None:
    run(export(path, tmp_path / "map.ome.zarr", "ome-zarr"))
    tune = TuneWidget(viewer)
    viewer.window.add_dock_widget(tune, name="Tune")
    settle()
    assert not tune.edit_copy.button.isVisible()
    (layer,) = viewer.open(str(tmp_path / "map.ome.zarr"), plugin="napari-pbip")
    settle()
    if not layer.multiscale:  # the map is so small that it has one level
        layer = viewer.add_labels([np.asarray(layer.data), np.asarray(layer.data)[::2, ::2]], name="two levels")
        settle()
    assert "several resolutions" in tune.edit_copy.about.text()
    click(tune.edit_copy.button)
    settle(lambda: not session_of(viewer).jobs)
    copy = viewer.layers.selection.active
    assert copy is not layer
    assert not tune.edit_copy.button.isVisible()
    np.testing.assert_array_equal(copy.data, np.asarray(layer.data[0]))
    np.testing.assert_array_equal(copy.scale, layer.scale)
    canvas = canvas_of(viewer)
    viewer.reset_view()
    settle()
    copy.selected_label = 3
    QTest.mouseClick(canvas, LEFT, NO, QPoint(canvas.width() // 2, canvas.height() // 2))
    settle()
    assert np.count_nonzero(copy.data != np.asarray(layer.data[0])) > 10


def test_what_cannot_be_saved_stays_on_the_screen(bench: Bench, settle: Any) -> None:
    click(bench.panel.correct_button)
    height, width = bench.labels.shape
    blocking = bench.path / "corrections" / "0"
    blocking.write_text("in the way")
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    settle(lambda: bench.session.correcting.problem is not None)
    assert bench.panel.notice.isVisible()
    click(bench.panel.correct_button)
    assert bench.panel.correct_button.isChecked()
    painted = bench.session.correcting.layer.data.copy()
    assert painted.any()
    blocking.unlink()
    click(bench.panel.correct_button)
    assert bench.session.correcting.layer is None
    assert not bench.panel.notice.isVisible()
    np.testing.assert_array_equal(ScoreStore.open(bench.path).corrections.cells, painted)
