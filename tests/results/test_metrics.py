"""Metrics, compared with arrays of the released code, torchmetrics, and an independent brute-force computation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional as torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from napari_pbip.results.metrics import MEASURES, PROTOCOLS, Metrics, SegmentationScores, count

GOLDEN = Path(os.environ.get("NAPARI_PBIP_GOLDEN", Path(__file__).parents[1] / "data" / "golden")) / "pbip.npz"


def metrics_of(images, classes):
    return Metrics(sum(count(truth, predicted, classes) for truth, predicted in images))


def test_the_released_figures_come_out():
    with np.load(GOLDEN) as arrays:
        truth, predicted = arrays["metric/gt"], arrays["metric/pred"]
        iou, dice = arrays["metric/iou"], arrays["metric/dice"]
    metrics = metrics_of(zip(truth, predicted, strict=True), len(iou))
    np.testing.assert_allclose(metrics.class_iou / 100, iou, atol=2e-7)
    np.testing.assert_allclose(metrics.class_dice / 100, dice, atol=2e-7)
    assert metrics.miou == pytest.approx(100 * iou.mean())
    frequency = np.bincount(truth.ravel(), minlength=len(iou)) / truth.size
    assert metrics.fwiou == pytest.approx(100 * (frequency * iou).sum(), abs=1e-4)


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
    np.testing.assert_allclose(metrics_of(images, 3).class_biou, [cheng(images, n) for n in range(3)])


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
    assert [report[measure] for measure in MEASURES] == [100] * 5
    assert report["per_class"]["absent"] == {"iou": None, "biou": None, "dice": None}
    assert SegmentationScores(["a"]).report()["miou"] is None


def test_an_absent_class_that_is_predicted_counts_as_zero():
    metrics = Metrics(count(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), 2))
    assert metrics.class_iou.tolist() == [75.0, 0.0]
    assert metrics.miou == 37.5


def test_predicted_background_is_a_miss_and_ignored_truth_is_nothing():
    metrics = Metrics(count(np.array([[0, 0, 1, 255, 255]]), np.array([[0, 255, 1, 1, 0]]), 2))
    assert metrics.class_iou.tolist() == [50.0, 100.0]
    assert metrics.accuracy == pytest.approx(100 * 2 / 3)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        count(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_protocols_differ_in_the_background_of_the_truth():
    """With two classes, 2 is background; where it is given, what is predicted there does not count."""
    mask, predicted = np.array([[0, 0, 1, 2, 2, 2, 255]]), np.array([[0, 0, 1, 1, 1, 255, 0]])
    given, not_given = (
        Metrics(count(PROTOCOLS[name].truth(mask, 2), predicted, 2)) for name in ("oracle_background", "predicted")
    )
    assert given.class_iou.tolist() == [100, 100]
    assert not_given.class_iou.tolist() == [100, pytest.approx(100 / 3)]
    assert given.accuracy == 100
    assert not_given.accuracy == pytest.approx(100 * 4 / 6)  # one of three pixels of background is right
    assert not_given.class_biou[1] < given.class_biou[1] == 100
    assert PROTOCOLS["oracle"].truth(mask, 2).tolist() == PROTOCOLS["oracle_background"].truth(mask, 2).tolist()


CASES = {
    "all classes": (4, range(4), range(4)),
    "a class in neither": (5, range(3), range(3)),
    "a class in the truth alone": (3, range(3), range(2)),
    "a class in the prediction alone": (3, range(2), range(3)),
    "ignored pixels": (3, [0, 1, 2, 255], range(3)),
    "one class": (2, [0], range(2)),
    "all wrong": (2, [0], [1]),
}
"""Number of classes, and the values in truth and prediction."""


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_torchmetrics(case: str, images: int):
    classes, *values = CASES[case]
    rng = np.random.default_rng(images)
    truth, predicted = (rng.choice(some, (images, 9, 13)) for some in values)
    metrics = metrics_of(zip(truth, predicted, strict=True), classes)
    options = {"num_classes": classes, "ignore_index": 255, "average": "none"}
    given = torch.from_numpy(predicted), torch.from_numpy(truth)
    iou = 100 * torchmetrics.classification.multiclass_jaccard_index(*given, **options).numpy()
    dice = 100 * torchmetrics.classification.multiclass_f1_score(*given, **options).numpy()
    occurs = np.array([(truth == n).any() or (predicted[truth != 255] == n).any() for n in range(classes)])
    np.testing.assert_array_equal(np.isnan(metrics.class_iou), ~occurs)
    np.testing.assert_allclose(metrics.class_iou[occurs], iou[occurs], rtol=1e-5)
    np.testing.assert_allclose(metrics.class_dice[occurs], dice[occurs], rtol=1e-5)
    assert metrics.miou == pytest.approx(iou[occurs].mean(), rel=1e-5)
    assert metrics.dice == pytest.approx(dice[occurs].mean(), rel=1e-5)
    weighted = torchmetrics.classification.multiclass_jaccard_index(*given, **{**options, "average": "weighted"})
    assert metrics.fwiou == pytest.approx(100 * float(weighted), rel=1e-5)
    micro = torchmetrics.classification.multiclass_accuracy(*given, **{**options, "average": "micro"})
    assert metrics.accuracy == pytest.approx(100 * float(micro), rel=1e-5)
    matrix = torchmetrics.classification.multiclass_confusion_matrix(*given, num_classes=classes, ignore_index=255)
    np.testing.assert_array_equal(metrics.confusion[:-1, :-1], matrix.numpy())


def test_background_is_a_class_of_torchmetrics_that_does_not_enter_means():
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, 4, (2, 3, 20, 20))
    metrics = metrics_of(zip(truth, predicted, strict=True), 3)
    given = torch.from_numpy(predicted), torch.from_numpy(truth)
    iou = torchmetrics.classification.multiclass_jaccard_index(*given, num_classes=4, average="none")
    np.testing.assert_allclose(metrics.class_iou, 100 * iou[:3].numpy(), rtol=1e-5)
    assert metrics.miou == pytest.approx(100 * float(iou[:3].mean()), rel=1e-5)
    accuracy = torchmetrics.classification.multiclass_accuracy(*given, num_classes=4, average="micro")
    assert metrics.accuracy == pytest.approx(100 * float(accuracy), rel=1e-5)


@pytest.mark.parametrize("background", [2, 255])
def test_an_image_of_background_alone_has_no_metrics(background: int):
    scores = SegmentationScores(["a", "b"])
    scores.add(np.full((5, 5), background), np.full((5, 5), 255))
    report = scores.report()
    assert [report[measure] for measure in ("miou", "fwiou", "biou", "dice")] == [None] * 4
    assert report["accuracy"] == (100 if background == 2 else None)


def test_the_mean_of_images_is_that_of_their_own_figures():
    pairs = [(blobs(seed, (60, 70)), blobs(seed + 50, (60, 70))) for seed in range(4)]
    scores = SegmentationScores(["a", "b", "c"])
    for truth, predicted in pairs:
        scores.add(truth, predicted)
    alone = [metrics_of([pair], 3) for pair in pairs]
    for measure in MEASURES:
        assert scores.mean_of_images()[measure] == pytest.approx(np.mean([getattr(one, measure) for one in alone]))


def test_squares_and_slides_add_up_to_the_image():
    truth, predicted = blobs(1, (90, 100)), blobs(51, (90, 100))
    truth[:32, :32] = 255
    squares, whole = SegmentationScores(["a", "b", "c"]), SegmentationScores(["a", "b", "c"])
    squares.add_squares(truth, predicted, 32)
    for slide in "xyx":
        whole.add(truth, predicted, slide)
    assert len(squares.counts) == 3 * 4 - 1  # in one of them, nothing is known
    np.testing.assert_array_equal(squares.counts.sum(0), whole.counts[0])
    np.testing.assert_array_equal(whole.slide_counts, whole.counts[0] * np.array([2, 1])[:, None, None, None])
