"""Labels from scores, compared with a naive rule, and the label image on disk."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import create, network, segment, smooth_field

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import ConfigError, OutputError
from napari_pbip.results import LargestScores, ScoreStore, label_region, labels_from_scores, open_labels, write_labels
from napari_pbip.results.labels import ScoreWindow, deltas
from napari_pbip.results.smoothing import PaddedScores
from napari_pbip.results.store_files import writing_to
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import BCSS


def naive_label(scores, presence, largest, delta, threshold, tissue):
    """Apply the rule of the documentation to one cell."""
    if not tissue or np.isnan(scores).any() or np.isnan(presence).any() or np.isnan(largest).any():
        return 0
    best, label = 0.0, 255
    for n in range(len(scores)):
        if presence[n] >= threshold and largest[n] > 0:
            normalised = np.float32(scores[n]) / np.float32(largest[n])
            if normalised >= np.float32(delta[n]) and normalised > best:
                best, label = normalised, n + 1
    return label


def naive_presence(presence, row, column):
    """Return the presence at one place, from the analysed tiles of the four around it; NaN if there are none."""
    total, weights = np.zeros(len(presence)), 0.0
    for r in range(presence.shape[1]):
        for c in range(presence.shape[2]):
            weight = max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
            if weight and not np.isnan(presence[0, r, c]):
                total += weight * presence[:, r, c].astype(float)
                weights += weight
    return total / weights if weights > 1e-6 else np.full(len(presence), np.nan)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_equal_to_the_rule_cell_by_cell(classes, seed, per_tile):
    rng = np.random.default_rng(seed)
    height, width, tiles = 13, 11, (3, 4)
    scores = rng.normal(size=(classes, height, width)).astype(np.float16)
    scores[:, rng.random((height, width)) < 0.1] = np.nan
    presence = rng.random((classes, *tiles)).astype(np.float16)
    presence[:, rng.random(tiles) < 0.2] = np.nan
    largest = rng.normal(0.5, 1, (classes, *(tiles if per_tile else (1, 1)))).astype(np.float16)
    delta = rng.choice([0.0, 0.15, 0.5, 1.0], classes).astype(np.float32)
    # positions at, between and beyond centres, but not half-way, where either tile is the nearest
    rows, columns = (np.sort(rng.choice([0, 0.2, 0.7, 1, 1.3, 1.9, 2], n)) for n in (height, width))
    tissue = rng.random((height, width)) > 0.2
    found = labels_from_scores(scores, largest, delta, presence, 0.5, rows, columns, tissue)
    everywhere = np.broadcast_to(largest, presence.shape)
    for y in range(height):
        for x in range(width):
            there = naive_presence(presence, rows[y], columns[x])
            if np.abs(there - 0.5).min() < 1e-5:
                continue  # a tie of rounding
            over = everywhere[:, round(rows[y]), round(columns[x])]
            assert found[y, x] == naive_label(scores[:, y, x], there, over, delta, 0.5, tissue[y, x])


def one_tile(scores, largest, delta, presence=0.9):
    scores = np.array(scores, np.float16)[:, None, None]
    largest = np.array(largest, float)[:, None, None]
    everywhere = np.full((len(scores), 1, 1), presence)
    at, tissue = np.zeros(1), np.ones((1, 1), bool)
    return int(labels_from_scores(scores, largest, np.array(delta), everywhere, 0.5, at, at, tissue)[0, 0])


def test_a_class_does_not_end_at_the_border_of_a_tile():
    """Between a tile with a class (0.9) and one without (0.1), the class ends where its presence is 0.5."""
    scores, positions = np.ones((1, 1, 101), np.float16), np.linspace(0, 1, 101)
    presence = np.array([[[0.9, 0.1]]])
    tissue = np.ones((1, 101), bool)
    for threshold, end in ((0.3, 0.75), (0.5, 0.5), (0.7, 0.25)):
        labels = labels_from_scores(
            scores, np.ones((1, 1, 1)), np.zeros(1), presence, threshold, np.zeros(1), positions, tissue
        )
        np.testing.assert_array_equal(labels[0] == 1, positions <= end + 1e-3)


def test_the_largest_score_itself_reaches_delta_one():
    for largest in np.random.default_rng(0).random(200).astype(np.float16):
        assert one_tile([largest], [largest], [1.0]) == 1


def test_classes_are_compared_by_their_own_scale():
    assert one_tile([4, 1], [10, 1], [0.15, 0.15]) == 2
    assert one_tile([4, 0.3], [10, 1], [0.15, 0.15]) == 1
    assert one_tile([4, 0.3], [10, 1], [0.5, 0.15]) == 2


def test_no_evidence_is_background_even_at_delta_zero():
    assert one_tile([-1, 0], [10, 1], [0, 0]) == 255
    assert one_tile([5, 5], [10, 10], [0, 0], presence=0.1) == 255


def test_a_presence_equal_to_the_threshold_counts():
    assert one_tile([5], [10], [0.15], presence=0.5) == 1
    assert one_tile([5], [10], [0.15], presence=0.499) == 255


def test_largest_scores_are_exact_percentiles(finished):
    store = ScoreStore.open(finished)
    rows, columns, tissue = store.tiles_and_tissue(0, slice(None), slice(None))
    analysed = tissue & store.planned[np.ix_(np.rint(rows).astype(int), np.rint(columns).astype(int))]
    scores = store.read_scores(0, slice(None), slice(None))
    counts = LargestScores(store)
    for percentile in (50, 90, 99.5, 100):
        expected = [
            np.percentile(one[analysed & (one > 0)].astype(np.float64), percentile, method="inverted_cdf")
            for one in scores
        ]
        np.testing.assert_array_equal(counts.percentile(percentile), expected)


@pytest.mark.parametrize("scope", ["slide", "tile"])
def test_scores_with_a_ceiling_are_compared_as_they_are(tmp_path, scope):
    shape = (200, 200)
    field = smooth_field(shape)
    field[1] /= 10  # its largest score is small, and would be stretched
    store = create(tmp_path / "s.ome.zarr", shape, model={"run": "run", "hash": "w1", "ceiling": 2.0})
    segment(store, network(field))
    counts = LargestScores(store)
    assert counts.percentile(99.5).tolist() == [2.0] * 4
    thresholds = ThresholdSettings(delta=0.25, presence=0, scope=scope, smoothing_um=0)
    labels = label_region(store, thresholds, counts.percentile(99.5), 0, slice(None), slice(None))
    scores = store.read_scores(0, slice(None), slice(None)).astype(np.float32)
    np.testing.assert_array_equal(labels, np.where(scores.max(0) >= 0.25 * 2, scores.argmax(0) + 1, 255))


def test_largest_scores_follow_a_growing_store(tmp_path):
    shape = (600, 600)
    answer = network(smooth_field(shape))
    store = create(tmp_path / "s.ome.zarr", shape)
    counts = LargestScores(store)
    assert counts.percentile(99.5).tolist() == [0] * 4
    segment(store, answer, blocks=4)
    early = counts.percentile(99.5)
    assert (early > 0).all()
    segment(ScoreStore.open(store.path, "r+"), answer)
    np.testing.assert_array_equal(counts.percentile(99.5), LargestScores(store).percentile(99.5))
    assert (counts.percentile(100) >= early).all()


# what is written


def test_another_library_finds_a_valid_label_image(labelled):
    labels = ome_zarr_models.v05.Labels.from_zarr(zarr.open_group(labelled.path / "labels", mode="r"))
    assert labels.attributes.ome.labels == ["tissue"]
    image = ome_zarr_models.v05.ImageLabel.from_zarr(zarr.open_group(labelled.path / "labels" / "tissue", mode="r"))
    described = image.attributes.ome.image_label
    assert {c.label_value: c.rgba[:3] for c in described.colors}[1] == BCSS.classes[0].rgb
    names = {p.label_value: p.model_extra["class"] for p in described.properties}
    assert names == {1: "TUM", 2: "STR", 3: "LYM", 4: "NEC", 255: "not assigned"}
    ome_zarr_models.v05.Image.from_zarr(zarr.open_group(labelled.path, mode="r"))  # the scores still are, too


def test_labels_lie_where_the_scores_lie(labelled):
    root = zarr.open_group(labelled.path, mode="r")
    scores = root.attrs["ome"]["multiscales"][0]["datasets"]
    labels = root["labels/tissue"].attrs["ome"]["multiscales"][0]["datasets"]
    for one, other in zip(scores, labels, strict=True):
        for a, b in zip(one["coordinateTransformations"], other["coordinateTransformations"], strict=True):
            assert a[a["type"]][1:] == b[b["type"]]
    levels, _ = open_labels(labelled)
    assert [level.shape for level in levels] == [level.shape[1:] for level in labelled.scores]
    for fine, coarse in pairwise(levels):
        np.testing.assert_array_equal(coarse[:], fine[::2, ::2])


@pytest.mark.parametrize("scope", ["slide", "tile"])
def test_labels_follow_the_thresholds(labelled, scope):
    thresholds = ThresholdSettings(
        delta=0.3, class_delta={"STR": 0.6}, presence=0.4, scope=scope, percentile=98, smoothing_um=0
    )
    write_labels(labelled, thresholds)
    levels, facts = open_labels(labelled)
    rows, columns, tissue = labelled.tiles_and_tissue(0, slice(None), slice(None))
    scores = labelled.read_scores(0, slice(None), slice(None))
    largest = LargestScores(labelled).percentile(98)
    over = labelled.peak() if scope == "tile" else np.broadcast_to(largest[:, None, None], labelled.peak().shape)
    presence = labelled.presence()
    written = levels[0][:]
    for y, x in np.random.default_rng(0).integers(0, scores.shape[1:], (3000, 2)):
        there = naive_presence(presence, rows[y], columns[x])
        if np.abs(there - 0.4).min() < 1e-5:
            continue
        largest_there = over[:, int(np.rint(rows[y])), int(np.rint(columns[x]))]
        expected = naive_label(scores[:, y, x], there, largest_there, [0.3, 0.6, 0.3, 0.3], 0.4, tissue[y, x])
        assert written[y, x] == expected
    assert set(np.unique(written)) == {0, 1, 2, 3, 4, 255}
    assert facts.thresholds == thresholds
    assert facts.cells[WHOLE] == {value: (written == value).sum() for value in (1, 2, 3, 4, 255)}
    assert (facts.done, facts.planned) == labelled.progress


def test_a_region_of_any_level_can_be_labelled_by_itself(labelled):
    thresholds, largest = ThresholdSettings(), LargestScores(labelled).percentile(99.5)
    whole = open_labels(labelled)[0][0][:]
    part = label_region(labelled, thresholds, largest, 0, slice(130, 420), slice(501, 900))
    np.testing.assert_array_equal(part, whole[130:420, 501:900])
    coarse = label_region(labelled, thresholds, largest, 2, slice(None), slice(None))
    assert coarse.shape == labelled.scores[2].shape[1:]
    assert (coarse == whole[2::4, 2::4]).mean() > 0.85  # the mean of scores against one of their cells


def test_a_growing_store_has_labels_of_what_is_there(tmp_path):
    shape = (600, 600)
    store = create(tmp_path / "s.ome.zarr", shape)
    write_labels(store, ThresholdSettings())
    assert not open_labels(store)[0][0][:].any()
    segment(store, network(smooth_field(shape)), blocks=1)
    write_labels(ScoreStore.open(store.path), ThresholdSettings())
    levels, facts = open_labels(store)
    labels = levels[0][:]
    assert labels[:230, :230].all()
    assert not labels[256:].any()
    assert facts.done < facts.planned


def test_an_unknown_class_is_named_with_the_nearest():
    assert deltas(BCSS, ThresholdSettings(class_delta={"LYM": 0.5})).tolist() == pytest.approx([0.15, 0.15, 0.5, 0.15])
    with pytest.raises(ConfigError, match="'TUMOUR', which is no class; the nearest is 'TUM'"):
        deltas(BCSS, ThresholdSettings(class_delta={"TUMOUR": 0.5}))


def test_a_store_without_labels_is_said_so(finished):
    with pytest.raises(OutputError, match="no labels yet"):
        open_labels(ScoreStore.open(finished))


def test_labels_that_fail_leave_the_earlier_ones(labelled):
    before = open_labels(labelled)[0][0][:]
    chunk = labelled.path / "0" / "c" / "0" / "2" / "3"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:50])
    with pytest.raises(OutputError, match="damaged"):
        write_labels(labelled, ThresholdSettings(delta=0.9))
    levels, facts = open_labels(labelled)
    np.testing.assert_array_equal(levels[0][:], before)
    assert facts.thresholds == ThresholdSettings()
    assert [entry.name for entry in (labelled.path / "labels").iterdir() if entry.is_dir()] == ["tissue"]
    chunk.write_bytes(whole)
    write_labels(labelled, ThresholdSettings(delta=0.9))
    assert open_labels(labelled)[1].thresholds.delta == 0.9


def test_labels_of_others_in_the_store_stay_listed(labelled):
    parent = zarr.open_group(labelled.path / "labels", mode="r+")
    parent.create_group("nuclei")
    parent.attrs["ome"] = {"version": "0.5", "labels": ["nuclei"]}
    for _ in range(2):
        write_labels(labelled, ThresholdSettings())
        assert zarr.open_group(labelled.path / "labels", mode="r").attrs["ome"]["labels"] == ["nuclei", "tissue"]


_KILLED = """
import os, sys
from pathlib import Path
from napari_pbip.config import ThresholdSettings
from napari_pbip.results import ScoreStore, write_labels

