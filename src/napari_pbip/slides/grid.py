"""Where tiles lie on a slide, overlapping ones for a network and squares side by side: pure arithmetic, no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_pbip.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of the grid."""

    row: int
    column: int
    x: float
    """Left edge in level-0 pixels."""
    y: float
    """Top edge in level-0 pixels."""
    model_x: int
    """Left edge in model pixels."""
    model_y: int
    """Top edge in model pixels."""
    size: int
    """Side in model pixels."""


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Square tiles every ``stride`` model pixels from the slide's top left corner.

    The last row and column may hang over the slide's edge, where reads are white. A *model pixel* is as wide as the
    network was trained for; ``scale`` level-0 pixels make one.
    """

    rows: int
    columns: int
    tile: int
    """Side of a tile in model pixels."""
    overlap: int
    """Model pixels that neighbours share."""
    scale: float
    """Level-0 pixels per model pixel."""
    model_size: tuple[int, int]
    """Height and width of the slide in model pixels, rounded up."""

    @classmethod
    def plan(
        cls,
        slide_width: int,
        slide_height: int,
        slide_mpp: float,
        model_mpp: float,
        tile: int = 224,
        overlap: int = 32,
    ) -> Self:
        """The grid that covers a slide.

        Parameters
        ----------
        slide_width, slide_height
            Level-0 pixels.
        slide_mpp, model_mpp
            Microns per level-0 pixel and per model pixel.
        tile, overlap
            Model pixels.

        Raises
        ------
        ConfigError
            If neighbours would share half a tile or more, so that the grid does not move on.
        """
        if not 0 <= overlap <= tile // 2:
            raise ConfigError(f"An overlap of {overlap} does not suit tiles of {tile}; give 0 to {tile // 2}.")
        scale = model_mpp / slide_mpp
        stride = tile - overlap
        # Rounded before rounding up, so that 1000 * 0.5 / 0.25 is not 2001 by the last bit of a float.
        height, width = (math.ceil(round(side / scale, 6)) for side in (slide_height, slide_width))
        rows, columns = (max(0, math.ceil((side - tile) / stride)) + 1 for side in (height, width))
        return cls(rows, columns, tile, overlap, scale, (height, width))

    @property
    def stride(self) -> int:
        """Model pixels from one tile to the next."""
        return self.tile - self.overlap

    def __len__(self) -> int:
        return self.rows * self.columns

    def box(self, row: int, column: int) -> Tile:
        """The tile of a row and column.

        Raises
        ------
        IndexError
            If the grid has no such row or column.
        """
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no tile ({row}, {column}) in a grid of {self.rows} x {self.columns}")
        model_x, model_y = column * self.stride, row * self.stride
        return Tile(row, column, model_x * self.scale, model_y * self.scale, model_x, model_y, self.tile)

    def corners(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Left edges of all columns, shape (1, columns), and top edges of all rows, (rows, 1), level-0 pixels.

        They broadcast: ``mask.fraction(*grid.corners(), side, side)`` with ``side = grid.tile * grid.scale`` is
        the share of tissue of every tile, shape (rows, columns).
        """
        step = self.stride * self.scale
        left = np.arange(self.columns, dtype=np.float64) * step
        top = np.arange(self.rows, dtype=np.float64) * step
        return left[None, :], top[:, None]


Position = tuple[int, int]
"""Column and row of a square, from 0."""
Rectangle = tuple[float, float, float, float]
"""Left edge, top edge, width and height in level-0 pixels."""


@dataclass(frozen=True, slots=True)
class SquareGrid:
    """Equal squares side by side, in level-0 pixels of a slide."""

    rows: int
    columns: int
    side: float
    x: float = 0.0
    """Left edge of the first column."""
    y: float = 0.0
    """Top edge of the first row."""

    @classmethod
    def covering(cls, rectangle: Rectangle, width: int, height: int, side: float) -> Self:
        """The squares that touch a rectangle, as far as it lies in a slide of that size; of none if it does not.

        They are laid out from the corner of the slide, so that those of overlapping rectangles are the same.
        """
        x, y, across, down = rectangle
        left, top = (max(0, math.floor(edge / side)) for edge in (x, y))
        right, bottom = math.ceil(min(x + across, width) / side), math.ceil(min(y + down, height) / side)
        return cls(max(0, bottom - top), max(0, right - left), side, left * side, top * side)

    def at(self, x: float, y: float) -> Position | None:
        """The square at a place, or None beside the grid."""
        column, row = math.floor((x - self.x) / self.side), math.floor((y - self.y) / self.side)
        return (column, row) if 0 <= column < self.columns and 0 <= row < self.rows else None

    def within(self, x0: float, y0: float, x1: float, y1: float) -> list[Position]:
        """All squares that a rectangle between two corners touches, in rows."""
        columns, rows = (
            range(
                max(0, math.floor((min(pair) - first) / self.side)),
                min(count - 1, math.floor((max(pair) - first) / self.side)) + 1,
            )
            for pair, first, count in (((x0, x1), self.x, self.columns), ((y0, y1), self.y, self.rows))
        )
        return [(column, row) for row in rows for column in columns]

    def corner(self, position: Position) -> tuple[float, float]:
        """Left and top edge of a square."""
        column, row = position
        return self.x + column * self.side, self.y + row * self.side
