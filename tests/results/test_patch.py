"""The patch of a cell, found without reading the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from napari_pbip.results.patch import patch_at

SHAPE = (1500, 2100)


@pytest.mark.parametrize("width", [6, 150])
def test_it_is_that_of_the_whole_image(width):
    smooth = gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), width, mode="wrap")
    image = (np.argsort(np.argsort(smooth.ravel())) * 4 // smooth.size).reshape(SHAPE).astype(np.uint8)
    read: list[int] = []

    def part(y, x):
        read.append(image[y, x].size)
        return image[y, x]

    for row, column in ((0, 0), (700, 1000), (1499, 2099)):
        parts, _ = label(image == image[row, column])
        expected = parts == parts[row, column]
        found = np.zeros(SHAPE, bool)
        rectangle, patch = patch_at(part, SHAPE, row, column)
        found[rectangle] = patch
        np.testing.assert_array_equal(found, expected)
    assert width > 100 or max(read) < image.size / 4
