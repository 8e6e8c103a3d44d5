"""How far the class of a place on a slide is ahead of the next one: where a map is sure, and where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from napari_pbip.results.label_files import LabelFacts
from napari_pbip.results.labels import Labels, deltas, score_window
from napari_pbip.results.store import ScoreStore

Map = npt.NDArray[np.float32]
_WHOLE = 0.9
"""Share of a place that must be analysed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A square of a slide."""

    x: float
    """Left edge in level-0 pixels of the slide."""
    y: float
    side: float
    first: int
    """Index of the class with the largest score on average."""
    second: int | None
    """Index of the next one, or None if no other class is present."""
    margin: float
    """Mean margin of the cells in it, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Margins:
    """The margins of a slide at one level of its scores.

    The margin of a cell is the difference between the two largest scores of classes that may be there, each divided by
    the largest score of its class on the slide: 0 if two classes are equally likely, 1 if one alone is.
    """

    shares: Map
    """Score of each class as share of its largest, 0 to 1, (N, h, w); 0 where it is not present, and NaN where nothing
    was analysed."""
    margins: Map
    """The margins, (h, w), 0 to 1; NaN where nothing was analysed. Of a single class, it is the share of its score."""
    labels: Labels
    """Labels of the cells before refinement, (h, w)."""
    cell: float
    """Side of a cell in level-0 pixels of the slide."""

    @classmethod
    def of(cls, store: ScoreStore, facts: LabelFacts, side: int) -> Margins:
        """Compute the margins of a store at the finest level with at most this many cells on its longer side.

        Raises
        ------
        OutputError
            If the store is damaged.
        """
        level = next(
            (n for n, scores in enumerate(store.scores) if max(scores.shape[1:]) <= side), len(store.scores) - 1
        )
        _, height, width = store.scores[level].shape
        largest = np.array(facts.largest, np.float32)
        window = score_window(store, facts.thresholds, largest, level, slice(0, height), slice(0, width))
        delta, presence = deltas(store.taxonomy, facts.thresholds), facts.thresholds.presence
        shares = np.clip(window.counted(np.zeros_like(delta), presence), 0, 1)
        *_, second, first = np.sort(np.concatenate([np.zeros_like(shares[:1]), shares]), 0)
        return cls(
            shares,
            first - second,
            window.labels(delta, presence),
            store.cell_um * 2**level / store.facts.slide.mpp,
        )

    def unsure(self, side: float, count: int) -> list[Place]:
        """Return the squares with the smallest mean margin that do not overlap, least sure first.

        Parameters
        ----------
        side
            Side of a square in level-0 pixels of the slide.
        count
            Number of squares, which are fewer on a small slide.
        """
        return self._best(-self._means(self.margins, side), side, count)

    def typical(self, n: int, side: float, count: int) -> list[Place]:
        """Return the squares that show class n with the largest margin; parameters are those of :meth:`unsure`."""
        own = self._means(np.where(self.labels == n + 1, self.margins, 0), side)
        return self._best(np.where(own > 0, own, -np.inf), side, count)

    def _means(self, values: Map, side: float) -> Map:
        """Return the mean of values in the square around each cell; NaN where too little of it was analysed."""
        cells = self._cells(side)
        known = ~np.isnan(self.margins)
        share = uniform_filter(known.astype(np.float32), cells, mode="constant")
        means = uniform_filter(np.where(known, values, 0), cells, mode="constant")
        return np.divide(means, share, out=np.full_like(means, np.nan), where=share >= _WHOLE)

    def _best(self, values: Map, side: float, count: int) -> list[Place]:
        """Return the squares around the cells with the largest values, with room between them."""
        cells, values = self._cells(side), np.nan_to_num(values, nan=-np.inf, neginf=-np.inf)
        places: list[Place] = []
        while len(places) < count and np.isfinite(values).any():
            row, column = divmod(int(values.argmax()), values.shape[1])
            values[self._around(row, column, cells)] = -np.inf
            places.append(self._place(row, column, side))
        return places

    def _place(self, row: int, column: int, side: float) -> Place:
        inside = self._around(row, column, self._cells(side) // 2)
        means = np.nanmean(self.shares[:, *inside], (1, 2))
        first, second = np.argsort(-np.append(means, 0), kind="stable")[:2].tolist()
        return Place(
            x=(column + 0.5) * self.cell - side / 2,
            y=(row + 0.5) * self.cell - side / 2,
            side=side,
            first=first,
            second=second if second < len(means) and means[second] > 0 else None,
            margin=float(np.nanmean(self.margins[inside])),
        )

    def _cells(self, side: float) -> int:
        return max(1, round(side / self.cell))

    @staticmethod
    def _around(row: int, column: int, reach: int) -> tuple[slice, slice]:
        return slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1)
