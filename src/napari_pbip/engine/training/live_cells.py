"""The cells of a live map: scores of squares side by side, which become labels after smoothing as on a slide."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import numpy.typing as npt

from napari_pbip.results.smoothing import deviation, reach, smooth
from napari_pbip.slides import Position

Scores = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_AROUND = (-1, 0, 1)


class LiveCells:
    """Scores of the squares that have arrived so far.

    A square is smoothed together with its eight neighbours, so that no seam is seen between them. What is farther away
    than one square does not count, which matters for no width that removes single cells.

    Parameters
    ----------
    width
        Width over which scores are smoothed, as a share of the side of a square.
    """

    def __init__(self, width: float) -> None:
        self._width = width
        self._scores: dict[Position, Scores] = {}
        self._tissue: dict[Position, Bools] = {}

    def add(self, place: Position, scores: Scores, tissue: Bools) -> None:
        """Add a square.

        Parameters
        ----------
        place
            Its place; neighbours differ by one.
        scores
            Scores of each class, (N, h, w), of one size for all squares.
        tissue
            Whether each cell is tissue, (h, w).
        """
        self._scores[place], self._tissue[place] = scores, tissue

    def touched(self, places: Iterable[Position]) -> list[Position]:
        """Return the squares that have arrived whose labels depend on these ones."""
        around = {(x + dx, y + dy) for x, y in places for dx, dy in product(_AROUND, repeat=2)}
        return [place for place in self._scores if place in around]

    def best(self, place: Position) -> npt.NDArray[np.intp]:
        """Return the index of the class with the largest smoothed score of each cell, (h, w); -1 without tissue."""
        scores = self._scores[place]
        if sigma := deviation(self._width * scores.shape[1], 1):
            scores = self._smoothed(place, sigma)
        return np.where(self._tissue[place], scores.argmax(0), -1)

    def _smoothed(self, place: Position, sigma: float) -> Scores:
        own, (x, y) = self._scores[place], place
        height, width = own.shape[1:]
        margin = min(reach(sigma), height, width)
        empty, glass = np.zeros_like(own), np.zeros((height, width), np.bool_)
        around = [[(x + dx, y + dy) for dx in _AROUND] for dy in _AROUND]
        scores = np.block([[self._scores.get(one, empty) for one in row] for row in around])
        tissue = np.block([[self._tissue.get(one, glass) for one in row] for row in around])
        rows, columns = (slice(side - margin, 2 * side + margin) for side in (height, width))
        smoothed = smooth(scores[:, rows, columns], tissue[rows, columns], sigma)
        return smoothed[:, margin : margin + height, margin : margin + width]
