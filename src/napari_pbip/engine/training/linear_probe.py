"""The linear probe as numbers: multinomial logistic regression on standardised features of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.intp]

_ITERATIONS = 200
_TOLERANCE = 1e-4
"""Largest component of the gradient at the end, in units of the mean loss of a cell."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Log-probabilities of classes, linear in standardised features."""

    mean: Floats
    """Subtracted from the features, (D,)."""
    scale: Floats
    """The features are divided by it then, (D,)."""
    weight: Floats
    """Of each class, (N, D)."""
    bias: Floats
    """Of each class, (N,)."""

    def standardised(self, features: Floats) -> Floats:
        """Features (n, D) with mean 0 and deviation 1 where it was fitted."""
        values: Floats = (features - self.mean) / self.scale
        return values

    def log_probability(self, features: Floats) -> Floats:
        """Of each class, (n, N), of features (n, D)."""
        values: Floats = log_softmax(self.standardised(features) @ self.weight.T + self.bias, axis=1)
        return values


def fit(features: Floats, classes: Classes, strength: float, start: LinearProbe | None = None) -> LinearProbe:
    """Fit a probe, in which all classes weigh the same however many cells they have.

    What is minimised is the mean cross entropy of a cell and ``strength`` times half the squared weights, so that a
    strength means the same whatever the number of cells.

    Parameters
    ----------
    features
        Of cells, (n, D).
    classes
        Class of each, (n,), every one of 0..N-1 at least once, N of 2 and more.
    strength
        Of the L2 penalty.
    start
        A probe of the same classes and features to begin with, which saves time where little has changed.
    """
    count = np.bincount(classes)
    share = (1 / (len(count) * count))[classes]
    mean = (share @ features).astype(np.float32)
    scale = np.sqrt(share @ (features - mean) ** 2).astype(np.float32)
    scale[scale < 1e-6] = 1  # a channel that is the same everywhere
    regression = LogisticRegression(C=1 / strength, tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
    if start is not None:
        raw = start.weight / start.scale
        weight, bias = raw * scale, start.bias + raw @ (mean - start.mean)
        if len(count) == 2:  # one row says it all
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        regression.coef_, regression.intercept_ = weight, bias
    regression.fit((features - mean) / scale, classes, share)
    weight, bias = regression.coef_.astype(np.float32), regression.intercept_.astype(np.float32)
    if len(count) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearProbe(mean, scale, weight, bias)
