"""The order in which tiles are computed: those in view first, all others along a Z-order curve.

A block is written as finished only when all its tiles are computed, and until then they stay in memory. Blocks that
were begun are therefore finished before new ones are begun, except for those in view.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from napari_pbip.results.lattice import Lattice, Place

View = tuple[float, float, float, float]
"""Rectangle in score cells: left edge, top edge, width, height."""


class TileOrder:
    """The order of tiles, which are returned one at a time because the user may move the view in between.

    Without a view, blocks come in the given order, and tiles within a block in lattice order. With a view, the tiles in
    it come first, block by block from its centre outwards, and then the remaining tiles of these blocks.

    Parameters
    ----------
    lattice
        The tiles and the grid they lie on.
    waiting
        Tiles to return, bool (rows, columns).
    blocks
        Blocks whose tiles are to be returned, each (block row, block column).
    block
        Side of a block in cells.
    """

    def __init__(self, lattice: Lattice, waiting: npt.NDArray[np.bool_], blocks: Iterable[Place], block: int) -> None:
        self._lattice = lattice
        self._waiting = waiting.copy()
        self._blocks = OrderedDict.fromkeys(blocks)
        self._block = block
        self._view: View | None = None
        self._chosen: list[Place] = []  # in reverse order

    def next(self, view: View | None) -> Place | None:
        """Return the (row, column) of the next tile, or None if all have been returned."""
        if view != self._view or not self._chosen:
            self._view = view
            self._chosen = self._choose(view)[::-1]
        if not self._chosen:
            return None
        tile = self._chosen.pop()
        self._waiting[tile] = False
        return tile

    def _choose(self, view: View | None) -> list[Place]:
        """Return tiles of one block, in order."""
        if view is not None:
            for place in self._in_view(view):
                tiles = self._tiles(place)
                lattice = self._lattice
                seen = tiles[_shown(tiles * lattice.stride, lattice.tile, view)]
                if len(seen):
                    # at the head of the queue, so that it is finished even if the view moves on
                    self._blocks.move_to_end(place, last=False)
                    nearest = np.argsort(_distance(seen * lattice.stride, lattice.tile, view), kind="stable")
                    return list(map(tuple, seen[nearest].tolist()))
        for place in list(self._blocks):
            tiles = self._tiles(place)
            if len(tiles):
                return list(map(tuple, tiles.tolist()))
            del self._blocks[place]
        return []

    def _in_view(self, view: View) -> list[Place]:
        """Return the blocks that touch the view, from its centre outwards."""
        if not self._blocks:
            return []
        blocks = np.array(list(self._blocks))
        shown = blocks[_shown(blocks * self._block, self._block, view)]
        nearest = np.argsort(_distance(shown * self._block, self._block, view), kind="stable")
        return list(map(tuple, shown[nearest].tolist()))

    def _tiles(self, place: Place) -> npt.NDArray[np.intp]:
        """Return the waiting tiles that touch a block, (T, 2), in lattice order."""
        rows, columns = self._lattice.touching_block(*place, self._block)
        waiting = self._waiting[rows.start : rows.stop, columns.start : columns.stop]
        tiles: npt.NDArray[np.intp] = np.argwhere(waiting) + np.array([rows.start, columns.start])
        return tiles


def _shown(corners: npt.NDArray[np.intp], side: int, view: View) -> npt.NDArray[np.bool_]:
    """Return which of these squares, (T, 2) as (y, x) in cells, touch the view."""
    x, y, width, height = view
    low, high = np.array([y, x]), np.array([y + height, x + width])
    return np.asarray(np.logical_and(corners < high, corners + side > low).all(axis=1))


def _distance(corners: npt.NDArray[np.intp], side: int, view: View) -> npt.NDArray[np.float64]:
    """Return the squared distance in cells from the centre of the view to the centre of each square."""
    x, y, width, height = view
    distance = ((corners + side / 2 - (y + height / 2, x + width / 2)) ** 2).sum(1)
    return np.asarray(distance, np.float64)
