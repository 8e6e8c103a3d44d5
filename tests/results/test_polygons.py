"""Polygons along the borders of cells."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from napari_pbip.results.polygons import Patches


def patches_of(labels: np.ndarray, side: int) -> dict[int, np.ndarray]:
    """Return the patches of a label image that is given in blocks of this side."""
    patches, found = Patches(), {}
    for y in range(0, labels.shape[0], side):
        for x in range(0, labels.shape[1], side):
            for value, polygons in patches.add(y, x, labels[y : y + side, x : x + side]):
                found.setdefault(value, []).extend(polygons)
    for value, polygons in patches.finish():
        found.setdefault(value, []).extend(polygons)
    return {value: np.array(polygons) for value, polygons in found.items()}


@pytest.mark.parametrize("side", [5, 16, 64])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_patches_of_any_labels_are_a_coverage_of_just_their_cells(classes: int, side: int):
    labels = np.random.default_rng(classes).integers(0, classes, (37, 53)).astype(np.uint8)
    found = patches_of(labels, side)
    assert set(found) == set(range(1, classes))
    every = np.concatenate(list(found.values()))
    assert shapely.is_valid(every).all()
    assert (shapely.get_type_id(every) == shapely.GeometryType.POLYGON).all()
    assert shapely.coverage_is_valid(every)  # no overlaps, and equal vertices along shared borders
    for value, polygons in found.items():
        rows, columns = np.nonzero(labels == value)
        cells = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
        assert shapely.equals(shapely.union_all(polygons), cells)
        assert len(polygons) == len(shapely.get_parts(cells))  # nothing is left divided between blocks


def test_a_hole_with_an_island_across_blocks():
    labels = np.zeros((20, 20), np.uint8)
    labels[2:18, 2:18] = 1
    labels[5:15, 5:15] = 2
    labels[8:12, 8:12] = 1
    found = patches_of(labels, 10)
    ring, island = sorted(found[1], key=lambda one: -one.area)
    assert (ring.area, [shapely.Polygon(one).area for one in ring.interiors]) == (156, [100])
    assert island.bounds == (8, 8, 12, 12)
    [middle] = found[2]
    assert (middle.area, len(middle.interiors)) == (84, 1)


def test_cells_that_touch_at_a_corner_are_two_patches():
    assert len(patches_of(np.eye(6, dtype=np.uint8), 4)[1]) == 6


def test_what_was_not_analysed_has_no_patches():
    assert patches_of(np.zeros((9, 9), np.uint8), 4) == {}
