"""Mosaics for training: images composed of pieces of single-class tiles, so that the class of every pixel is known.

The idea is that of PistoSeg (AAAI 2023) and HisynSeg (IEEE TMI 2025), which match the stains of the pieces. Here the
colours of each piece are changed at random instead: a border of colours is then no sign of a border of classes, and
classes may still be recognised by their colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.bank import LabelledTile, TileSet
from napari_pbip.bank.mosaics import partition
from napari_pbip.config import TrainSettings
from napari_pbip.engine.loading import (
    Image,
    TileReader,
    flip_and_turn,
    require_one_size,
    stain_change,
    to_tensor,
    with_stain,
)
from napari_pbip.errors import DataError

_STAIN = 0.2
"""Strength of the change of the colours of a piece."""
_PIECES = (2, 5)
"""Smallest and largest number of pieces of a mosaic."""
_SHARE = 0.5
"""Number of mosaics in a step, as a share of the number of tiles."""


@dataclass(frozen=True, slots=True)
class Mosaics:
    """Mosaics of one training step."""

    images: torch.Tensor
    """RGB in [0, 1], shape (B, 3, S, S), float32."""
    masks: torch.Tensor
    """Class index of each pixel, shape (B, S, S), int64."""


def missing_alone(tiles: TileSet) -> list[str]:
    """Return the names of the classes that no tile shows alone, of which mosaics cannot be composed."""
    return [name for name, count in zip(tiles.taxonomy.names, tiles.alone, strict=True) if not count]


class Composer:
    """Composes the mosaics of each step, which depend on seed and step only.

    Parameters
    ----------
    tiles
        The training tiles.
    settings
        Batch size, seed, and whether tiles may be flipped and turned.
    read
        The reader of tiles.

    Raises
    ------
    DataError
        If a class has no single-class tile.
    """

    def __init__(self, tiles: TileSet, settings: TrainSettings, read: TileReader) -> None:
        single = tiles.single_class
        self._tiles: list[Sequence[LabelledTile]] = [
            [tile for tile in single if tile.class_index == n] for n in range(len(tiles.taxonomy))
        ]
        if missing := missing_alone(tiles):
            raise DataError(
                f"Mosaics are composed of tiles that show one class alone, and {missing[0]} has none; add some, or set "
                "`method.synthesis` to 0."
            )
        self._seed, self._turn = settings.seed, settings.flip_and_turn
        self._count = max(1, round(_SHARE * settings.batch_size))
        self._read = read

    def __call__(self, step: int) -> Mosaics:
        """Return the mosaics of a step, counted from 0.

        Raises
        ------
        DataError
            If a tile cannot be read, or tiles differ in size.
        """
        rng = np.random.default_rng((self._seed, step, 2))
        images, masks = zip(*(self._compose(rng) for _ in range(self._count)), strict=True)
        return Mosaics(torch.stack(images), torch.stack(masks))

    def _compose(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        classes = rng.integers(len(self._tiles), size=piece_count(rng))
        classes[:2] = rng.choice(len(self._tiles), 2, replace=False)
        chosen = [self._tiles[n][int(rng.integers(len(self._tiles[n])))] for n in classes]
        images = [self._read(tile) for tile in chosen]
        require_one_size(images, chosen)
        side = min(images[0].shape[:2])
        squares = [image[:side, :side] for image in images]
        if self._turn:
            squares = [flip_and_turn(square, rng) for square in squares]
        image, piece = join(squares, rng)
        return image, torch.from_numpy(classes[piece])


def piece_count(rng: np.random.Generator) -> int:
    """Return a random number of pieces of a mosaic."""
    return int(rng.integers(_PIECES[0], _PIECES[1] + 1))


def join(squares: Sequence[Image], rng: np.random.Generator) -> tuple[torch.Tensor, npt.NDArray[np.intp]]:
    """Join pieces of squares to a mosaic, each in other colours.

    Parameters
    ----------
    squares
        Single-class tiles, RGB uint8, (S, S, 3).
    rng
        Random generator.

    Returns
    -------
    tuple of torch.Tensor and numpy.ndarray
        The mosaic, RGB in [0, 1], (3, S, S), and the index of the square that each of its pixels shows, (S, S).
    """
    change = stain_change(len(squares), _STAIN, rng, white_point=True)
    piece = partition(len(squares[0]), len(squares), rng)
    image = np.select([(piece == n)[:, :, None] for n in range(len(squares))], squares)
    of_pixels = (values[piece, :, 0, 0].permute(2, 0, 1) for values in change)
    return with_stain(to_tensor(image[None]), *of_pixels)[0], piece
