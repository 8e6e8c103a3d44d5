"""Score maps of single images, whatever their size: what validation and evaluation look at.

An image about as large as the training tiles goes through the network in one piece, as published. A larger
one goes through in overlapping windows of the training size (attention sees no more context than it learned
with), whose maps are blended by weights that fall off towards the border.
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
"""Smallest side of a tile, pixels: one cell of the coarsest stage of the backbones."""
_ONE_PIECE = 1.5
"""Largest side, in training tiles, of an image that is looked at in one piece."""
_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ImageMaps:
    """What the network sees in one image."""

    stages: tuple[torch.Tensor, ...]
    """Class maps of each stage, (1, N, h, w)."""
    presence: torch.Tensor
    """Probability that a class is present: (1, N, 1, 1), or (1, N, h, w) where windows were blended."""
    calibrated: bool = False
    """Whether the maps of classes can be compared as they are (:attr:`Method.calibrated`)."""


def image_maps(
    method: Method,
    images: Sequence[Image],
    tile: int,
    device: torch.device,
    precision: Precision,
    *,
    tta: bool = False,
) -> list[ImageMaps]:
    """Maps of images of one size.

    Parameters
    ----------
    method
        In evaluation mode, on ``device``.
    images
        RGB uint8 (H, W, 3), all of one size.
    tile
        Side of the training tiles in pixels.
    device, precision
        Where and how to compute.
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
    """The class of each pixel among the present ones, as released: maps stretched per image, fused, argmax.

    Maps that are calibrated are fused as they are: stretched, each class would reach the same in every image.

    Parameters
    ----------
    maps
        Of one image.
    present
        Which classes may be chosen, bool, (1, N, 1, 1) or (1, N, h, w).
    weights
        Fusion weight of each stage.
    size
        (H, W) of the image.

    Returns
    -------
    uint8 array
        Class indices, shape (H, W). Background is never chosen, as in the published evaluation. Where all
        present classes score zero the first of them is chosen; the released code may choose an absent one.
    """
    labels: Label = _best(_fused(maps, weights, size), _at_pixels(present, size))[0]
    return labels


def refined_image(
    image: Image, maps: ImageMaps, presences: Sequence[torch.Tensor], weights: Sequence[float]
) -> list[Label]:
    """The class of each pixel as :func:`segment_image` chooses it, after a dense CRF; background takes part in it.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    maps
        Of this image.
    presences
        Which classes may be chosen, once or more, as :func:`segment_image` takes it.
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


def _fused(maps: ImageMaps, weights: Sequence[float], size: tuple[int, int]) -> torch.Tensor:
    """Fused class scores at the pixels of an image, 0 to 1, shape (1, N, H, W)."""
    if maps.calibrated:
        return fuse([(w, m) for w, m in zip(weights, maps.stages, strict=True) if w], size).sigmoid()
    classes = maps.stages[0].shape[1]
    present = torch.ones(1, classes, device=maps.presence.device)
    return fuse_per_tile(maps.stages, present, weights, size) / sum(weights)


def _at_pixels(present: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Presence (1, N, h, w) at the pixels of the image; (1, N, 1, 1) stays."""
    return F.interpolate(present.float(), size, mode="nearest").bool() if present.shape[-1] > 1 else present


def _best(scores: torch.Tensor, present: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Class of the best score among the present ones, (S, H, W)."""
    best: npt.NDArray[np.uint8] = scores.masked_fill(~present, -1).argmax(1).to(torch.uint8).cpu().numpy()
    return best


Label = npt.NDArray[np.uint8]


def predicted_presence(probability: torch.Tensor) -> torch.Tensor:
    """Which classes count as present: those that reach 0.5, or else the likeliest; bool, same shape."""
    likeliest = probability == probability.amax(1, keepdim=True)
    reached = probability >= 0.5
    return reached | (likeliest & ~reached.any(1, keepdim=True))


@torch.no_grad()
def _forward(
    method: Method, images: torch.Tensor, device: torch.device, precision: Precision, *, tta: bool
) -> ImageMaps:
    """Maps of a batch, (B, N, h, w) a stage and (B, N, 1, 1)."""

    def infer(some: torch.Tensor) -> list[torch.Tensor]:
        with autocast(device, precision):
            output = method(some)
        return [m.float() for m in (*output.class_maps, method.presence(output))]

    *stages, presence = average_over_views(infer, images.to(device)) if tta else infer(images.to(device))
    return ImageMaps(tuple(stages), presence.sigmoid()[:, :, None, None], method.calibrated)


def _blended(
    infer: Callable[[torch.Tensor], ImageMaps], image: Image, tile: int, cell: int, device: torch.device
) -> ImageMaps:
    """Maps of a large image from overlapping windows, on a grid of cells of that many pixels."""
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
    # a last cell that is mostly padding stays: maps are stretched over the image when they are enlarged
    kept = (slice(0, -(-height // cell)), slice(0, -(-width // cell)))
    *stages, presence = ((whole / total)[:, *kept][None] for whole in sums)
    return ImageMaps(tuple(stages), presence, output.calibrated)


def _starts(length: int, side: int, cell: int) -> list[int]:
    """Window positions along one axis: half a window apart, the last one at the end, multiples of the grid."""
    last = length - side
    return sorted({*range(0, last, side // 2 // cell * cell), last})
