"""The scores, presence and labels of a score store as dask arrays.

Blocks are computed when they are needed and not kept, so that the array of a growing store always shows its present
state. A napari layer of such an array needs ``cache=False``, or it keeps the first state that it saw.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import compute

from napari_pbip.config import ThresholdSettings
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.labels import Labels, Refine, deltas, score_window
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.lattice import BLOCK, Place, z_order
from napari_pbip.results.store import ScoreStore

Micrometres = tuple[float, float]
_MOST_THREADS = 8
"""Blocks that are computed at once. Each takes about 10 MB with four classes, and more of them would wait for the
disk."""


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A dask array with its position on the slide."""

    data: da.Array
    """The array; its last two axes are y and x."""
    level: int
    """Level of the pyramid, 0 is the finest."""
    scale: Micrometres
    """Distance between values in micrometres, (y, x)."""
    translate: Micrometres
    """Position of the first value in micrometres from the centre of the slide's first level-0 pixel, (y, x)."""


def lazy_scores(store: ScoreStore, level: int = 0) -> LazyArray:
    """Return the raw scores of one level, float16 (N, h, w); NaN where not (yet) analysed.

    Parameters
    ----------
    store
        A finished or growing store.
    level
        Level of the pyramid; 0 is the finest.
    """
    data = _lazy(store.scores[level].shape, BLOCK, np.float16, lambda y, x: store.read_scores(level, y, x))
    return LazyArray(data, level, *_placement(store, 2**level))


def lazy_presence(store: ScoreStore) -> LazyArray:
    """Return the probability of each class in each tile, float16 (N, rows, columns); NaN where not (yet) analysed."""
    lattice = store.lattice
    data = _lazy((len(store.taxonomy), lattice.rows, lattice.columns), BLOCK, np.float16, store.presence)
    return LazyArray(data, 0, *_placement(store, lattice.stride, lattice.tile))


def lazy_labels(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    level: int = 0,
    *,
    largest: npt.NDArray[np.floating] | None = None,
    presence: npt.NDArray[np.floating] | None = None,
    refine: Refine | None = None,
    corrected: bool = True,
) -> LazyArray:
    """Return the labels at these thresholds, uint8 (h, w): class n as n + 1, 255 not assigned, 0 not analysed.

    Parameters
    ----------
    store
        A finished or growing store.
    thresholds
        Thresholds by which scores become labels.
    level
        Level of the pyramid; 0 is the finest. Labels of a coarse level come from its own scores, which are means.
    largest
        Largest score of each class over the slide, (N,); if None, all scores are read now to find it.
    presence
        Presence of each class in each tile, (N, rows, columns), to be used instead of that in the store.
    refine
        Function that computes the labels of level 0 instead, from the same thresholds and presence.
    corrected
        Whether corrections by hand take precedence; False returns the labels of the model alone.

    Raises
    ------
    ConfigError
        If the thresholds name an unknown class.
    OutputError
        If the store is damaged; damage within a block is raised when that block is computed.
    ValueError
        If labels of a coarse level are to be refined.
    """
    if refine is not None and level:
        raise ValueError("labels are refined at level 0 alone")
    delta = deltas(store.taxonomy, thresholds)
    scale = LargestScores(store).percentile(thresholds.percentile) if largest is None else largest

    def label(y: slice, x: slice) -> Labels:
        if refine is not None:
            labels = refine(scale, y, x)
        else:
            window = score_window(store, thresholds, scale, level, y, x, presence)
            labels = window.labels(delta, thresholds.presence)
        return store.corrections.over(labels, level, y, x) if corrected else labels

    return LazyArray(_lazy(store.scores[level].shape[1:], CHUNK, np.uint8, label), level, *_placement(store, 2**level))


def label_blocks(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating] | None = None,
    refine: Refine | None = None,
    *,
    corrected: bool = True,
) -> Generator[tuple[int, int, Labels]]:
    """Yield the labels of a slide block by block: first row and column of cells, and the labels of the block.

    The blocks are those of :func:`analysed_blocks`; parameters and errors are those of :func:`lazy_labels`.
    """
    labels = lazy_labels(store, thresholds, largest=largest, refine=refine, corrected=corrected)
    for (row, column), block in computed(labels.data, analysed_blocks(store), together=refine is None):
        yield row * CHUNK, column * CHUNK, block


def analysed_blocks(store: ScoreStore) -> list[Place]:
    """Return the blocks (row, column) of level-0 labels with finished scores, along a Z-order curve."""
    places = {(y * BLOCK // CHUNK, x * BLOCK // CHUNK) for y, x in np.argwhere(store.written).tolist()}
    return sorted(places, key=z_order)


def computed(
    data: da.Array, places: Iterable[Place], *, together: bool = True
) -> Generator[tuple[Place, npt.NDArray[Any]]]:
    """Yield computed blocks of an array in this order, a few at a time, so that memory is limited.

    Unlike computing the whole array at once, this shows progress, and closing the generator cancels it.

    Parameters
    ----------
    data
        A lazy array of two axes.
    places
        The blocks to compute, each (row, column) as in ``data.blocks``.
    together
        Whether several blocks are computed at once; False if one block uses all cores or much memory.
    """
    waiting, count = iter(places), min(_MOST_THREADS, os.cpu_count() or 1) if together else 1
    with ThreadPoolExecutor(count, thread_name_prefix="napari-pbip-blocks") as pool:
        while some := list(islice(waiting, count)):
            parts = (data.blocks[place] for place in some)
            blocks = compute(*parts, scheduler="threads", pool=pool)  # type: ignore[no-untyped-call]
            yield from zip(some, blocks, strict=True)


def _lazy(
    shape: tuple[int, ...], side: int, dtype: type[np.generic], read: Callable[[slice, slice], npt.NDArray[Any]]
) -> da.Array:
    """Return a dask array whose blocks have this side; axes before the last two are not divided."""
    *outer, _, _ = shape

    def block(block_info: Any) -> npt.NDArray[Any]:
        *_, (top, bottom), (left, right) = block_info[None]["array-location"]
        return read(slice(top, bottom), slice(left, right))

    lazy: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        block,
        chunks=da.core.normalize_chunks((*outer, side, side), shape),  # type: ignore[no-untyped-call]
        dtype=dtype,
        meta=np.empty((0,) * len(shape), dtype),
        name=f"napari-pbip-{uuid.uuid4().hex}",  # unique: dask takes arrays of one name for equal, and stores grow
    )
    return lazy


def _placement(store: ScoreStore, step: int, side: int | None = None) -> tuple[Micrometres, Micrometres]:
    """Return scale and translation of squares of ``side`` level-0 cells (by default ``step``), one every ``step``."""
    scale = step * store.cell_um
    first = ((side or step) * store.cell_um - store.facts.slide.mpp) / 2
    return (scale, scale), (first, first)
