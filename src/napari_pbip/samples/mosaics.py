"""A weakly labelled data set with exact masks, composed of single-class tiles.

The pixels are real tissue, the layout is not: borders between tissues are random Voronoi borders. It stands
in where no annotated data can be shipped: in the demo and in the tests. Every figure measured on it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.spatial import cKDTree

Tile = npt.NDArray[np.uint8]


def write_training(
    folder: Path, tiles: Mapping[str, Sequence[Tile]], count: int, side: int, rng: np.random.Generator
) -> None:
    """Write ``train/<name>[101].png`` (image-level labels in the name) and ``classes.txt``.

    Every third image shows one class alone, so that there is something to build an image bank from.

    Parameters
    ----------
    folder
        Where to write; layout of BCSS-WSSS.
    tiles
        Single-class tiles, RGB uint8 (S, S, 3) with S >= ``side``, by class name in label order.
    count
        Number of images.
    side
        Their side in pixels.
    rng
        Source of the layout.
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
    """Write ``<split>/img/<name>.png`` and ``<split>/mask/<name>.png``; parameters as :func:`write_training`."""
    for kind in ("img", "mask"):
        (folder / split / kind).mkdir(parents=True)
    for i in range(count):
        image, mask = compose(tiles, side, rng, classes=2 + i % 2)
        Image.fromarray(image).save(folder / split / "img" / f"{split}_{i:04d}.png")
        Image.fromarray(mask).save(folder / split / "mask" / f"{split}_{i:04d}.png")


def compose(
    tiles: Mapping[str, Sequence[Tile]], side: int, rng: np.random.Generator, classes: int
) -> tuple[Tile, npt.NDArray[np.uint8]]:
    """One mosaic and its mask of class indices, (side, side, 3) and (side, side), both uint8."""
    names = list(tiles)
    chosen = rng.choice(len(names), min(classes, len(names)), replace=False)
    cells = len(chosen) + int(rng.integers(0, 3)) if len(chosen) > 1 else 1
    of_cell = np.concatenate([chosen, rng.choice(chosen, cells - len(chosen))])
    places = np.indices((side, side)).reshape(2, -1).T
    _, cell = cKDTree(rng.uniform(0, side, (cells, 2))).query(places)
    mask = of_cell[cell].reshape(side, side).astype(np.uint8)
    image = np.empty((side, side, 3), np.uint8)
    for label in np.unique(mask):
        image[mask == label] = _cut(tiles[names[label]], side, rng)[mask == label]
    return image, mask


def _cut(tiles: Sequence[Tile], side: int, rng: np.random.Generator) -> Tile:
    """A random square of a random tile, randomly turned and flipped."""
    tile = tiles[int(rng.integers(len(tiles)))]
    y, x = rng.integers(tile.shape[0] - side + 1), rng.integers(tile.shape[1] - side + 1)
    square = np.rot90(tile[y : y + side, x : x + side], int(rng.integers(4)))
    return square[::-1] if rng.random() < 0.5 else square
