"""The computation of a linear probe, without files: multinomial logistic regression on standardised cell features."""

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
"""L2 penalties that cross-validation tries, from strong to weak, because each fit starts from the one before."""
DEFAULT_STRENGTH = 1e-2
"""L2 penalty where cross-validation is not possible."""
_FOLDS = 5
_ITERATIONS = 200
_TOLERANCE = 3e-4
"""Largest component of the gradient at which the fit stops, in units of the mean loss of a cell."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe: the softmax over classes of a linear function of standardised features."""

    mean: Floats
    """Mean of the features, which is subtracted from them, (D,)."""
    scale: Floats
    """Standard deviation of the features, by which they are then divided, (D,)."""
    weight: Floats
    """Weights of each class, (N, D)."""
    bias: Floats
    """Bias of each class, (N,)."""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights of a :class:`~napari_pbip.models.methods.probe.Probe`, by name."""
        return {name: torch.from_numpy(values) for name, values in asdict(self).items()}

    def standardised(self, features: Floats) -> Floats:
        """Return features (n, D), scaled so that those of the fit have mean 0 and standard deviation 1."""
        values: Floats = (features - self.mean) / self.scale
        return values

    def log_probability(self, features: Floats) -> Floats:
        """Return the log-probability of each class, (n, N), from features (n, D)."""
        with _one_thread():
            logits = self.standardised(features) @ self.weight.T + self.bias
        values: Floats = log_softmax(logits, axis=1)
        return values


def _one_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread: on busy cores, several wait for each other, and 0.1 s of work takes seconds."""
    context: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return context


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def fit(features: Floats, classes: Ints, strength: float, start: LinearProbe | None = None) -> LinearProbe:
    """Fit a probe in which all classes have the same weight, whatever their numbers of cells.

    The loss is the mean cross entropy of a cell plus ``strength`` times half the squared weights, so that a strength
    has the same effect for any number of cells.

    Parameters
    ----------
    features
        Features of cells, (n, D).
    classes
        Class of each cell, (n,); each of 0..N-1 occurs at least once, and N is 2 or more.
    strength
        Strength of the L2 penalty.
    start
        A probe with the same classes and features from which the fit starts, which saves time if little has changed.
    """
    count = np.bincount(classes)
    share = (1 / (len(count) * count)).astype(np.float32)[classes]
    with _one_thread():  # so that the sums do not depend on the number of threads
        mean = share @ features
        scale = np.sqrt(share @ (features - mean) ** 2)
    scale[scale < 1e-6] = 1  # for channels that are constant
    regression = LogisticRegression(C=1 / strength, tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
    if start is not None:
        raw = start.weight / start.scale
        weight, bias = raw * scale, start.bias + raw @ (mean - start.mean)
        if len(count) == 2:  # for two classes, scikit-learn has one row of coefficients
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        regression.coef_, regression.intercept_ = weight, bias
    with _one_thread(), warnings.catch_warnings():  # after the last iteration, the fit is close enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit((features - mean) / scale, classes, share)
    fitted = regression.coef_, regression.intercept_
    weight, bias = ((np.concatenate([-f, f]) / 2 if len(count) == 2 else f).astype(np.float32) for f in fitted)
    return LinearProbe(mean, scale, weight, bias)


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The predictions of probes for tiles that they were not fitted to."""

    strength: float
    """Strength of the penalty with the smallest loss."""
    log_probability: Floats
    """Log-probability of each class with that strength, averaged over the cells of each tile, (T, N); NaN for tiles
    that were never left out."""


def cross_validate(
    features: Floats, classes: Ints, groups: Ints, strengths: Sequence[float]
) -> Generator[None, None, CrossValidation]:
    """Fit probes without some groups of tiles in turn, and predict these tiles; yields None after each fit.

    The strength with the smallest mean loss over the classes is chosen.

    Parameters
    ----------
    features
        Features of the cells of each tile, (T, cells, D).
    classes
        Class of each tile, (T,), 0..N-1.
    groups
        Group of each tile, (T,), such as its slide; tiles of one group are left out together. Tiles of a class that
        occurs in a single group are never left out; at least one class has to occur in two.
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
        # if groups have several classes, a fold may contain all other tiles of a class: these tiles are not left out
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
    """Return the number of groups in which each class occurs, (N,)."""
    return np.array([len(np.unique(groups[classes == n])) for n in range(classes.max() + 1)])
