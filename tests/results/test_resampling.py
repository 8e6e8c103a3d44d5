"""Intervals and tests of metrics, compared with scipy's on drawn labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test, wilcoxon

from napari_pbip.results import resampling
from napari_pbip.results.metrics import Metrics, SegmentationScores
from napari_pbip.results.resampling import PairedTest, holm, interval, intervals, resampled

NAMES = ("a", "b", "c")


def scores(wrong: float, images: int = 24, seed: int = 0) -> SegmentationScores:
    """Return the scores of a network that errs in about this share of pixels, more in some images than in others."""
    truths, errors = np.random.default_rng(1), np.random.default_rng(seed)
    found = SegmentationScores(NAMES)
    for image in range(images):
        truth = truths.integers(0, 3, (20, 20))
        errs = errors.random((20, 20)) < wrong * errors.uniform(0.2, 1.8)
        found.add(truth, np.where(errs, errors.integers(0, 3, (20, 20)), truth), slide=f"slide {image % 6}")
    return found


def miou(counts: np.ndarray) -> np.ndarray:
    return Metrics(counts).miou


def test_intervals_are_those_of_scipy():
    counts = scores(0.3).counts

    def statistic(images: np.ndarray, axis: int) -> np.ndarray:
        return miou(counts[images.astype(int)].sum(-4 if axis == -1 else axis))

    ours = interval(resampled(counts[None]), "miou")
    images = (np.arange(len(counts)),)
    theirs = bootstrap(images, statistic, method="percentile", n_resamples=5000, rng=np.random.default_rng(0))
    low, high = theirs.confidence_interval
    width = high - low
    assert ours == pytest.approx([low, high], abs=0.08 * width)
    assert ours[0] < miou(counts.sum(0)) < ours[1]


def test_nineteen_of_twenty_intervals_contain_the_figure_of_all_images():
    """Of a population of images, samples are drawn, and each has an interval."""
    population = scores(0.3, 400).counts
    true, rng = miou(population.sum(0)), np.random.default_rng(0)
    contained = 0
    for _ in range(60):
        low, high = interval(resampled(population[None, rng.integers(0, 400, 40)]), "miou")
        contained += low <= true <= high
    assert 50 <= contained <= 60


def test_intervals_are_over_images_and_over_their_slides():
    of = scores(0.3)
    found = intervals({"images": of.counts, "slides": of.slide_counts}, NAMES)
    assert (found["images"]["units"], found["slides"]["units"]) == (24, 6)
    low, high = found["images"]["miou"]
    assert low < of.report()["miou"] < high
    low, high = found["images"]["per_class"]["b"]["iou"]
    assert low < of.report()["per_class"]["b"]["iou"] < high
    few = scores(0.3, 4)
    assert intervals({"images": few.counts, "slides": few.slide_counts}, NAMES) == {}


def test_a_class_that_does_not_occur_has_no_interval():
    found = SegmentationScores([*NAMES, "absent"])
    for _ in range(6):
        found.add(np.zeros((4, 4), int), np.eye(4, dtype=int))
    of_classes = intervals({"images": found.counts}, found.names)["images"]["per_class"]
    assert of_classes["absent"] == {"iou": None}
    assert of_classes["a"]["iou"] == pytest.approx([75, 75])


def test_memory_is_limited_without_changing_the_draws(monkeypatch: pytest.MonkeyPatch):
    counts = scores(0.3).counts[None]
    at_once = resampled(counts)
    monkeypatch.setattr(resampling, "_AT_ONCE", 24 * 7)
    np.testing.assert_array_equal(resampled(counts), at_once)
    assert PairedTest.between(counts, scores(0.35, seed=1).counts[None]) is not None


@pytest.mark.parametrize(("worse", "significant"), [(0.30, False), (0.40, True)])
def test_paired_tests_are_those_of_scipy(worse: float, significant: bool):
    one, other = scores(0.3).counts, scores(worse, seed=1).counts
    found = PairedTest.between(one[None], other[None])
    assert found is not None
    both = np.stack([one, other])  # a value of scipy's first sample is an image of `one`, of the second of `other`

    def statistic(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        first, second = (np.moveaxis(some.astype(int), axis, -1) for some in (first, second))
        picked = [both[some // 1000, some % 1000].sum(-4) for some in (first, second)]
        return miou(picked[0]) - miou(picked[1])

    images = np.arange(len(one))
    theirs = permutation_test(
        (images, images + 1000), statistic, permutation_type="samples", vectorized=True, n_resamples=4000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert found.difference == pytest.approx(theirs.statistic) == miou(one.sum(0)) - miou(other.sum(0))
    assert found.permutation == pytest.approx(theirs.pvalue, abs=0.03)
    assert found.wilcoxon == pytest.approx(wilcoxon(miou(one), miou(other)).pvalue)
    assert (found.permutation < 0.05, found.ends[0] > 0) == (significant, significant)


def test_equal_results_do_not_differ():
    counts = scores(0.3).counts[None]
    assert PairedTest.between(counts, counts) == PairedTest(0.0, (0.0, 0.0), 1.0, 1.0)
    assert PairedTest.between(counts[:, :4], counts[:, :4]) is None


def test_with_seeds_the_figure_is_their_mean():
    one = np.stack([scores(0.3, seed=seed).counts for seed in (0, 1)])
    other = np.stack([scores(0.35, seed=seed).counts for seed in (2, 3)])
    found = PairedTest.between(one, other)
    assert found is not None
    assert found.difference == pytest.approx(miou(one.sum(1)).mean() - miou(other.sum(1)).mean())
    assert found.ends[0] < found.difference < found.ends[1]


def test_holm():
    # by hand: 0.01 x 3, max(0.03, 0.02 x 2), max(0.04, 0.5 x 1)
    assert holm([0.02, None, 0.5, 0.01]) == [pytest.approx(0.04), None, 0.5, pytest.approx(0.03)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
