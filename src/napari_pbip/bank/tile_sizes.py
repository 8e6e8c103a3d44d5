"""Which size of tile suits the tissue of a slide, and what a tile of a size looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_pbip.config import TissueSettings
from napari_pbip.slides import SlideFacts, TileSize, TissueMask, find_tissue, open_slide
from napari_pbip.slides.regions import Regions

_SIDES = (224, 112)
"""Sides in pixels that are proposed: what the pretrained networks were made for, and half of it for small sections."""
_MPP = 0.5
"""Microns per pixel that are proposed, as in the tiles that the networks know (20x)."""
_NEAR = 1.1
"""A slide whose pixels are larger by no more than this factor is not coarser."""
_ENOUGH = 200
"""Tiles for which the tissue should have room. A smaller section, below 2.5 mm² with the larger tiles, has structures
that are hardly wider than one, so that most tiles would show several classes."""
_OVERVIEW = 512
"""Longer side in pixels of the picture in which tissue is looked for."""


@dataclass(frozen=True, slots=True)
class SizeAdvice:
    """What a size of tile means on a slide."""

    room: int
    """Number of tiles of this size that cover the area of the tissue."""
    example: npt.NDArray[np.uint8]
    """A tile of this size where there is most tissue, RGB, shape (pixels, pixels, 3)."""
    proposed: TileSize
    """The size that suits the slide."""


def advise(facts: SlideFacts, size: TileSize, settings: TissueSettings, regions: Regions | None = None) -> SizeAdvice:
    """Look for the tissue of a slide in a small picture of it, and choose a size of tile.

    Parameters
    ----------
    facts
        The slide, which is opened.
    size
        Size of tile, of which at least one has to fit on the slide.
    settings
        How tissue is found.
    regions
        The regions of the slide, which say which tissue counts; by default all of it does.

    Raises
    ------
    SlideError
        If the slide cannot be read, or no tissue is found on it.
    """
    with open_slide(facts.path, facts.mpp) as slide:
        overview = max(facts.width, facts.height) * facts.mpp / _OVERVIEW
        tissue = find_tissue(slide, settings.model_copy(update={"mpp": max(settings.mpp, overview)}))
        tissue = tissue if regions is None else regions.tissue(tissue)
        grid = facts.grid(size)
        x, y = (grid.side * np.arange(count) for count in (grid.columns, grid.rows))
        row, column = divmod(int(tissue.fraction(x[None], y[:, None], grid.side, grid.side).argmax()), grid.columns)
        example = slide.read(x[column], y[row], size.pixels, size.pixels, size.mpp)
    return SizeAdvice(_room(size, tissue), example, propose_size(facts.mpp, tissue))


def propose_size(slide_mpp: float, tissue: TissueMask) -> TileSize:
    """Return the largest usual size of which the tissue has room for enough tiles, else the smallest one.

    Pixels are those of the networks, but not finer than the slide's, because nothing is gained by enlarging them.
    """
    mpp = _MPP if slide_mpp <= _NEAR * _MPP else round(slide_mpp, 2)
    sizes = [TileSize(pixels=side, mpp=mpp) for side in _SIDES]
    return next((size for size in sizes if _room(size, tissue) >= _ENOUGH), sizes[-1])


def _room(size: TileSize, tissue: TissueMask) -> int:
    return round(tissue.area_mm2 / (size.microns / 1000) ** 2)
