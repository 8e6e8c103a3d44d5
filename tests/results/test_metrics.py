"""Metrics, compared with arrays of the released code and an independent brute-force computation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from napari_pbip.results.metrics import BoundaryConfusion, Confusion, SegmentationScores

GOLDEN = Path(os.environ.get("NAPARI_PBIP_GOLDEN", Path(__file__).parents[1] / "data" / "golden")) / "pbip.npz"


def test_the_released_figures_come_out():
    with np.load(GOLDEN) as arrays:
        truth, predicted = arrays["metric/gt"], arrays["metric/pred"]
        iou, dice = arrays["metric/iou"], arrays["metric/dice"]
    confusion = Confusion(len(iou))
    for one_truth, one_prediction in zip(truth, predicted, strict=True):
        confusion.add(one_truth, one_prediction)
    np.testing.assert_allclose(confusion.iou / 100, iou, atol=2e-7)
    np.testing.assert_allclose(confusion.dice / 100, dice, atol=2e-7)
    assert confusion.miou == pytest.approx(100 * iou.mean())
    frequency = np.bincount(truth.ravel(), minlength=len(iou)) / truth.size
    assert confusion.fwiou == pytest.approx(100 * (frequency * iou).sum(), abs=1e-4)


def brute_force(images, classes):
    """Compute IoU, Dice and frequency of each class, pixel by pixel."""
    iou, dice, pixels = [], [], []
    for n in range(classes):
        both = either = true = seen = 0
        for truth, predicted in images:
            for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
                if t < classes:
                    both += t == n and p == n
                    either += t == n or p == n
                    true += t == n
                    seen += p == n
        iou.append(100 * both / either if either else None)
        dice.append(200 * both / (true + seen) if either else None)
        pixels.append(true)
    return iou, dice, pixels


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_equal_to_counting_pixel_by_pixel(classes, images, seed):
    rng = np.random.default_rng(seed)
    values = np.array([*range(rng.integers(1, classes + 1)), 255], np.uint8)
    pairs = [(rng.choice(values, (5, 7)), rng.choice(values, (5, 7))) for _ in range(images)]
    scores = SegmentationScores([str(n) for n in range(classes)])
    for truth, predicted in pairs:
        scores.add(truth, predicted)
    iou, dice, pixels = brute_force(pairs, classes)
    report = scores.report()
    for n in range(classes):
        figures = report["per_class"][str(n)]
        assert figures["iou"] == (None if iou[n] is None else pytest.approx(iou[n]))
        assert figures["dice"] == (None if dice[n] is None else pytest.approx(dice[n]))
    known = [value for value in iou if value is not None]
    assert report["miou"] == (pytest.approx(np.mean(known)) if known else None)
    if sum(pixels):
        weighted = sum(i * p for i, p in zip(iou, pixels, strict=True) if i is not None) / sum(pixels)
        assert report["fwiou"] == pytest.approx(weighted)


def cheng(images, n):
    """Compute boundary IoU as its authors describe: mask minus d erosions by a 3 x 3 square, border included."""
    both = either = 0
    for truth, predicted in images:
        d = max(1, round(0.02 * np.hypot(*truth.shape)))
        bands = []
        for labels in (truth, np.where(truth == 255, 255, predicted)):
            mask = labels == n
            bands.append(mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=d, border_value=0))
        both += (bands[0] & bands[1]).sum()
        either += (bands[0] | bands[1]).sum()
    return 100 * both / either if either else np.nan


def blobs(seed, size):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint8)
    for value in (1, 2, 1, 255, 0):
        cy, cx, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(5, 40)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = value
    return labels


@pytest.mark.parametrize("size", [(40, 30), (120, 150), (224, 224)])
def test_boundary_iou_is_that_of_its_authors(size):
    images = [(blobs(seed, size), blobs(seed + 100, size)) for seed in range(4)]
    boundary = BoundaryConfusion(3)
    for truth, predicted in images:
        boundary.add(truth, predicted)
    np.testing.assert_allclose(boundary.iou, [cheng(images, n) for n in range(3)])


def test_boundary_iou_sees_a_shift_that_iou_hardly_sees():
    truth = np.zeros((400, 400), np.uint8)
    truth[100:300, 100:300] = 1
    scores = SegmentationScores(["a", "b"])
    scores.add(truth, np.roll(truth, 5, 1))
    report = scores.report()
    assert report["miou"] > 94
    assert report["per_class"]["b"]["biou"] < 70


def test_perfect_is_100_and_nothing_is_none():
    truth = blobs(3, (60, 60))
    scores = SegmentationScores(["a", "b", "c", "absent"])
    scores.add(truth, truth)
    report = scores.report()
    assert [report[name] for name in ("miou", "fwiou", "biou", "dice")] == [100] * 4
    assert report["per_class"]["absent"] == {"iou": None, "biou": None, "dice": None}
    assert SegmentationScores(["a"]).report()["miou"] is None


def test_an_absent_class_that_is_predicted_counts_as_zero():
    confusion = Confusion(2)
    confusion.add(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8))
    assert confusion.iou.tolist() == [75.0, 0.0]
    assert confusion.miou == 37.5


def test_predicted_background_is_a_miss_and_left_out_truth_is_nothing():
    confusion = Confusion(2)
    confusion.add(np.array([[0, 0, 1, 255, 255]]), np.array([[0, 255, 1, 1, 0]]))
    assert confusion.iou.tolist() == [50.0, 100.0]


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        Confusion(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
