"""Mosaics: images composed of pieces of single-class tiles, so that the class of every pixel is known.

The pixels are real tissue, but the layout is artificial. Data sets of mosaics are used in the demo and in the tests,
where no annotated data can be included. All metrics measured on them say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import zoom

Tile = npt.NDArray[np.uint8]


def write_training(
    folder: Path, tiles: Mapping[str, Sequence[Tile]], count: int, side: int, rng: np.random.Generator
) -> None:
    """Write ``train/<name>[101].png`` (image-level labels in the name) and ``classes.txt``.

    Every third image shows a single class, so that an image bank can be built.

    Parameters
    ----------
    folder
        Folder to write to, in the layout of BCSS-WSSS.
    tiles
        Single-class tiles, RGB uint8 (S, S, 3) with S >= ``side``, by class name in label order.
    count
        Number of images.
    side
        Side of the images in pixels.
    rng
        Random generator of the layout.
    """
    (folder / "train").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(tiles) + "\n", encoding="utf-8")
    for i in range(count):
        image, mask = compose(tiles, side, rng, classes=1 if i % 3 == 0 else 2 + i % 2)
        bits = "".join(str(int((mask == label).any())) for label in range(len(tiles)))
        Image.fromarray(image).save(folder / "train" / f"train_{i:04d}[{bits}].png")


def write_masked(
    folder: Path, split: str, tiles: Mapping[str, Sequence[Tile]], count: int, side: int, rng: np.random.Generator
) -> None:
    """Write ``<split>/img/<name>.png`` and ``<split>/mask/<name>.png``; parameters as in :func:`write_training`."""
    for kind in ("img", "mask"):
        (folder / split / kind).mkdir(parents=True)
    for i in range(count):
        image, mask = compose(tiles, side, rng, classes=2 + i % 2)
        Image.fromarray(image).save(folder / split / "img" / f"{split}_{i:04d}.png")
        Image.fromarray(mask).save(folder / split / "mask" / f"{split}_{i:04d}.png")


def compose(
    tiles: Mapping[str, Sequence[Tile]], side: int, rng: np.random.Generator, classes: int
) -> tuple[Tile, npt.NDArray[np.uint8]]:
    """Return a mosaic, (side, side, 3), and its mask of class indices, (side, side), both uint8."""
    names = list(tiles)
    chosen = rng.choice(len(names), min(classes, len(names)), replace=False)
    cells = len(chosen) + int(rng.integers(0, 3)) if len(chosen) > 1 else 1
    of_cell = np.concatenate([chosen, rng.choice(chosen, cells - len(chosen))])
    mask = of_cell[partition(side, cells, rng)].astype(np.uint8)
    image = np.empty((side, side, 3), np.uint8)
    for label in np.unique(mask):
        image[mask == label] = _cut(tiles[names[label]], side, rng)[mask == label]
    return image, mask


def partition(side: int, pieces: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Divide a square into pieces with irregular borders; return each pixel's piece, 0 to ``pieces`` - 1, (side, side).

    The pieces are a Voronoi tessellation of random points with wavy borders: coordinates are displaced by smooth random
    fields before each pixel is assigned to the nearest point.
    """
    bent = np.indices((side, side)) + np.stack([_smooth(side, rng) for _ in range(2)])
    points = rng.uniform(0, side, (pieces, 2))
    distance = ((bent[None] - points[:, :, None, None]) ** 2).sum(1)
    nearest: npt.NDArray[np.intp] = distance.argmin(0)
    return nearest


def _smooth(side: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a smooth random field, shape (side, side), whose standard deviation is a twentieth of the side."""
    knots = 6
    drawn = rng.normal(0, side / 20, (knots, knots))
    field: npt.NDArray[np.float64] = zoom(drawn, side / knots, order=3, mode="nearest")
    return field


def _cut(tiles: Sequence[Tile], side: int, rng: np.random.Generator) -> Tile:
    """Return a random square of a random tile, randomly rotated and flipped."""
    tile = tiles[int(rng.integers(len(tiles)))]
    y, x = rng.integers(tile.shape[0] - side + 1), rng.integers(tile.shape[1] - side + 1)
    square = np.rot90(tile[y : y + side, x : x + side], int(rng.integers(4)))
    return square[::-1] if rng.random() < 0.5 else square
