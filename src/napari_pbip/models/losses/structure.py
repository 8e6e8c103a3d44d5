"""The structural distillation loss of ConStruct, by which the student learns the teacher's similarities of cells."""

from __future__ import annotations

import torch
from torch.nn import functional as F

LARGEST_SIDE = 64
"""Largest side of the maps in cells; larger ones are pooled, so that the affinities of all pairs fit into memory."""


def structural_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return L_struct: the mean squared difference of the cosines of all pairs of cells of an image, over all images.

    Parameters
    ----------
    student
        Feature maps, shape (B, C, h, w).
    teacher
        Feature maps, shape (B, D, h', w'), computed under ``no_grad``; they are resized to those of the student.
    """
    size = student.shape[-2:]
    teacher = F.interpolate(teacher, size, mode="bilinear")
    if max(size) > LARGEST_SIDE:
        student, teacher = (F.adaptive_avg_pool2d(maps, LARGEST_SIDE) for maps in (student, teacher))
    return F.mse_loss(_affinity(student), _affinity(teacher))


def _affinity(maps: torch.Tensor) -> torch.Tensor:
    """Return the cosines of all pairs of cells, (B, h w, h w), in float32 also under autocast."""
    with torch.autocast(maps.device.type, enabled=False):
        directions = F.normalize(maps.float().flatten(2), dim=1)
        return directions.mT @ directions