renamed = 0
replace = Path.replace
def rename(source, target):
    global renamed
    if source.is_dir():  # zarr renames files
        renamed += 1
        if renamed == 2:
            os._exit(9)
    return replace(source, target)

store = ScoreStore.open(Path(sys.argv[1]))
Path.replace = rename
write_labels(store, ThresholdSettings(delta=0.9))
"""


def test_labels_survive_a_kill_between_the_steps_of_replacing_them(labelled):
    before = open_labels(labelled)[0][0][:]
    assert subprocess.run([sys.executable, "-c", _KILLED, str(labelled.path)], check=False).returncode == 9
    assert not (labelled.path / "labels" / "tissue").exists()  # renamed aside, and the new ones not in place
    levels, facts = open_labels(labelled)
    np.testing.assert_array_equal(levels[0][:], before)
    assert facts.thresholds == ThresholdSettings()
    write_labels(labelled, ThresholdSettings(delta=0.9))
    assert open_labels(labelled)[1].thresholds.delta == 0.9
    assert [entry.name for entry in (labelled.path / "labels").iterdir() if entry.is_dir()] == ["tissue"]


def test_an_error_of_the_disk_is_told_from_others(tmp_path):
    with pytest.raises(OutputError, match="The disk is full"), writing_to(tmp_path):
        raise OSError(28, "No space left on device")


def test_what_counts_is_what_labels_are_chosen_from() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(3, 70, 80)).astype(np.float32)
    scores[:, :3] = np.nan
    tissue = rng.random((70, 80)) > 0.1
    presence = rng.random((3, 2, 2))
    rows, columns = np.linspace(0, 1, 70), np.linspace(0, 1, 80)
    padded = PaddedScores(scores, slice(0, 70), slice(0, 80))
    found = ScoreWindow(padded, np.full((3, 1, 1), 1.5), presence, rows, columns, tissue)
    delta = np.array([0.1, 0.3, 0.2], np.float32)
    counted, labels = found.counted(delta, 0.4), found.labels(delta, 0.4)
    analysed = ~np.isnan(counted[0])
    np.testing.assert_array_equal(analysed, labels != 0)
    best = np.where(counted.max(0) > 0, counted.argmax(0) + 1, 255)
    np.testing.assert_array_equal(best[analysed], labels[analysed])
