"""Score maps and labels of single images of any size, for validation, evaluation and pseudo masks.

The network gets an image in one piece, as published, if it is about as large as the training tiles. It gets a larger
image in overlapping windows of the training size, so that attention has the context that it was trained with; the maps
of the windows are averaged with weights that decrease towards their borders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from napari_pbip.engine.device import Precision, autocast
from napari_pbip.engine.loading import Image, to_tensor
from napari_pbip.models.dense_crf import refine_image
from napari_pbip.models.methods.base import Method
from napari_pbip.models.score_maps import fuse, fuse_per_tile
from napari_pbip.models.views import average_over_views

SMALLEST = 32
"""Smallest side of a tile in pixels: one cell of the coarsest stage of the backbones."""
_ONE_PIECE = 1.5
"""Longest side of an image that the network gets in one piece, in sides of training tiles."""
_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ImageMaps:
    """The network's output for one image."""

    stages: tuple[torch.Tensor, ...]
    """Class maps of each stage, (1, N, h, w)."""
    presence: torch.Tensor
    """Probability that each class is present: (1, N, 1, 1), or (1, N, h, w) if windows were blended."""
    calibrated: bool = False
    """Whether the maps of different classes can be compared without scaling (:attr:`Method.calibrated`)."""


def image_maps(
    method: Method,
    images: Sequence[Image],
    tile: int,
    device: torch.device,
    precision: Precision,
    *,
    tta: bool = False,
) -> list[ImageMaps]:
    """Return the network's output for images of one size.

    Parameters
    ----------
    method
        The method, in evaluation mode, on ``device``.
    images
        RGB uint8 (H, W, 3), all of one size.
    tile
        Side of the training tiles in pixels.
    device, precision
        Device and number format of the computation.
    tta
        Whether to average over flips and quarter turns.
    """

    def infer(tensor: torch.Tensor) -> ImageMaps:
        return _forward(method, tensor, device, precision, tta=tta)

    height, width = images[0].shape[:2]
    if max(height, width) <= _ONE_PIECE * tile:
        output = infer(to_tensor(np.stack(images)))
        return [
            ImageMaps(tuple(m[i : i + 1] for m in output.stages), output.presence[i : i + 1], output.calibrated)
            for i in range(len(images))
        ]
    return [_blended(infer, image, tile, method.cell, device) for image in images]


def segment_image(maps: ImageMaps, present: torch.Tensor, weights: Sequence[float], size: tuple[int, int]) -> Label:
    """Return the class of each pixel among the present ones.

    As in the released code, each map is scaled to 0 to 1 over the image, the stages are fused, and the argmax is taken.
    Calibrated maps are fused without scaling, which would give every class the same maximum in every image.

    Parameters
    ----------
    maps
        The network's output for the image.
    present
        The classes that may be chosen, bool, (1, N, 1, 1) or (1, N, h, w).
    weights
        Fusion weight of each stage.
    size
        (H, W) of the image.

    Returns
    -------
    uint8 array
        Class indices, shape (H, W). Background is never chosen, as in the published evaluation. If all present
        classes score zero, the first of them is chosen; the released code may choose an absent one.
    """
    labels: Label = _best(_fused(maps, weights, size), _at_pixels(present, size))[0]
    return labels


def refined_image(
    image: Image, maps: ImageMaps, presences: Sequence[torch.Tensor], weights: Sequence[float]
) -> list[Label]:
    """Return the class of each pixel, as :func:`segment_image` does, after a dense CRF in which background takes part.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    maps
        The network's output for the image.
    presences
        One or more arrays of the classes that may be chosen, as in :func:`segment_image`.
    weights
        Fusion weight of each stage.

    Returns
    -------
    list of uint8 arrays
        Class indices (H, W), one for each of ``presences``.
    """
    size = image.shape[:2]
    fused = _fused(maps, weights, size)
    gates = torch.cat([_at_pixels(one, size).expand_as(fused) for one in presences])
    distinct, which = torch.unique(gates, dim=0, return_inverse=True)  # protocols often agree
    refined = refine_image(to_tensor(np.stack([image]))[0], fused * distinct)[which]
    return list(_best(refined[:, :-1], gates))


def label_with_margin(
    image: Image, maps: ImageMaps, present: torch.Tensor, weights: Sequence[float], *, crf: bool = False
) -> tuple[Label, npt.NDArray[np.float32]]:
    """Return the class of each pixel among the present ones, and how far it is ahead of the next one.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    maps
        The network's output for the image.
    present
        The classes that may be chosen, bool, (1, N, 1, 1); N is two or more.
    weights
        Fusion weight of each stage.
    crf
        Whether to refine with a dense CRF.

    Returns
    -------
    label
        Class indices, uint8 (H, W).
    margin
        Difference of the scores of the best and the second-best present class, 0 to 1, (H, W).
    """
    scores = _fused(maps, weights, image.shape[:2])
    if crf:
        scores = refine_image(to_tensor(np.stack([image]))[0], scores * present)[:, :-1]
    first, second = scores.masked_fill(~present, 0).topk(2, 1).values[0]
    return _best(scores, present)[0], (first - second).cpu().numpy()


