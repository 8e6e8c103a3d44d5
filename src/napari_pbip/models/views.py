"""Test-time augmentation: the outputs of a network, averaged over flips and rotations by 90 degrees of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Infer = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def average_over_views(infer: Infer, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return mean outputs over the eight flips and rotations of images, or four if they are not square.

    Raw scores are averaged, before any sigmoid or threshold.

    Parameters
    ----------
    infer
        Function from images to maps (B, C, h, w), which are turned back before they are averaged, and scores (B, C).
    images
        Shape (B, 3, H, W).

    Returns
    -------
    tuple of torch.Tensor
        Means, in the order and shapes of the outputs of ``infer``.
    """
    turns = range(4) if images.shape[-1] == images.shape[-2] else (0, 2)
    views = [(turn, flip) for turn in turns for flip in (False, True)]
    outputs = [
        [_turned_back(one, turn, flip) if one.ndim == 4 else one for one in infer(_turned(images, turn, flip))]
        for turn, flip in views
    ]
    return tuple(torch.stack(same).mean(0) for same in zip(*outputs, strict=True))


def _turned(images: torch.Tensor, turn: int, flip: bool) -> torch.Tensor:
    turned = torch.rot90(images, turn, (2, 3))
    return turned.flip(3) if flip else turned


def _turned_back(maps: torch.Tensor, turn: int, flip: bool) -> torch.Tensor:
    return torch.rot90(maps.flip(3) if flip else maps, -turn, (2, 3))
