"""Grids of tiles on a slide: overlapping ones for a network, and squares side by side. No pixels are read."""

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

    Tiles of the last row and column may reach beyond the slide's edge. A *model pixel* has the
    microns per pixel that the network was trained at; it is ``scale`` level-0 pixels wide.
    """

    rows: int
    columns: int
    tile: int
    """Side of a tile in model pixels."""
    overlap: int
    """Overlap of neighbouring tiles in model pixels."""
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
        """Return the grid that covers a slide.

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
            If neighbouring tiles would overlap by half a tile or more.
        """
        if not 0 <= overlap <= tile // 2:
            raise ConfigError(f"An overlap of {overlap} does not suit tiles of {tile}; give 0 to {tile // 2}.")
        scale = model_mpp / slide_mpp
        stride = tile - overlap
        # Round before rounding up: the last bit of a float must not turn 1000 * 0.5 / 0.25 into 2001.
        height, width = (math.ceil(round(side / scale, 6)) for side in (slide_height, slide_width))
        rows, columns = (max(0, math.ceil((side - tile) / stride)) + 1 for side in (height, width))
        return cls(rows, columns, tile, overlap, scale, (height, width))

    @property
    def stride(self) -> int:
        """Distance from one tile to the next in model pixels."""
        return self.tile - self.overlap

    def __len__(self) -> int:
        return self.rows * self.columns

    def box(self, row: int, column: int) -> Tile:
        """Return the tile at a row and column.

        Raises
        ------
        IndexError
            If the grid has no such row or column.
        """
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no tile ({row}, {column}) in a grid of {self.rows} x {self.columns}")
        model_x, model_y = column * self.stride, row * self.stride
        return Tile(row, column, model_x * self.scale, model_y * self.scale, model_x, model_y, self.tile)

    def inside(self, tile: Tile) -> tuple[int, int]:
        """Return height and width of the part of a tile that is on the slide, in model pixels."""
        height, width = self.model_size
        return min(tile.size, height - tile.model_y), min(tile.size, width - tile.model_x)

    def corners(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the columns' left edges, shape (1, columns), and the rows' top edges, (rows, 1), in level-0 pixels.

        The two broadcast: with ``side = grid.tile * grid.scale``, ``mask.fraction(*grid.corners(), side, side)`` is
        the share of tissue in every tile, shape (rows, columns).
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
    """A grid of equal squares side by side, in level-0 pixels of a slide."""

    rows: int
    columns: int
    side: float
    x: float = 0.0
    """Left edge of the first column."""
    y: float = 0.0
    """Top edge of the first row."""

    @classmethod
    def covering(cls, rectangle: Rectangle, width: int, height: int, side: float) -> Self:
        """Return the squares that touch the part of a rectangle inside a slide of this size; none if it lies outside.

        The squares are laid out from the slide's top left corner, so that overlapping rectangles share them.
        """
        x, y, across, down = rectangle
        left, top = (max(0, math.floor(edge / side)) for edge in (x, y))
        right, bottom = math.ceil(min(x + across, width) / side), math.ceil(min(y + down, height) / side)
        return cls(max(0, bottom - top), max(0, right - left), side, left * side, top * side)

    def at(self, x: float, y: float) -> Position | None:
        """Return the column and row of the square at a point, or None outside the grid."""
        column, row = math.floor((x - self.x) / self.side), math.floor((y - self.y) / self.side)
        return (column, row) if 0 <= column < self.columns and 0 <= row < self.rows else None

    def within(self, x0: float, y0: float, x1: float, y1: float) -> list[Position]:
        """Return all squares that touch the rectangle between two corners, row by row."""
        columns, rows = (
            range(
                max(0, math.floor((min(pair) - first) / self.side)),
                min(count - 1, math.floor((max(pair) - first) / self.side)) + 1,
            )
            for pair, first, count in (((x0, x1), self.x, self.columns), ((y0, y1), self.y, self.rows))
        )
        return [(column, row) for row in rows for column in columns]

    def corner(self, position: Position) -> tuple[float, float]:
        """Return the left and top edge of a square."""
        column, row = position
        return self.x + column * self.side, self.y + row * self.side
