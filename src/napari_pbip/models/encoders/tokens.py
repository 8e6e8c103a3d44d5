"""Conversion of the tokens of a vision transformer to one vector or to a map."""

from __future__ import annotations

import torch

CLASS_TOKEN = "class token"
CLASS_AND_MEAN = "class token and mean of patches"
MEAN = "mean of tokens"


def pool(tokens: torch.Tensor, patches: int, pooling: str) -> torch.Tensor:
    """Return one vector per image.

    Parameters
    ----------
    tokens
        Shape (B, L, C): class token and registers, if any, then the patches.
    patches
        Number of patches among them.
    pooling
        :data:`CLASS_TOKEN`, :data:`CLASS_AND_MEAN` (a vector of length 2 C) or :data:`MEAN`.
    """
    if pooling == CLASS_TOKEN:
        return tokens[:, 0]
    if pooling == MEAN:
        return tokens.mean(1)
    if pooling == CLASS_AND_MEAN:
        return torch.cat([tokens[:, 0], tokens[:, -patches:].mean(1)], 1)
    raise ValueError(f"no pooling {pooling!r}")


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the patch tokens, which are the last of tokens (B, L, C), as a map (B, C, height, width)."""
    return tokens[:, -height * width :].mT.reshape(len(tokens), tokens.shape[2], height, width)
