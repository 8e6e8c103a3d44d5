"""A robust largest score of each class over a slide: an exact percentile of its positive scores.

A float16 has only 31,743 positive finite values, whose bit patterns are in the order of the values. The counts of all
bit patterns are therefore an exact histogram, from which percentiles follow without sorting, in one pass and with
little memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.store import ScoreStore

Counts = npt.NDArray[np.int64]
_INFINITY = 0x7C00  # bit pattern; the positive finite values lie below it


class LargestScores:
    """A histogram of the positive raw scores of analysed tissue cells, for which each finished block is read once.

    Parameters
    ----------
    store
        A finished or growing store.
    """

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._counts = np.zeros((len(store.taxonomy), _INFINITY), np.int64)
        self._counted = np.zeros_like(store.written)

    def percentile(self, percentile: float) -> npt.NDArray[np.float32]:
        """Return the score that ``percentile`` percent of a class's positive scores do not exceed, (N,).

        100 gives the maximum; a class without a positive score has 0. Blocks that were finished since the last call
        are counted first. While no block is finished, the result is provisional, from the unfinished blocks. Of a model
        whose scores have a ceiling, the result is that ceiling.

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
        """Return the counts of unfinished blocks."""
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
        """Add the scores of a block to the counts."""
        store = self._store
        y, x = (slice(start, start + BLOCK) for start in place * BLOCK)
        row_positions, column_positions, tissue = store.tiles_and_tissue(0, y, x)
        rows, columns = (np.rint(p).astype(np.intp) for p in (row_positions, column_positions))
        presence = store.presence(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        analysed = ~np.isnan(presence[0])[np.ix_(rows - rows[0], columns - columns[0])] & tissue
        for counts, scores in zip(into, store.read_scores(0, y, x), strict=True):
            bits = scores.view(np.uint16)[analysed]
            counts += np.bincount(bits[(bits > 0) & (bits < _INFINITY)], minlength=_INFINITY)
