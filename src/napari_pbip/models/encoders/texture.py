"""The encoder without weights: statistics of the amount of each stain, and of its texture at four scales.

It resembles the hand-made descriptors of Kather et al. (2016), "Multi-class texture analysis in colorectal cancer
histology", Sci Rep 6:27988 (grey-level statistics, Gabor and perception-like features), but is made for PBIP: every
step is differentiable, and black means "no tissue here".

1. Intensities are divided by the image's brightness, so that an image times any factor gives the same features.
2. Optical density (Beer-Lambert), and amounts of haematoxylin, eosin and residual by the colour deconvolution
   of Ruifrok & Johnston (2001).
3. At pixel sizes of 2, 4, 8 and 16: edges, dark and bright spots, and ridges (gradient, Laplacian and Hessian
   of the stain amounts, the same in every orientation), and how these vary at coarser scales (as in the
   scattering transform of Bruna & Mallat 2013).
4. Mean and deviation over the tissue; the logarithm of those that are magnitudes.
5. A fixed linear map. Raw statistics differ in scale by orders of magnitude and all have the same sign, so their
   cosines are hardly informative. The map subtracts the mean of real tissue, and scales all variation that is
   not due to tissue to equal strength: staining, the part of the tile that is shown, a mask over it. Its
   constants are in ``texture.safetensors``; ``benchmarks/texture_constants.py`` computed them, without labels,
   from the slide and tiles that come with the package. They are the same for all data.

Black means no tissue because of masked images (Eq. 5 of PBIP): the zeros outside a mask have the highest optical
density of all and would dominate every feature. Here the weight of a pixel is its brightness relative to the image:
masked pixels have no weight, the border of a mask is no edge, and the gradient of a feature shows which pixels bring it
nearer to a prototype.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec

CONSTANTS = Path(__file__).with_name("texture.safetensors")

_SCALES = 4
_DARKEST = 1 / 255
"""Smallest intensity that is distinguished from zero: one step of an 8-bit image."""
_FAINT = 0.05
"""Brightness, relative to that of the image, at which a pixel has half weight."""
_IN_CACHE = 8
"""Number of images whose intermediate maps fit into the cache of a processor."""
_HISTOGRAM = torch.linspace(-0.4, 1.4, 6)
_HISTOGRAM_WIDTH = 0.36

# Rows: red, green, blue density. Columns: haematoxylin, eosin, residual. Inverse of the stain vectors of
# Ruifrok & Johnston (2001), as in scikit-image's hed_from_rgb.
_UNMIX = torch.tensor(
    [
        [1.87798274, -1.00767869, -0.55611582],
        [-0.06590806, 1.13473037, -0.13552180],
        [-0.60190736, -0.48041419, 1.57358807],
    ]
)


def build(spec: EncoderSpec, weights: Path | None) -> Encoder:
    """Return the encoder with its constants."""
    constants = load_file(CONSTANTS)
    return Encoder(spec, Texture(constants["centre"], constants["projection"]))


class Texture(nn.Module):
    """Fixed statistics of stain and texture.

    Parameters
    ----------
    centre
        Statistics of average tissue, shape (F,).
    projection
        The linear map, shape (D, F).
    """

    centre: torch.Tensor
    projection: torch.Tensor

    def __init__(self, centre: torch.Tensor, projection: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("projection", projection)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, shape (B, D), of RGB in [0, 1], shape (B, 3, H, W), of any brightness."""
        return (statistics(images) - self.centre) @ self.projection.T


def statistics(images: torch.Tensor) -> torch.Tensor:
    """Return the statistics before the linear map, shape (B, F), of RGB in [0, 1], shape (B, 3, H, W).

    They are computed in float32 also under autocast, because they contain small differences of large sums.
    """
    # On a processor, memory is the bottleneck; the maps of a few images at a time stay in its cache.
    parts = torch.split(images, _IN_CACHE) if images.device.type == "cpu" else (images,)
    return torch.cat([_of_some(part) for part in parts])


