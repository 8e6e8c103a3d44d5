"""Foreground and background images: the adaptive threshold (Eq. 4) and the masked images (Eq. 5), as pure functions.

In shapes, Q is the number of pairs of an image and one of its classes (or subclasses); images have H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from napari_pbip.models.score_maps import stretch


def enlarge(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize maps (B, C, h, w) to the size (H, W) of the image, bilinear with aligned corners, as released."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)


def to_unit(maps: torch.Tensor) -> torch.Tensor:
    """Return raw scores as weights M from 0 to 1: clipped at 0, and divided by the map's maximum if that is above 1.

    The paper multiplies an image by a cosine, which may be negative, and does not say which range is meant. Zero
    separates present from absent in the classification loss, so it remains zero. The division makes the weights
    independent of the learnable scale of the scores and of the general level of similarity: the encoder sees the core
    of the foreground at full brightness, and delta itself is the threshold. A map whose maximum is below 1 is not
    divided, because the division would enlarge its gradient; one such map in a batch undid what a hundred steps had
    learned.

    Parameters
    ----------
    maps
        Raw scores of any range, shape (Q, 1, H, W).

    Returns
    -------
    torch.Tensor
        0 to 1, same shape.
    """
    positive = maps.relu()
    return positive / positive.amax((2, 3), keepdim=True).clamp_min(1)


def threshold_mask(maps: torch.Tensor, peak: torch.Tensor, delta: float) -> torch.Tensor:
    """Return the mask b = [M >= delta * max(M)] (Eq. 4).

    Parameters
    ----------
    maps
        M, shape (Q, 1, H, W).
    peak
        max(M) of each pair, shape (Q,): the maximum of its map or, as released, of all maps of its image.
    delta
        Threshold scale, 0 to 1.

    Returns
    -------
    torch.Tensor
        0 or 1, shape and type of ``maps``. No gradient passes.
    """
    return (maps >= delta * peak.view(-1, 1, 1, 1)).to(maps.dtype)


def pseudo_mask(maps: torch.Tensor, labels: torch.Tensor, background: float) -> torch.Tensor:
    """Return the class of each cell: the present class with the largest score, or background if that score is lower.

    Parameters
    ----------
    maps
        Score maps of the classes, shape (B, N, h, w). They are compared after :func:`to_unit`, so that ``background``
        has the same effect in every image.
    labels
        Image-level labels, shape (B, N).
    background
        Score of the background, 0 to 1.

    Returns
    -------
    torch.Tensor
        Class index 0..N-1, N for the background, int64, shape (B, h, w). No gradient passes.
    """
    present = to_unit(maps.detach()) * labels[:, :, None, None]
    constant = torch.full_like(present[:, :1], background)
    return torch.cat([present, constant], 1).argmax(1)


def separate(images: torch.Tensor, maps: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images X_FG = b * M * X and X_BG = (1 - b) * (1 - M) * X (Eq. 5).

    Parameters
    ----------
    images
        X, RGB in [0, 1], shape (Q, 3, H, W).
    maps
        M, 0 to 1, shape (Q, 1, H, W). LPD's released code uses raw scores as M, and normalised images as X.
    mask
        b, shape (Q, 1, H, W); None leaves it out of both products (Table 5).
    """
    return _masked(maps * images, (1 - maps) * images, mask)


def separate_released(
    images: torch.Tensor, maps: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of Eq. 5 as released: products with the raw map, stretched to [0, 1] per channel, then masked.

    Parameters
    ----------
    images
        X, normalised for the backbone, shape (Q, 3, H, W).
    maps
        M, raw scores of any range, shape (Q, 1, H, W).
    mask
        b, shape (Q, 1, H, W); None leaves it out of both products (Table 5).
    """
    return _masked(stretch(maps * images, 1e-8), stretch((1 - maps) * images, 1e-8), mask)


def _masked(
    foreground: torch.Tensor, background: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if mask is None:
        return foreground, background
    return mask * foreground, (1 - mask) * background
