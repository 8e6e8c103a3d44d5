"""Features of earlier batches, as additional negatives of a contrast."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class FeatureMemory(nn.Module):
    """A first-in, first-out queue of features.

    It is part of ``state_dict()``, so that a resumed training has the same negatives as an uninterrupted one.

    Parameters
    ----------
    size
        Largest number of features in the queue.
    dimension
        Length D of the features.
    """

    features: torch.Tensor
    written: torch.Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dimension))
        self.register_buffer("written", torch.tensor(0))

    def forward(self) -> torch.Tensor:
        """Return the features in the queue, of unit length, shape (M, D); M is 0 at first."""
        return self.features[: min(int(self.written), len(self.features))].clone()  # add() may precede backward()

    @torch.no_grad()
    def add(self, features: torch.Tensor) -> None:
        """Add features (Q, D), which are scaled to unit length and replace the oldest ones."""
        size = len(self.features)
        places = (self.written + torch.arange(len(features), device=features.device)) % size
        self.features[places[-size:]] = F.normalize(features.float(), dim=1)[-size:]
        self.written += len(features)
