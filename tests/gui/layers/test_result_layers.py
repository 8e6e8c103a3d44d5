"""Results as layers: the screen shows the labels at the thresholds, at every zoom, also while a store grows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.events import RegionDone
from napari_pbip.gui.compat import camera_of, show_scale_bar
from napari_pbip.gui.layers.results import METADATA
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import LargestScores, ScoreStore, areas, label_region, write_labels
from napari_pbip.taxonomy import BCSS
from tests.gui.napari_privates import duplicate, pixels_shown, set_data_level
from tests.results.stores import create, network, segment, smooth_field

SHAPE = (600, 700)
ALL = slice(None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = create(tmp_path_factory.mktemp("finished") / "slide.ome.zarr", SHAPE)
    segment(store, network(smooth_field(SHAPE)))
    return store.path


@pytest.fixture
def result(viewer, settle, finished):
    result = session_of(viewer).results.open(finished)
    viewer.reset_view()
    settle(lambda: result.areas.exact)
    return result


def expected(path: Path, thresholds: ThresholdSettings, level: int = 0) -> np.ndarray:
    store = ScoreStore.open(path)
    return label_region(store, thresholds, LargestScores(store).percentile(thresholds.percentile), level, ALL, ALL)


def shown(result) -> np.ndarray:
    """Return the pixels of the present view that napari has."""
    return pixels_shown(result.layer)


def colours_on_screen(viewer) -> np.ndarray:
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].reshape(-1, 3)
    return np.unique(picture, axis=0)


def test_a_result_lies_on_its_slide_in_micrometres(result, finished):
    layer, store = result.layer, result.store
    np.testing.assert_allclose(layer.scale, store.cell_um)
    np.testing.assert_allclose(layer.translate, (store.cell_um - store.facts.slide.mpp) / 2)
    assert {str(unit) for unit in layer.units} == {"micrometer"}
    assert layer.metadata[METADATA] == str(finished)
    assert layer.name == "slide tissue map"


def test_opening_it_again_finds_it(viewer, result, finished):
    assert session_of(viewer).results.open(finished) is result
    assert len(viewer.layers) == 1


def test_it_begins_with_the_thresholds_of_its_labels_or_the_usual_ones(viewer, finished, tmp_path):
    usual = ThresholdSettings(delta=0.3, class_delta={"STR": 0.2, "a class of another project": 0.4})
    results = session_of(viewer).results
    result = results.open(finished, usual)
    assert result.thresholds == ThresholdSettings(delta=0.3, class_delta={"STR": 0.2})
    assert result.display.thresholds == usual  # what is not of its classes waits for a result that has them
    copy = shutil.copytree(finished, tmp_path / "slide.ome.zarr")
    write_labels(ScoreStore.open(copy), ThresholdSettings(delta=0.7))
    assert results.open(copy, usual).thresholds == ThresholdSettings(delta=0.7)


def test_labels_are_those_of_the_rule(result, finished):
    thresholds = ThresholdSettings(delta=0.3, class_delta={"STR": 0.6}, presence=0.2)
    result.display.thresholds = thresholds
    result.view.micrometres = 0  # as if zoomed in: every cell counts
    np.testing.assert_array_equal(np.asarray(result.view.levels[0]), expected(finished, thresholds))
    np.testing.assert_array_equal(np.asarray(result.view.levels[1]), expected(finished, thresholds, 1))


def test_thresholds_reach_the_screen_at_every_zoom(viewer, settle, result):
    result.layer.opacity = 1
    at_first = result.display.thresholds
    for zoom in (0.002, 0.1, 0.5):
        camera_of(viewer).zoom = zoom
        result.display.thresholds = at_first
        settle()
        settle(lambda: not result.store.lacking)
        before = {tuple(c) for c in colours_on_screen(viewer)}
        assert before & {one.rgb for one in BCSS}, zoom
        result.display.thresholds = ThresholdSettings(presence=1.0, delta=1.0)
        settle()
        after = {tuple(c) for c in colours_on_screen(viewer)}
        assert (190, 190, 190) in after, zoom
        assert not after & {one.rgb for one in BCSS}, zoom


def test_hidden_classes_are_not_drawn(viewer, settle, result):
    result.layer.opacity = 1
    settle()
    red = BCSS.classes[0].rgb
    assert red in {tuple(c) for c in colours_on_screen(viewer)}
    result.display.hidden = frozenset({1})
    settle()
    assert red not in {tuple(c) for c in colours_on_screen(viewer)}
    result.display.hidden = frozenset()
    settle()
    assert red in {tuple(c) for c in colours_on_screen(viewer)}


def test_a_growing_store_is_seen_at_every_zoom(viewer, settle, tmp_path):
    """At the first zoom the slide has a dozen screen pixels, so that napari shows the coarsest level."""
    classes = {one.rgb for one in BCSS}
    for zoom in (0.002, 0.05, 0.5):
        store = create(tmp_path / f"{zoom}" / "slide.ome.zarr", SHAPE)
        result = session_of(viewer).results.open(store.path)
        result.layer.opacity = 1
        viewer.reset_view()
        camera_of(viewer).zoom = zoom
        settle()
        assert not {tuple(c) for c in colours_on_screen(viewer)} & classes
        if zoom == 0.002:
            assert result.layer.data_level == len(result.view.levels) - 1
        segment(ScoreStore.open(store.path, "r+"), network(smooth_field(SHAPE)))
        result.update([RegionDone(0, 0, SHAPE[1], SHAPE[0])])
        settle(lambda: {tuple(c) for c in colours_on_screen(viewer)} & classes)
        assert not result.store.growing
        viewer.layers.clear()


def test_blocks_that_are_committed_later_appear(viewer, settle, tmp_path, monkeypatch):
    """A region is reported before its commit; the layer reads it again without another event."""
    store = create(tmp_path / "slide.ome.zarr", SHAPE)
    result = session_of(viewer).results.open(store.path)
    viewer.reset_view()
    blender = store.blender()
    answer = network(smooth_field(SHAPE))
    monkeypatch.setattr("napari_pbip.results.store_writer.COMMIT_SECONDS", float("inf"))  # as when blocks come quickly
    regions = [r for place in blender.order[:300] for r in blender.add(*place, *answer(*place))]
    for region in regions:
        store.write_region(region)
    result.update([RegionDone(r.x, r.y, 256, 256) for r in regions])
    settle()
    assert result.store.growing
    store.commit()
    settle(lambda: not result.store.growing)
    settle(lambda: len(np.unique(shown(result))) > 2)


def test_areas_are_those_that_would_be_written(viewer, settle, result, finished, tmp_path):
    thresholds = ThresholdSettings(delta=0.4)
    copy = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, copy)
    write_labels(ScoreStore.open(copy), thresholds)
    before = result.areas.rows
    result.display.thresholds = thresholds
    assert not result.areas.exact
    settle(lambda: result.areas.rows is not before)
    assert not result.areas.exact
    roughly = {row.name: row.area_mm2 for row in result.areas.rows}
    settle(lambda: result.areas.exact)
    assert result.areas.rows == areas(ScoreStore.open(copy))
    for row in result.areas.rows:
        assert roughly[row.name] == pytest.approx(row.area_mm2, abs=0.1 * sum(roughly.values()))


def test_what_is_under_the_cursor(result, finished):
    result.display.thresholds = ThresholdSettings(smoothing_um=0)
    labels = expected(finished, result.thresholds)
    scores = ScoreStore.open(finished).read_scores(0, ALL, ALL).astype(np.float32)
    result.view.micrometres = 0
    set_data_level(result.layer, 0)
    um = result.store.cell_um
    for row, column in ((0, 0), (517, 233), (599, 699)):
        offset = (um - result.store.facts.slide.mpp) / 2
        label, there = result.value_at((row * um + offset, column * um + offset))
        assert label == labels[row, column]
        np.testing.assert_array_equal(there, scores[:, row, column] / result.view.largest)
    assert result.value_at((-100, 0)) is None


def test_a_removed_layer_stops_everything(viewer, settle, finished):
    results = session_of(viewer).results
    result = results.open(finished)
    settle(lambda: result.areas.counting)
    viewer.layers.remove(result.layer)
    assert not list(results)
    result.update([RegionDone(0, 0, 256, 256)])  # events may still come
    QApplication.processEvents()


def test_a_damaged_store_is_one_sentence(viewer, settle, finished, tmp_path):
    copy = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, copy)
    for chunk in (copy / "0" / "c").rglob("[0-9]*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    result = session_of(viewer).results.open(copy)
    told: list[str] = []
    result.failed.connect(told.append)
    camera_of(viewer).zoom = 2
    settle(lambda: told)
    assert "damaged" in told[0]
    assert "\n" not in told[0]
    with pytest.raises(OutputError, match="not a score store"):
        session_of(viewer).results.open(tmp_path / "nothing")


def test_a_store_that_vanishes_leaves_the_picture(viewer, settle, finished, tmp_path):
    copy = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, copy)
    result = session_of(viewer).results.open(copy)
    viewer.reset_view()
    settle(lambda: result.areas.exact)
    shutil.rmtree(copy)
    result.display.thresholds = ThresholdSettings(delta=0.9)
    settle(lambda: result.error)
    assert "\n" not in result.error


def test_a_duplicated_result_is_a_result_of_its_own(viewer, result, finished, settle):
    show_scale_bar(viewer, True)  # as a slide does; without it Mesa crashes where a layer is removed
    viewer.layers.selection.active = result.layer
    duplicate(viewer.layers)
    first, second = session_of(viewer).results
    second.display.thresholds = ThresholdSettings(delta=0.7)
    settle()
    assert first.thresholds != second.thresholds
    viewer.layers.remove(first.layer)
    settle()
    for level in (0, len(second.view.levels) - 2):
        second.view.micrometres = 0
        second.view.read(level, ALL, ALL)
        settle(lambda: not second.store.lacking)
        there = expected(finished, second.thresholds, level)
        assert (np.asarray(second.view.levels[level]) == there).mean() > 0.97  # the largest scores are estimated yet
    assert second.layer.data[-1] is second.view.levels[-1]  # which is changed in place
