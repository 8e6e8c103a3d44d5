"""A score store for display: its scores are decoded in a thread, kept in memory, and read again when the store grows.

If a block has not been decoded in time, values of a coarse level are shown until it has.

Dask arrays (:mod:`napari_pbip.results.lazy`) are not used here: they keep nothing in memory, so that a move of a slider
would take up to four times as long (``benchmarks/dask_layer.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_pbip.blocks import BlockLoader
from napari_pbip.errors import OutputError
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides.regions import Regions

Scores = npt.NDArray[np.float16]
ALL = slice(None)
_CACHE_BYTES = 256 << 20
_COARSE_SIDE = 512
"""Longer side, in cells, up to which levels are kept in memory whole."""


class ViewedStore(ScoreStore):
    """A score store for display, opened read-only by :meth:`open`.

    Its methods must be called in one thread, that of the viewer; :meth:`catch_up` does its work in another.

    Attributes
    ----------
    coarse
        The finest level that is kept in memory whole.
    version
        Number that increases when scores are read again; while it stays the same, a rectangle has the same scores.
    error
        Why scores could not be read, or None; such scores are shown as not analysed.
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
        self._tiles = {"presence": super().presence()}  # and "peak", once it is asked for
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
        """Return the raw scores, (N, h, w), of a rectangle of one level; blocks not decoded in time are blurred."""
        height, width = self.scores[level].shape[1:]
        (y0, y1, _), (x0, x1, _) = y.indices(height), x.indices(width)
        if level >= self.coarse:
            return self._whole[level - self.coarse][:, y0:y1, x0:x1]
        return self._loader.read(level, y0, y1, x0, x1)

    def presence(self, rows: slice = slice(None), columns: slice = slice(None)) -> Scores:
        """Return the probability of each class in these tiles, (N, rows, columns), as last read."""
        return self._tiles["presence"][:, rows, columns]

    def peak(self, rows: slice = slice(None), columns: slice = slice(None)) -> Scores:
        """Return the largest raw score of each class in these tiles, (N, rows, columns), as last read.

        They are read at the first call, because only thresholds by tile need them, and a large slide has hundreds of
        chunks of them.
        """
        if "peak" not in (tiles := self._tiles):
            tiles["peak"] = super().peak()
        return tiles["peak"][:, rows, columns]

    # what else a viewer needs --------------------------------------------------------------------------------

    @property
    def lacking(self) -> bool:
        """Whether blurred or outdated scores were returned."""
        return self._loader.lacking

    def arrived(self) -> bool:
        """Return whether scores that were blurred or outdated have been decoded; :attr:`lacking` is then reset."""
        return self._loader.arrived()

    def guess_largest(self, percentile: float) -> npt.NDArray[np.float32]:
        """Estimate the largest score of each class, (N,), from a coarse level: fast, and usually slightly too low."""
        if self.ceiling is not None:
            return self.ceiling
        counted = self.counted(self.coarse, ALL, ALL)
        found = [one[(one > 0) & counted].astype(np.float32) for one in self._whole[0]]  # NaN > 0 is False
        return np.array([np.percentile(one, percentile) if one.size else 0 for one in found], np.float32)

    def grown(self, blocks: Iterable[tuple[int, int]]) -> None:
        """Record that these blocks (row, column) of level 0 were written; they need not be committed yet."""
        with self._lock:
            self._uncommitted.update(blocks)

    @property
    def growing(self) -> bool:
        """Whether blocks were written whose commit has not been seen yet."""
        return bool(self._uncommitted)

    def catch_up(self) -> Future[bool]:
        """Read changed blocks again in the thread; the result of the future is whether there were any."""
        with self._lock:
            blocks = frozenset(self._uncommitted)
        return self._loader.submit(lambda: self._catch_up(blocks))

    def close(self) -> None:
        """Stop the thread that decodes."""
        self._loader.close()

    def use_regions(self, regions: Regions) -> None:
        """Count cells by these regions from now on, which changes what is shown."""
        super().use_regions(regions)
        with self._lock:
            self.version += 1

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
            written = self.written  # read first, so that all blocks in it are complete in the arrays read next
            whole = self._read_coarse()
            tiles = {name: values.copy() for name, values in tuple(self._tiles.items())}
            window = self._tiles_under(blocks)
            tiles["presence"][:, *window] = super().presence(*window)
            if "peak" in tiles:
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
        """Return the rows and columns of tiles from the first to the last that touch these blocks."""
        lattice = self.lattice
        spans = []
        for places, cells, count in (
            ([y for y, _ in blocks], lattice.height, lattice.rows),
            ([x for _, x in blocks], lattice.width, lattice.columns),
        ):
            touching = lattice.touching(min(places) * BLOCK, min((max(places) + 1) * BLOCK, cells), count)
            spans.append(slice(touching.start, touching.stop))
        return spans[0], spans[1]