def _fused(maps: ImageMaps, weights: Sequence[float], size: tuple[int, int]) -> torch.Tensor:
    """Return the fused class scores at the pixels of an image, 0 to 1, shape (1, N, H, W)."""
    if maps.calibrated:
        return fuse([(w, m) for w, m in zip(weights, maps.stages, strict=True) if w], size).sigmoid()
    classes = maps.stages[0].shape[1]
    present = torch.ones(1, classes, device=maps.presence.device)
    return fuse_per_tile(maps.stages, present, weights, size) / sum(weights)


def _at_pixels(present: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return presence (1, N, h, w) at the pixels of the image, (1, N, H, W), or (1, N, 1, 1) unchanged."""
    return F.interpolate(present.float(), size, mode="nearest").bool() if present.shape[-1] > 1 else present


def _best(scores: torch.Tensor, present: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return the present class with the largest score at each pixel, for S presences: (S, H, W)."""
    best: npt.NDArray[np.uint8] = scores.masked_fill(~present, -1).argmax(1).to(torch.uint8).cpu().numpy()
    return best


Label = npt.NDArray[np.uint8]


def predicted_presence(probability: torch.Tensor) -> torch.Tensor:
    """Return which classes count as present: those that reach 0.5, or else the most likely one; bool, same shape."""
    likeliest = probability == probability.amax(1, keepdim=True)
    reached = probability >= 0.5
    return reached | (likeliest & ~reached.any(1, keepdim=True))


@torch.no_grad()
def _forward(
    method: Method, images: torch.Tensor, device: torch.device, precision: Precision, *, tta: bool
) -> ImageMaps:
    """Return the output for a batch: maps (B, N, h, w) for each stage, and presence (B, N, 1, 1)."""

    def infer(some: torch.Tensor) -> list[torch.Tensor]:
        with autocast(device, precision):
            output = method(some)
        return [m.float() for m in (*output.class_maps, method.presence(output))]

    *stages, presence = average_over_views(infer, images.to(device)) if tta else infer(images.to(device))
    return ImageMaps(tuple(stages), presence.sigmoid()[:, :, None, None], method.calibrated)


def _blended(
    infer: Callable[[torch.Tensor], ImageMaps], image: Image, tile: int, cell: int, device: torch.device
) -> ImageMaps:
    """Return the output for a large image, blended from windows, on a grid of cells of ``cell`` x ``cell`` pixels."""
    side = max(SMALLEST, tile - tile % SMALLEST)
    height, width = image.shape[:2]
    padding = [(0, max(side, n + -n % cell) - n) for n in (height, width)]
    padded = np.pad(image, (*padding, (0, 0)), mode="symmetric")
    corners = [(y, x) for y in _starts(padded.shape[0], side, cell) for x in _starts(padded.shape[1], side, cell)]
    grid = (padded.shape[0] // cell, padded.shape[1] // cell)
    cells = side // cell
    ramp = torch.minimum(torch.arange(cells) + 1, cells - torch.arange(cells)).float()
    window_weight = (ramp[:, None] * ramp[None, :]).to(device)
    sums: list[torch.Tensor] = []
    total = torch.zeros(grid, device=device)
    for first in range(0, len(corners), _WINDOWS_AT_ONCE):
        part = corners[first : first + _WINDOWS_AT_ONCE]
        output = infer(to_tensor(np.stack([padded[y : y + side, x : x + side] for y, x in part])))
        maps = [F.interpolate(m, (cells, cells), mode="bilinear") for m in output.stages]
        maps.append(output.presence.expand(-1, -1, cells, cells))
        if not sums:
            sums = [torch.zeros(m.shape[1], *grid, device=device) for m in maps]
        for i, (y, x) in enumerate(part):
            place = (slice(y // cell, y // cell + cells), slice(x // cell, x // cell + cells))
            total[place] += window_weight
            for whole, m in zip(sums, maps, strict=True):
                whole[:, *place] += m[i] * window_weight
    # Keep the last cell even if it is mostly padding, because the maps are later enlarged to the whole image.
    kept = (slice(0, -(-height // cell)), slice(0, -(-width // cell)))
    *stages, presence = ((whole / total)[:, *kept][None] for whole in sums)
    return ImageMaps(tuple(stages), presence, output.calibrated)


def _starts(length: int, side: int, cell: int) -> list[int]:
    """Return window positions along one axis: multiples of the cell, half a window apart, the last one at the end."""
    last = length - side
    return sorted({*range(0, last, side // 2 // cell * cell), last})
