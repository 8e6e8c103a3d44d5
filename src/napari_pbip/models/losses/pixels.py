"""Losses on pixels whose class is known."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def pixel_loss(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the binary cross entropy of each class in each cell; the target is the share of the cell that it covers.

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
"""Value of ignored pixels in a mask."""


def pixel_cross_entropy(logits: torch.Tensor, masks: torch.Tensor, *, easy: bool) -> torch.Tensor:
    """Return the cross entropy of the softmax over classes, mean over pixels that are not ignored; 0 without such.

    Parameters
    ----------
    logits
        Logits at the size of the masks, shape (B, N, H, W).
    masks
        Class index of each pixel, int64, shape (B, H, W); 255 is ignored.
    easy
        Whether each pixel is weighted by the probability that the network gives its class (online easy example mining),
        so that labels that contradict most others have little influence. No gradient passes through the weights.
    """
    loss = F.cross_entropy(logits.float(), masks, ignore_index=IGNORED, reduction="none")
    weights = (masks != IGNORED).float()
    if easy:
        weights = weights * torch.exp(-loss.detach())
    return (weights * loss).sum() / weights.sum().clamp_min(1e-6)
