"""A dense conditional random field, which adapts labels to those of nearby pixels and of pixels of similar colour.

Krähenbühl & Koltun (NIPS 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials"): every
pixel is connected to every other one by a Gaussian of their distance and one of distance and colour, and mean-field
iterations make the class probabilities of connected pixels more similar. Kernels are normalised symmetrically and
labels compared by the Potts model, as in the authors' library; all constants are those of LPD's released evaluation.

No library has wheels for every system (2026-11: pydensecrf and its forks are built from source or not on the registry
at all), so the kernels are computed here, in two ways, instead of the authors' permutohedral lattice:

* :func:`refine_image`, for images at full resolution, factorises the colour kernel. A tile of 224 x 224 pixels and four
  classes takes 1.0 to 1.6 s on one core, and 0.01 to 0.03 % of the labels differ from those of the sum over all pairs
  of pixels (a sum over windows of three deviations: 4.2 s, 0.004 %; a bilateral grid of cells of one deviation: 1 s,
  0.04 to 0.3 %). It needs about 1 kB of memory per pixel.
* :func:`refine_cells`, for the coarse grid of a slide, sums over windows of three deviations. A cell then depends only
  on cells within :func:`reach`, so that a part of a slide gets the same labels as in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

POSITION_SIGMA, POSITION_WEIGHT = 15.0, 30.0
"""Standard deviation in pixels, and compatibility, of the kernel of distances."""
COLOUR_SIGMA, COLOUR_DISTANCE, COLOUR_WEIGHT = 10.0, 20.0 / 255, 50.0
"""Standard deviations in pixels and in RGB in [0, 1], and compatibility, of the kernel of distances and colours."""
ITERATIONS = 5
BACKGROUND_POWER = 10
_DEVIATIONS = 3  # radius of windows
_SMALLEST_EIGENVALUE = 0.1  # for colours about one deviation apart; features with smaller ones hardly change labels
_SMALLEST_SHARE = 1e-3  # for positions, as a share of the largest eigenvalue
_FEATURES_AT_ONCE = 32

Kernel = Callable[[torch.Tensor], torch.Tensor]
"""A function from maps (..., H, W) to weighted sums over all pixels, of the same shape."""


def refine_image(image: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the class probabilities of the pixels of an image.

    Parameters
    ----------
    image
        RGB in [0, 1], shape (3, H, W).
    maps
        Class maps between 0 and 1, 0 for an absent class, shape (S, N, H, W): S sets of maps for the same image.

    Returns
    -------
    torch.Tensor
        Shape (S, N + 1, H, W), float32; the last one is background.
    """
    size = maps.shape[-2:]
    positions = [_gaussian(length, POSITION_SIGMA, maps.device) for length in size]
    kernels = (
        (POSITION_WEIGHT, _separable(*positions)),
        (COLOUR_WEIGHT, _factorised(image.to(maps.device).float())),
    )
    return mean_field(unary(maps.float()), kernels, torch.ones(size, device=maps.device))


def refine_cells(image: torch.Tensor, maps: torch.Tensor, known: torch.Tensor, cell: int) -> torch.Tensor:
    """Return the class probabilities of the cells of a coarse grid.

    Parameters
    ----------
    image
        Mean colour of each cell, RGB in [0, 1], shape (3, H, W).
    maps
        Class maps between 0 and 1, shape (S, N, H, W).
    known
        Whether each cell has scores, bool, shape (H, W); other cells have no influence.
    cell
        Side of a cell in pixels, the unit of the standard deviations.

    Returns
    -------
    torch.Tensor
        Shape (S, N + 1, H, W), float32; the last one is background.
    """
    positions = []
    for length in maps.shape[-2:]:
        near = _distances(length, maps.device) <= _radius(POSITION_SIGMA / cell)
        positions.append(_gaussian(length, POSITION_SIGMA / cell, maps.device) * near)
    kernels = (
        (POSITION_WEIGHT, _separable(*positions)),
        (COLOUR_WEIGHT, _windowed(image.to(maps.device).float(), COLOUR_SIGMA / cell)),
    )
    return mean_field(unary(maps.float()), kernels, known.to(maps.device).float())


def reach(cell: int) -> int:
    """Return the largest distance, in cells of ``cell`` pixels, at which cells interact in :func:`refine_cells`.

    Each iteration adds the radius of one window, and the normalisation of the kernels another one.
    """
    return (ITERATIONS + 1) * _radius(max(POSITION_SIGMA, COLOUR_SIGMA) / cell)


