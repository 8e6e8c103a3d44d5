"""A score store for looking at: scores are decoded beside the viewer, kept, and read again while the store grows.

Blocks stay in memory, one thread decodes those that are missing, and what is not there in time is taken from a coarse
level for a moment.

Not dask arrays (:mod:`napari_pbip.results.lazy`): a move of a slider would take up to four times as long, because they
keep nothing (``benchmarks/dask_layer.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_pbip.blocks import BlockLoader
from napari_pbip.errors import OutputError
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.store import ScoreStore

Scores = npt.NDArray[np.float16]
ALL = slice(None)
_CACHE_BYTES = 256 << 20
_COARSE_SIDE = 512
"""Longest side of the levels that are kept whole, in cells."""


class ViewedStore(ScoreStore):
    """A score store that is being looked at; opened by :meth:`open`, for reading alone.

    All methods but :meth:`catch_up`'s own work are for one thread, the viewer's.

    Attributes
    ----------
    coarse
        The finest level that is kept whole.
    version
        Counts what is newly read: as long as it stays, a rectangle has the same scores.
    error
        Why scores could not be read, if they could not; they are shown as not analysed.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"] = "r") -> None:
        if mode != "r":
            raise ValueError("a viewed store is for reading alone")
        super().__init__(path, mode)
        self.error: OutputError | None = None
        self._lock = threading.Lock()
        self._uncommitted: set[tuple[int, int]] = set()
        self.version = 0
        last = len(self.scores) - 1
        self.coarse = next((n for n, a in enumerate(self.scores) if max(a.shape[1:]) <= _COARSE_SIDE), last)
        self._whole = self._read_coarse()
        self._tiles = {"presence": super().presence(), "peak": super().peak()}
        decoded = range(self.coarse + 1)
        shapes = [(height, width) for _, height, width in (self.scores[level].shape for level in decoded)]
        self._loader = BlockLoader(
            self._decode,
            [2**level for level in decoded],
            shapes,
            self._whole[0],
            axis=1,
            side=BLOCK,
            size=_CACHE_BYTES,
            threads=1,
            name="napari-pbip-scores",
        )

    # what label_region asks for ------------------------------------------------------------------------------

    def read_scores(self, level: int, y: slice, x: slice) -> Scores:
        """Raw scores (N, h, w) of a rectangle of one level, at once: what is not decoded in time is blurred."""
        height, width = self.scores[level].shape[1:]
        (y0, y1, _), (x0, x1, _) = y.indices(height), x.indices(width)
        if level >= self.coarse:
            return self._whole[level - self.coarse][:, y0:y1, x0:x1]
        return self._loader.read(level, y0, y1, x0, x1)

    def presence(self, rows: slice = slice(None), columns: slice = slice(None)) -> Scores:
        """As last read: probability that each class is present in these tiles, (N, rows, columns)."""
        return self._tiles["presence"][:, rows, columns]

    def peak(self, rows: slice = slice(None), columns: slice = slice(None)) -> Scores:
        """As last read: largest raw score of each class in these tiles, (N, rows, columns)."""
        return self._tiles["peak"][:, rows, columns]

    # what else a viewer needs --------------------------------------------------------------------------------

    @property
    def lacking(self) -> bool:
        """Whether something was shown blurred or old."""
        return self._loader.lacking

    def arrived(self) -> bool:
        """Whether what was shown blurred or old is there by now; it then lacks no more."""
        return self._loader.arrived()

    def guess_largest(self, percentile: float) -> npt.NDArray[np.float32]:
        """The largest score of each class as far as a coarse level tells, (N,): quick, and mostly a little low."""
        if self.ceiling is not None:
            return self.ceiling
        found = [one[one > 0].astype(np.float32) for one in self._whole[0]]  # NaN > 0 is False
        return np.array([np.percentile(one, percentile) if one.size else 0 for one in found], np.float32)

    def grown(self, blocks: Iterable[tuple[int, int]]) -> None:
        """Note that these blocks of level 0 (row, column) were written, before their commit perhaps."""
        with self._lock:
            self._uncommitted.update(blocks)

    @property
    def growing(self) -> bool:
        """Whether blocks were written whose commit was not seen yet."""
        return bool(self._uncommitted)

    def catch_up(self) -> Future[bool]:
        """Have what grew read again in the thread; the result says whether there was anything."""
        with self._lock:
            blocks = frozenset(self._uncommitted)
        return self._loader.submit(lambda: self._catch_up(blocks))

    def close(self) -> None:
        """Stop decoding."""
        self._loader.close()

    @cached_property
    def tissue_cells(self) -> int:
        """Level-0 cells that are tissue."""
        return super().tissue_cells

    def _read_coarse(self) -> list[Scores]:
        return [super(ViewedStore, self).read_scores(n, ALL, ALL) for n in range(self.coarse, len(self.scores))]

    # in the thread -------------------------------------------------------------------------------------------

    def _decode(self, level: int, y: slice, x: slice) -> Scores:
        try:
            return super().read_scores(level, y, x)
        except Exception as error:  # noqa: BLE001 - scores that cannot be read are not guessed from coarse ones
            if not isinstance(error, OutputError):
                error = OutputError(f"Scores of {self.path.name} cannot be read ({type(error).__name__}: {error}).")
            self.error = error
            return np.full((len(self.taxonomy), y.stop - y.start, x.stop - x.start), np.nan, np.float16)

    def _catch_up(self, blocks: frozenset[tuple[int, int]]) -> bool:
        if not blocks:
            return False
        try:
            written = self.written  # first: whatever it names is complete in what is read next
            whole = self._read_coarse()
            tiles = {name: values.copy() for name, values in self._tiles.items()}
            window = self._tiles_under(blocks)
            tiles["presence"][:, *window] = super().presence(*window)
            tiles["peak"][:, *window] = super().peak(*window)
        except OutputError as error:
            self.error = error
            return False
        with self._lock:
            self._whole, self._tiles = whole, tiles
            self.version += 1
            self._uncommitted -= {place for place in blocks if written[place]}
        self._loader.coarsest = whole[0]
        self._loader.expire({(level, y >> level, x >> level) for y, x in blocks for level in range(self.coarse)})
        return True

    def _tiles_under(self, blocks: Iterable[tuple[int, int]]) -> tuple[slice, slice]:
        """The tiles from the first to the last that touch these blocks."""
        lattice = self.lattice
        spans = []
        for places, cells, count in (
            ([y for y, _ in blocks], lattice.height, lattice.rows),
            ([x for _, x in blocks], lattice.width, lattice.columns),
        ):
            touching = lattice.touching(min(places) * BLOCK, min((max(places) + 1) * BLOCK, cells), count)
            spans.append(slice(touching.start, touching.stop))
        return spans[0], spans[1]
