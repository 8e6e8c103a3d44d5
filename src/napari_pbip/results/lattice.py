"""Where tiles, cells and blocks of a score store lie: pure arithmetic.

A *cell* is the square of model pixels that has one score of each class. Tiles are squares of cells that overlap, and
blocks are squares of cells side by side, which are written whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 256
"""Side of a block in cells. With every class in one chunk this is 0.5 MB for four classes."""
Place = tuple[int, int]
"""Row and column of a tile or of a block."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Equal square tiles on the grid of score cells: tile (r, c) begins at cell (r * stride, c * stride).

    Raises
    ------
    ValueError
        If the tiles leave a gap or do not reach the end of the grid.
    """

    height: int
    """Cells of the grid, top to bottom."""
    width: int
    tile: int
    """Side of a tile in cells; the last tiles may hang over the edge of the grid."""
    stride: int
    """Cells from one tile to the next."""
    rows: int
    """Tiles, top to bottom."""
    columns: int

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.tile:
            raise ValueError(f"tiles of {self.tile} cells every {self.stride} cells leave gaps")
        for cells, count in ((self.height, self.rows), (self.width, self.columns)):
            if not 0 < cells <= (count - 1) * self.stride + self.tile:
                raise ValueError(f"{count} tiles of {self.tile} cells every {self.stride} do not cover {cells} cells")

    def touching(self, start: int, stop: int, count: int) -> range:
        """Tiles (of ``count`` along an axis) that cover at least one of the cells ``start..stop-1``."""
        return range(max(0, (start - self.tile) // self.stride + 1), min(count, (stop - 1) // self.stride + 1))

    def touching_block(self, by: int, bx: int, block: int) -> tuple[range, range]:
        """Rows and columns of the tiles that cover at least one cell of a block of this side."""
        return (
            self.touching(by * block, min((by + 1) * block, self.height), self.rows),
            self.touching(bx * block, min((bx + 1) * block, self.width), self.columns),
        )

    def positions(self, cells: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.float64]:
        """Where cells lie among the centres of ``count`` tiles along an axis: 2.5 is between tiles 2 and 3.

        Cell centres are integers; what lies beyond the first or last centre counts as there.
        """
        return np.clip((cells - (self.tile - 1) / 2) / self.stride, 0, count - 1)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Blending weight of each cell of a tile, (tile, tile): whole numbers that fall to 1 at its border.

        One step a cell is a linear cross-fade over the overlap, whatever its width: where only one tile lies,
        its weight cancels.
        """
        place = np.arange(self.tile)
        ramp = np.minimum(place + 1, self.tile - place).astype(np.float64)
        return ramp[:, None] * ramp[None, :]


def z_order(place: Sequence[int]) -> int:
    """Place of a block (row, column) on the Z-order (Morton) curve: the bits of both, interleaved."""
    y, x = place
    return sum(((y >> bit & 1) << 2 * bit + 1) | ((x >> bit & 1) << 2 * bit) for bit in range(32))
