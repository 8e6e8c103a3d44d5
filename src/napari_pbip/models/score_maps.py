"""Score maps: similarity (Eq. 2), merging of subclasses, fusion of stages (Eq. 3), as pure functions.

In shapes, B is the number of images, P that of subclasses of all classes together, N that of classes; maps have h x w
cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch.nn import functional as F

Merge = Literal["mean", "softmax", "max"]
Size = Sequence[int]


def similarity_map(features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Return the product of the normalised feature of every cell with every direction (Eq. 2 before the mean over k).

    For directions of unit length it is the cosine. The norms of the features are divided out after the product, which
    avoids a normalised copy of the features.

    Parameters
    ----------
    features
        F_i, shape (B, C, h, w).
    directions
        Shape (P, C).

    Returns
    -------
    torch.Tensor
        Shape (B, P, h, w), float32.
    """
    norm = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
    product = F.conv2d(features, directions.to(features.dtype)[:, :, None, None])
    similarity: torch.Tensor = product.float() / norm.clamp_min(1e-12)
    return similarity


def merge_subclasses(values: torch.Tensor, subclass_class: torch.Tensor, classes: int, how: Merge) -> torch.Tensor:
    """Merge values of subclasses into values of classes.

    ``mean`` is Eq. 2. ``softmax`` weights each subclass by the softmax of the values themselves over the subclasses of
    its class, which favours the largest; the released code does this at evaluation and calls it "max". ``max`` is the
    largest value (ConStruct).

    Parameters
    ----------
    values
        Maps (B, P, h, w) or scores (B, P).
    subclass_class
        Class index of each subclass, shape (P,), int64.
    classes
        Number of classes N.
    how
        ``mean``, ``softmax`` or ``max``.

    Returns
    -------
    torch.Tensor
        Shape (B, N, h, w) or (B, N).
    """
    merge = _MERGES[how]
    return torch.stack([merge(values[:, subclass_class == n]) for n in range(classes)], 1)


_MERGES: dict[Merge, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda values: values.mean(1),
    "softmax": lambda values: (values.softmax(1) * values).sum(1),
    "max": lambda values: values.amax(1),
}


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Return the global average of each map: (B, P, h, w) -> (B, P)."""
    return maps.mean((2, 3))


def pool_log_mean_exp(maps: torch.Tensor) -> torch.Tensor:
    """Return log(mean(exp)) of each map, (B, P, h, w) -> (B, P), which is between its mean and its maximum.

    With this pooling, a class that fills one corner of the image is present, as in a loss on pixels, while the mean
    would require it everywhere (Pinheiro & Collobert 2015, with r = 1).
    """
    cells = maps.flatten(2)
    return cells.logsumexp(2) - math.log(cells.shape[2])


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of each class against all others together, from logits of a softmax (B, N, h, w), N >= 2.

    Their sigmoid equals the softmax of the logits.
    """
    classes = logits.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)[:, :, None, None]
    others = logits[:, None].expand(-1, classes, -1, -1, -1).masked_fill(own, -math.inf)
    return logits - others.logsumexp(2)


def fuse(weighted: Sequence[tuple[float, torch.Tensor]], size: Size) -> torch.Tensor:
    """Return the weighted mean of the stages' maps on one grid (Eq. 3, divided by the sum of the weights).

    A cell of the result depends only on cells at its position, so that overlapping tiles of a slide agree.

    Parameters
    ----------
    weighted
        Weight and map (B, N, h, w) of each stage.
    size
        (h, w) of the result.
    """
    parts = [w * F.interpolate(m, tuple(size), mode="bilinear") for w, m in weighted]
    return torch.stack(parts).sum(0) / sum(w for w, _ in weighted)


def fuse_per_tile(
    maps: Sequence[torch.Tensor], labels: torch.Tensor, weights: Sequence[float], size: Size
) -> torch.Tensor:
    """Return the sum of the stages' maps as in the released evaluation.

    ReLU is applied to each map, which is then stretched to [0, 1], multiplied by the label and enlarged. Every present
    class thus reaches 1 somewhere in every tile, however weak it is. This function is for comparison with published
    figures, and :func:`fuse` for slides.

    Parameters
    ----------
    maps
        Class maps of each stage, (B, N, h, w).
    labels
        Whether each class is present, shape (B, N).
    weights
        Weight of each stage; stages with weight 0 are left out.
    size
        (H, W) of the result.

    Returns
    -------
    torch.Tensor
        Shape (B, N, H, W), 0 to the sum of the weights.
    """
    parts = [
        w
        * F.interpolate(
            stretch(m.relu(), 1e-6) * labels[:, :, None, None], tuple(size), mode="bilinear", align_corners=True
        )
        for w, m in zip(weights, maps, strict=True)
        if w
    ]
    return torch.stack(parts).sum(0)


def stretch(maps: torch.Tensor, eps: float) -> torch.Tensor:
    """Shift and scale each map (h, w) of (B, C, h, w) to [0, 1] by its minimum and maximum."""
    low = maps.amin((2, 3), keepdim=True)
    return (maps - low) / (maps.amax((2, 3), keepdim=True) - low + eps)
