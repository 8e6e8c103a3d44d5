"""In which order tiles are computed: what the user is looking at first, everything else along a Z-order curve.

Whole blocks are worth more than tiles here and there: a block is finished on disk only when all its tiles are
computed, and until then they are kept in memory. So what was begun is finished before something new is begun,
except where the user looks.
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
    """Gives out tiles, one at a time; between two the user may have moved the view.

    Without a view, blocks follow in the order given and tiles within a block in lattice order. With one, first come
    the tiles that it shows, block by block from its centre outwards, then the rest of the blocks begun for it.

    Parameters
    ----------
    lattice
        The tiles and the grid they lie on.
    waiting
        Tiles to give out, bool (rows, columns).
    blocks
        Blocks whose tiles are to be given out, each (block row, block column).
    block
        Side of a block in cells.
    """

    def __init__(self, lattice: Lattice, waiting: npt.NDArray[np.bool_], blocks: Iterable[Place], block: int) -> None:
        self._lattice = lattice
        self._waiting = waiting.copy()
        self._blocks = OrderedDict.fromkeys(blocks)
        self._block = block
        self._view: View | None = None
        self._chosen: list[Place] = []  # last first

    def next(self, view: View | None) -> Place | None:
        """The (row, column) of the next tile, or None when all were given out."""
        if view != self._view or not self._chosen:
            self._view = view
            self._chosen = self._choose(view)[::-1]
        if not self._chosen:
            return None
        tile = self._chosen.pop()
        self._waiting[tile] = False
        return tile

    def _choose(self, view: View | None) -> list[Place]:
        """Tiles of one block, in order."""
        if view is not None:
            for place in self._in_view(view):
                tiles = self._tiles(place)
                lattice = self._lattice
                seen = tiles[_shown(tiles * lattice.stride, lattice.tile, view)]
                if len(seen):
                    # at the head of the queue, so that it is finished also when the view moves on
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
        """Blocks that the view shows a part of, from its centre outwards."""
        if not self._blocks:
            return []
        blocks = np.array(list(self._blocks))
        shown = blocks[_shown(blocks * self._block, self._block, view)]
        nearest = np.argsort(_distance(shown * self._block, self._block, view), kind="stable")
        return list(map(tuple, shown[nearest].tolist()))

    def _tiles(self, place: Place) -> npt.NDArray[np.intp]:
        """Waiting tiles that touch a block, (T, 2), in lattice order."""
        rows, columns = self._lattice.touching_block(*place, self._block)
        waiting = self._waiting[rows.start : rows.stop, columns.start : columns.stop]
        tiles: npt.NDArray[np.intp] = np.argwhere(waiting) + np.array([rows.start, columns.start])
        return tiles


def _shown(corners: npt.NDArray[np.intp], side: int, view: View) -> npt.NDArray[np.bool_]:
    """Which of these squares, (T, 2) as (y, x) in cells, the view shows a part of."""
    x, y, width, height = view
    low, high = np.array([y, x]), np.array([y + height, x + width])
    return np.asarray(np.logical_and(corners < high, corners + side > low).all(axis=1))


def _distance(corners: npt.NDArray[np.intp], side: int, view: View) -> npt.NDArray[np.float64]:
    """Squared cells from the centre of the view to the centre of each square."""
    x, y, width, height = view
    distance = ((corners + side / 2 - (y + height / 2, x + width / 2)) ** 2).sum(1)
    return np.asarray(distance, np.float64)
