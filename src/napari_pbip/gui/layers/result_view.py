"""The display of a score store: labels of any part at any zoom, computed from the scores on demand."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.layers.display import Display
from napari_pbip.results import label_region
from napari_pbip.results.areas import Area, area_rows
from napari_pbip.results.counts import LabelCounts
from napari_pbip.results.labels import ScoreRows, deltas, score_window
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.view import ViewedStore

Labels = npt.NDArray[np.uint8]
ALL = slice(None)


class LabelLevel:
    """One level of labels, uint8, with what napari needs of an array: shape, dtype, ndim, chunks and slicing."""

    dtype = np.dtype(np.uint8)
    ndim = 2
    chunks = (BLOCK, BLOCK)

    def __init__(self, view: ResultView, index: int) -> None:
        self.view = view
        _, height, width = view.store.scores[index].shape
        self.shape = (height, width)
        self._index = index

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> Labels:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (2 - len(key))
        if not all(isinstance(part, slice) for part in key):  # single cells and lists of them are rare: compute all
            picked: Labels = self.view.read(self._index, ALL, ALL)[key]
            return picked
        y, x = key
        return self.view.read(self._index, slice(y.start, y.stop), slice(x.start, x.stop))[:: y.step, :: x.step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Labels:
        return self[:, :].astype(dtype or self.dtype, copy=False)


class ResultView:
    """The labels of a score store as they are displayed.

    Attributes
    ----------
    store
        The open store.
    display
        The display settings, with the thresholds.
    largest
        Largest score of each class, (N,).
    levels
        Levels for napari, finest first. The last one is a small array that is changed in place, because napari reads
        the coarsest level once and keeps it.
    micrometres
        Side of a screen pixel in micrometres.
    """

    def __init__(self, store: ViewedStore, display: Display) -> None:
        self.store = store
        self.display = display
        self._percentile = display.thresholds.percentile
        self.largest = store.guess_largest(self._percentile)
        self.micrometres = 0.0
        self._kept: tuple[tuple[Any, ...], list[ScoreRows]] | None = None
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="napari-pbip-labels")
        finer = [LabelLevel(self, index) for index in range(len(store.scores))]
        self._coarsest = self._tiny()
        self.levels: list[LabelLevel | Labels] = [*finer, self._coarsest]

    def __deepcopy__(self, memo: dict[int, Any]) -> ResultView:
        """Copy for a duplicated layer: open the store again, with a separate copy of the display settings."""
        view = ResultView(ViewedStore.open(self.store.path), replace(self.display))
        memo[id(self._coarsest)] = view._coarsest
        return view

    @property
    def thresholds(self) -> ThresholdSettings:
        """The thresholds of the classes of this store."""
        return self.display.thresholds.of_classes(self.store.taxonomy.names)

    def renew_thresholds(self) -> None:
        """Use the present thresholds of :attr:`display`."""
        if self.thresholds.percentile != self._percentile:
            self._percentile = self.thresholds.percentile
            self.largest = self.store.guess_largest(self._percentile)

    def read(self, index: int, y: slice, x: slice) -> Labels:
        """Return the labels of a rectangle of a level, at the resolution of the screen."""
        height, width = self.store.scores[index].shape[1:]
        (y0, y1, _), (x0, x1, _) = y.indices(height), x.indices(width)
        level = self.drawn_level(index)
        if level == index:
            return self._labels_again(level, slice(y0, y1), slice(x0, x1))
        shift = level - index
        top, left = y0 >> shift, x0 >> shift
        coarse = self._labels_again(level, slice(top, ((y1 - 1) >> shift) + 1), slice(left, ((x1 - 1) >> shift) + 1))
        labels: Labels = coarse[(np.arange(y0, y1) >> shift) - top][:, (np.arange(x0, x1) >> shift) - left]
        return labels

    def labels(self, level: int, y: slice, x: slice) -> Labels:
        """Return the labels of a rectangle of one level of the store."""
        return label_region(self.store, self.thresholds, self.largest, level, y, x)

    def label_and_shares(self, level: int, row: int, column: int) -> tuple[int, npt.NDArray[np.float32]]:
        """Return the label of a cell, and the share of its largest score that each class has there, (N,)."""
        cell = slice(row, row + 1), slice(column, column + 1)
        thresholds = self.thresholds
        found = score_window(self.store, thresholds, self.largest, level, *cell).rows(ALL)
        label = found.labels(deltas(self.store.taxonomy, thresholds), thresholds.presence)
        return int(self.store.corrections.over(label, level, *cell)[0, 0]), found.shares[:, 0, 0]

    def _labels_again(self, level: int, y: slice, x: slice) -> Labels:
        """Return the labels of a rectangle, and keep its scores because often only thresholds change between calls."""
        thresholds = self.thresholds
        wanted = (level, y, x, thresholds.scope, thresholds.smoothing_um, self.largest.tobytes(), self.store.version)
        if self._kept is None or self._kept[0] != wanted:
            found = score_window(self.store, thresholds, self.largest, level, y, x)
            self._kept = wanted, list(self._pool.map(found.rows, found.strips))
        strips = self._kept[1]
        if self.store.lacking:
            self._kept = None  # blurred scores are not kept
        delta = deltas(self.store.taxonomy, thresholds)
        labels = np.concatenate(list(self._pool.map(lambda strip: strip.labels(delta, thresholds.presence), strips)))
        return self.store.corrections.over(labels, level, y, x)

    def drawn_level(self, index: int) -> int:
        """Return the level of the store from which a level for napari is computed."""
        return max(min(index, len(self.store.scores) - 1), self._useful_level())

    def areas(self) -> list[Area]:
        """Return the table of areas, estimated from a coarse level."""
        level = self.store.coarse
        counts = LabelCounts(self.store)
        counts.add(0, 0, self.labels(level, ALL, ALL), level)
        return area_rows(self.store, counts.cells, counts.by_hand)

    def renew_coarsest(self) -> None:
        """Update the level that napari keeps."""
        self._coarsest[:] = self._tiny()

    def close(self) -> None:
        """Stop the threads of the store."""
        self._pool.shutdown()
        self.store.close()

    def _tiny(self) -> Labels:
        return np.ascontiguousarray(self.labels(len(self.store.scores) - 1, ALL, ALL)[::2, ::2])

    def _useful_level(self) -> int:
        """Return the level whose cells are about as large as a screen pixel; napari may request one twice as fine."""
        cells = self.micrometres / self.store.cell_um
        return min(round(math.log2(cells)), len(self.store.scores) - 1) if cells > 1 else 0
