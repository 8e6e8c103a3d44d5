"""Smoothing of scores: the mean of what counts around a cell, in micrometres, without seams between parts."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import gaussian
from stores import create, network, segment

from napari_pbip.config import ThresholdSettings
from napari_pbip.results import LargestScores, ScoreStore, label_region
from napari_pbip.results.labels import score_window
from napari_pbip.results.smoothing import deviation, reach, smooth

ALL = slice(None)


def test_a_width_averages_as_a_square_of_that_width_does():
    square = np.linspace(-0.5, 0.5, 100_001)  # in widths
    assert deviation(40, 8) == pytest.approx(5 * square.std(), rel=1e-4)
    assert deviation(1, 8) == 0  # narrower than a cell


def test_cells_that_count_get_the_weighted_mean_of_those_that_count():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 60, 50)).astype(np.float16)
    counts = rng.random((60, 50)) < 0.8
    scores[:, ~counts & (rng.random((60, 50)) < 0.5)] = np.nan  # not analysed
    found = smooth(scores, counts, 2.0)
    weight = gaussian(counts.astype(np.float64), 2.0, mode="constant", truncate=3)
    for one, score in zip(found, scores.astype(np.float64), strict=True):
        expected = gaussian(np.where(counts, score, 0), 2.0, mode="constant", truncate=3) / weight
        np.testing.assert_allclose(one[counts], expected[counts], atol=1e-5)
        np.testing.assert_array_equal(one[~counts], score[~counts])


def test_constant_scores_stay_constant():
    found = smooth(np.full((1, 40, 40), 0.7, np.float32), np.tri(40, dtype=bool), 4.0)
    np.testing.assert_allclose(found, 0.7, rtol=1e-5)


@pytest.fixture
def speckled(tmp_path):
    """A store whose left half is of the first class and whose right half is of the second, with wrong single cells."""
    shape = (300, 300)
    field = np.full((4, 328, 328), -1, np.float32)  # tiles reach beyond the slide
    field[:2] = 0
    field[0, :, :150] = field[1, :, 150:] = 1
    wrong = np.random.default_rng(0).random(field.shape[1:]) < 0.1
    field[:2, wrong] = field[1::-1, wrong]
    store = create(tmp_path / "s.ome.zarr", shape)
    segment(store, network(field))
    return store


def test_single_cells_do_not_stand_out(speckled):
    largest = LargestScores(speckled).percentile(99.5)
    tissue = speckled.tiles_and_tissue(0, ALL, ALL)[2]
    truth = np.where(np.arange(300) < 150, 1, 2) * np.ones((300, 1), int)

    def errors(width):
        labels = label_region(speckled, ThresholdSettings(presence=0, smoothing_um=width), largest, 0, ALL, ALL)
        return (labels != truth)[tissue & (labels > 0)].mean()

    um = speckled.cell_um
    assert errors(0) > 0.05
    assert errors(8 * um) < 0.005


def test_parts_of_a_level_join_without_a_seam(speckled):
    largest = LargestScores(speckled).percentile(99.5)
    thresholds = ThresholdSettings(smoothing_um=7 * speckled.cell_um)
    whole = score_window(speckled, thresholds, largest, 0, ALL, ALL).rows(ALL).shares
    part = score_window(speckled, thresholds, largest, 0, slice(40, 97), slice(201, 256)).rows(ALL).shares
    np.testing.assert_array_equal(part, whole[:, 40:97, 201:256])
    window = score_window(speckled, thresholds, largest, 0, ALL, ALL)
    assert len(window.strips) > 2
    np.testing.assert_array_equal(np.concatenate([window.rows(strip).shares for strip in window.strips], 1), whole)


def test_coarse_levels_are_smoothed_over_the_same_width(speckled):
    wide = 16 * speckled.cell_um
    assert reach(deviation(wide, 2 * speckled.cell_um)) < reach(deviation(wide, speckled.cell_um))
    largest = LargestScores(ScoreStore.open(speckled.path)).percentile(99.5)
    thresholds = ThresholdSettings(smoothing_um=wide)
    fine, coarse = (label_region(speckled, thresholds, largest, level, ALL, ALL) for level in (0, 1))
    assert (coarse == fine[1::2, 1::2]).mean() > 0.98
