"""The losses on pixels whose class is known."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pixel_loss(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of each class in each cell of a map, whose target is the share of the cell that it fills.

    Parameters
    ----------
    maps
        Class maps of one stage, logits, shape (B, N, h, w).
    masks
        Class index of each pixel, int64, shape (B, H, W).
    """
    height, width = maps.shape[2:]
    shares = F.one_hot(masks, maps.shape[1]).movedim(3, 1).to(maps.dtype)
    return F.binary_cross_entropy_with_logits(maps, F.adaptive_avg_pool2d(shares, (height, width)))


IGNORED = 255
"""Value of a mask where a pixel does not count."""


def pixel_cross_entropy(logits: torch.Tensor, masks: torch.Tensor, *, easy: bool) -> torch.Tensor:
    """Cross entropy of the softmax over the classes, mean over the pixels that count; 0 if none does.

    Parameters
    ----------
    logits
        At the size of the masks, shape (B, N, H, W).
    masks
        Class index of each pixel, int64, shape (B, H, W); 255 does not count.
    easy
        Weigh each pixel by the probability that the network gives its class (online easy example mining): what is
        labelled against the evidence of all else then teaches little. No gradient passes through the weights.
    """
    loss = F.cross_entropy(logits.float(), masks, ignore_index=IGNORED, reduction="none")
    weights = (masks != IGNORED).float()
    if easy:
        weights = weights * torch.exp(-loss.detach())
    return (weights * loss).sum() / weights.sum().clamp_min(1e-6)
