"""The computation of the linear probe, compared with definitions and known results."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import softmax

from napari_pbip.engine.training.linear_probe import (
    STRENGTHS,
    CrossValidation,
    Floats,
    Ints,
    cross_validate,
    fit,
    groups_of_classes,
)


def cells(classes: int, tiles: int = 6, of_tile: int = 30, channels: int = 12, seed: int = 0) -> tuple[Floats, Ints]:
    """Return cells (T, cells, D) of different tiles around the mean of their class, and the classes (T,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(classes * tiles) % classes
    means = rng.normal(size=(classes, channels))[labels] + 0.5 * rng.normal(size=(len(labels), channels))
    values = 5 + 3 * (means[:, None] + rng.normal(size=(len(labels), of_tile, channels)))
    return values.astype(np.float32), labels


def flat(features: Floats, classes: Ints) -> tuple[Floats, Ints]:
    return features.reshape(-1, features.shape[2]), classes.repeat(features.shape[1])


def finish(features: Floats, classes: Ints, groups: Ints) -> CrossValidation:
    steps = cross_validate(features, classes, groups, STRENGTHS)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_it_is_the_minimum_of_what_the_docstring_says(classes: int) -> None:
    features, labels = flat(*cells(classes))
    probe = fit(features, labels, 0.1)

    def loss(weight: Floats, bias: Floats) -> float:
        p = softmax(probe.standardised(features) @ weight.T + bias, axis=1)[np.arange(len(labels)), labels]
        of_classes = [-np.log(p[labels == n]).mean() for n in range(classes)]
        # of two classes scikit-learn penalises the one difference that counts
        penalty = (weight[1] - weight[0]) ** 2 if classes == 2 else weight**2
        return float(np.mean(of_classes) + 0.1 / 2 * penalty.sum())

    best = loss(probe.weight, probe.bias)
    rng = np.random.default_rng(1)
    for size in (1e-1, 1e-2):
        for _ in range(20):
            weight, bias = (v + size * rng.normal(size=v.shape) for v in (probe.weight, probe.bias))
            assert loss(weight, bias) > best - 1e-5
    assert np.allclose(np.exp(probe.log_probability(features)).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_warm_start_gives_the_same(classes: int) -> None:
    features, labels = flat(*cells(classes))
    others, more = flat(*cells(classes, tiles=1, seed=5))
    start = fit(features, labels, 0.1)
    both, of_both = np.concatenate([features, others]), np.concatenate([labels, more])
    cold, warm = fit(both, of_both, 0.1), fit(both, of_both, 0.1, start)
    assert not np.allclose(start.weight, cold.weight, atol=5e-3)
    assert np.allclose(warm.weight, cold.weight, atol=5e-3)


def test_classes_weigh_the_same_however_many_cells_they_have() -> None:
    features, labels = flat(*cells(3))
    many = np.concatenate([features, np.repeat(features[labels == 1], 9, axis=0)])
    probe, again = (
        fit(features, labels, 0.1),
        fit(many, np.concatenate([labels, np.ones(len(many) - len(labels), int)]), 0.1),
    )
    assert np.allclose(probe.weight, again.weight, atol=5e-3)
    assert np.allclose(probe.mean, again.mean, atol=1e-3)


def test_a_channel_that_never_changes_and_units_change_nothing() -> None:
    features, labels = flat(*cells(3))
    constant = np.concatenate([features * 1000, np.full((len(features), 1), 7, np.float32)], axis=1)
    probe, other = fit(features, labels, 0.1), fit(constant, labels, 0.1)
    assert np.allclose(probe.log_probability(features), other.log_probability(constant), atol=0.02)


def test_cross_validation_asks_of_tiles_that_were_left_out() -> None:
    features, labels = cells(3)
    rng = np.random.default_rng(0)
    nothing = rng.normal(size=features.shape).astype(np.float32)  # without information on the class
    seen = finish(nothing, labels, np.arange(len(labels)))
    assert seen.strength == STRENGTHS[0]
    assert (seen.log_probability.argmax(1) == labels).mean() < 0.7
    assert (finish(features, labels, np.arange(len(labels))).log_probability.argmax(1) == labels).mean() > 0.9


def test_tiles_of_one_slide_are_left_out_together() -> None:
    """The features recognise the slide rather than the class, which only leaving out whole slides reveals."""
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(12), 4)
    labels = slides % 2
    of_slide = rng.normal(size=(12, 20))[slides]
    features = (of_slide[:, None] + 0.1 * rng.normal(size=(48, 10, 20))).astype(np.float32)
    by_tile, by_slide = (finish(features, labels, groups) for groups in (np.arange(48), slides))
    assert (by_tile.log_probability.argmax(1) == labels).mean() > 0.95
    assert (by_slide.log_probability.argmax(1) == labels).mean() < 0.8


def test_slides_of_several_classes_leave_something_of_each() -> None:
    features, labels = cells(3, tiles=4)
    slides = np.where(labels == 2, np.arange(len(labels)) % 2, 0)  # both slides of the third class may fall together
    slides[labels < 2] = np.arange(int((labels < 2).sum())) % 5
    seen = finish(features, labels, slides)
    asked = ~np.isnan(seen.log_probability[:, 0])
    assert asked.sum() >= 8
    assert (seen.log_probability[asked].argmax(1) == labels[asked]).mean() > 0.8


def test_a_class_of_one_tile_is_always_learned_from() -> None:
    features, labels = cells(3)
    one = np.flatnonzero((labels < 2) | (np.arange(len(labels)) == 2))
    seen = finish(features[one], labels[one], np.arange(len(one)))
    lonely = labels[one] == 2
    assert np.isnan(seen.log_probability[lonely]).all()
    assert (seen.log_probability[~lonely].argmax(1) == labels[one][~lonely]).mean() > 0.9
    assert groups_of_classes(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 2])).tolist() == [2, 1]


def test_a_label_more_is_followed_within_a_second() -> None:
    """The fit has 60 tiles of 200 cells, 352 channels and 8 classes, as in the window."""
    features, labels = flat(*cells(8, tiles=8, of_tile=200, channels=352))
    start = fit(features[:-200], labels[:-200], 1e-2)
    began = time.process_time()
    fit(features, labels, 1e-2, start)
    assert time.process_time() - began < 1.0
