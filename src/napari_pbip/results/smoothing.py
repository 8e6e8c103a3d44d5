"""Smoothing of class scores over neighbouring cells, which removes what is too small to be tissue of another class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

_TRUNCATE = 3.0
"""Standard deviations after which the weights of a Gaussian are left out."""
_LEAST = 0.3
"""Standard deviation in cells below which a Gaussian changes next to nothing (0.4 % goes to each neighbour)."""


def deviation(width: float, cell: float) -> float:
    """Return the standard deviation, in cells, of the Gaussian that smooths over a width; 0 if that is too narrow.

    It is that of a square of this width (width / sqrt(12)), so that both average over about the same neighbourhood.

    Parameters
    ----------
    width, cell
        The width to smooth over, and the side of a cell, in the same unit.
    """
    sigma = width / cell / math.sqrt(12)
    return sigma if sigma >= _LEAST else 0.0


def reach(sigma: float) -> int:
    """Return how many cells away a cell can be and still count."""
    return int(_TRUNCATE * sigma + 0.5)


@dataclass(frozen=True, slots=True)
class PaddedScores:
    """Scores of a rectangle with those of the cells around it, which count in its smoothed scores.

    It is smoothed in parts of some rows, which may be computed in several threads.
    """

    scores: npt.NDArray[np.floating]
    """Class scores of the rectangle and of what lies around it, (N, H, W)."""
    rows: slice
    """Rows of the rectangle among these."""
    columns: slice
    """Columns of the rectangle among these."""
    counts: npt.NDArray[np.bool_] | None = None
    """Whether a cell counts, (H, W); only needed for smoothing."""
    sigma: float = 0.0
    """Standard deviation of the Gaussian in cells; 0 if nothing is smoothed."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes, rows and columns of the rectangle."""
        return len(self.scores), self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def smoothed(self, part: slice) -> npt.NDArray[np.float32]:
        """Return the smoothed scores of some rows of the rectangle, (N, h, w), a new array."""
        start, stop, _ = part.indices(self.shape[1])
        above = min(self.rows.start + start, reach(self.sigma))
        around = slice(self.rows.start + start - above, self.rows.start + stop + reach(self.sigma))
        scores = self.scores[:, around]
        if self.counts is not None and self.sigma:
            scores = smooth(scores, self.counts[around], self.sigma)
        return scores[:, above : above + stop - start, self.columns].astype(np.float32)


def smooth(scores: npt.NDArray[np.floating], counts: npt.NDArray[np.bool_], sigma: float) -> npt.NDArray[np.float32]:
    """Return Gaussian means of the scores over the cells that count.

    Cells that do not count, such as glass, contribute nothing; near them and at the edges the weights of the other
    cells are scaled to a sum of one.

    Parameters
    ----------
    scores
        Class scores, shape (N, h, w).
    counts
        Whether a cell counts, bool (h, w).
    sigma
        Standard deviation in cells.

    Returns
    -------
    float32 array
        Shape (N, h, w). Cells that do not count keep their score.
    """
    weight = _blur(counts.astype(np.float32), sigma)
    np.maximum(weight, np.float32(1e-6), out=weight)
    smoothed = scores.astype(np.float32)
    for score in smoothed:
        mean = _blur(np.where(counts, score, np.float32(0)), sigma)
        mean /= weight
        np.copyto(score, mean, where=counts)
    return smoothed


def _blur(values: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Gaussian sums, with zeros beyond the edges."""
    for axis in (0, 1):
        values = gaussian_filter1d(values, sigma, axis, mode="constant", truncate=_TRUNCATE)
    return values