def _of_some(images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        stains, fine, weight = _stains(images.float())
        parts = _moments(stains, fine, weight)
        for scale in range(_SCALES):
            stains = _smooth(stains)
            maps = _responses(stains)
            share = _share(weight)
            mean, deviation = _mean_and_deviation(maps, share)
            parts += [torch.log(mean + 1e-2), torch.log(deviation)]
            parts += _coarser_variation(maps, weight, _SCALES - 1 - scale)
            stains, weight = _halve(stains), _halve(weight)
            share = _share(weight)
            parts.append(torch.log(_mean_and_deviation(stains, share)[1]))
            if scale == 0:
                parts.append(_histogram(stains[:, :2], share))
        return torch.cat(parts, 1)


def _stains(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return stains (B, 3, h, w) at half the resolution, the variance lost by halving, and weights (B, 1, h, w)."""
    brightness = images.mean(1, keepdim=True)
    # the mean brightness weighted by itself, which black areas do not change
    level = ((brightness**2).mean((2, 3), keepdim=True) + 1e-8) / (brightness.mean((2, 3), keepdim=True) + 1e-6)
    density = -torch.log((images / level).clamp(min=_DARKEST))
    relative = brightness / level
    weight = relative / (relative + _FAINT)
    square, density, weight = _halve(weight * density**2), _halve(weight * density), _halve(weight)
    local = density / (weight + 1e-3)
    fine = (square / (weight + 1e-3) - local**2).clamp(min=0)
    # pixels without weight get the density around them, so that the border of a mask is no edge
    around = functional.avg_pool2d(density, 8, ceil_mode=True) / (
        functional.avg_pool2d(weight, 8, ceil_mode=True) + 1e-3
    )
    around = functional.interpolate(around, density.shape[-2:], mode="bilinear", align_corners=False)
    density = density + (1 - weight) * around
    stains = (_UNMIX.to(density).T @ density.flatten(2)).view(density.shape)
    return stains, fine, weight


def _moments(stains: torch.Tensor, fine: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Return amount and deviation of each stain, and the texture below the finest scale."""
    share = _share(weight)
    mean, deviation = _mean_and_deviation(stains, share)
    return [mean, torch.log(deviation), torch.log(_mean(fine, share) + 1e-3)]


def _responses(stains: torch.Tensor) -> torch.Tensor:
    """Return edges, dark spots, bright spots and ridges of each stain, 0 or more, shape (B, 12, h, w).

    By central differences: gradient magnitude, the two signs of the Laplacian, and the difference of the eigenvalues
    of the Hessian (large on lines, zero on round spots). None of them depends on orientation.
    """
    near = functional.pad(stains, (1, 1, 1, 1), mode="replicate")
    left, right, up, down = near[..., 1:-1, :-2], near[..., 1:-1, 2:], near[..., :-2, 1:-1], near[..., 2:, 1:-1]
    xx, yy = left + right - 2 * stains, up + down - 2 * stains
    xy = (near[..., 2:, 2:] + near[..., :-2, :-2] - near[..., 2:, :-2] - near[..., :-2, 2:]) / 4
    laplacian = (xx + yy) / 2
    ridge = torch.sqrt((xx - yy) ** 2 / 4 + xy**2 + 1e-4)
    return torch.cat([_gradient(left, right, up, down), (-laplacian).relu(), laplacian.relu(), ridge], 1)


def _coarser_variation(maps: torch.Tensor, weight: torch.Tensor, scales: int) -> list[torch.Tensor]:
    """Return the variation of responses at scales two and four times coarser, as far as there are such scales."""
    parts = []
    for _ in range(min(2, scales)):
        maps, weight = _halve(_smooth(maps)), _halve(weight)
        near = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
        edges = _gradient(near[..., 1:-1, :-2], near[..., 1:-1, 2:], near[..., :-2, 1:-1], near[..., 2:, 1:-1])
        parts.append(torch.log(_mean(edges, _share(weight)) + 1e-3))
    return parts


def _histogram(stains: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of a soft histogram of each stain, shape (B, 2 x 6)."""
    levels = _HISTOGRAM.to(stains).view(1, 1, -1, 1, 1)
    near = torch.exp(-(((stains.unsqueeze(2) - levels) / _HISTOGRAM_WIDTH) ** 2) / 2)
    return torch.log(_mean(near.flatten(1, 2), share) + 0.02)


def _gradient(left: torch.Tensor, right: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    return torch.sqrt((right - left) ** 2 + (down - up) ** 2 + 4e-4) / 2


def _share(weight: torch.Tensor) -> torch.Tensor:
    """Return the weights divided by their sum, shape (B, h w, 1)."""
    flat = weight.flatten(2)
    return (flat / (flat.sum(2, keepdim=True) + 1e-6)).mT


def _mean(maps: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean of each map, shape (B, C)."""
    return (maps.flatten(2) @ share).squeeze(2)


def _mean_and_deviation(maps: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = _mean(maps, share)
    variance = (_mean(maps**2, share) - mean**2).clamp(min=0)
    return mean, torch.sqrt(variance + 1e-5)


def _smooth(maps: torch.Tensor) -> torch.Tensor:
    """Smooth maps with the binomial filter 1 2 1 in both directions."""
    maps = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    maps = (maps[..., :-2] + maps[..., 2:]) / 4 + maps[..., 1:-1] / 2
    return (maps[..., :-2, :] + maps[..., 2:, :]) / 4 + maps[..., 1:-1, :] / 2


def _halve(maps: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(maps, 2, ceil_mode=True)
