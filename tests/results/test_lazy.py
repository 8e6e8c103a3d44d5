"""The dask arrays of a store: their values, their positions, and that only what is needed is read."""

from __future__ import annotations

import shutil
import threading

import dask.array as da
import numpy as np
import pytest
import zarr
from stores import create, network, segment, smooth_field

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import ConfigError, OutputError
from napari_pbip.results import LargestScores, ScoreStore, label_region, lazy_labels, lazy_presence, lazy_scores
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.lazy import analysed_blocks, computed, label_blocks

ALL = slice(None)
THRESHOLDS = ThresholdSettings(delta=0.3, class_delta={"STR": 0.6}, presence=0.4, percentile=98)


@pytest.fixture(scope="module")
def store(finished):
    return ScoreStore.open(finished)


def test_scores_and_presence_are_those_of_the_store(store):
    for level, array in enumerate(store.scores):
        found = lazy_scores(store, level)
        assert isinstance(found.data, da.Array)
        assert found.data.shape == array.shape
        np.testing.assert_array_equal(found.data.compute(), array[:])
    presence = lazy_presence(store).data
    np.testing.assert_array_equal(presence.compute(), store.presence())
    mean = da.nanmean(lazy_scores(store).data.astype(np.float32), axis=(1, 2)).compute()
    np.testing.assert_allclose(mean, np.nanmean(store.scores[0][:].astype(np.float64), axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("scope", ["slide", "tile"])
def test_labels_are_those_of_a_region_at_every_level(store, scope):
    thresholds = THRESHOLDS.model_copy(update={"scope": scope})
    largest = LargestScores(store).percentile(thresholds.percentile)
    for level in range(len(store.scores)):
        labels = lazy_labels(store, thresholds, level).data
        assert labels.dtype == np.uint8
        expected = label_region(store, thresholds, largest, level, ALL, ALL)
        np.testing.assert_array_equal(labels.compute(), expected)
        # a part that lies across blocks
        np.testing.assert_array_equal(labels[37:611:3, 205:640].compute(), expected[37:611:3, 205:640])


def test_arrays_lie_where_the_files_say(store):
    attributes = dict(zarr.open_group(store.path, mode="r").attrs)
    for level, entry in enumerate(attributes["ome"]["multiscales"][0]["datasets"]):
        scale, translation = entry["coordinateTransformations"]
        for lazy in (lazy_scores(store, level), lazy_labels(store, THRESHOLDS, level)):
            assert lazy.level == level
            assert list(lazy.scale) == scale["scale"][1:]
            assert list(lazy.translate) == pytest.approx(translation["translation"][1:])
    presence, cell = lazy_presence(store), lazy_scores(store)
    # tile (0, 0) is centred over cells 0..27, and the next one 24 cells on
    assert presence.scale == tuple(24 * side for side in cell.scale)
    assert presence.translate == pytest.approx(
        [at + 13.5 * side for at, side in zip(cell.translate, cell.scale, strict=True)]
    )


def test_only_what_is_asked_for_is_read(tmp_path, finished):
    path = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, path)
    store = ScoreStore.open(path)
    largest = LargestScores(store).percentile(98)
    chunk = path / "0" / "c" / "0" / "2" / "3"
    chunk.write_bytes(chunk.read_bytes()[:50])
    labels = lazy_labels(store, THRESHOLDS, largest=largest).data
    assert labels[:CHUNK, :CHUNK].compute().any()
    with pytest.raises(OutputError, match="damaged"):
        labels.compute()


def test_a_growing_store_is_looked_at_anew(tmp_path):
    shape = (600, 600)
    answer = network(smooth_field(shape))
    store = create(tmp_path / "s.ome.zarr", shape)
    segment(store, answer, blocks=1)
    looked = ScoreStore.open(store.path)
    labels = lazy_labels(looked, THRESHOLDS, largest=np.ones(4)).data
    before = labels.compute()
    assert not before[CHUNK:].any()
    assert analysed_blocks(looked) == [(0, 0)]
    segment(ScoreStore.open(store.path, "r+"), answer)
    assert labels.compute()[CHUNK:].any()
    assert sorted(analysed_blocks(looked)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_blocks_come_in_order_and_closing_ends_the_threads(store):
    largest = LargestScores(store).percentile(THRESHOLDS.percentile)
    whole = label_region(store, THRESHOLDS, largest, 0, ALL, ALL)
    places = analysed_blocks(store)
    blocks = list(label_blocks(store, THRESHOLDS))
    assert [(y // CHUNK, x // CHUNK) for y, x, _ in blocks] == places
    for y, x, labels in blocks:
        np.testing.assert_array_equal(labels, whole[y : y + CHUNK, x : x + CHUNK])
    seen = []

    def read(block):
        seen.append(threading.current_thread().name)
        return block

    data = lazy_labels(store, THRESHOLDS).data.map_blocks(read, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    running = computed(data, places, together=False)
    next(running)
    running.close()
    assert len(seen) == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("napari-pbip-blocks")]


def test_refined_labels_and_another_presence_are_taken(store):
    asked = []

    def refine(largest, y, x):
        asked.append((y.start, x.start))
        return label_region(store, THRESHOLDS, largest, 0, y, x) // 2

    plain = lazy_labels(store, THRESHOLDS).data.compute()
    np.testing.assert_array_equal(lazy_labels(store, THRESHOLDS, refine=refine).data.compute(), plain // 2)
    assert sorted(asked) == [(0, 0), (0, 512), (512, 0), (512, 512)]
    nothing = np.where(np.isnan(store.presence()), np.nan, 0)
    absent = lazy_labels(store, THRESHOLDS, presence=nothing).data.compute()
    np.testing.assert_array_equal(absent != 0, plain != 0)
    assert set(np.unique(absent)) == {0, 255}
    with pytest.raises(ValueError, match="level 0"):
        lazy_labels(store, THRESHOLDS, 1, refine=refine)
    with pytest.raises(ConfigError, match="which is no class"):
        lazy_labels(store, ThresholdSettings(class_delta={"TUMOUR": 0.5}))
