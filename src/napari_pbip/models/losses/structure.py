"""The structural distillation loss of ConStruct: cells should be as similar for the student as for the teacher."""

from __future__ import annotations

import torch
from torch.nn import functional as F

LARGEST_SIDE = 64
"""Largest side of the maps in cells; larger ones are pooled, so that the affinities of all pairs fit into memory."""


def structural_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L_struct: mean squared difference of the cosines of all pairs of cells of an image, mean over images.

    Parameters
    ----------
    student
        Shape (B, C, h, w).
    teacher
        Shape (B, D, h', w'); resized to the student. Compute it under ``no_grad``.
    """
    size = student.shape[-2:]
    teacher = F.interpolate(teacher, size, mode="bilinear")
    if max(size) > LARGEST_SIDE:
        student, teacher = (F.adaptive_avg_pool2d(maps, LARGEST_SIDE) for maps in (student, teacher))
    return F.mse_loss(_affinity(student), _affinity(teacher))


def _affinity(maps: torch.Tensor) -> torch.Tensor:
    """Cosine of every cell with every cell, (B, h w, h w), in float32 also under autocast."""
    with torch.autocast(maps.device.type, enabled=False):
        directions = F.normalize(maps.float().flatten(2), dim=1)
        return directions.mT @ directions
