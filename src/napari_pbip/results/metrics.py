"""Metrics of label images against masks, in percent. Counts are summed over all images before dividing.

In a mask, 0 to N - 1 are the classes, N is background, and any other value (255 by convention) is not known: such a
pixel is *ignored*, whatever was predicted there. A prediction of none of the classes is background. It is a miss if the
pixel has a class, and a class that is predicted on background is a false positive. A class that occurs neither in the
truth nor in the predictions has no metric and does not enter a mean; a class that occurs in either and is never hit
enters with 0. The formulas are in ``docs/how-to/evaluate-a-model.md``.

The published code of PBIP differs: background is one more class, whose pixels are false positives of the class that is
predicted there; this class does not enter the mean; and the mean is NaN if a class is absent. :func:`count` with
``classes=N + 1`` gives those metrics per class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, minimum_filter

Labels = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """What an evaluation takes from the mask that it compares with."""

    title: str
    about: str
    """What is taken from the mask, as a sentence."""
    classes_given: bool
    """Whether the classes of an image are its true ones, instead of those that the network predicts."""
    background_given: bool
    """Whether pixels whose true value is background are ignored, as if they had been predicted."""

    def truth(self, mask: Labels, classes: int) -> Labels:
        """Return a mask in which background is ignored if it is given."""
        return np.where(mask == classes, 255, mask) if self.background_given else mask


PROTOCOLS: Mapping[str, Protocol] = {
    "oracle": Protocol(
        "oracle (class labels)",
        "The mask says which classes an image shows and where its background is, as in published evaluations.",
        classes_given=True,
        background_given=True,
    ),
    "oracle_background": Protocol(
        "oracle (background)",
        "The mask says where the background is; the network says which classes an image shows.",
        classes_given=False,
        background_given=True,
    ),
    "predicted": Protocol(
        "predicted",
        "Nothing comes from the mask, as on a new slide.",
        classes_given=False,
        background_given=False,
    ),
}
"""Protocols of evaluation. Metrics of two protocols are never mixed."""
MEASURES: Mapping[str, str] = {
    "miou": "mIoU",
    "fwiou": "FwIoU",
    "biou": "boundary IoU",
    "dice": "Dice",
    "accuracy": "pixel accuracy",
}
"""Attributes of :class:`Metrics` that are one figure for all classes, with their headings."""
_OUTSIDE = np.iinfo(np.int32).max


def count(truth: Labels, predicted: Labels, classes: int) -> Counts:
    """Count the pixels of an image from which its metrics are computed.

    Contours are those of boundary IoU (Cheng et al., CVPR 2021, "Boundary IoU", Eq. 2): the pixels of a class within
    distance d of its border. As in the authors' code, d is 2 % of the image diagonal and at least one pixel, in
    chessboard distance (d erosions by a 3 x 3 square), and the image border is part of the contour. The border of an
    ignored region is part of the contour too, in truth and prediction alike.

    Parameters
    ----------
    truth, predicted
        The labels, (H, W); see the module for their values.
    classes
        Number of classes, N.

    Returns
    -------
    int64 array
        (2, N + 1, N + 1): pixels, and pixels on contours, by true class (rows) and predicted class (columns). The last
        row and column are background, or no contour. Ignored pixels are not counted.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    whole: Counts = count_squares(truth, predicted, classes, max(truth.shape))[0]
    return whole


def count_squares(truth: Labels, predicted: Labels, classes: int, side: int) -> Counts:
    """Count as :func:`count` does, in each square of ``side`` pixels into which an image is divided: (U, 2, ...)."""
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in size")
    known = (truth >= 0) & (truth <= classes)
    true = _classes_or(truth, classes)
    seen = np.where(known, _classes_or(predicted, classes), classes)
    width = max(1, round(0.02 * float(np.hypot(*truth.shape))))
    contours = _band(true, classes, width), _band(seen, classes, width)
    return np.array(
        [
            [_pairs(known[place], a[place], b[place], classes + 1) for a, b in ((true, seen), contours)]
            for place in _squares(truth.shape, side)
        ]
    )


class Metrics:
    """Metrics of counts, in percent.

    Parameters
    ----------
    counts
        Counts as :func:`count` returns them, (..., 2, N + 1, N + 1); the leading axes, of images or resamples, are also
        those of the metrics.

    Examples
    --------
    >>> metrics = Metrics(count(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]), 2))
    >>> metrics.class_iou.tolist(), float(metrics.miou)
    ([50.0, 50.0], 50.0)
    """

    def __init__(self, counts: npt.NDArray[Any]) -> None:
        self.confusion: Figures = counts[..., 0, :, :].astype(np.float64)
        self.contours: Figures = counts[..., 1, :, :].astype(np.float64)

    @property
    def class_iou(self) -> Figures:
        """Intersection over union of each class, (..., N); NaN if a class does not occur."""
        return _iou(self.confusion)

    @property
    def class_biou(self) -> Figures:
        """Boundary IoU of each class, (..., N); NaN if a class does not occur."""
        return _iou(self.contours)

    @property
    def class_dice(self) -> Figures:
        """Dice coefficient of each class, 2 |T and P| / (|T| + |P|), (..., N); NaN if a class does not occur."""
        hits, true, predicted = _sums(self.confusion)
        return _percent(2 * hits, true + predicted)

    @property
    def miou(self) -> Figures:
        """Mean of :attr:`class_iou` over the classes that occur, (...); NaN if none does."""
        return _mean(self.class_iou)

    @property
    def biou(self) -> Figures:
        """Mean of :attr:`class_biou` over the classes that occur, (...); NaN if none does."""
        return _mean(self.class_biou)

    @property
    def dice(self) -> Figures:
        """Mean of :attr:`class_dice` over the classes that occur, (...); NaN if none does."""
        return _mean(self.class_dice)

    @property
    def fwiou(self) -> Figures:
        """Frequency-weighted IoU, (...): the mean of :attr:`class_iou` weighted by the true pixels of each class."""
        _, true, _ = _sums(self.confusion)
        return _percent(np.nansum(self.class_iou / 100 * true, -1), true.sum(-1))

    @property
    def accuracy(self) -> Figures:
        """Share of the pixels that are not ignored whose class, or background, is right, (...)."""
        return _percent(np.trace(self.confusion, axis1=-2, axis2=-1), self.confusion.sum((-2, -1)))


