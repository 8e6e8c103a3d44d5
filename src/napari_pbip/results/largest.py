"""The largest score of each class over a slide, robustly: an exact percentile of its positive scores.

A float16 has only 31,743 positive finite values, and their bit patterns are in the order of the values, so a
count per bit pattern is an exact histogram: percentiles need no sorting, no second pass and little memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.store import ScoreStore

Counts = npt.NDArray[np.int64]
_INFINITY = 0x7C00  # bit pattern; the positive finite values lie below it


class LargestScores:
    """Counts the scores of a store; every finished block is read once in the life of this object.

    Counted are the positive raw scores of analysed tissue cells.

    Parameters
    ----------
    store
        Finished or growing.
    """

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._counts = np.zeros((len(store.taxonomy), _INFINITY), np.int64)
        self._counted = np.zeros_like(store.written)

    def percentile(self, percentile: float) -> npt.NDArray[np.float32]:
        """The score that ``percentile`` percent of a class's positive scores do not exceed, (N,).

        Blocks that were finished since the last call are counted first; as long as none is finished, the figure is
        a provisional one of what is known. 100 is the maximum. 0 for a class without a positive score. Of a model whose
        scores have a ceiling it is that.

        Raises
        ------
        OutputError
            If the store is damaged.
        """
        if (ceiling := self._store.ceiling) is not None:
            return ceiling
        written = self._store.written
        for place in np.argwhere(written & ~self._counted):
            self._count(place, self._counts)
        self._counted = written
        cumulative = (self._counts if self._counts.any() else self._provisional()).cumsum(1)
        wanted = np.ceil(cumulative[:, -1] * (percentile / 100)).astype(np.int64)
        bits = np.array([np.searchsorted(c, w) for c, w in zip(cumulative, wanted, strict=True)], np.uint16)
        return bits.view(np.float16).astype(np.float32)  # without scores: bit pattern 0, which is 0.0

    def _provisional(self) -> Counts:
        """Counts of the blocks that are begun and not finished."""
        lattice, counts = self._store.lattice, np.zeros_like(self._counts)
        corners = np.argwhere(~np.isnan(self._store.presence()[0])) * lattice.stride
        last = np.array([lattice.height, lattice.width]) - 1
        begun = {
            tuple(place)
            for dy in (0, lattice.tile - 1)
            for dx in (0, lattice.tile - 1)
            for place in (np.minimum(corners + np.array([dy, dx]), last) // BLOCK).tolist()
        }
        for place in begun:
            self._count(np.array(place), counts)
        return counts

    def _count(self, place: npt.NDArray[np.intp], into: Counts) -> None:
        """Add the scores of a block."""
        store = self._store
        y, x = (slice(start, start + BLOCK) for start in place * BLOCK)
        row_positions, column_positions, tissue = store.tiles_and_tissue(0, y, x)
        rows, columns = (np.rint(p).astype(np.intp) for p in (row_positions, column_positions))
        presence = store.presence(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        analysed = ~np.isnan(presence[0])[np.ix_(rows - rows[0], columns - columns[0])] & tissue
        for counts, scores in zip(into, store.read_scores(0, y, x), strict=True):
            bits = scores.view(np.uint16)[analysed]
            counts += np.bincount(bits[(bits > 0) & (bits < _INFINITY)], minlength=_INFINITY)
