"""Test-time augmentation: what is seen in the flips and quarter turns of an image, averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Look = Callable[[torch.Tensor], Sequence[torch.Tensor]]


def average_over_views(look: Look, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Mean of what a network sees in an image flipped and turned in eight ways (four where it is not square).

    Averaged are the scores themselves, before any sigmoid or threshold.

    Parameters
    ----------
    look
        Takes images to maps (B, C, h, w), which are turned back before they are averaged, and to scores (B, C).
    images
        Shape (B, 3, H, W).

    Returns
    -------
    tuple of torch.Tensor
        In the order and the shapes of what ``look`` gives.
    """
    turns = range(4) if images.shape[-1] == images.shape[-2] else (0, 2)
    views = [(turn, flip) for turn in turns for flip in (False, True)]
    seen = [
        [_turned_back(one, turn, flip) if one.ndim == 4 else one for one in look(_turned(images, turn, flip))]
        for turn, flip in views
    ]
    return tuple(torch.stack(same).mean(0) for same in zip(*seen, strict=True))


def _turned(images: torch.Tensor, turn: int, flip: bool) -> torch.Tensor:
    turned = torch.rot90(images, turn, (2, 3))
    return turned.flip(3) if flip else turned


def _turned_back(maps: torch.Tensor, turn: int, flip: bool) -> torch.Tensor:
    return torch.rot90(maps.flip(3) if flip else maps, -turn, (2, 3))
