"""Scores to labels: which class a cell shows, as a pure function of what is stored and the thresholds.

The label of a cell is the best among the classes that are present and reach their threshold
tau = delta * (largest score of the class), compared after division by that largest score; else it is not assigned
(255). Outside the tissue and where no network looked it is "not analysed" (0). Negative scores are no
evidence (the ReLU of the released evaluation): a cell without a positive score is not assigned at any delta.

Presence is predicted a tile. Between the centres of tiles it is interpolated, so that a class does not end at
the border of a tile. The largest score is a high percentile over the slide, or, as published, the maximum over
the tile (which leaves seams; the published evaluation also stretches each stage's map by itself before fusing,
which stored scores cannot). Of a model that has a score for certainty it is that score, the same for all classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import ConfigError
from napari_pbip.results.store import ScoreStore
from napari_pbip.taxonomy import UNASSIGNED, Taxonomy

Labels = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.float64]
Refine = Callable[[npt.NDArray[np.floating], slice, slice], Labels]
"""Labels of a rectangle of level-0 cells (rows, columns), given the largest score of each class over the slide (N,)."""
UNASSIGNED_NAME = "not assigned"
UNASSIGNED_RGB = (190, 190, 190)
_LITTLE = np.float32(1e-6)
_STRIP = 64  # rows at a time: the temporaries stay in the processor's cache


def labels_from_scores(
    scores: npt.NDArray[np.floating],
    largest: npt.NDArray[np.floating],
    delta: npt.NDArray[np.floating],
    presence: npt.NDArray[np.floating],
    threshold: float,
    rows: Positions,
    columns: Positions,
    tissue: npt.NDArray[np.bool_],
) -> Labels:
    """Label of each cell.

    Parameters
    ----------
    scores
        Raw scores, (N, h, w); NaN = not analysed.
    largest
        Largest score of each class: over the slide (N, 1, 1), or over each tile (N, R, C), of which a cell takes
        the nearest.
    delta
        Share of the largest score that a class has to reach, (N,).
    presence
        Probability that each class is present in each of R x C tiles, (N, R, C); NaN = not analysed.
    threshold
        Presence that a class needs, after interpolation between the analysed tiles around a cell.
    rows, columns
        Position of each row (h,) and column (w,) of cells among the tile centres; integers are centres.
    tissue
        Whether a cell is tissue, (h, w).

    Returns
    -------
    uint8 array
        (h, w): class n as n + 1, 255 not assigned, 0 not analysed. Of equally good classes the first wins.
    """
    return ScoreWindow(scores, largest, presence, rows, columns, tissue).labels(delta, threshold)


@dataclass(frozen=True, slots=True)
class ScoreRows:
    """What some rows of cells show, so that thresholds are compared with it and nothing else is left to do."""

    shares: npt.NDArray[np.float32]
    """Score of each class as a share of its largest, (N, h, w); NaN in the first class where nothing was analysed."""
    presence: npt.NDArray[np.float32]
    """Probability that the class is present, between the tiles around, (N, h, w)."""

    def labels(self, delta: npt.NDArray[np.floating], threshold: float) -> Labels:
        """Label of each cell, (h, w), by the delta (N,) that a class has to reach, and the presence."""
        first = self.shares[0]
        best = np.zeros(first.shape, np.float32)
        label = np.zeros(first.shape, np.uint8)
        # arithmetic on whole arrays instead of masked assignment, which is ten times slower
        for n, (share, presence) in enumerate(zip(self.shares, self.presence, strict=True)):
            wins = share >= delta[n]
            wins &= share > best
            wins &= presence >= np.float32(threshold)
            np.fmax(best, share * wins, out=best)
            np.maximum(label, wins.view(np.uint8) * np.uint8(n + 1), out=label)  # a later win has a larger value
        label |= (label == 0).view(np.uint8) * np.uint8(UNASSIGNED)
        label *= (first == first).view(np.uint8)  # not NaN
        return label


class ScoreWindow:
    """What each class has to show for itself in each cell: all of the rule but its thresholds.

    Parameters
    ----------
    scores, largest, presence, rows, columns, tissue
        As in :func:`labels_from_scores`.
    """

    def __init__(
        self,
        scores: npt.NDArray[np.floating],
        largest: npt.NDArray[np.floating],
        presence: npt.NDArray[np.floating],
        rows: Positions,
        columns: Positions,
        tissue: npt.NDArray[np.bool_],
    ) -> None:
        self._scores = scores
        self._tissue = tissue
        known = ~np.isnan(presence[0])
        present = np.where(known, presence, 0).astype(np.float32)
        # a class that nowhere scores above zero gets an infinite scale: no score reaches its delta
        scale = np.where(largest <= 0, np.inf, largest).astype(np.float32)
        self._nearest_row, nearest_column = (
            np.minimum(np.rint(p).astype(np.intp), last)
            for p, last in ((rows, scale.shape[1] - 1), (columns, scale.shape[2] - 1))
        )
        # one scale for the slide needs no picture of itself
        self._across = scale[:, :, nearest_column] if scale.shape[1:] != (1, 1) else scale
        across = _Interpolate(columns, presence.shape[2])
        self._known = across.spread(known.astype(np.float32))
        self._present = across.spread(present)
        self._down = _Interpolate(rows, presence.shape[1])

    def rows(self, part: slice) -> ScoreRows:
        """Of some rows of cells."""
        known = self._down.between_rows(self._known, part)  # share of the weight of the tiles around
        analysed = self._tissue[part] & (known > 0)
        np.maximum(known, _LITTLE, out=known)
        shares = self._scores[:, part].astype(np.float32)
        presence = np.empty_like(shares)
        for n, score in enumerate(shares):
            score /= self._across[n, self._nearest_row[part]]
            analysed &= score == score  # not NaN
            np.divide(self._down.between_rows(self._present[n], part), known, out=presence[n])
        shares[0] += np.where(analysed, np.float32(0), np.float32(np.nan))
        return ScoreRows(shares, presence)

    @property
    def strips(self) -> list[slice]:
        """Rows that are best worked on at once."""
        height = self._scores.shape[1]
        return [slice(top, min(top + _STRIP, height)) for top in range(0, height, _STRIP)]

    def counted(self, delta: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.float32]:
        """Share of its largest score of each class that reaches these thresholds, else 0, (N, h, w).

        NaN, in all classes, where nothing was analysed.
        """
        parts = []
        for strip in map(self.rows, self.strips):
            counts = (strip.shares >= delta[:, None, None]) & (strip.presence >= np.float32(threshold))
            shares = np.where(counts, strip.shares, np.float32(0))
            shares[:, np.isnan(strip.shares[0])] = np.nan
            parts.append(shares)
        return np.concatenate(parts, 1)

    def labels(self, delta: npt.NDArray[np.floating], threshold: float) -> Labels:
        """The labels that these thresholds give, (h, w); see :meth:`ScoreRows.labels`."""
        return np.concatenate([self.rows(part).labels(delta, threshold) for part in self.strips])


class _Interpolate:
    """Linear interpolation between tile centres along one axis."""

    def __init__(self, positions: Positions, tiles: int) -> None:
        self.first = np.minimum(positions.astype(np.intp), tiles - 1)
        self.second = np.minimum(self.first + 1, tiles - 1)
        self.weight = (positions - self.first).astype(np.float32)

    def spread(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Values of tiles (..., C) at the positions, (..., w)."""
        low: npt.NDArray[np.float32] = values[..., self.first]
        low += (values[..., self.second] - low) * self.weight
        return low

    def between_rows(self, values: npt.NDArray[np.float32], part: slice) -> npt.NDArray[np.float32]:
        """Rows of values (R, w) at a part of the positions, (h, w)."""
        low: npt.NDArray[np.float32] = values[self.first[part]]
        low += (values[self.second[part]] - low) * self.weight[part, None]
        return low


