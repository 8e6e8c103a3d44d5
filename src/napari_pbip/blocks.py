"""Large pictures for a viewer that must not wait: blocks are decoded in threads and cached.

A viewer requests a rectangle on its main thread and waits for it. Blocks that are not decoded within a moment are taken
from the coarsest level, blurred, until the viewer requests the rectangle again. A slow file or network drive therefore
never blocks the window.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

Pixels = npt.NDArray[Any]
Key = tuple[int, int, int]
"""Key of a block: level, block row, block column."""
Piece = tuple[slice, slice]
"""Rows and columns of the coarsest level."""
Result = TypeVar("Result")
PATIENCE = 0.02
"""Seconds that :meth:`BlockLoader.read` waits for decoding."""


@dataclass(slots=True)
class _Block:
    pixels: Pixels
    stale: bool = False
    """Whether its source has changed since it was decoded."""


class BlockLoader:
    """A loader of the levels of a picture, which are decoded in blocks; the coarsest level is kept whole.

    All methods must be called in one thread, that of the viewer; ``decode`` and the functions given to :meth:`submit`
    run in others.

    Parameters
    ----------
    decode
        Function that returns the pixels of a rectangle (rows, columns) inside a level.
    scales
        Width of a pixel of each level in pixels of the finest level, finest first; the last level is the coarsest.
    coarsest
        The whole last level. Its present values are shown until :meth:`fill_coarsest` has decoded it.
    axis
        Axis of the rows; the next axis is that of the columns.
    shapes
        Rows and columns of each level.
    side
        Side of a block in pixels.
    size
        Largest number of bytes of decoded blocks to keep.
    threads
        Number of threads that decode.
    name
        Name of the threads.

    Attributes
    ----------
    coarsest
        The last level whole.
    error
        Error of the first block that could not be decoded, or None.
    """

    def __init__(
        self,
        decode: Callable[[int, slice, slice], Pixels],
        scales: Sequence[float],
        shapes: Sequence[tuple[int, int]],
        coarsest: Pixels,
        *,
        axis: int = 0,
        side: int,
        size: int,
        threads: int,
        name: str,
    ) -> None:
        self.coarsest = coarsest
        self.error: Exception | None = None
        self._decode = decode
        self._scales, self._shapes, self._axis, self._side = tuple(scales), tuple(shapes), axis, side
        self._lock = threading.Lock()
        self._blocks: LRUCache[Key, _Block] = LRUCache(size, getsizeof=lambda block: block.pixels.nbytes)
        self._pending: dict[Key, Future[None]] = {}
        self._failed: set[Key] = set()
        self._view: frozenset[Key] = frozenset()
        self._filling: Future[None] | None = None
        self._unfilled: list[Piece] = []
        self._lost: list[Piece] = []
        self._pieces = self._pieces_seen = 0
        self._lacking = False
        self._decoding = 0
        self._closed = False
        self._then: Callable[[], object] = lambda: None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def read(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        """Return a rectangle of a level; blocks not decoded in time, or not at all, come from the coarsest level.

        Of the coarsest level itself, a view is returned, which :meth:`fill_coarsest` fills, so that a viewer may read
        it once and keep it.
        """
        if level == len(self._scales) - 1:
            return self._read_coarsest(y0, y1, x0, x1)
        side = self._side
        keys = [(level, row, column) for row in _span(y0, y1, side) for column in _span(x0, x1, side)]
        self._request(frozenset(keys))
        out = np.empty(self._shape_of(y1 - y0, x1 - x0), self.coarsest.dtype)
        for key in keys:
            top, left = key[1] * side, key[2] * side
            ay, by, ax, bx = max(top, y0), min(top + side, y1), max(left, x0), min(left + side, x1)
            with self._lock:
                block = self._blocks.get(key)
                coming = key not in self._failed or bool(self._unfilled)
                self._lacking |= coming and (block is None or block.stale)
            there = self._at(slice(ay - y0, by - y0), slice(ax - x0, bx - x0))
            if block is None:
                out[there] = self._blurred(level, ay, by, ax, bx)
            else:
                out[there] = block.pixels[self._at(slice(ay - top, by - top), slice(ax - left, bx - left))]
        return out

    @property
    def pending(self) -> int:
        """Number of blocks and pieces of the coarsest level that are being decoded or wait for it."""
        with self._lock:
            return len(self._pending) + len(self._unfilled)

    @property
    def lacking(self) -> bool:
        """Whether blurred or outdated pixels were returned that may still be decoded."""
        return self._lacking

    def arrived(self) -> bool:
        """Return whether blurred or outdated pixels have been decoded, so that they should be requested again."""
        with self._lock:
            grown, self._pieces_seen = self._pieces > self._pieces_seen, self._pieces
            if not grown and (self._pending or not self._lacking):
                return False
            self._lacking = False  # until they are requested again
        return True

    def retry(self) -> None:
        """Try to decode the failed blocks again when they are requested."""
        with self._lock:
            self._failed.clear()
            self.error = None
            lost, self._lost = self._lost, []
        self._fill(lost)

    def expire(self, keys: set[Key]) -> None:
        """Decode these blocks again when they are requested, and return the old ones until then."""
        with self._lock:
            for key in keys & self._blocks.keys():
                self._blocks[key].stale = True
            self._failed -= keys

    def fill_coarsest(self, side: int) -> None:
        """Decode the coarsest level in pieces of this side, alternating with requested blocks."""
        height, width = self._shapes[-1]
        self._fill(
            (slice(y, min(y + side, height)), slice(x, min(x + side, width)))
            for y in range(0, height, side)
            for x in range(0, width, side)
        )

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run other work in the threads, in turn with decoding."""
        return self._pool.submit(work)

    def close(self, then: Callable[[], object] = lambda: None) -> None:
        """Begin no block any more, and forget all; what is being decoded is not waited for. Further calls do nothing.

        Parameters
        ----------
        then
            Function that closes what is decoded. It is called when nothing is being decoded any more: at once, or in
            the thread that ends last.
        """
        with self._lock:
            if self._closed:
                return
            self._closed, self._then = True, then
            self._unfilled.clear()
            self._pending.clear()
            self._blocks.clear()  # a removed layer may stay in memory for a while
            idle = not self._decoding
        self._pool.shutdown(wait=False, cancel_futures=True)
        if idle:
            then()

    def _fill(self, pieces: Iterable[Piece]) -> None:
        with self._lock:
            idle = not self._unfilled
            self._unfilled += pieces
            if idle and self._unfilled:
                self._filling = self._pool.submit(self._fill_next)

    def _read_coarsest(self, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        if self._filling is not None:
            wait([self._filling], PATIENCE)
        part: Pixels = self.coarsest[self._at(slice(y0, y1), slice(x0, x1))]
        return part

    def _request(self, keys: frozenset[Key]) -> None:
        """Decode the missing or outdated blocks of these; if the view is another one, drop all other requests."""
        with self._lock:
            if not keys <= self._view:  # a point in the view, such as the one under the mouse, is not another view
                self._view = keys
                for key, future in list(self._pending.items()):
                    if key not in keys and future.cancel():
                        del self._pending[key]
            for key in sorted(keys - self._failed - self._pending.keys()):
                block = self._blocks.get(key)
                if block is None or block.stale:
                    with suppress(RuntimeError):  # closed: the last drawing of a closing window shows what is decoded
                        self._pending[key] = self._pool.submit(self._load, key)
            futures = [self._pending[key] for key in keys if key in self._pending]
        wait(futures, timeout=PATIENCE)

    def _blurred(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        factor = self._scales[level] / self._scales[-1]
        height, width = self._shapes[-1]
        rows = np.minimum(((np.arange(y0, y1) + 0.5) * factor).astype(np.intp), height - 1)
        columns = np.minimum(((np.arange(x0, x1) + 0.5) * factor).astype(np.intp), width - 1)
        picked: Pixels = self.coarsest[self._at(rows[:, None], columns)]
        return picked

    def _at(self, rows: Any, columns: Any) -> tuple[Any, ...]:
        return *(slice(None),) * self._axis, rows, columns

    def _shape_of(self, height: int, width: int) -> tuple[int, ...]:
        whole = self.coarsest.shape
        return *whole[: self._axis], height, width, *whole[self._axis + 2 :]

    # in the threads ------------------------------------------------------------------------------------------

    def _load(self, key: Key) -> None:
        """Decode one block into the cache; afterwards its key is not pending any more, even if that failed."""
        level, row, column = key
        height, width = self._shapes[level]
        y, x = row * self._side, column * self._side
        pixels = self._try(level, slice(y, min(y + self._side, height)), slice(x, min(x + self._side, width)))
        with self._lock:
            if pixels is None:
                self._failed.add(key)
            elif not self._closed:
                self._blocks[key] = _Block(pixels)
            self._pending.pop(key, None)

    def _fill_next(self) -> None:
        with self._lock:
            if not self._unfilled:
                return
            piece = self._unfilled[0]
        pixels = self._try(len(self._scales) - 1, *piece)
        with self._lock:
            if pixels is None:
                self._lost.append(piece)
            else:
                self.coarsest[self._at(*piece)] = pixels
            self._pieces += 1
            if self._unfilled:  # else it was closed
                self._unfilled.pop(0)
            if self._unfilled:
                with suppress(RuntimeError):  # it has just been closed
                    self._pool.submit(self._fill_next)

    def _try(self, level: int, rows: slice, columns: slice) -> Pixels | None:
        with self._lock:
            if self._closed:
                return None
            self._decoding += 1
        try:
            return self._decode(level, rows, columns)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the picture is shown, and it is reported
            self.error = self.error or error
            return None
        finally:
            self._end_one()

    def _end_one(self) -> None:
        with self._lock:
            self._decoding -= 1
            last = self._closed and not self._decoding
        if last:
            self._then()


def _span(first: int, end: int, side: int) -> Iterable[int]:
    return range(first // side, -(-end // side))
