"""The classification loss (Eq. 7)."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def classification_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return L_CLS[i] of one stage (Eq. 7): binary cross entropy of pooled class scores, mean over images and classes.

    Parameters
    ----------
    scores
        Logits, shape (B, N).
    labels
        0 or 1, shape (B, N).
    """
    return F.binary_cross_entropy_with_logits(scores.float(), labels.float())
