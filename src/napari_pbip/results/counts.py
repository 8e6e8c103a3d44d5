"""Numbers of cells of each label, on the slide and in each of its regions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.results.labels import Labels
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED

Counts = npt.NDArray[np.int64]


class LabelCounts:
    """The number of cells of each label value, and of those by hand, to which blocks of labels are added.

    A cell is counted in every region that its centre lies in. Labels have to be those of the store's present regions,
    so that cells that do not count are not analysed.

    Parameters
    ----------
    store
        The store that the labels belong to.

    Attributes
    ----------
    cells
        Number of level-0 cells of each value, (256,): on the slide, by the name ``WHOLE``, and in each region.
    by_hand
        Number of those whose label is a correction by hand, likewise.
    """

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        names = (WHOLE, *store.regions.shapes)
        self.cells: dict[str, Counts] = {name: np.zeros(256, np.int64) for name in names}
        self.by_hand: dict[str, Counts] = {name: np.zeros(256, np.int64) for name in names}

    def add(self, y: int, x: int, labels: Labels, level: int = 0) -> None:
        """Add the labels of a rectangle of one level, whose first cell is (y, x)."""
        height, width = labels.shape
        place = level, slice(y, y + height), slice(x, x + width)
        for name, counts in self.cells.items():
            inside = labels if name == WHOLE else np.where(self._store.cells_in(name, *place), labels, NOT_ANALYSED)
            counts += np.bincount(inside.ravel(), minlength=256) * 4**level
            self.by_hand[name] += self._store.corrections.counts(inside, *place) * 4**level
