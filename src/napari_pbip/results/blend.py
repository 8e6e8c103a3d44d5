"""Blending of overlapping tiles into blocks of the score grid; each block is computed and written once.

Tiles overlap so that no seams show: the scores of all tiles that cover a cell are averaged with weights that
decrease towards the border of a tile. The grid is divided into square *blocks* (the chunks of the score store).
A tile on the border of blocks counts in up to four of them; its scores are kept until the last one is finished.

Computing the border tiles again for each block would need no memory between blocks, but costs 21 % more network
time with blocks of 256 cells and tiles of 28 cells at a stride of 24 (11 % with blocks of 512). Keeping them costs
the memory of the tiles along the front between finished and unfinished blocks: about two rows of tiles, 12 MB on a
slide of 100,000 x 100,000 pixels with four classes. A run that is stopped writes these tiles to disk, so that a
resumed run does not compute them again.

Blocks may come in any order. Without a view they follow a Z-order curve; blocks from the centre of a view outwards
have a front of about the same length. A user who moves the view leaves unfinished blocks along its border (about
120 tiles or 1.5 MB each with four classes); they are finished next, before new ones are begun. Until a block is
finished, :meth:`Blender.partials` gives what is known of it for display.

A block is summed in the order of the lattice, not in that in which tiles arrive, in float64 with integer weights.
Constant scores therefore give exactly the same constant, and the same tiles give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_pbip.results.lattice import BLOCK, Lattice, Place, z_order
from napari_pbip.results.tile_order import TileOrder, View

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Region:
    """A block of scores, with all that the score store writes of it."""

    y: int
    """Row of the block's first cell; a multiple of the block size."""
    x: int
    scores: npt.NDArray[np.float16]
    """Blended raw class scores, (N, h, w); NaN where no tile has been analysed."""
    tiles: npt.NDArray[np.intp]
    """(row, column) of the analysed tiles that touch the block (those computed so far), (T, 2)."""
    presence: npt.NDArray[np.float32]
    """Probability that each class is present in each of these tiles, (T, N)."""
    peak: npt.NDArray[np.float32]
    """Largest raw score of each class in each of these tiles, before blending, (T, N)."""
    complete: bool = True
    """Whether all tiles of the block are included; an incomplete block serves for display only."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """The network's results for tiles of unfinished blocks, which a stopped run saves in addition to the blocks."""

    places: npt.NDArray[np.int32]
    """(row, column) of each tile on the lattice, (T, 2)."""
    scores: npt.NDArray[np.float32]
    """Raw class scores, (T, N, tile, tile)."""
    presence: npt.NDArray[np.float32]
    """Probability that each class is present, (T, N)."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(slots=True)
class _Kept:
    scores: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]
    blocks: int  # unfinished blocks that still need this tile


class Blender:
    """Blends tiles into blocks: collects the results of tiles and returns the blocks that they complete.

    Parameters
    ----------
    lattice
        The tiles and the grid they lie on.
    planned
        Tiles that are to be analysed, bool (rows, columns).
    written
        Blocks that an earlier run has written, bool (block rows, block columns).
    block
        Side of a block in cells.

    Examples
    --------
    >>> lattice = Lattice(height=4, width=7, tile=4, stride=3, rows=1, columns=2)
    >>> blender = Blender(lattice, np.ones((1, 2), bool), np.zeros((1, 1), bool))
    >>> ones = np.ones((1, 4, 4), np.float32)
    >>> blender.add(0, 0, ones, np.array([0.9]))
    []
    >>> [region] = blender.add(0, 1, ones, np.array([0.8]))
    >>> region.scores.shape, float(region.scores.min()), float(region.scores.max())
    ((1, 4, 7), 1.0, 1.0)
    """

    def __init__(
        self,
        lattice: Lattice,
        planned: npt.NDArray[np.bool_],
        written: npt.NDArray[np.bool_],
        block: int = BLOCK,
    ) -> None:
        self.lattice = lattice
        self._block = block
        self._weights = lattice.weights
        self._planned = planned.copy()
        self._missing: dict[Place, int] = {}
        self._blocks_of: dict[Place, int] = {}
        # Along a Z-order curve, finished blocks form compact squares. The front, and with it the number of tiles in
        # memory, stays short, and the chunks of the coarser levels are completed one after the other.
        for by, bx in sorted(np.argwhere(~written).tolist(), key=z_order):
            tiles = self._tiles_of(by, bx)
            if tiles:
                self._missing[by, bx] = len(tiles)
                for tile in tiles:
                    self._blocks_of[tile] = self._blocks_of.get(tile, 0) + 1
        self._kept: dict[Place, _Kept] = {}
        self._changed: set[Place] = set()

    @property
    def order(self) -> list[Place]:
        """The (row, column) of all tiles that are still to be computed, in the order that needs the least memory."""
        return list(self._blocks_of)

    def tiles(self, view: Callable[[], View | None] = lambda: None) -> Iterator[Place]:
        """Yield each tile of :attr:`order` once, those in view first.

        Parameters
        ----------
        view
            Returns the rectangle of cells that the user is looking at; called before every tile.
        """
        waiting = np.zeros_like(self._planned)
        if self._blocks_of:
            waiting[tuple(np.array(self.order).T)] = True
        order = TileOrder(self.lattice, waiting, self._missing, self._block)
        while (tile := order.next(view())) is not None:
            yield tile

    @property
    def kept(self) -> int:
        """Number of tiles in memory."""
        return len(self._kept)

    def keep(self) -> Tiles | None:
        """Return the tiles in memory, for :meth:`restore`, or None if there are none."""
        if not self._kept:
            return None
        kept = self._kept.values()
        return Tiles(
            np.array(list(self._kept), np.int32),
            np.stack([one.scores for one in kept]),
            np.stack([one.presence for one in kept]),
        )

    def restore(self, tiles: Tiles) -> list[Region]:
        """Add the tiles that :meth:`keep` returned in an earlier run, if they are needed; return the completed blocks.

        The blocks are bit for bit the same as if the tiles were computed now.
        """
        finished: list[Region] = []
        for (row, column), scores, presence in zip(tiles.places.tolist(), tiles.scores, tiles.presence, strict=True):
            if (row, column) in self._blocks_of:
                finished += self.add(row, column, scores, presence)
        return finished

    def add(self, row: int, column: int, scores: Floats, presence: Floats) -> list[Region]:
        """Add the network's result for one tile.

        Parameters
        ----------
        row, column
            Place of the tile on the lattice, one of :attr:`order`.
        scores
            Raw class scores, (N, tile, tile).
        presence
            Probability that each class is present, (N,).

        Returns
        -------
        list of Region
            The blocks that this tile completes, in most cases none.

        Raises
        ------
        ValueError
            If the tile is not one of those still to be computed, or its scores have the wrong shape.
        """
        side = self.lattice.tile
        blocks = self._take(row, column)
        if scores.ndim != 3 or scores.shape[1:] != (side, side):
            raise ValueError(f"the scores of a tile have shape (N, {side}, {side}), not {scores.shape}")
        # copies, because a view would keep the whole batch in memory
        self._kept[row, column] = _Kept(np.array(scores, np.float32), np.array(presence, np.float32), blocks)
        return self._count(row, column)

    def leave_out(self, row: int, column: int) -> list[Region]:
        """Skip a tile that cannot be read; its cells get scores only from overlapping tiles.

        Parameters
        ----------
        row, column
            Place of the tile on the lattice, one of :attr:`order`.

        Returns
        -------
        list of Region
            The blocks that this completes, without those that have no other tile.

        Raises
        ------
        ValueError
            If the tile is not one of those still to be computed.
        """
        self._take(row, column)
        self._planned[row, column] = False
        return self._count(row, column)

    def _take(self, row: int, column: int) -> int:
        """Remove a tile from those still to be computed; return the number of unfinished blocks that it touches."""
        blocks = self._blocks_of.pop((row, column), 0)
        if not blocks:
            raise ValueError(f"tile ({row}, {column}) is not to be analysed, or was added before")
        return blocks

    def _count(self, row: int, column: int) -> list[Region]:
        """Record that a tile is no longer missing; return the blocks that it completes."""
        finished = []
        for place in self._blocks_touching(row, column):
            if place in self._missing:
                self._missing[place] -= 1
                self._changed.add(place)
                if not self._missing[place]:
                    del self._missing[place]
                    self._changed.remove(place)
                    if self._tiles_of(*place):
                        finished.append(self._finish(*place))
        return finished

    def partials(self) -> list[Region]:
        """Return the unfinished blocks to which tiles were added since the last call."""
        changed, self._changed = sorted(self._changed), set()
        known = {place: [tile for tile in self._tiles_of(*place) if tile in self._kept] for place in changed}
        return [replace(self._blend(*place, tiles), complete=False) for place, tiles in known.items() if tiles]

    def _span(self, place: int, cells: int) -> tuple[int, int]:
        return place * self._block, min((place + 1) * self._block, cells)

    def _tiles_of(self, by: int, bx: int) -> list[Place]:
        """Return the analysed tiles that touch a block, in lattice order."""
        rows, columns = self.lattice.touching_block(by, bx, self._block)
        return [(row, column) for row in rows for column in columns if self._planned[row, column]]

    def _blocks_touching(self, row: int, column: int) -> Iterator[Place]:
        lattice = self.lattice
        y, x = row * lattice.stride, column * lattice.stride
        for by in range(y // self._block, (min(y + lattice.tile, lattice.height) - 1) // self._block + 1):
            for bx in range(x // self._block, (min(x + lattice.tile, lattice.width) - 1) // self._block + 1):
                yield by, bx

    def _finish(self, by: int, bx: int) -> Region:
        """Blend a complete block, and drop the tiles that no other block needs."""
        tiles = self._tiles_of(by, bx)
        region = self._blend(by, bx, tiles)
        for tile in tiles:
            one = self._kept[tile]
            one.blocks -= 1
            if not one.blocks:
                del self._kept[tile]
        return region

    def _blend(self, by: int, bx: int, tiles: Sequence[Place]) -> Region:
        """Blend these tiles, in lattice order, into a block."""
        lattice = self.lattice
        (y0, y1), (x0, x1) = self._span(by, lattice.height), self._span(bx, lattice.width)
        kept = [self._kept[tile] for tile in tiles]
        total = np.zeros((kept[0].scores.shape[0], y1 - y0, x1 - x0))
        weight = np.zeros(total.shape[1:])
        for (row, column), one in zip(tiles, kept, strict=True):
            y, x = row * lattice.stride, column * lattice.stride
            top, bottom, left, right = max(y, y0), min(y + lattice.tile, y1), max(x, x0), min(x + lattice.tile, x1)
            there = np.s_[..., top - y0 : bottom - y0, left - x0 : right - x0]
            here = np.s_[..., top - y : bottom - y, left - x : right - x]
            total[there] += one.scores[here] * self._weights[here]
            weight[there] += self._weights[here]
        with np.errstate(invalid="ignore"):  # 0 / 0 = NaN marks cells that no tile covers
            scores = (total / weight).astype(np.float16)
        return Region(
            y0,
            x0,
            scores,
            np.array(tiles, np.intp),
            np.stack([one.presence for one in kept]),
            np.stack([one.scores.max((1, 2)) for one in kept]),
        )
