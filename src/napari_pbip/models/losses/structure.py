"""The structural distillation loss of ConStruct: cells that are alike to the teacher should be alike to the student."""

from __future__ import annotations

import torch
from torch.nn import functional as F

LARGEST_SIDE = 64
"""Maps with a longer side are pooled to this: the affinities of all pairs of cells have to fit into memory."""


def structural_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L_struct: mean squared difference of the cosines of all pairs of cells of an image, mean over images.

    Parameters
    ----------
    student
        Shape (B, C, h, w).
    teacher
        Shape (B, D, h', w'); resized to the student. What it was computed without gradient has none here.
    """
    size = student.shape[-2:]
    teacher = F.interpolate(teacher, size, mode="bilinear")
    if max(size) > LARGEST_SIDE:
        student, teacher = (F.adaptive_avg_pool2d(maps, LARGEST_SIDE) for maps in (student, teacher))
    return F.mse_loss(_affinity(student), _affinity(teacher))


def _affinity(maps: torch.Tensor) -> torch.Tensor:
    """Cosine of every cell with every cell, (B, h w, h w), float32 whatever the surroundings."""
    with torch.autocast(maps.device.type, enabled=False):
        directions = F.normalize(maps.float().flatten(2), dim=1)
        return directions.mT @ directions
