"""A score store as dask arrays: its scores, presence and labels, computed part by part when somebody asks for them.

What is computed is not kept, so an array of a store that grows shows what is there at the time. In napari give its
layer ``cache=False`` then, or it keeps what it saw first.
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
"""Blocks at a time: each takes some 10 MB with four classes, and the disk is the limit soon."""


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A dask array, and where it lies on the slide."""

    data: da.Array
    """Its last two axes are y and x."""
    level: int
    """Level of the pyramid, 0 is the finest."""
    scale: Micrometres
    """Micrometres from one value to the next, y and x."""
    translate: Micrometres
    """Micrometres from the centre of the slide's first level-0 pixel to that of the first value, y and x."""


def lazy_scores(store: ScoreStore, level: int = 0) -> LazyArray:
    """Raw scores of one level, float16 (N, h, w); NaN = not analysed (yet).

    Parameters
    ----------
    store
        Finished or growing.
    level
        Of the pyramid, 0 is the finest.
    """
    data = _lazy(store.scores[level].shape, BLOCK, np.float16, lambda y, x: store.read_scores(level, y, x))
    return LazyArray(data, level, *_placement(store, 2**level))


def lazy_presence(store: ScoreStore) -> LazyArray:
    """Probability that each class is present in each tile, float16 (N, rows, columns); NaN = not analysed (yet)."""
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
) -> LazyArray:
    """Labels that thresholds give, uint8 (h, w): class n as n + 1, 255 not assigned, 0 not analysed.

    Parameters
    ----------
    store
        Finished or growing.
    thresholds
        From scores to labels.
    level
        Of the pyramid, 0 is the finest. A coarse level is labelled by its own scores, which are means.
    largest
        Largest score of each class over the slide, (N,), if it is known; else every score is read for it now.
    presence
        Takes the place of what the store says of its tiles, (N, rows, columns).
    refine
        What makes the labels of level 0 instead, from the same thresholds and presence.

    Raises
    ------
    ConfigError
        If the thresholds name a class that there is not.
    OutputError
        If the store is damaged; of what is damaged in a block its computation tells.
    ValueError
        If labels of a coarse level are to be refined.
    """
    if refine is not None and level:
        raise ValueError("labels are refined at level 0 alone")
    delta = deltas(store.taxonomy, thresholds)
    scale = LargestScores(store).percentile(thresholds.percentile) if largest is None else largest

    def label(y: slice, x: slice) -> Labels:
        if refine is not None:
            return refine(scale, y, x)
        return score_window(store, thresholds, scale, level, y, x, presence).labels(delta, thresholds.presence)

    return LazyArray(_lazy(store.scores[level].shape[1:], CHUNK, np.uint8, label), level, *_placement(store, 2**level))


def label_blocks(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating] | None = None,
    refine: Refine | None = None,
) -> Generator[tuple[int, int, Labels]]:
    """The labels of a whole slide, block by block: first row and column of cells, and the labels there.

    Blocks are those of :func:`analysed_blocks`; parameters and errors are those of :func:`lazy_labels`.
    """
    labels = lazy_labels(store, thresholds, largest=largest, refine=refine)
    for (row, column), block in computed(labels.data, analysed_blocks(store), together=refine is None):
        yield row * CHUNK, column * CHUNK, block


def analysed_blocks(store: ScoreStore) -> list[Place]:
    """Blocks of level-0 labels (row, column) in which something is finished, along a Z-order curve."""
    places = {(y * BLOCK // CHUNK, x * BLOCK // CHUNK) for y, x in np.argwhere(store.written).tolist()}
    return sorted(places, key=z_order)


def computed(
    data: da.Array, places: Iterable[Place], *, together: bool = True
) -> Generator[tuple[Place, npt.NDArray[Any]]]:
    """Blocks of an array, in this order, a few at a time: memory is bounded, and closing the generator ends the work.

    Computing the whole array at once would tell nothing on the way and could not be cancelled.

    Parameters
    ----------
    data
        A lazy array of two axes.
    places
        Its blocks, each (row, column) as in ``data.blocks``.
    together
        Compute several at a time; not where one block takes all cores, or much memory, by itself.
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
    """An array of blocks of that side that are read when they are asked for; axes before the last two are whole."""
    *outer, _, _ = shape

    def block(block_info: Any) -> npt.NDArray[Any]:
        *_, (top, bottom), (left, right) = block_info[None]["array-location"]
        return read(slice(top, bottom), slice(left, right))

    lazy: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        block,
        chunks=da.core.normalize_chunks((*outer, side, side), shape),  # type: ignore[no-untyped-call]
        dtype=dtype,
        meta=np.empty((0,) * len(shape), dtype),
        name=f"napari-pbip-{uuid.uuid4().hex}",  # its own: dask takes arrays of one name for equal, and stores grow
    )
    return lazy


def _placement(store: ScoreStore, step: int, side: int | None = None) -> tuple[Micrometres, Micrometres]:
    """Scale and translation of squares of level-0 cells: one every ``step``, of that side if no other is given."""
    scale = step * store.cell_um
    first = ((side or step) * store.cell_um - store.facts.slide.mpp) / 2
    return (scale, scale), (first, first)
