from __future__ import annotations

import numpy as np
import pytest

from napari_pbip.bank.mosaics import compose, partition


@pytest.mark.parametrize(("side", "pieces"), [(112, 2), (64, 5), (37, 3)])
def test_a_square_is_cut_into_pieces_with_irregular_borders(side: int, pieces: int) -> None:
    cuts = [partition(side, pieces, np.random.default_rng(seed)) for seed in range(20)]
    assert {cut.shape for cut in cuts} == {(side, side)}
    assert {int(n) for cut in cuts for n in np.unique(cut)} == set(range(pieces))
    shares = np.mean([np.bincount(cut.ravel(), minlength=pieces) / cut.size for cut in cuts], 0)
    assert np.all(shares > 0.5 / pieces)
    np.testing.assert_array_equal(cuts[3], partition(side, pieces, np.random.default_rng(3)))


def test_a_border_between_two_pieces_is_no_straight_line() -> None:
    cut = partition(224, 2, np.random.default_rng(1))
    y, x = np.nonzero(cut[:, 1:] != cut[:, :-1])
    _, residual, *_ = np.linalg.lstsq(np.stack([y, np.ones_like(y)], 1).astype(float), x.astype(float), rcond=None)
    assert np.sqrt(residual[0] / len(x)) > 2  # pixels off the best line


def test_the_mask_says_what_each_pixel_shows() -> None:
    tiles = {name: [np.full((80, 80, 3), grey, np.uint8)] for name, grey in (("a", 10), ("b", 90), ("c", 200))}
    image, mask = compose(tiles, 64, np.random.default_rng(0), classes=3)
    np.testing.assert_array_equal(image[..., 0], np.array([10, 90, 200])[mask])
