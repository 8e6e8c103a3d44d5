"""Metrics of label images against masks, in percent. Counts are summed over all images before dividing.

A pixel whose true value is none of the classes (255 by convention, N in published data sets) is *ignored*, whatever
was predicted there. A pixel whose prediction is none of the classes (background) is a miss of its true class. A class
that occurs neither in the truth nor in the predictions has no metric and does not enter a mean; a class that occurs in
either and is never hit enters with 0.

The published code of PBIP differs: background is one more class, whose pixels are false positives of the class that is
predicted there; this class does not enter the mean; and the mean is NaN if a class is absent. ``Confusion(N + 1)``
with background as class N gives those metrics per class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, minimum_filter

Labels = npt.NDArray[np.integer[Any]]
Figures = npt.NDArray[np.float64]
PROTOCOLS = ("oracle", "predicted")
"""Protocols of evaluation: the classes of an image are its true label (oracle), or predicted by the network. Metrics of
the two are never mixed."""
_OUTSIDE = np.iinfo(np.int32).max


class Confusion:
    """A confusion matrix: counts of (true class, predicted class), summed over images.

    Parameters
    ----------
    classes
        Number of classes N. Labels 0..N-1 are the classes; any other value is none of them.

    Attributes
    ----------
    matrix
        int64 (N + 1, N + 1): rows are the truth, columns the predictions; the last of each is none of the classes.

    Examples
    --------
    >>> confusion = Confusion(2)
    >>> confusion.add(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]))
    >>> confusion.iou.tolist(), confusion.miou
    ([50.0, 50.0], 50.0)
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes + 1, classes + 1), np.int64)

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count the pixels of an image, given as two arrays of one shape; ignored pixels count in the last row.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in size")
        side = self.classes + 1
        pairs = _classes_or(truth, self.classes) * side + _classes_or(predicted, self.classes)
        self.matrix += np.bincount(pairs.ravel(), minlength=side * side).reshape(side, side)

    @property
    def _counts(self) -> tuple[Figures, Figures, Figures]:
        """Return for each class the hits, true pixels and predicted pixels, without ignored pixels."""
        counted = self.matrix[:-1].astype(np.float64)
        return counted.diagonal(), counted.sum(1), counted[:, :-1].sum(0)

    @property
    def iou(self) -> Figures:
        """Intersection over union of each class; NaN if a class does not occur."""
        hits, true, predicted = self._counts
        return _percent(hits, true + predicted - hits)

    @property
    def dice(self) -> Figures:
        """Dice coefficient of each class, 2 |T and P| / (|T| + |P|); NaN if a class does not occur."""
        hits, true, predicted = self._counts
        return _percent(2 * hits, true + predicted)

    @property
    def miou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur; NaN if none does."""
        return _mean(self.iou)

    @property
    def mdice(self) -> float:
        """Mean of :attr:`dice` over the classes that occur; NaN if none does."""
        return _mean(self.dice)

    @property
    def fwiou(self) -> float:
        """Frequency-weighted IoU: the mean of :attr:`iou` weighted by the true pixels of each class."""
        true = self._counts[1]
        return float(np.nansum(self.iou * true) / true.sum()) if true.any() else float("nan")


class BoundaryConfusion:
    """Boundary IoU of each class (Cheng et al., CVPR 2021, "Boundary IoU", Eq. 2), summed over images.

    It is |(T_d and T) and (P_d and P)| / |(T_d and T) or (P_d and P)|, where T_d are the pixels within distance d of
    the contour of the class mask T. As in the authors' code, d is 2 % of the image diagonal and at least one pixel, in
    chessboard distance (d erosions by a 3 x 3 square), and the image border is part of the contour. The border of an
    ignored region is part of the contour too, in truth and prediction alike.

    Attributes
    ----------
    matrix
        int64 (N + 1, N + 1): rows are classes of the true contour, columns of the predicted one; the last is no
        contour.
    """

    def __init__(self, classes: int) -> None:
        self._bands = Confusion(classes)

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count the contours of an image, given as two arrays (H, W)."""
        classes = self._bands.classes
        width = max(1, round(0.02 * float(np.hypot(*truth.shape))))
        true = _classes_or(truth, classes)
        seen = np.where(true < classes, _classes_or(predicted, classes), classes)
        self._bands.add(_band(true, classes, width), _band(seen, classes, width))

    @property
    def iou(self) -> Figures:
        """Boundary IoU of each class; NaN if a class does not occur."""
        matrix = self._bands.matrix.astype(np.float64)
        hits = matrix.diagonal()
        return _percent(hits, matrix.sum(0) + matrix.sum(1) - hits)[:-1]


class SegmentationScores:
    """All metrics of a set of images, which are added one by one.

    Parameters
    ----------
    names
        Class names, in label order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self.confusion = Confusion(len(names))
        self.boundary = BoundaryConfusion(len(names))

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count an image, given as two arrays (H, W) of class indices; see the module for other values.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        self.confusion.add(truth, predicted)
        self.boundary.add(truth, predicted)

    def report(self) -> dict[str, Any]:
        """Return percentages for JSON: ``miou``, ``fwiou``, ``biou``, ``dice`` and ``per_class``.

        ``per_class`` is ``{name: {"iou", "biou", "dice"}}``. The metrics of a class that occurs neither in the truth
        nor in the predictions are None.
        """
        figures = {"iou": self.confusion.iou, "biou": self.boundary.iou, "dice": self.confusion.dice}
        return {
            "miou": _json(self.confusion.miou),
            "fwiou": _json(self.confusion.fwiou),
            "biou": _json(_mean(self.boundary.iou)),
            "dice": _json(self.confusion.mdice),
            "per_class": {
                name: {figure: _json(values[n]) for figure, values in figures.items()}
                for n, name in enumerate(self._names)
            },
        }


def _classes_or(labels: Labels, none: int) -> npt.NDArray[np.int32]:
    """Return labels as int32, with ``none`` for every value that is not one of 0..none-1."""
    whole = labels.astype(np.int32)
    whole[(whole < 0) | (whole > none)] = none
    return whole


def _band(labels: npt.NDArray[np.int32], none: int, width: int) -> npt.NDArray[np.int32]:
    """Return the labels within ``width`` of a change of label or of the image border, and ``none`` elsewhere.

    A pixel survives the erosion of its class if its whole neighbourhood has one label.
    """
    side = 2 * width + 1
    lowest = minimum_filter(labels, side, mode="constant", cval=_OUTSIDE)
    highest = maximum_filter(labels, side, mode="constant", cval=_OUTSIDE)
    return np.where(lowest == highest, none, labels).astype(np.int32)


def _percent(part: Figures, whole: Figures) -> Figures:
    share = np.full(part.shape, np.nan)
    np.divide(100 * part, whole, out=share, where=whole > 0)
    return share


def _mean(figures: Figures) -> float:
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if known.size else float("nan")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
