"""The contrastive losses of ImgMatchNet: foreground (Eq. 9-10) and background (Eq. 11-12).

Each takes the similarities of Q features to all P prototypes and says which prototypes are a feature's *own*:
those of its class (or, in the released form, its one subclass); all others are its rivals. A foreground
feature should resemble its own prototypes, a background feature its rivals.

Four readings of the equations are here. They differ in what happens to the several prototypes of a class:

* :func:`foreground_loss`, :func:`background_loss`: every similarity is exponentiated, then summed (foreground)
  or averaged (background), one loss a feature, mean over features. Hard rivals weigh most, and the number of
  prototypes does not matter to the balance.
* :func:`foreground_loss_of_sums`, :func:`background_loss_of_means`: Eq. 9-12 to the letter, similarities are
  summed (Eq. 10) or averaged (Eq. 12), then exponentiated.
* :func:`foreground_loss`, :func:`background_loss_of_many`: as the first, the background summed too: the InfoNCE of
  LPD's released code.
* :func:`foreground_loss_released`, :func:`background_loss_released`: as the first, but numerators and
  denominators are summed over the whole batch before their one ratio is taken.

All are computed with log-sum-exp in float32 (in float64 if the similarities are), so that no temperature
overflows.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def similarities(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Products of the normalised features with the prototypes, in float32; cosines if those are normalised too.

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


def foreground_loss(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_FGS (Eq. 9), mean over features of ``-log(sum_own exp(s / t) / sum_all exp(s / t))``.

    Parameters
    ----------
    similarity
        s of each feature to each prototype, shape (Q, P), Q > 0.
    own
        Which prototypes are the feature's own, bool, shape (Q, P); at least one in each row.
    temperature
        t.
    """
    s = similarity / temperature
    return (s.logsumexp(1) - _log_sum(s, own)).mean()


def background_loss(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_BGS (Eq. 11), mean over features of ``-log(r / (r + o))``, r and o the means of exp(s / t) over rivals and own.

    Parameters as in :func:`foreground_loss`; at least one rival in each row.
    """
    s = similarity / temperature
    return F.softplus(_log_mean(s, own) - _log_mean(s, ~own)).mean()


def background_loss_of_many(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE with many positives: mean over features of ``-log(sum_rivals exp(s / t) / sum_all exp(s / t))``.

    Parameters as in :func:`background_loss`.
    """
    return foreground_loss(similarity, ~own, temperature)


def foreground_loss_of_sums(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_FGS to the letter of Eq. 9-10: ``-log(exp(a / t) / (exp(a / t) + exp(b / t)))``.

    a = s_FF and b = s_FB are the sums of the similarities to own prototypes and to rivals. Mean over features.
    Parameters as in :func:`foreground_loss`.
    """
    return F.softplus((_sum(similarity, ~own) - _sum(similarity, own)) / temperature).mean()


def background_loss_of_means(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_BGS to the letter of Eq. 11-12: as Eq. 9, with means instead of sums, and rivals as the target.

    Mean over features. Parameters as in :func:`background_loss`.
    """
    return F.softplus((_mean(similarity, own) - _mean(similarity, ~own)) / temperature).mean()


def foreground_loss_released(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_FGS as released: one ratio of sums over all features of the batch.

    Parameters as in :func:`foreground_loss`.
    """
    s = similarity / temperature
    return s.logsumexp((0, 1)) - _log_sum(s, own).logsumexp(0)


def background_loss_released(similarity: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_BGS as released: one ratio of sums over all features of the batch.

    Parameters as in :func:`background_loss`.
    """
    s = similarity / temperature
    return F.softplus(_log_mean(s, own).logsumexp(0) - _log_mean(s, ~own).logsumexp(0))


def _sum(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(~chosen, 0).sum(1)


def _mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return _sum(values, chosen) / chosen.sum(1)


def _log_sum(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """log(sum of exp(values)) over the chosen of each row."""
    return values.masked_fill(~chosen, -math.inf).logsumexp(1)


def _log_mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return _log_sum(values, chosen) - chosen.sum(1).log()
