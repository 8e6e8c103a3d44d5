"""Features of earlier batches, as extra negatives of a contrast."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class FeatureMemory(nn.Module):
    """The last features that were put in: first in, first out.

    It is part of ``state_dict()``, so that a resumed training sees what an uninterrupted one would have seen.

    Parameters
    ----------
    size
        How many features it holds.
    dimension
        Their length D.
    """

    features: torch.Tensor
    written: torch.Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dimension))
        self.register_buffer("written", torch.tensor(0))

    def forward(self) -> torch.Tensor:
        """The features it holds, of unit length, shape (M, D); M is 0 at first."""
        return self.features[: min(int(self.written), len(self.features))].clone()  # it changes before the gradient

    @torch.no_grad()
    def add(self, features: torch.Tensor) -> None:
        """Put in features (Q, D), of any length; the oldest make room."""
        size = len(self.features)
        places = (self.written + torch.arange(len(features), device=features.device)) % size
        self.features[places[-size:]] = F.normalize(features.float(), dim=1)[-size:]
        self.written += len(features)
