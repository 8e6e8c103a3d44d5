"""Mosaics for a linear probe: pictures of several classes, whose cells it learns besides those of whole tiles.

A tile of one class has no borders, while the cells of a slide have others of other classes around them, which their
features contain. Pieces of single-class tiles are therefore joined, in other colours each, as in training with mosaics
(:mod:`napari_pbip.engine.training.synthesis`), to squares in which the probe will see a slide. On validation images of
lung and of glands, ten tiles of each class then give maps that are about one point of mIoU better, and on lung in
another light three more (``benchmarks/few_tiles.py``).

Which tiles are put together depends on hashes of their names, so that one label more changes few of the mosaics, and
the features of the others are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.engine.dense import Features
from napari_pbip.engine.inference.windows import mirrored
from napari_pbip.engine.loading import Image, flip_and_turn
from napari_pbip.engine.training.linear_probe import Floats, Ints
from napari_pbip.engine.training.synthesis import join, piece_count

Hashes = npt.NDArray[np.uint64]
Pieces = npt.NDArray[np.uint8]

MOST_MOSAICS = 200
"""Largest number of mosaics; twice as many do not improve the maps."""
_PER_TILE = 2


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A plan of a mosaic."""

    seed: int
    tiles: tuple[int, ...]
    """The tile of each piece, as an index; the first two have different classes."""


def plan_mosaics(names: Sequence[str], classes: Ints) -> list[Mosaic]:
    """Return the plans of up to two mosaics for each tile, :data:`MOST_MOSAICS` at most.

    Parameters
    ----------
    names
        A name of each tile, (T,), on which the plans depend.
    classes
        Class of each tile, (T,), 0..N-1; each occurs at least once, and N is 2 or more.
    """
    hashes = np.array([_hash(name) for name in names], np.uint64)
    of_classes = [np.flatnonzero(classes == n) for n in range(classes.max() + 1)]
    begun = sorted((_hash(name, i), tile) for tile, name in enumerate(names) for i in range(_PER_TILE))
    return [_plan(seed, tile, hashes, classes, of_classes) for seed, tile in begun[:MOST_MOSAICS]]


def _plan(seed: int, tile: int, hashes: Hashes, classes: Ints, of_classes: Sequence[Ints]) -> Mosaic:
    rng = np.random.default_rng(seed)
    others = [n for n in range(len(of_classes)) if n != classes[tile]]
    count = piece_count(rng)
    shown = [rng.choice(others), *rng.integers(len(of_classes), size=count - 2)]
    chosen = (
        of_classes[n][_mixed(hashes[of_classes[n]], _hash(seed, piece)).argmin()] for piece, n in enumerate(shown)
    )
    return Mosaic(seed, (tile, *(int(one) for one in chosen)))


def _hash(*values: object) -> int:
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest())


def _mixed(hashes: Hashes, key: int) -> Hashes:
    """Return other hashes of what has these; those for different keys have nothing to do with each other."""
    mixed = hashes ^ np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return mixed ^ (mixed >> np.uint64(33))


def compose(mosaic: Mosaic, images: Sequence[Image], side: int) -> tuple[Image, Pieces]:
    """Return a mosaic, RGB uint8, (side, side, 3), and the index of the piece that each pixel shows, (side, side).

    Parameters
    ----------
    mosaic
        The plan.
    images
        The tile of each piece, RGB uint8, (H, W, 3), all of one size. They are mirrored at their edges if the mosaic is
        larger.
    side
        Side of the mosaic in pixels.
    """
    rng = np.random.default_rng(mosaic.seed)
    squares = [mirrored(flip_and_turn(tile[:side, :side], rng), side) for tile in images]
    image, pieces = join(squares, rng)
    return image.mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy(), pieces.astype(np.uint8)


def sampled_cells(features: Features, pieces: Pieces, count: int) -> tuple[Floats, Pieces]:
    """Return the features, (n, D), of up to ``count`` random cells of a mosaic, and the piece that each shows, (n,).

    Parameters
    ----------
    features
        Dense features of the mosaic, (D, h, w).
    pieces
        Index of the piece that each pixel shows, (side, side).
    count
        Largest number of cells.
    """
    rows, columns = (((np.arange(n) + 0.5) * len(pieces) / n).astype(int) for n in features.shape[1:])
    of_cells = pieces[rows[:, None], columns].ravel()
    chosen = np.random.default_rng(0).permutation(len(of_cells))[:count]
    return features.reshape(len(features), -1).T[chosen].astype(np.float32), of_cells[chosen]
