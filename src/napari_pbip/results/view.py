"""A score store for looking at: scores are decoded beside the viewer, kept, and read again while the store grows.

A viewer asks for a rectangle on its main thread and waits for the answer, and asks for the same one again at every
move of a slider. So blocks stay in memory, one thread decodes those that are missing, and what is not there in time is
taken from a coarse level for a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from napari_pbip.errors import OutputError
from napari_pbip.results.blend import BLOCK
from napari_pbip.results.store import ScoreStore

Scores = npt.NDArray[np.float16]
ALL = slice(None)
Key = tuple[int, int, int]
"""Level, block row, block column."""
_CACHE_BYTES = 256 << 20
_PATIENCE = 0.02
"""Seconds that the viewer waits for decoding."""
_COARSE_SIDE = 512
"""Longest side of the levels that are kept whole, in cells."""


@dataclass(slots=True)
class _Block:
    scores: Scores
    stale: bool = False
    """Whether the store may hold newer ones."""


@dataclass(frozen=True, slots=True)
class _Assembled:
    """The last rectangle that was asked for."""

    level: int
    y: int
    x: int
    scores: Scores

    def covers(self, level: int, y0: int, y1: int, x0: int, x1: int) -> bool:
        _, height, width = self.scores.shape
        inside = self.y <= y0 <= y1 <= self.y + height and self.x <= x0 <= x1 <= self.x + width
        return level == self.level and inside


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
        self._blocks: LRUCache[Key, _Block] = LRUCache(_CACHE_BYTES, getsizeof=lambda block: block.scores.nbytes)
        self._pending: dict[Key, Future[None]] = {}
        self._assembled: _Assembled | None = None
        self._uncommitted: set[tuple[int, int]] = set()
        self.version = 0
        self._lacking = False
        last = len(self.scores) - 1
        self.coarse = next((n for n, a in enumerate(self.scores) if max(a.shape[1:]) <= _COARSE_SIDE), last)
        self._whole = self._read_coarse()
        self._tiles = {"presence": super().presence(), "peak": super().peak()}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-pbip-scores")

    # what label_region asks for ------------------------------------------------------------------------------

    def read_scores(self, level: int, y: slice, x: slice) -> Scores:
        """Raw scores (N, h, w) of a rectangle of one level, at once: what is not decoded in time is blurred."""
        height, width = self.scores[level].shape[1:]
        (y0, y1, _), (x0, x1, _) = y.indices(height), x.indices(width)
        if level >= self.coarse:
            return self._whole[level - self.coarse][:, y0:y1, x0:x1]
        assembled = self._assembled
        if assembled is not None and assembled.covers(level, y0, y1, x0, x1):
            return assembled.scores[:, y0 - assembled.y : y1 - assembled.y, x0 - assembled.x : x1 - assembled.x]
        wanted = [
            (level, row, column)
            for row in range(y0 // BLOCK, -(-y1 // BLOCK))
            for column in range(x0 // BLOCK, -(-x1 // BLOCK))
        ]
        version = self.version
        self._request(wanted)
        out = np.empty((len(self.taxonomy), y1 - y0, x1 - x0), np.float16)
        whole = True
        for key in wanted:
            top, left = key[1] * BLOCK, key[2] * BLOCK
            ay, by, ax, bx = max(top, y0), min(top + BLOCK, y1), max(left, x0), min(left + BLOCK, x1)
            there = np.s_[:, ay - y0 : by - y0, ax - x0 : bx - x0]
            with self._lock:
                block = self._blocks.get(key)
            if block is None:
                out[there] = self._blurred(level, ay, by, ax, bx)
            else:
                out[there] = block.scores[:, ay - top : by - top, ax - left : bx - left]
            whole &= block is not None and not block.stale
        self._assembled = _Assembled(level, y0, x0, out) if whole and version == self.version else None
        self._lacking |= not whole
        return out

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
        return self._lacking

    def arrived(self) -> bool:
        """Whether what was shown blurred or old is there by now; it then lacks no more."""
        with self._lock:
            if self._pending or not self._lacking:
                return False
        self._lacking = False
        return True

    def guess_largest(self, percentile: float) -> npt.NDArray[np.float32]:
        """The largest score of each class as far as a coarse level tells, (N,): quick, and mostly a little low."""
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
        return self._pool.submit(self._catch_up, blocks)

    def close(self) -> None:
        """Stop decoding."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _request(self, wanted: list[Key]) -> None:
        """Decode what is missing or old of these, and nothing else any more: the view has moved on."""
        with self._lock:
            for key, future in list(self._pending.items()):
                if key not in wanted and future.cancel():
                    del self._pending[key]
            for key in wanted:
                block = self._blocks.get(key)
                if (block is None or block.stale) and key not in self._pending:
                    self._pending[key] = self._pool.submit(self._decode, key)
            futures = [self._pending[key] for key in wanted if key in self._pending]
        wait(futures, timeout=_PATIENCE)

    def _blurred(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Scores:
        shift = self.coarse - level
        rows, columns = np.arange(y0, y1) >> shift, np.arange(x0, x1) >> shift
        return self._whole[0][:, rows[:, None], columns]

    @cached_property
    def tissue_cells(self) -> int:
        """Level-0 cells that are tissue."""
        return super().tissue_cells

    def _read_coarse(self) -> list[Scores]:
        return [super(ViewedStore, self).read_scores(n, ALL, ALL) for n in range(self.coarse, len(self.scores))]

    # in the thread -------------------------------------------------------------------------------------------

    def _decode(self, key: Key) -> None:
        level, row, column = key
        y, x = (slice(n * BLOCK, (n + 1) * BLOCK) for n in (row, column))
        try:
            scores = super().read_scores(level, y, x)
        except OutputError as error:
            self.error = error
            height, width = self.scores[level].shape[1:]
            side = min(y.stop, height) - y.start, min(x.stop, width) - x.start
            scores = np.full((len(self.taxonomy), *side), np.nan, np.float16)
        with self._lock:
            self._blocks[key] = _Block(scores)
            self._pending.pop(key, None)

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
            for level, row, column in list(self._blocks):
                under = {(y >> level, x >> level) for y, x in blocks}
                if (row, column) in under:
                    self._blocks[level, row, column].stale = True
            self._assembled = None
            self.version += 1
            self._uncommitted -= {place for place in blocks if written[place]}
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
