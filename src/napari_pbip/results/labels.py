"""Labels from scores: the class of a cell as a pure function of the stored scores and the thresholds.

Scores are smoothed over neighbouring cells. Candidates for the label of a cell are then the classes that are present
and whose score reaches the threshold tau = delta * (largest score of the class). The label is the candidate with the
largest score after division by the largest score of its class. A cell without a candidate is not assigned (255). Cells
outside the tissue, or in tiles that were not computed, are not analysed (0). Negative scores do not count (the ReLU of
the released evaluation): a cell without a positive score is not assigned at any delta.

Presence is predicted for each tile, and interpolated between the centres of tiles so that classes do not end at the
borders of tiles. The largest score is a high percentile over the slide or, as published, the maximum over the tile,
which leaves seams. The published evaluation also normalises the map of each stage before fusing, which is not possible
with stored, fused scores. For a model whose scores have a ceiling, the
score of certainty, it is that ceiling for all classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import ConfigError
from napari_pbip.results.smoothing import PaddedScores, deviation, reach
from napari_pbip.results.store import ScoreStore
from napari_pbip.taxonomy import UNASSIGNED, Taxonomy

Labels = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.float64]
Refine = Callable[[npt.NDArray[np.floating], slice, slice], Labels]
"""A function from a rectangle of level-0 cells (rows, columns) and the largest score of each class (N,) to labels."""
_LITTLE = np.float32(1e-6)
_STRIP = 64  # rows that are computed at once, so that temporary arrays stay in the processor's cache


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
    """Return the label of each cell.

    Parameters
    ----------
    scores
        Raw scores, (N, h, w); NaN where not analysed.
    largest
        Largest score of each class over the slide, (N, 1, 1), or over each tile, (N, R, C); each cell uses that of
        the nearest tile.
    delta
        Share of its largest score that a class has to reach, (N,).
    presence
        Probability that each class is present in each of R x C tiles, (N, R, C); NaN where not analysed.
    threshold
        Presence that a class has to reach, after interpolation between the analysed tiles around a cell.
    rows, columns
        Position of each row (h,) and column (w,) of cells among the tile centres; integers are centres.
    tissue
        Whether each cell is tissue, bool (h, w).

    Returns
    -------
    uint8 array
        Labels, (h, w): class n as n + 1, 255 not assigned, 0 not analysed. If scores are equal, the first class wins.
    """
    padded = PaddedScores(scores, slice(0, scores.shape[1]), slice(0, scores.shape[2]))
    return ScoreWindow(padded, largest, presence, rows, columns, tissue).labels(delta, threshold)


@dataclass(frozen=True, slots=True)
class ScoreRows:
    """Scores and presence of some rows of cells, prepared so that they only have to be compared with thresholds."""

    shares: npt.NDArray[np.float32]
    """Score of each class divided by its largest, (N, h, w); NaN in the first class where not analysed."""
    presence: npt.NDArray[np.float32]
    """Probability that the class is present, interpolated between tiles, (N, h, w)."""

    def labels(self, delta: npt.NDArray[np.floating], threshold: float) -> Labels:
        """Return the label of each cell, (h, w), by the delta of each class, (N,), and the threshold of presence."""
        first = self.shares[0]
        best = np.zeros(first.shape, np.float32)
        label = np.zeros(first.shape, np.uint8)
        # arithmetic on whole arrays, because masked assignment is ten times slower
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
    """The scores and presence of a window of cells: all that the rule of labels needs besides its thresholds.

    Parameters
    ----------
    scores
        Raw scores of the window, with what is needed to smooth them.
    largest, presence, rows, columns, tissue
        As in :func:`labels_from_scores`.
    """

    def __init__(
        self,
        scores: PaddedScores,
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
        # a class without a positive score gets an infinite scale, so that no score reaches its delta
        scale = np.where(largest <= 0, np.inf, largest).astype(np.float32)
        self._nearest_row, nearest_column = (
            np.minimum(np.rint(p).astype(np.intp), last)
            for p, last in ((rows, scale.shape[1] - 1), (columns, scale.shape[2] - 1))
        )
        # one scale for the whole slide need not be expanded to all cells
        self._across = scale[:, :, nearest_column] if scale.shape[1:] != (1, 1) else scale
        across = _Interpolate(columns, presence.shape[2])
        self._known = across.spread(known.astype(np.float32))
        self._present = across.spread(present)
        self._down = _Interpolate(rows, presence.shape[1])

    def rows(self, part: slice) -> ScoreRows:
        """Return the prepared scores and presence of some rows of cells."""
        known = self._down.between_rows(self._known, part)  # share of the interpolation weight in analysed tiles
        analysed = self._tissue[part] & (known > 0)
        np.maximum(known, _LITTLE, out=known)
        shares = self._scores.smoothed(part)
        presence = np.empty_like(shares)
        for n, score in enumerate(shares):
            score /= self._across[n, self._nearest_row[part]]
            analysed &= score == score  # not NaN
            np.divide(self._down.between_rows(self._present[n], part), known, out=presence[n])
        shares[0] += np.where(analysed, np.float32(0), np.float32(np.nan))
        return ScoreRows(shares, presence)

    @property
    def strips(self) -> list[slice]:
        """Return slices of rows that are fast to compute at once."""
        height = self._scores.shape[1]
        return [slice(top, min(top + _STRIP, height)) for top in range(0, height, _STRIP)]

    def counted(self, delta: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.float32]:
        """Return scores divided by the largest of their class, (N, h, w); 0 where below these thresholds.

        Cells that were not analysed are NaN in all classes.
        """
        parts = []
        for strip in map(self.rows, self.strips):
            counts = (strip.shares >= delta[:, None, None]) & (strip.presence >= np.float32(threshold))
            shares = np.where(counts, strip.shares, np.float32(0))
            shares[:, np.isnan(strip.shares[0])] = np.nan
            parts.append(shares)
        return np.concatenate(parts, 1)

    def labels(self, delta: npt.NDArray[np.floating], threshold: float) -> Labels:
        """Return the labels at these thresholds, (h, w); see :meth:`ScoreRows.labels`."""
        return np.concatenate([self.rows(part).labels(delta, threshold) for part in self.strips])


class _Interpolate:
    """Linear interpolation between tile centres along one axis."""

    def __init__(self, positions: Positions, tiles: int) -> None:
        self.first = np.minimum(positions.astype(np.intp), tiles - 1)
        self.second = np.minimum(self.first + 1, tiles - 1)
        self.weight = (positions - self.first).astype(np.float32)

    def spread(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Interpolate values of tiles, (..., C), at the positions, (..., w)."""
        low: npt.NDArray[np.float32] = values[..., self.first]
        low += (values[..., self.second] - low) * self.weight
        return low

    def between_rows(self, values: npt.NDArray[np.float32], part: slice) -> npt.NDArray[np.float32]:
        """Interpolate rows of values, (R, w), at a part of the positions, (h, w)."""
        low: npt.NDArray[np.float32] = values[self.first[part]]
        low += (values[self.second[part]] - low) * self.weight[part, None]
        return low


