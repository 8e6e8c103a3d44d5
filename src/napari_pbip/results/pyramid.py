"""Multiscale arrays that grow: level 0 is written in whole blocks, and the coarser levels are updated with it.

The metadata follow NGFF 0.5: positions are those of cell centres in micrometres, and the origin is the centre of the
slide's first level-0 pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

Array = npt.NDArray[Any]
COARSEST = 128
"""Levels are added until the longer side is at most this. A viewer that keeps the coarsest level in memory, as napari
does, then shows stale values only when zoomed far out."""


def create_levels(
    group: zarr.Group, shape: tuple[int, ...], *, chunk: int, dtype: str, fill_value: float, axes: Sequence[str]
) -> list[zarr.Array[Any]]:
    """Create empty arrays ``0``, ``1``, ..., each half as large; axes before the last two are not divided in chunks."""
    *outer, height, width = shape
    levels: list[zarr.Array[Any]] = []
    while True:
        levels.append(
            group.create_array(
                str(len(levels)),
                shape=(*outer, height, width),
                chunks=(*outer, chunk, chunk),
                dtype=dtype,
                fill_value=fill_value,
                dimension_names=tuple(axes),
                compressors=BloscCodec(
                    cname="lz4", clevel=1, shuffle="shuffle", typesize=int(np.dtype(dtype).itemsize)
                ),
            )
        )
        if max(height, width) <= COARSEST:
            return levels
        height, width = -(-height // 2), -(-width // 2)


def multiscales(
    name: str,
    levels: int,
    axes: Sequence[str],
    cell: Sequence[float],
    first: Sequence[float],
    unit: str | None = "micrometer",
) -> list[dict[str, Any]]:
    """Return the NGFF 0.5 ``multiscales`` entry of such levels.

    Parameters
    ----------
    name
        Name of the image.
    levels
        Number of levels.
    axes
        Names of the axes: ``c``, ``y``, ``x`` or ``y``, ``x``.
    cell
        Height and width of a level-0 cell.
    first
        Centre (y, x) of the first level-0 cell.
    unit
        Unit of both, or None if it is unknown.
    """
    outer = len(axes) - 2
    datasets = []
    for level in range(levels):
        sides = [side * 2**level for side in cell]
        # the centre of a cell is the mean of the centres of the finer cells that it covers
        centres = [start + (2**level - 1) * side / 2 for start, side in zip(first, cell, strict=True)]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0] * outer + sides},
                    {"type": "translation", "translation": [0.0] * outer + centres},
                ],
            }
        )
    of_space = {"type": "space"} | ({"unit": unit} if unit else {})
    described = [{"name": axis, **({"type": "channel"} if axis == "c" else of_space)} for axis in axes]
    return [{"name": name, "axes": described, "datasets": datasets}]


def mean_of_analysed(block: Array) -> Array:
    """Halve float16 scores (N, h, w): the mean of each 2 x 2 cells that are not NaN; NaN if all are."""
    _, height, width = block.shape
    even = np.pad(block, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan).astype(np.float32)
    total = np.zeros_like(even[:, ::2, ::2])
    count = np.zeros_like(total)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cells = even[:, y::2, x::2]
        analysed = ~np.isnan(cells)
        total += np.where(analysed, cells, 0)
        count += analysed
    with np.errstate(invalid="ignore"):  # 0 / 0 where all are NaN
        mean: Array = (total / count).astype(np.float16)
    return mean


def nearest(block: Array) -> Array:
    """Halve labels by taking every second row and column."""
    return block[..., ::2, ::2]


@dataclass(slots=True)
class _Chunk:
    y: int
    x: int
    cells: Array
    dirty: bool


class PyramidWriter:
    """A writer of blocks to level 0 that updates the coarser levels.

    One chunk of each coarser level is held in memory, and written when a block of another chunk follows or on
    :meth:`flush`. Along a Z-order curve, coarser chunks are therefore never read and written about once each.

    Parameters
    ----------
    levels
        The arrays that :func:`create_levels` made.
    reduce
        Function that halves a block: :func:`mean_of_analysed` or :func:`nearest`.
    """

    def __init__(self, levels: Sequence[zarr.Array[Any]], reduce: Callable[[Array], Array]) -> None:
        self._levels = levels
        self._reduce = reduce
        self._current: dict[int, _Chunk] = {}

    def write(self, y: int, x: int, block: Array) -> None:
        """Write a whole chunk of level 0 (cut off at the edge), whose first cell is (y, x)."""
        bottom, right = y + block.shape[-2], x + block.shape[-1]
        self._levels[0][..., y:bottom, x:right] = block
        finer = _Chunk(y, x, block, dirty=False)
        for level in range(1, len(self._levels)):
            # the cells of this level that cover the changed ones, and the finer cells that they are computed from
            y, x, bottom, right = y // 2, x // 2, -(-bottom // 2), -(-right // 2)
            changed = self._reduce(
                finer.cells[..., 2 * y - finer.y : 2 * bottom - finer.y, 2 * x - finer.x : 2 * right - finer.x]
            )
            finer = self._chunk(level, y, x)
            finer.cells[..., y - finer.y : bottom - finer.y, x - finer.x : right - finer.x] = changed
            finer.dirty = True

    def flush(self) -> None:
        """Write the chunks that are held in memory."""
        for level, chunk in self._current.items():
            self._write(level, chunk)

    def _chunk(self, level: int, y: int, x: int) -> _Chunk:
        side = self._levels[level].chunks[-1]
        y, x = y // side * side, x // side * side
        chunk = self._current.get(level)
        if chunk is None or (chunk.y, chunk.x) != (y, x):
            if chunk is not None:
                self._write(level, chunk)
            cells = np.array(self._levels[level][..., y : y + side, x : x + side])
            chunk = self._current[level] = _Chunk(y, x, cells, dirty=False)
        return chunk

    def _write(self, level: int, chunk: _Chunk) -> None:
        if chunk.dirty:
            height, width = chunk.cells.shape[-2:]
            self._levels[level][..., chunk.y : chunk.y + height, chunk.x : chunk.x + width] = chunk.cells
            chunk.dirty = False