def unary(maps: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities (S, N + 1, H, W): log-softmax of class maps (S, N, H, W) in 0..1 and (1 - max)^10."""
    background = (1 - maps.amax(1, keepdim=True)).clamp_min(0) ** BACKGROUND_POWER
    return torch.cat([maps, background], 1).log_softmax(1)


def mean_field(log_unary: torch.Tensor, kernels: Sequence[tuple[float, Kernel]], known: torch.Tensor) -> torch.Tensor:
    """Iterate Q = softmax(log unary + sum of weight * D^-1/2 K D^-1/2 Q), D being the row sums of K, and return Q.

    Parameters
    ----------
    log_unary
        Log-probabilities of each class, shape (S, C, H, W).
    kernels
        Compatibility and kernel K of each kind of connection; a pixel is also connected with itself.
    known
        1 for pixels with scores, 0 for others, shape (H, W).

    Returns
    -------
    torch.Tensor
        Probabilities, same shape.
    """
    # the sum of a kernel is at least 1, a pixel's connection with itself, but a factorised one may be a little smaller
    norms = [known * kernel(known).clamp_min(1).rsqrt() for _, kernel in kernels]
    probability = log_unary.softmax(1)
    for _ in range(ITERATIONS):
        logits = log_unary
        for (weight, kernel), norm in zip(kernels, norms, strict=True):
            logits = logits + weight * norm * kernel(norm * probability)
        probability = logits.softmax(1)
    return probability


def _distances(length: int, device: torch.device) -> torch.Tensor:
    """Return the distances between all positions along an axis, (n, n)."""
    place = torch.arange(length, device=device, dtype=torch.float32)
    return (place[:, None] - place).abs()


def _gaussian(length: int, sigma: float, device: torch.device) -> torch.Tensor:
    return torch.exp(-0.5 * (_distances(length, device) / sigma) ** 2)


def _radius(sigma: float) -> int:
    return math.ceil(_DEVIATIONS * sigma)


def _separable(rows: torch.Tensor, columns: torch.Tensor) -> Kernel:
    """Return a kernel of positions only: the product of one of rows (H, H) and one of columns (W, W)."""
    return lambda maps: rows @ maps @ columns


def _factorised(image: torch.Tensor) -> Kernel:
    """Return the kernel of positions and colours as a product of few features, K = F F^T.

    A Gaussian of positions and colours is the product of three: of rows, of columns and of colours. The first two are
    smooth and have few eigenvalues that matter. For the third, the colours of stained tissue are a small part of RGB
    (Nyström's method, with landmarks one deviation apart).
    """
    _, height, width = image.shape
    rows, columns = (_position_features(length, image.device) for length in (height, width))
    colours = _colour_features(image.flatten(1).T / COLOUR_DISTANCE).T.reshape(-1, height, width)

    def apply(maps: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros_like(maps)
        for one, total in zip(maps.view(-1, height, width), sums.view(-1, height, width), strict=True):
            for first in range(0, len(colours), _FEATURES_AT_ONCE):
                part = colours[first : first + _FEATURES_AT_ONCE]
                seen = rows.T @ (part * one) @ columns
                total += (part * (rows @ seen @ columns.T)).sum(0)
        return sums

    return apply


def _position_features(length: int, device: torch.device) -> torch.Tensor:
    """Return features (n, r) of the positions along an axis, whose products are their Gaussian."""
    values, vectors = torch.linalg.eigh(_gaussian(length, COLOUR_SIGMA, torch.device("cpu")).double())
    kept = values > _SMALLEST_SHARE * values.max()
    features: torch.Tensor = vectors[:, kept] * values[kept].sqrt()
    return features.float().to(device)


def _colour_features(colours: torch.Tensor) -> torch.Tensor:
    """Return features (P, r) of colours (P, 3), in deviations, whose products approximate their Gaussian."""
    landmarks = torch.unique(colours.round(), dim=0)

    def affinity(some: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * torch.cdist(some, landmarks) ** 2)

    values, vectors = torch.linalg.eigh(affinity(landmarks).cpu().double())
    kept = values > _SMALLEST_EIGENVALUE
    features: torch.Tensor = vectors[:, kept] / values[kept].sqrt()
    return affinity(colours) @ features.float().to(colours.device)


def _windowed(image: torch.Tensor, sigma: float) -> Kernel:
    """Return the kernel of positions and colours, summed over a window around each cell."""
    _, height, width = image.shape
    down, across = (min(_radius(sigma), side - 1) for side in (height, width))
    pairs = []
    # half of the window is enough, because the kernel is symmetric
    for y in range(down + 1):
        for x in range(-across, across + 1):
            if y == 0 and x <= 0:
                continue
            here = (..., slice(0, height - y), slice(max(0, -x), width - max(0, x)))
            there = (..., slice(y, height), slice(max(0, x), width - max(0, -x)))
            colour = ((image[here] - image[there]) / COLOUR_DISTANCE).square().sum(0)
            pairs.append((torch.exp(-0.5 * (colour + (x * x + y * y) / sigma**2)), here, there))

    def apply(maps: torch.Tensor) -> torch.Tensor:
        sums = maps.clone()
        for affinity, here, there in pairs:
            sums[here] += affinity * maps[there]
            sums[there] += affinity * maps[here]
        return sums

    return apply
