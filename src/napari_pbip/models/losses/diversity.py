"""The diversity loss of LPD, by which the prototypes of a class become active in different places.

The activation of a prototype is a distribution over the pixels of its class in one image: a softmax of its cosines
there. The similarity of two distributions p and q is ``exp(-J(p, q))``, where J is Jeffreys' divergence, the sum of
both Kullback-Leibler divergences: 1 if they are equal, near 0 if they share no pixel.
"""

from __future__ import annotations

import torch


def diversity_loss(
    cosines: torch.Tensor, mask: torch.Tensor, subclass_class: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return L_div of LPD: the mean similarity of the activations of two prototypes of a class.

    The mean is over all pairs of prototypes and all images.

    Parameters
    ----------
    cosines
        Cosine of every cell and each prototype, shape (B, P, h, w).
    mask
        Class index of every cell, shape (B, h, w); other values belong to no class.
    subclass_class
        Class index of each prototype, shape (P,).
    temperature
        Divisor of the cosines before the softmax. Cosines range from -1 to 1: without a temperature their softmax over
        hundreds of pixels is flat for every prototype, so that there is no gradient to separate prototypes.

    Returns
    -------
    torch.Tensor
        Scalar, 0 to 1; 0 if no class has two prototypes and two cells.
    """
    return _mean_similarity(cosines / temperature, mask, subclass_class)


def diversity_loss_released(cosines: torch.Tensor, mask: torch.Tensor, subclass_class: torch.Tensor) -> torch.Tensor:
    """Return L_div as released: with a softmax of a softmax of plain cosines, it is 0.99999 for any prototypes.

    Parameters as in :func:`diversity_loss`.
    """
    of_class = mask[:, None] == subclass_class.view(1, -1, 1, 1)
    return _mean_similarity(_log_softmax(cosines, of_class).exp(), mask, subclass_class)


def _mean_similarity(logits: torch.Tensor, mask: torch.Tensor, subclass_class: torch.Tensor) -> torch.Tensor:
    """Return the mean of exp(-J) over all pairs; the logits of the distributions have shape (B, P, h, w)."""
    of_class = mask[:, None] == subclass_class.view(1, -1, 1, 1)
    log_p = _log_softmax(logits, of_class).flatten(2)
    # J(p, q) = sum (p - q) (log p - log q), for all pairs at once, without cells outside the class
    p = log_p.exp() * of_class.flatten(2)
    log_p = log_p.masked_fill(~of_class.flatten(2), 0.0)
    cross = p @ log_p.mT
    entropy = cross.diagonal(dim1=1, dim2=2)  # negative
    jeffreys = entropy[:, :, None] + entropy[:, None, :] - cross - cross.mT
    present = of_class.flatten(2).sum(2) > 1
    pairs = torch.triu(subclass_class[:, None] == subclass_class, diagonal=1)
    counted = (pairs & present[:, :, None]).to(jeffreys)
    return (torch.exp(-jeffreys) * counted).sum() / counted.sum().clamp_min(1)


def _log_softmax(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the log-softmax over the chosen cells of each map; other cells have finite values without meaning."""
    # a finite number instead of -inf, which would give NaN gradients for a map without chosen cells
    return values.float().masked_fill(~chosen, -1e4).flatten(2).log_softmax(2).view_as(values)
