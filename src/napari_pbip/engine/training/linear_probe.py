"""The linear probe as numbers: multinomial logistic regression on standardised features of cells."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3)
"""Penalties that cross-validation tries, from strong to weak: each fit starts from the one before."""
DEFAULT_STRENGTH = 1e-2
"""Where there is nothing to choose it by."""
_FOLDS = 5
_ITERATIONS = 200
_TOLERANCE = 3e-4
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

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights of a :class:`~napari_pbip.models.methods.probe.Probe`, by name."""
        return {name: torch.from_numpy(values) for name, values in asdict(self).items()}

    def standardised(self, features: Floats) -> Floats:
        """Features (n, D) with mean 0 and deviation 1 where it was fitted."""
        values: Floats = (features - self.mean) / self.scale
        return values

    def log_probability(self, features: Floats) -> Floats:
        """Of each class, (n, N), of features (n, D)."""
        with _one_thread():
            logits = self.standardised(features) @ self.weight.T + self.bias
        values: Floats = log_softmax(logits, axis=1)
        return values


def _one_thread() -> AbstractContextManager[object]:
    """One thread for small matrix products: on busy cores several wait for each other, seconds in place of 0.1 s."""
    context: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return context


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def fit(features: Floats, classes: Ints, strength: float, start: LinearProbe | None = None) -> LinearProbe:
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
    share = (1 / (len(count) * count)).astype(np.float32)[classes]
    mean = share @ features
    scale = np.sqrt(share @ (features - mean) ** 2)
    scale[scale < 1e-6] = 1  # a channel that is the same everywhere
    regression = LogisticRegression(C=1 / strength, tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
    if start is not None:
        raw = start.weight / start.scale
        weight, bias = raw * scale, start.bias + raw @ (mean - start.mean)
        if len(count) == 2:  # of two classes one row says it all
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        regression.coef_, regression.intercept_ = weight, bias
    with _one_thread(), warnings.catch_warnings():  # after so many iterations it is near enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit((features - mean) / scale, classes, share)
    fitted = regression.coef_, regression.intercept_
    weight, bias = ((np.concatenate([-f, f]) / 2 if len(count) == 2 else f).astype(np.float32) for f in fitted)
    return LinearProbe(mean, scale, weight, bias)


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What probes say of tiles that they were not fitted to."""

    strength: float
    """The one with the smallest loss."""
    log_probability: Floats
    """Mean over the cells of each tile, (T, N), with that strength; NaN for tiles that were never left out."""


def cross_validate(
    features: Floats, classes: Ints, groups: Ints, strengths: Sequence[float]
) -> Generator[None, None, CrossValidation]:
    """Fit without each group of tiles in turn, and look at it; yields between the fits, and returns what was seen.

    Parameters
    ----------
    features
        Of cells of each tile, (T, cells, D).
    classes
        Class of each tile, (T,), 0..N-1.
    groups
        What each tile is of, (T,): tiles of one group (a slide) are left out together. Tiles of a class of one group
        are never left out; one class at least has two.
    strengths
        Penalties to choose from, from strong to weak.
    """
    tiles, cells, dimension = features.shape
    count = groups_of_classes(classes, groups)
    tested = np.flatnonzero(count[classes] > 1)
    seen = np.full((len(strengths), tiles, len(count)), np.nan, np.float32)
    splitter = StratifiedGroupKFold(min(_FOLDS, count[count > 1].min()), shuffle=True, random_state=0)
    for _, places in splitter.split(tested, classes[tested], groups[tested]):
        left_out = tested[places]
        kept = np.setdiff1d(np.arange(tiles), left_out)
        # groups of several classes cannot always be dealt so that each class is left
        left_out = left_out[np.isin(classes[left_out], classes[kept])]
        kept = np.setdiff1d(np.arange(tiles), left_out)
        probe = None
        for i, strength in enumerate(strengths):
            probe = fit(features[kept].reshape(-1, dimension), classes[kept].repeat(cells), strength, probe)
            of_cells = probe.log_probability(features[left_out].reshape(-1, dimension))
            seen[i, left_out] = of_cells.reshape(len(left_out), cells, -1).mean(1)
            yield
    loss = -np.take_along_axis(seen, classes[None, :, None], 2)[..., 0]
    asked = ~np.isnan(loss[0])
    of_classes = np.stack([loss[:, asked & (classes == n)].mean(1) for n in np.unique(classes[asked])], 1)
    best = int(of_classes.mean(1).argmin())
    return CrossValidation(strengths[best], seen[best])


def groups_of_classes(classes: Ints, groups: Ints) -> Ints:
    """In how many groups each class is, (N,)."""
    return np.array([len(np.unique(groups[classes == n])) for n in range(classes.max() + 1)])
