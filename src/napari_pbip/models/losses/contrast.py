"""The contrastive losses of ImgMatchNet (PBIP, Eq. 9-12): InfoNCE over prototypes.

Each loss gets the similarities s of Q features to all P prototypes. The *positives* of a feature are the prototypes
that it should resemble; all others are its *negatives*. The positives of a foreground are the prototypes of its class
(or of its subclass), the positives of a background are all others, so that the same loss serves both with an inverted
mask. The losses differ in how the positives, and the negatives, of a feature are reduced to one number:

* :func:`info_nce` sums exp(s / t), so that the hardest negatives have the largest influence. It is the foreground loss
  of all methods, and the background loss of LPD's and ConStruct's released code.
* :func:`info_nce_of_means` averages exp(s / t), so that the balance does not depend on the number of prototypes. It is
  the background loss of PBIP.
* :func:`logistic_loss` sums or averages s itself before it is exponentiated, exactly as PBIP's Eq. 9-12.

PBIP's released code uses the first two with one ratio over the whole batch instead of one for each feature
(``over_batch``). All are computed by log-sum-exp in float32 (in float64 if the similarities are), so that no
temperature overflows.

Parameters of all three: ``similarity`` is s, shape (Q, P), Q > 0; ``positives`` is bool, shape (Q, P), with at least
one positive and one negative in each row; ``temperature`` is t. All return a scalar, 0 or more.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn import functional as F


def similarities(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return the products of normalised features and prototypes, in float32; cosines if prototypes have unit length.

    Parameters
    ----------
    features
        Shape (Q, D).
    prototypes
        Shape (P, D).

    Returns
    -------
    torch.Tensor
        Shape (Q, P).
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=1) @ prototypes.float().T


def info_nce(
    similarity: torch.Tensor, positives: torch.Tensor, temperature: float, *, over_batch: bool = False
) -> torch.Tensor:
    """Return InfoNCE with several positives: ``-log(p / (p + n))``.

    p and n are the sums of exp(s / t) over positives and negatives. The result is the mean over features or, with
    ``over_batch``, the loss of the sums over all features.
    """
    s = similarity / temperature
    positive = _log_sum(s, positives)
    if over_batch:
        return s.logsumexp((0, 1)) - positive.logsumexp(0)
    return (s.logsumexp(1) - positive).mean()


def info_nce_of_means(
    similarity: torch.Tensor, positives: torch.Tensor, temperature: float, *, over_batch: bool = False
) -> torch.Tensor:
    """Return the loss of :func:`info_nce` with the means of exp(s / t) as p and n."""
    s = similarity / temperature
    positive, negative = _log_mean(s, positives), _log_mean(s, ~positives)
    if over_batch:
        positive, negative = positive.logsumexp(0), negative.logsumexp(0)
    return F.softplus(negative - positive).mean()


def logistic_loss(
    similarity: torch.Tensor, positives: torch.Tensor, temperature: float, pool: Literal["sum", "mean"]
) -> torch.Tensor:
    """Return ``-log(exp(a / t) / (exp(a / t) + exp(b / t)))``, averaged over features.

    a and b are the sums (Eq. 10) or the means (Eq. 12) of s over the positives and the negatives.
    """
    positive, negative = _pool(similarity, positives, pool), _pool(similarity, ~positives, pool)
    return F.softplus((negative - positive) / temperature).mean()


def _pool(values: torch.Tensor, chosen: torch.Tensor, how: Literal["sum", "mean"]) -> torch.Tensor:
    """Return the sum or mean of the chosen values of each row."""
    total = values.masked_fill(~chosen, 0).sum(1)
    return total if how == "sum" else total / chosen.sum(1)


def _log_sum(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return log(sum of exp(values)) over the chosen values of each row."""
    return values.masked_fill(~chosen, -math.inf).logsumexp(1)


def _log_mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return log(mean of exp(values)) over the chosen values of each row."""
    return _log_sum(values, chosen) - chosen.sum(1).log()
