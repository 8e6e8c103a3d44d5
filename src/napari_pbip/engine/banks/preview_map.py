"""What a preview tells: a coarse map of a part of a slide. No torch, because the window reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_pbip.errors import SlideError
from napari_pbip.events import Step
from napari_pbip.slides import Image, Slide

Labels = npt.NDArray[np.uint8]
Rectangle = tuple[float, float, float, float]
"""x, y, width, height in level-0 pixels."""
_COARSEST = 16
"""Cells, a power of two, that one tile stands for at first."""


@dataclass(frozen=True, slots=True)
class PreviewGrid:
    """Cells of a coarse map, on a lattice over the slide, so that maps of overlapping rectangles agree."""

    x: float
    """Left edge in level-0 pixels."""
    y: float
    """Top edge in level-0 pixels."""
    side: float
    """Side of a cell, which is that of the bank's tiles, in level-0 pixels."""
    rows: int
    columns: int
    tile: int
    """Side of the bank's tiles in their own pixels."""

    @classmethod
    def plan(cls, slide: Slide, rectangle: Rectangle, tile: int, scale: float) -> Self:
        """The cells of a rectangle.

        Parameters
        ----------
        slide
            The slide; what lies outside it is cut off.
        rectangle
            Part of the slide, level-0 pixels.
        tile
            Side of the bank's tiles in their own pixels.
        scale
            Level-0 pixels for each of those.

        Raises
        ------
        SlideError
            If the rectangle lies outside the slide.
        """
        left, top, width, height = rectangle
        side = tile * scale
        first_column, first_row = (max(0, math.floor(edge / side)) for edge in (left, top))
        last_column = math.ceil(min(left + width, slide.width) / side)
        last_row = math.ceil(min(top + height, slide.height) / side)
        if last_column <= first_column or last_row <= first_row:
            raise SlideError(f"No part of {slide.path.name} is in view; move it into view and try again.")
        return cls(first_column * side, first_row * side, side, last_row - first_row, last_column - first_column, tile)

    def read(self, slide: Slide, row: int, column: int) -> Image:
        """The tile of a cell: RGB, shape (tile, tile, 3)."""
        corner = self.x + column * self.side, self.y + row * self.side
        return slide.read_scaled(*corner, self.tile, self.tile, self.side / self.tile)

    def coarse_to_fine(self) -> Iterator[tuple[int, int, int]]:
        """Row, column and side in cells of the square that each cell stands for until finer ones come."""
        side = _COARSEST
        while side:
            for row in range(0, self.rows, side):
                for column in range(0, self.columns, side):
                    if side == _COARSEST or row % (2 * side) or column % (2 * side):
                        yield row, column, side
            side //= 2


@dataclass(frozen=True, slots=True)
class Coloured(Step):
    """The map as far as it is known."""

    grid: PreviewGrid | None = None
    """Where its cells lie."""
    labels: Labels | None = None
    """Class index + 1 of each cell, 0 where there is no tissue or nothing was computed yet; shape (rows, columns)."""
