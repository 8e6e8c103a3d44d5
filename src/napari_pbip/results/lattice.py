"""The positions of tiles, cells and blocks of a score store.

A *cell* is a square of model pixels with one score per class. Tiles are overlapping squares of cells. Blocks are
squares of cells side by side, each of which is written whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 256
"""Side of a block in cells. A block is one chunk with all classes, which is 0.5 MB for four classes."""
Place = tuple[int, int]
"""Row and column of a tile or of a block."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """A lattice of equal square tiles on the score cells: tile (r, c) begins at cell (r * stride, c * stride).

    Raises
    ------
    ValueError
        If the tiles leave a gap or do not reach the end of the grid.
    """

    height: int
    """Rows of cells in the grid."""
    width: int
    tile: int
    """Side of a tile in cells; the last tiles may reach beyond the edge of the grid."""
    stride: int
    """Distance from one tile to the next in cells."""
    rows: int
    """Rows of tiles."""
    columns: int

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.tile:
            raise ValueError(f"tiles of {self.tile} cells every {self.stride} cells leave gaps")
        for cells, count in ((self.height, self.rows), (self.width, self.columns)):
            if not 0 < cells <= (count - 1) * self.stride + self.tile:
                raise ValueError(f"{count} tiles of {self.tile} cells every {self.stride} do not cover {cells} cells")

    def touching(self, start: int, stop: int, count: int) -> range:
        """Return the tiles, of ``count`` along an axis, that cover at least one of the cells ``start..stop-1``."""
        return range(max(0, (start - self.tile) // self.stride + 1), min(count, (stop - 1) // self.stride + 1))

    def touching_block(self, by: int, bx: int, block: int) -> tuple[range, range]:
        """Return the rows and columns of the tiles that cover at least one cell of a block of this side."""
        return (
            self.touching(by * block, min((by + 1) * block, self.height), self.rows),
            self.touching(bx * block, min((bx + 1) * block, self.width), self.columns),
        )

    def positions(self, cells: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.float64]:
        """Return the positions of cells among the centres of ``count`` tiles along an axis; 2.5 is between 2 and 3.

        Cell centres are integers. Positions before the first or after the last centre are clipped to it.
        """
        return np.clip((cells - (self.tile - 1) / 2) / self.stride, 0, count - 1)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Blending weight of each cell of a tile, (tile, tile): integers that decrease to 1 at its border.

        A decrease of one per cell is a linear cross-fade over an overlap of any width. Where only one tile covers a
        cell, the weight cancels.
        """
        place = np.arange(self.tile)
        ramp = np.minimum(place + 1, self.tile - place).astype(np.float64)
        return ramp[:, None] * ramp[None, :]


def z_order(place: Sequence[int]) -> int:
    """Return the index of a block (row, column) on the Z-order (Morton) curve: the interleaved bits of both."""
    y, x = place
    return sum(((y >> bit & 1) << 2 * bit + 1) | ((x >> bit & 1) << 2 * bit) for bit in range(32))
