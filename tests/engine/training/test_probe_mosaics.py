"""Mosaics for a probe: what they show, and that a label more changes few of them."""

from __future__ import annotations

import numpy as np

from napari_pbip.engine.training.probe_mosaics import MOST_MOSAICS, compose, plan_mosaics, sampled_cells

CLASSES = np.repeat([0, 1, 2], 20)
NAMES = [f"tile {n}" for n in range(60)]


def test_each_tile_meets_others_and_one_label_more_changes_few_mosaics() -> None:
    plans = plan_mosaics(NAMES, CLASSES)
    assert sorted(one.tiles[0] for one in plans) == sorted([*range(60), *range(60)])
    assert all(2 <= len(one.tiles) <= 5 and CLASSES[one.tiles[0]] != CLASSES[one.tiles[1]] for one in plans)
    assert len({one.tiles[1] for one in plans}) > 40  # the others are not always the same
    more = plan_mosaics([*NAMES, "new"], np.append(CLASSES, 1))
    assert len(set(plans) - set(more)) < 20
    assert sum(60 in one.tiles for one in more) >= 2
    shuffled = np.random.default_rng(0).permutation(60)
    again = plan_mosaics([NAMES[n] for n in shuffled], CLASSES[shuffled])
    assert {(one.seed, tuple(shuffled[list(one.tiles)])) for one in again} == {(one.seed, one.tiles) for one in plans}


def test_there_are_not_more_than_help() -> None:
    many = [f"tile {n}" for n in range(300)]
    plans = plan_mosaics(many, np.repeat([0, 1], 150))
    assert len(plans) == MOST_MOSAICS
    assert len({one.tiles[0] for one in plans}) > 100


def test_cells_have_the_class_that_the_mosaic_shows_there() -> None:
    greys = np.array([40, 120, 200])
    tiles = [np.full((40, 48, 3), greys[n], np.uint8) for n in CLASSES]

    def classes_of(values: np.ndarray) -> np.ndarray:
        return np.abs(values[..., None] - greys).argmin(-1)

    for plan in plan_mosaics(NAMES, CLASSES)[:6]:
        image, pieces = compose(plan, [tiles[n] for n in plan.tiles], 64)
        assert image.shape == (64, 64, 3)
        shown = CLASSES[list(plan.tiles)]
        colours = [np.unique(image[pieces == n], axis=0) for n in np.unique(pieces)]
        assert all(len(one) == 1 for one in colours)  # the same everywhere in a piece, and another in each
        assert len(np.unique(np.concatenate(colours), axis=0)) == len(colours)
        assert np.array_equal(classes_of(image.mean(2)), shown[pieces])
        assert len(np.unique(shown[pieces])) > 1
        cells = image[4::8, 4::8].mean(2).astype(np.float16)[None]  # as dense features with one channel would be
        features, of_cells = sampled_cells(cells, pieces, 50)
        assert features.shape == (50, 1)
        assert np.array_equal(classes_of(features[:, 0]), shown[of_cells])