def deltas(taxonomy: Taxonomy, thresholds: ThresholdSettings) -> npt.NDArray[np.float32]:
    """Return the delta of each class, (N,).

    Raises
    ------
    ConfigError
        If ``class_delta`` names a class that the taxonomy does not have.
    """
    for name in thresholds.class_delta:
        if name not in taxonomy.names:
            near = difflib.get_close_matches(name, taxonomy.names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"`thresholds.class_delta` names {name!r}, which is no class; the nearest is {near!r}.")
    return np.array([thresholds.class_delta.get(name, thresholds.delta) for name in taxonomy.names], np.float32)


def label_region(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    level: int,
    y: slice,
    x: slice,
) -> Labels:
    """Compute the labels of a rectangle of one level from scores and corrections, fast enough to follow a slider.

    Parameters
    ----------
    store
        A finished or growing store.
    thresholds
        The thresholds; their percentile is not used, because ``largest`` was computed with it.
    largest
        Largest score of each class over the slide, (N,), from :class:`~napari_pbip.results.largest.LargestScores`;
        not used when ``thresholds.scope`` is ``tile``, unless scores have a ceiling.
    level, y, x
        Level of ``store.scores``, and the rectangle in its cells.
    """
    labels = score_window(store, thresholds, largest, level, y, x).labels(
        deltas(store.taxonomy, thresholds), thresholds.presence
    )
    return store.corrections.over(labels, level, y, x)


def score_window(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    level: int,
    y: slice,
    x: slice,
    presence: npt.NDArray[np.floating] | None = None,
) -> ScoreWindow:
    """Return the scores and presence that :func:`label_region` uses, to try several thresholds on one window.

    Of the thresholds, only the scope and the smoothing are used. ``presence``, (N, rows, columns), replaces that of the
    store.
    """
    rows, columns, tissue = store.tiles_and_tissue(level, y, x)
    window = slice(int(rows[0]), int(rows[-1]) + 2), slice(int(columns[0]), int(columns[-1]) + 2)
    return ScoreWindow(
        _padded_scores(store, thresholds.smoothing_um, level, y, x),
        store.peak(*window) if thresholds.scope == "tile" and store.ceiling is None else largest[:, None, None],
        store.presence(*window) if presence is None else presence[:, *window],
        rows - window[0].start,
        columns - window[1].start,
        tissue,
    )


def _padded_scores(store: ScoreStore, width: float, level: int, y: slice, x: slice) -> PaddedScores:
    """Return the scores of a rectangle, to be smoothed over a width in micrometres.

    Only tissue counts, and what lies around the rectangle counts as far as it matters: parts join without a seam.
    """
    sigma = deviation(width, store.cell_um * 2**level)
    margin, sides = reach(sigma), store.scores[level].shape[1:]
    spans = [part.indices(side) for part, side in zip((y, x), sides, strict=True)]
    outer = [
        slice(max(0, start - margin), min(side, stop + margin))
        for (start, stop, _), side in zip(spans, sides, strict=True)
    ]
    scores = store.read_scores(level, *outer)
    rows, columns = (slice(a - o.start, b - o.start) for (a, b, _), o in zip(spans, outer, strict=True))
    if not sigma:
        return PaddedScores(scores, rows, columns)
    tissue = store.tiles_and_tissue(level, *outer)[2]
    return PaddedScores(scores, rows, columns, tissue & ~np.isnan(scores[0]), sigma)
