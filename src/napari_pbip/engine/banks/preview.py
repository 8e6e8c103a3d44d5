"""A coarse map of a part of a slide by the image bank alone: the class of the nearest prototype, tile by tile.

Nothing is trained for it (classification by image prompt, PBIP Table 6). Tiles are taken from coarse to fine, so the
whole rectangle has colours at once, and they get sharper while it goes on.
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
"""Cells, a power of two, that one tile stands for at first."""


@dataclass(frozen=True, slots=True)
class Coloured(Step):
    """The map as far as it is known."""

    grid: SquareGrid | None = None
    """Where its cells lie."""
    labels: Labels | None = None
    """Class index + 1 of each cell, 0 where there is no tissue or nobody has looked; shape (rows, columns)."""


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
    """Colour a part of a slide by the nearest prototypes of a bank; yields ``Coloured`` a batch of tiles.

    Parameters
    ----------
    path
        The slide.
    bank_folder
        The bank.
    rectangle
        Part of the slide, x, y, width and height in level-0 pixels.
    data
        What is known of the bank's tiles: their microns per pixel, and the share of white from which a tile is empty.
    slide_mpp
        Microns per pixel of the slide, where its file does not say.
    weights
        The encoder's weights, if they do not lie where they lay when the bank was made.
    device
        Where the encoder computes.

    Raises
    ------
    BankError
        If the bank cannot be read, or its encoder has other weights now.
    DataError
        If no tile of the bank can be read, which tells their size.
    SlideError
        If the slide cannot be read, lacks its microns per pixel, or the rectangle lies outside it.
    """
    # torch takes seconds to load: in the job's thread
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
                    # only this cell and finer ones, which come later, lie in the square
                    labels[row : row + side, column : column + side] = next(nearest) if is_tissue else 0
                done += len(batch)
                yield Coloured(done, grid=grid, labels=labels.copy())
        finally:
            cells.close()  # before the slide is closed: threads read from it
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
    """Row, column and side in cells of the square that each cell stands for until finer ones come."""
    side = _COARSEST
    while side:
        for row in range(0, grid.rows, side):
            for column in range(0, grid.columns, side):
                if side == _COARSEST or row % (2 * side) or column % (2 * side):
                    yield row, column, side
        side //= 2
