"""Mosaics for training: single-class tiles have known pixels, and pieces of several make images that have them too.

The idea of composing single-class tiles is that of PistoSeg (AAAI 2023) and HisynSeg (IEEE TMI 2025). Here the stain of
each piece is changed at random, in place of matching stains: a border then says nothing of whether the class changes
there, and colour stays a mark of classes whose colour differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from napari_pbip.bank import LabelledTile, TileSet
from napari_pbip.bank.mosaics import partition
from napari_pbip.config import TrainSettings
from napari_pbip.engine.loading import TileReader, change_stain, flip_and_turn, require_one_size, to_tensor
from napari_pbip.errors import DataError

_STAIN = 0.2
_PIECES = (2, 5)
"""Fewest and most pieces of a mosaic."""
_SHARE = 0.5
"""Mosaics in a step, for each tile in it."""


@dataclass(frozen=True, slots=True)
class Mosaics:
    """Mosaics of one training step."""

    images: torch.Tensor
    """RGB in [0, 1], shape (B, 3, S, S), float32."""
    masks: torch.Tensor
    """Class index of each pixel, shape (B, S, S), int64."""


class Composer:
    """Composes the mosaics of each step; what it draws follows from seed and step alone.

    Parameters
    ----------
    tiles
        The training tiles.
    settings
        Batch size, seed, and whether tiles may be flipped and turned.
    read
        Reads a tile.

    Raises
    ------
    DataError
        If a class has no tile that shows it alone.
    """

    def __init__(self, tiles: TileSet, settings: TrainSettings, read: TileReader) -> None:
        single = tiles.single_class
        self._tiles: list[Sequence[LabelledTile]] = [
            [tile for tile in single if tile.class_index == n] for n in range(len(tiles.taxonomy))
        ]
        for name, own in zip(tiles.taxonomy.names, self._tiles, strict=True):
            if not own:
                raise DataError(
                    f"Mosaics are composed of tiles that show one class alone, and {name} has none; add some, or set "
                    "`method.synthesis` to 0."
                )
        self._seed, self._turn = settings.seed, settings.flip_and_turn
        self._count = max(1, round(_SHARE * settings.batch_size))
        self._read = read

    def __call__(self, step: int) -> Mosaics:
        """The mosaics of a step, counted from 0.

        Raises
        ------
        DataError
            If a tile cannot be read or tiles differ in size.
        """
        rng = np.random.default_rng((self._seed, step, 2))
        images, masks = zip(*(self._compose(rng) for _ in range(self._count)), strict=True)
        return Mosaics(torch.stack(images), torch.stack(masks))

    def _compose(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = int(rng.integers(_PIECES[0], _PIECES[1] + 1))
        classes = rng.integers(len(self._tiles), size=pieces)
        classes[:2] = rng.choice(len(self._tiles), 2, replace=False)
        chosen = [self._tiles[n][int(rng.integers(len(self._tiles[n])))] for n in classes]
        images = [self._read(tile) for tile in chosen]
        require_one_size(images, chosen)
        side = min(images[0].shape[:2])
        squares = [image[:side, :side] for image in images]
        if self._turn:
            squares = [flip_and_turn(square, rng) for square in squares]
        parts = change_stain(to_tensor(np.stack(squares)), _STAIN, rng)
        piece = torch.from_numpy(partition(side, pieces, rng))
        image = (parts * F.one_hot(piece, pieces).permute(2, 0, 1)[:, None]).sum(0)
        return image, torch.from_numpy(classes)[piece]
