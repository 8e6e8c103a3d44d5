"""The job that predicts a coarse map of a part of a slide by the nearest prototypes of an image bank, tile by tile.

Nothing is trained for it (classification by image prompts, PBIP Table 6). Tiles are computed from coarse to fine, so
that the whole rectangle has colours at once, which become sharper with time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.bank import ImageBank
from napari_pbip.bank.features import white_fraction
from napari_pbip.config import DataSettings
from napari_pbip.engine.jobs import job
from napari_pbip.errors import BankError, SlideError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.pictures import read_rgb
from napari_pbip.slides import Image, Rectangle, SquareGrid, open_slide

Labels = npt.NDArray[np.uint8]
_BATCH = 16
_COARSEST = 16
"""Side, in cells, of the square that one tile stands for at first; a power of two."""


@dataclass(frozen=True, slots=True)
class Coloured(Step):
    """The part of the map that has been computed."""

    grid: SquareGrid | None = None
    """Grid of the map's cells on the slide."""
    labels: Labels | None = None
    """Class index + 1 of each cell, 0 where there is no tissue or nothing was computed; shape (rows, columns)."""


@job
def preview(
    path: Path,
    bank_folder: Path,
    rectangle: Rectangle,
    data: DataSettings,
    *,
    slide_mpp: float | None = None,
    weights: Path | None = None,
    device: str = "cpu",
) -> Job:
    """Predict a map of a part of a slide by the nearest prototypes of a bank; yields ``Coloured`` per batch of tiles.

    Parameters
    ----------
    path
        Path of the slide.
    bank_folder
        Folder of the bank.
    rectangle
        Part of the slide: x, y, width and height in level-0 pixels.
    data
        Settings of the bank's tiles: their microns per pixel, and the share of white from which a tile is empty.
    slide_mpp
        Microns per pixel of the slide, if its file does not say.
    weights
        Weights of the encoder, if they have been moved since the bank was built.
    device
        Device of the encoder.

    Raises
    ------
    BankError
        If the bank cannot be read, or the weights of its encoder have changed.
    DataError
        If no tile of the bank can be read, from which their size is known.
    SlideError
        If the slide cannot be read or lacks microns per pixel, or the rectangle lies outside it.
    """
    # imported in the job's thread, because torch takes seconds to load
    from napari_pbip.engine.device import choose_device
    from napari_pbip.engine.encoding import bank_encoder, chunks, encode
    from napari_pbip.engine.loading import ahead

    bank = ImageBank.read(bank_folder)
    if not bank.tiles:
        raise BankError(f"The image bank {bank_folder} has no tiles; build it again.")
    encoder = bank_encoder(bank, weights).to(choose_device(device))
    classes = bank.subclass_class
    with open_slide(path, slide_mpp) as slide:
        scale = 1.0
        if data.mpp is not None:
            scale = data.mpp / slide.require_mpp()
        else:
            yield Warned(
                "The microns per pixel of the tiles are not known, so the slide is read pixel for pixel; say them with "
                "the tiles to be sure of the scale."
            )
        tile = min(read_rgb(Path(bank.tiles[0].path)).shape[:2])
        grid = SquareGrid.covering(rectangle, slide.width, slide.height, tile * scale)
        if not grid.rows or not grid.columns:
            raise SlideError(f"No part of {slide.path.name} is in view; move it into view and try again.")

        def read(cell: tuple[int, int, int]) -> tuple[tuple[int, int, int], Image]:
            row, column, _ = cell
            return cell, slide.read_scaled(*grid.corner((column, row)), tile, tile, scale)

        yield Started(f"Preview of {slide.name}", grid.rows * grid.columns, "tiles")
        labels = np.zeros((grid.rows, grid.columns), np.uint8)
        done = 0
        cells = ahead(read, coarse_to_fine(grid), depth=2 * _BATCH)
        try:
            for batch in chunks(cells, _BATCH):
                tissue = [white_fraction(image) <= data.white_fraction for _, image in batch]
                images = [image for (_, image), is_tissue in zip(batch, tissue, strict=True) if is_tissue]
                nearest = iter(classes[bank.similarity(encode(encoder, images)).argmax(1)] + 1)
                for ((row, column, side), _), is_tissue in zip(batch, tissue, strict=True):
                    # the square contains only this cell and finer ones, which come later
                    labels[row : row + side, column : column + side] = next(nearest) if is_tissue else 0
                done += len(batch)
                yield Coloured(done, grid=grid, labels=labels.copy())
        finally:
            cells.close()  # before the slide is closed, because threads read from it
    names = bank.taxonomy.names
    tissue_cells = int(np.count_nonzero(labels))
    counts = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]
    yield Finished(
        None,
        {
            "slide": slide.name,
            "bank_identity": bank.identity,
            "tiles": done,
            "tissue": tissue_cells,
            "shares": {name: int(n) / max(1, tissue_cells) for name, n in zip(names, counts, strict=True)},
        },
    )


def coarse_to_fine(grid: SquareGrid) -> Iterator[tuple[int, int, int]]:
    """Yield row, column and side (in cells) of the square that each cell stands for until finer ones are computed."""
    side = _COARSEST
    while side:
        for row in range(0, grid.rows, side):
            for column in range(0, grid.columns, side):
                if side == _COARSEST or row % (2 * side) or column % (2 * side):
                    yield row, column, side
        side //= 2
