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
import shapely
import zarr
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import export
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.progress import run
from napari_pbip.results import ScoreStore
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.places import REGIONS
from napari_pbip.slides.regions import Kind, Region, Regions
from napari_pbip.taxonomy import UNASSIGNED
from tests.gui.napari_privates import canvas_of, duplicate
from tests.gui.panels.map_bench import Bench
from tests.gui.qt_helpers import answer, click, type_text

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


def every_byte(folder: Path) -> dict[Path, bytes]:
    return {one.relative_to(folder): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_what_is_painted_is_counted_saved_exported_and_taken_back(bench: Bench, settle: Any, tmp_path: Path) -> None:
    model, untouched = bench.labels, every_byte(bench.path)
    before = bench.cells
    assert "computed from scores" in bench.panel.about.text()
    type_text(bench.panel.who, "A. Person")
    bench.correct()
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
    bench.saved()
    assert sum(int(n) for n in re.findall(r": (\d+) cells", said)) == np.count_nonzero(painted)
    np.testing.assert_array_equal(bench.labels, model)
    assert bench.cells == before
    click(bench.tune.undo.undo_button)
    np.testing.assert_array_equal(bench.labels, expected)
    assert "A. Person" in bench.panel.about.text()
    click(bench.tune.undo.redo_button)
    np.testing.assert_array_equal(bench.labels, model)
    shutil.rmtree(bench.path / "corrections")  # its metadata alone
    assert every_byte(bench.path) == untouched


def test_the_bucket_fills_a_patch_of_the_map_and_undo_takes_it_back(bench: Bench, settle: Any) -> None:
    model = bench.labels
    parts, _ = scipy.ndimage.label(model == 2)
    largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
    row, column = np.argwhere(parts == largest)[np.count_nonzero(parts == largest) // 2]
    bench.correct()
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
    assert not ScoreStore.open(bench.path).corrections.sittings


def test_another_window_shows_the_corrections_and_goes_on_with_them(bench: Bench, settle: Any) -> None:
    bench.correct()
    height, width = bench.labels.shape
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    bench.session.correcting.flush()
    corrected = bench.labels
    other = napari.Viewer()
    session = session_of(other)
    result = session.results.open(bench.path)
    np.testing.assert_array_equal(np.array(result.view.labels(0, ALL, ALL)), corrected)
    session.correcting.begin(result)
    settle(lambda: session.correcting.problem is not None)
    assert session.correcting.layer is None
    assert "in use" in str(session.correcting.problem)
    bench.viewer.layers.remove(bench.result.layer)  # the layer of the corrections has nothing to lie over then
    assert bench.session.correcting.layer is None
    session.correcting.begin(result, "B. Person")
    settle(lambda: session.correcting.layer is not None)
    session.correcting.layer.data[0, 0] = 1
    session.close()
    other.close()
    settle()
    assert [one.who for one in ScoreStore.open(bench.path).corrections.sittings] == ["", "B. Person"]


def test_an_earlier_sitting_is_taken_back_and_undone_after_a_restart(viewer: Any, settle: Any, path: Path) -> None:
    corrections = ScoreStore.open(path).corrections
    height, width = corrections.shape
    for who, value in (("A. Person", 1), ("B. Person", 2)):  # on other days
        editor = CorrectionEditor(corrections, who)
        assert corrections.cells is not None
        corrections.cells[height // 3 : height // 2, value * width // 4 : (value + 1) * width // 4] = value
        editor.save()
        editor.close()
    bench = Bench(viewer, settle, path)
    corrected = bench.labels
    assert "B. Person" in bench.panel.about.text()
    click(bench.panel.back_button)
    assert "B. Person" in answer(bench.panel, settle, "Take back")
    one = bench.labels
    assert "A. Person" in bench.panel.about.text()
    assert (one != corrected).any()
    click(bench.panel.back_button)
    answer(bench.panel, settle, "Take back")
    bench.saved()
    assert not bench.panel.back_button.isEnabled()
    click(bench.tune.undo.undo_button)
    np.testing.assert_array_equal(bench.labels, one)
    click(bench.tune.undo.undo_button)
    np.testing.assert_array_equal(bench.labels, corrected)
    assert [one.who for one in ScoreStore.open(path).corrections.sittings] == ["A. Person", "B. Person"]


def test_undo_right_after_a_stroke_undoes_that_stroke(bench: Bench, settle: Any) -> None:
    height, width = bench.labels.shape
    bench.correct()
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    settle(lambda: bench.result.store.corrections.sittings and bench.session.correcting.saved)
    first = bench.labels
    bench.stroke((height * 0.6, width * 0.45), (height * 0.7, width * 0.5))
    assert not bench.session.correcting.saved
    click(bench.tune.undo.undo_button)
    assert not bench.session.correcting.layer.editable  # a thread is changing what is painted
    np.testing.assert_array_equal(bench.labels, first)
    assert bench.session.correcting.layer.mode == "paint"
    click(bench.panel.correct_button)


def test_corrections_are_read_in_a_thread_and_the_user_may_change_their_mind(bench: Bench, settle: Any) -> None:
    correcting, panel = bench.session.correcting, bench.panel
    click(panel.correct_button)
    assert correcting.layer is None
    assert "Opening the corrections" in panel.about.text()
    assert panel.correct_button.isChecked()
    assert not panel.who.isEnabled()
    click(panel.correct_button)
    assert not panel.correct_button.isChecked()
    settle(lambda: not bench.session.jobs)
    assert correcting.layer is None
    CorrectionEditor(bench.result.store.corrections, "").close()  # nobody else has them
    for _ in range(3):
        click(panel.correct_button)
    settle(lambda: not bench.session.jobs)
    assert correcting.layer is not None
    height, width = bench.labels.shape
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    bench.saved()
    click(bench.tune.undo.undo_button)
    bench.viewer.layers.remove(bench.result.layer)  # while a thread takes the stroke back
    settle(lambda: not bench.session.jobs)
    assert correcting.layer is None
    assert not ScoreStore.open(bench.path).corrections.sittings


def test_a_copy_of_the_corrections_says_that_it_is_one(bench: Bench, settle: Any) -> None:
    height, width = bench.labels.shape
    bench.correct()
    bench.stroke((height * 0.4, width * 0.45), (height * 0.5, width * 0.5))
    settle(lambda: bench.result.store.corrections.sittings)
    corrected, layers, layer = bench.labels, bench.viewer.layers, bench.session.correcting.layer
    layers.selection = {layer}
    notification_manager.records.clear()
    duplicate(layers)
    [copy] = [one for one in layers if one.name == f"{layer.name} copy"]
    settle(lambda: notification_manager.records)
    assert f"draw in “{layer.name}”" in notification_manager.records[-1].message
    layers.selection = {copy}
    copy.mode = "paint"
    copy.selected_label = 3
    bench.stroke((height * 0.6, width * 0.45), (height * 0.7, width * 0.5))
    assert (copy.data == 3).any()
    settle()
    np.testing.assert_array_equal(bench.labels, corrected)
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
    bench.correct()
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


def test_a_place_that_is_left_out_says_so_and_teaches_nothing(bench: Bench, settle: Any) -> None:
    session, tune, corrections = bench.session, bench.tune, bench.result.store.corrections
    height, width = bench.labels.shape
    side = bench.result.store.cell_um / bench.result.store.facts.slide.mpp
    pen = Region("pen", Kind.LEAVE_OUT, shapely.box(0, 0, side * width, side * height * 0.5))
    Regions((pen,)).write(bench.path.with_name(REGIONS))
    bench.result.use_regions(Regions((pen,)))
    click(tune.why_button)
    for row, told in ((height * 0.4, True), (height * 0.6, False)):
        place = bench.at(row, width * 0.45)
        QTest.mouseMove(bench.canvas, place)
        settle()
        assert ("pen" in tune.hover.text()) is told
        QTest.mouseClick(bench.canvas, LEFT, NO, place)
        settle(lambda: not session.jobs)
        assert ("This place is not analysed. It lies in the region “pen”" in tune.why.text.text()) is told
        assert bool(tune.why.pictures) is not told
    click(tune.why_button)
    bench.correct()
    session.correcting.layer.data_setitem(np.nonzero(np.ones((height, width), bool)), 2)
    settle(lambda: corrections.sittings)
    click(bench.panel.correct_button)
    click(bench.panel.teach.find_button)
    settle(lambda: not session.jobs and bench.panel.teach.label_button.isVisible())
    grid = session.labelling.grid
    lowest = min(row for places in bench.panel.teach._tiles.values() for _, row in places)
    assert lowest * grid.side >= 0.45 * side * height
    click(bench.panel.teach.cancel_button)


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
    bench.correct()
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