def deltas(taxonomy: Taxonomy, thresholds: ThresholdSettings) -> npt.NDArray[np.float32]:
    """Delta of each class, (N,).

    Raises
    ------
    ConfigError
        If ``class_delta`` names a class that the taxonomy does not have.
    """
    for name in thresholds.class_delta:
        if name not in taxonomy.names:
            near = difflib.get_close_matches(name, taxonomy.names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"thresholds.class_delta names {name!r}, which is no class; the nearest is {near!r}.")
    return np.array([thresholds.class_delta.get(name, thresholds.delta) for name in taxonomy.names], np.float32)


def label_region(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    level: int,
    y: slice,
    x: slice,
) -> Labels:
    """Labels of a rectangle of one level, computed from the scores: fast enough to follow a slider.

    Parameters
    ----------
    store
        Finished or growing.
    thresholds
        All but the percentile, which ``largest`` is the result of.
    largest
        Largest score of each class over the slide, (N,), from :class:`~napari_pbip.results.largest.LargestScores`;
        not used when ``thresholds.scope`` is ``tile``, unless scores have a ceiling.
    level, y, x
        Level of ``store.scores`` and the rectangle in its cells.
    """
    return score_window(store, thresholds, largest, level, y, x).labels(
        deltas(store.taxonomy, thresholds), thresholds.presence
    )


def score_window(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    level: int,
    y: slice,
    x: slice,
    presence: npt.NDArray[np.floating] | None = None,
) -> ScoreWindow:
    """What :func:`label_region` decides by, for those who change thresholds alone: of these the scope is looked at.

    ``presence`` takes the place of what the store says of all its tiles, (N, rows, columns).
    """
    rows, columns, tissue = store.tiles_and_tissue(level, y, x)
    window = slice(int(rows[0]), int(rows[-1]) + 2), slice(int(columns[0]), int(columns[-1]) + 2)
    return ScoreWindow(
        store.read_scores(level, y, x),
        store.peak(*window) if thresholds.scope == "tile" and store.ceiling is None else largest[:, None, None],
        store.presence(*window) if presence is None else presence[:, *window],
        rows - window[0].start,
        columns - window[1].start,
        tissue,
    )
