"""How sure metrics are: bootstrap intervals, and paired tests between two results on the same images.

Metrics are computed from counts (:func:`napari_pbip.results.metrics.count`) that are summed over images, so that images
are drawn again by weighting their counts. Images of one slide resemble each other; where there are several slides,
whole slides have to be drawn. With several seeds, a figure is the mean over them, and images are drawn alike for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

from napari_pbip.results.metrics import MEASURES, Counts, Figures, Metrics, SegmentationScores

FEWEST = 5
"""Images or slides below which there is neither an interval nor a test."""
LEVEL = 95
"""Level of the intervals in percent."""
_RESAMPLES = 2000
_AT_ONCE = 1 << 22  # numbers that are drawn at once
_SAME = 1e-9  # differences of percentages below this are rounding errors


def intervals(units: Mapping[str, Counts | None], names: Sequence[str]) -> dict[str, Any]:
    """Return the bootstrap intervals of metrics, for JSON.

    Parameters
    ----------
    units
        Counts of what is drawn with replacement, (U, 2, N + 1, N + 1), by its name, such as images or slides; None if
        they are not known.
    names
        Class names, in label order.

    Returns
    -------
    dict
        For each of ``units`` of which there are at least :data:`FEWEST`: their number, ``units``; the lower and upper
        end of each of ``MEASURES``; and ``per_class``, those of the IoU of each class. An interval is None if its
        metric is not defined.
    """
    found = {}
    for unit, counts in units.items():
        if counts is not None and len(counts) >= FEWEST:
            drawn = resampled(counts[None])
            of_classes = zip(names, interval(drawn, "class_iou").T, strict=True)
            found[unit] = {
                "units": len(counts),
                **{measure: _ends(interval(drawn, measure)) for measure in MEASURES},
                "per_class": {name: {"iou": _ends(ends)} for name, ends in of_classes},
            }
    return found


def independent_units(scores: SegmentationScores) -> tuple[str, Counts]:
    """Return ``slides`` with their counts if there are at least :data:`FEWEST`, else ``images``."""
    slides = scores.slide_counts
    return ("images", scores.counts) if slides is None or len(slides) < FEWEST else ("slides", slides)


def resampled(counts: Counts) -> Figures:
    """Return sums of units that are drawn with replacement, as often as there are units.

    The same units are drawn for all results with as many units, so that their resamples are paired.

    Parameters
    ----------
    counts
        (S, U, 2, N + 1, N + 1): seeds, and units.

    Returns
    -------
    float array
        (R, S, 2, N + 1, N + 1) for R resamples.
    """
    random, size = np.random.default_rng(0), counts.shape[1]
    shares = np.full(size, 1 / size)
    weights = (random.multinomial(size, shares, some).astype(np.float64) for some in _batches(size))
    return np.concatenate([np.tensordot(some, counts, (1, 1)) for some in weights])


def interval(drawn: Figures, measure: str) -> Figures:
    """Return the percentile interval, at :data:`LEVEL`, of a metric of :func:`resampled` counts.

    Parameters
    ----------
    drawn
        The counts, (R, S, 2, N + 1, N + 1).
    measure
        An attribute of :class:`~napari_pbip.results.metrics.Metrics`.

    Returns
    -------
    float array
        Lower and upper end in percent, (2, ...); NaN if the metric is not defined in any resample.
    """
    return _percentiles(getattr(Metrics(drawn), measure).mean(1))


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The difference of two results in a metric, and whether it may be chance."""

    difference: float
    """Percentage points by which the first result is better."""
    ends: tuple[float, float]
    """Bootstrap interval of the difference, at :data:`LEVEL`."""
    permutation: float
    """Two-sided p-value of a permutation test: in each permutation, the results of random units are exchanged."""
    wilcoxon: float
    """Two-sided p-value of Wilcoxon's signed-rank test of the metric of each unit."""

    @classmethod
    def between(cls, one: Counts, other: Counts, measure: str = "miou") -> PairedTest | None:
        """Test two results.

        Parameters
        ----------
        one, other
            Counts of the same units with the same seeds, (S, U, 2, N + 1, N + 1).
        measure
            One of :data:`~napari_pbip.results.metrics.MEASURES`.

        Returns
        -------
        PairedTest or None
            None below :data:`FEWEST` units, or if the metric is not defined.
        """
        size = one.shape[1]
        if size < FEWEST:
            return None

        def figure(counts: npt.NDArray[Any]) -> Figures:
            figures: Figures = getattr(Metrics(counts), measure).mean(-1)
            return figures

        found = float(figure(one.sum(1)) - figure(other.sum(1)))
        if np.isnan(found):
            return None
        low, high = _percentiles(figure(resampled(one)) - figure(resampled(other))).tolist()
        total, random = (one + other).sum(1), np.random.default_rng(0)
        reached = 0
        for some in _batches(size):
            exchanged = random.integers(0, 2, (some, size)).astype(np.float64)
            first = np.tensordot(exchanged, other, (1, 1)) + np.tensordot(1 - exchanged, one, (1, 1))
            differences = np.abs(figure(first) - figure(total - first))
            reached += int((differences >= abs(found) - _SAME).sum())
        of_units = figure(one.swapaxes(0, 1)) - figure(other.swapaxes(0, 1))
        changed = of_units[np.abs(of_units) > _SAME]  # without NaN
        return cls(
            found,
            (low, high),
            permutation=(1 + reached) / (1 + _RESAMPLES),
            wilcoxon=float(wilcoxon(changed).pvalue) if changed.size else 1.0,
        )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of several tests as Holm does; None is no test."""
    tests = sorted((p, n) for n, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, n) in enumerate(tests):
        corrected[n] = largest = max(largest, min(1.0, p * (len(tests) - rank)))
    return corrected


def _batches(size: int) -> Iterator[int]:
    """Yield the numbers of resamples of ``size`` units that are drawn at once, so that memory is limited."""
    most = max(1, _AT_ONCE // size)
    for done in range(0, _RESAMPLES, most):
        yield min(most, _RESAMPLES - done)


def _percentiles(drawn: Figures) -> Figures:
    """Return the ends of the interval of values (R, ...) that are not NaN, (2, ...)."""
    ends, defined = np.full((2, *drawn.shape[1:]), np.nan), ~np.isnan(drawn).all(0)
    ends[:, defined] = np.nanpercentile(drawn[:, defined], (50 - LEVEL / 2, 50 + LEVEL / 2), axis=0)
    return ends


def _ends(ends: Figures) -> list[float] | None:
    return None if np.isnan(ends).any() else ends.tolist()
