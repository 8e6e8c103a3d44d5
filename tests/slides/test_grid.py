"""The grid covers the slide, and every tile has its position in level-0 and model pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_pbip.errors import ConfigError
from napari_pbip.slides import SquareGrid, Tile, TileGrid


def test_grid_of_a_known_slide() -> None:
    grid = TileGrid.plan(2000, 1000, slide_mpp=0.25, model_mpp=0.5, tile=224, overlap=32)
    assert grid.scale == 2
    assert grid.stride == 192
    assert grid.model_size == (500, 1000)
    # 1000 model pixels: tiles start at 0, 192, ... 960 - 192 = 768 ends at 992, so one more is needed.
    assert (grid.rows, grid.columns) == (3, 6)
    assert len(grid) == 18
    assert grid.box(1, 2) == Tile(row=1, column=2, x=768, y=384, model_x=384, model_y=192, size=224)


@given(
    width=st.integers(1, 200_000),
    height=st.integers(1, 200_000),
    slide_mpp=st.floats(0.1, 1),
    model_mpp=st.floats(0.2, 4),
    tile=st.sampled_from([64, 224, 512]),
    overlap=st.sampled_from([0, 16, 32]),
)
def test_grid_covers_the_slide_and_not_more(
    width: int, height: int, slide_mpp: float, model_mpp: float, tile: int, overlap: int
) -> None:
    grid = TileGrid.plan(width, height, slide_mpp, model_mpp, tile, overlap)
    for size, count in zip(grid.model_size, (grid.rows, grid.columns), strict=True):
        end = (count - 1) * grid.stride + tile
        assert end >= size
        assert count == 1 or end - grid.stride < size
    assert grid.model_size[1] * grid.scale >= width * (1 - 1e-9)
    assert (grid.model_size[1] - 1) * grid.scale < width


def test_corners_are_those_of_the_boxes() -> None:
    grid = TileGrid.plan(3000, 2000, 0.25, 0.6, 224, 32)
    left, top = grid.corners()
    boxes = [grid.box(row, column) for row in range(grid.rows) for column in range(grid.columns)]
    x, y = np.broadcast_arrays(left, top)
    np.testing.assert_allclose(x.ravel(), [box.x for box in boxes])
    np.testing.assert_allclose(y.ravel(), [box.y for box in boxes])


def test_slide_smaller_than_a_tile() -> None:
    grid = TileGrid.plan(10, 20, 0.5, 0.5)
    assert len(grid) == 1
    with pytest.raises(IndexError):
        grid.box(0, 1)
    with pytest.raises(IndexError):
        grid.box(-1, 0)


def test_overlap_of_more_than_half() -> None:
    with pytest.raises(ConfigError, match="overlap of 160"):
        TileGrid.plan(1000, 1000, 0.5, 0.5, tile=224, overlap=160)


def test_squares_of_overlapping_rectangles_are_the_same() -> None:
    whole = SquareGrid.covering((0, 0, 1000, 700), 1000, 700, 64.5)
    assert (whole.rows, whole.columns, whole.x, whole.y) == (11, 16, 0, 0)
    part = SquareGrid.covering((200, 130, 300, 10_000), 1000, 700, 64.5)
    assert (part.x, part.y) == (3 * 64.5, 2 * 64.5)
    assert part.at(part.x + 1, part.y + 1) == (0, 0)
    assert part.at(part.x - 1, part.y + 1) is None
    for column, row in part.within(-1e6, -1e6, 1e6, 1e6):
        assert part.corner((column, row)) == pytest.approx(whole.corner((column + 3, row + 2)))
    beside = SquareGrid.covering((1200, 0, 100, 100), 1000, 700, 64.5)
    assert not beside.columns