class SegmentationScores:
    """Metrics of a set of images, which are added one by one.

    Parameters
    ----------
    names
        Class names, in label order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._counts: list[Counts] = []
        self._slides: list[str | None] = []

    def add(self, truth: Labels, predicted: Labels, slide: str | None = None) -> None:
        """Count an image of a slide, if that is known, given as two arrays (H, W); see the module for their values.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        self._counts.append(count(truth, predicted, len(self.names)))
        self._slides.append(slide)

    def add_squares(self, truth: Labels, predicted: Labels, side: int) -> None:
        """Count each square of ``side`` pixels of an image, in which anything is known, as an image of its own.

        Their sum is what :meth:`add` counts.
        """
        squares = count_squares(truth, predicted, len(self.names), side)
        self._counts += list(squares[squares[:, 0].any((-2, -1))])
        self._slides += [None] * (len(self._counts) - len(self._slides))

    @property
    def counts(self) -> Counts:
        """The counts of each image, (I, 2, N + 1, N + 1)."""
        side = len(self.names) + 1
        return np.array(self._counts, np.int64).reshape(-1, 2, side, side)

    @property
    def slide_counts(self) -> Counts | None:
        """The counts of each slide, (U, 2, N + 1, N + 1); None if the slide of an image is not known."""
        known = [slide for slide in self._slides if slide is not None]
        if len(known) < len(self._slides):
            return None
        slides, of_images = np.unique(np.array(known, np.str_), return_inverse=True)
        sums = np.zeros((len(slides), *self.counts.shape[1:]), np.int64)
        np.add.at(sums, of_images, self.counts)
        return sums

    @property
    def metrics(self) -> Metrics:
        """Metrics of all images together."""
        return Metrics(self.counts.sum(0))

    @property
    def confusion(self) -> Counts:
        """Pixels by true class and predicted class or none, (N, N + 1)."""
        confusion: Counts = self.counts.sum(0)[0, :-1]
        return confusion

    def report(self) -> dict[str, Any]:
        """Return percentages of all images together for JSON: each of :data:`MEASURES`, and ``per_class``.

        ``per_class`` is ``{name: {"iou", "biou", "dice"}}``. The metrics of a class that occurs neither in the truth
        nor in the predictions are None.
        """
        pooled = self.metrics
        figures = {"iou": pooled.class_iou, "biou": pooled.class_biou, "dice": pooled.class_dice}
        return {
            **{measure: for_json(getattr(pooled, measure)) for measure in MEASURES},
            "per_class": {
                name: {figure: for_json(values[n]) for figure, values in figures.items()}
                for n, name in enumerate(self.names)
            },
        }

    def mean_of_images(self) -> dict[str, float | None]:
        """Return each of :data:`MEASURES` of each image by itself, in the mean of the images that have it."""
        of_images = Metrics(self.counts)
        return {measure: for_json(_mean(getattr(of_images, measure))) for measure in MEASURES}


def _squares(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice, ...]]:
    for y, x in np.ndindex(*(-(-length // side) for length in shape)):
        yield slice(y * side, (y + 1) * side), slice(x * side, (x + 1) * side)


def _pairs(known: npt.NDArray[np.bool_], true: Labels, seen: Labels, values: int) -> Counts:
    """Return how often each pair of values occurs where pixels are known, (values, values)."""
    pairs = true[known] * values + seen[known]
    return np.bincount(pairs, minlength=values * values).reshape(values, values)


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


def _sums(matrix: Figures) -> tuple[Figures, Figures, Figures]:
    """Return for each class the hits, true pixels and predicted pixels, (..., N) each."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hits[..., :-1], matrix.sum(-1)[..., :-1], matrix.sum(-2)[..., :-1]


def _iou(matrix: Figures) -> Figures:
    hits, true, predicted = _sums(matrix)
    return _percent(hits, true + predicted - hits)


def _percent(part: Figures, whole: Figures) -> Figures:
    share = np.full(np.shape(part), np.nan)
    np.divide(100 * part, whole, out=share, where=whole > 0)
    return share


def _mean(figures: Figures) -> Figures:
    """Return the mean over the last axis of the values that are not NaN; NaN if all are."""
    known = ~np.isnan(figures)
    return _percent(np.where(known, figures, 0).sum(-1) / 100, known.sum(-1))


def for_json(value: Figures) -> float | None:
    """Return a figure for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
