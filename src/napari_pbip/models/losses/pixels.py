"""The loss on pixels whose class is known."""

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
