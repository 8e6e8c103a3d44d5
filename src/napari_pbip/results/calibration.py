"""Calibration of probabilities: whether what is predicted with 70 % is true in 70 of 100 cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10
"""Bins of equal width that probabilities are counted in."""


class Calibration:
    """Predicted probabilities and what is true, which are added array by array, in bins of probability."""

    def __init__(self) -> None:
        self._cases = np.zeros(BINS, np.int64)
        self._predicted = np.zeros(BINS)
        self._true = np.zeros(BINS)

    def add(self, probability: npt.NDArray[np.floating[Any]], true: npt.NDArray[np.bool_]) -> None:
        """Add probabilities, 0 to 1, and whether each came true, in arrays of one shape."""
        predicted = probability.ravel().astype(np.float64)
        bins = np.minimum((predicted * BINS).astype(np.intp), BINS - 1)
        self._cases += np.bincount(bins, minlength=BINS)
        self._predicted += np.bincount(bins, predicted, BINS)
        self._true += np.bincount(bins, true.ravel(), BINS)

    def report(self) -> dict[str, Any] | None:
        """Return the calibration curve for JSON, or None if there are no cases.

        Returns
        -------
        dict
            ``bins``, those that have cases: ``predicted`` mean probability and ``observed`` share in percent, and
            number of ``cases``; and ``ece``, the expected calibration error: the mean over all cases of the difference
            between predicted and observed share of their bin, in percent.
        """
        has = self._cases > 0
        if not has.any():
            return None
        cases, predicted, observed = self._cases[has], self._predicted[has], self._true[has]
        rows = zip(100 * predicted / cases, 100 * observed / cases, cases, strict=True)
        return {
            "ece": 100 * float(np.abs(predicted - observed).sum() / cases.sum()),
            "bins": [{"predicted": float(p), "observed": float(o), "cases": int(n)} for p, o, n in rows],
        }
