"""What is asked of a live map and what it answers; nothing here needs torch, so that the window can look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ProbeSettings, TissueSettings
from napari_pbip.events import Step
from napari_pbip.slides import Position, SlideFacts, SquareGrid, TileSize

if TYPE_CHECKING:
    from napari_pbip.engine.training.linear_probe import Ints, LinearProbe
    from napari_pbip.engine.training.probe import Cells

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """What is to be coloured."""

    slide: SlideFacts
    size: TileSize
    """Of the squares that it is made of (:func:`squares_for`)."""
    places: tuple[Position, ...]
    """Squares of the slide in the order in which they are wanted; those at its edges may hang over."""
    tissue_file: Path
    """Mask of the slide, which counts where it exists; else tissue is looked for."""
    tissue: TissueSettings = field(default_factory=TissueSettings)


@dataclass(frozen=True, slots=True)
class Fit:
    """A probe and what it was fitted to."""

    names: tuple[str, ...]
    """The classes that a tile shows alone: the others cannot be told yet."""
    values: Labels
    """Class index + 1 in the taxonomy of each of these."""
    single: Cells
    """Of the tiles of one class."""
    classes: Ints
    """Of these tiles, as indices into :attr:`names`."""
    probe: LinearProbe


@dataclass(frozen=True, slots=True)
class Fitted(Step):
    """The labels were learned from."""

    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Coloured(Step):
    """More of the view has colours."""

    tiles: Mapping[Position, Labels] = field(default_factory=dict)
    """Class index + 1 of each cell of these squares, (h, w); 0 where there is no tissue."""


def squares_for(size: TileSize) -> TileSize:
    """What a map of tiles of this size is made of: of tiles, or of squares of several if they are small for a probe."""
    return TileSize(pixels=size.pixels * -(-ProbeSettings.window // size.pixels), mpp=size.mpp)


def places_in(
    slide: SlideFacts, size: TileSize, rectangle: tuple[float, float, float, float], most: int
) -> tuple[Position, ...]:
    """Squares that a rectangle of a slide touches, from its middle outwards, ``most`` at most.

    Parameters
    ----------
    slide
        The slide.
    size
        Of the squares.
    rectangle
        Left edge, top edge, width and height in level-0 pixels.
    most
        How many squares.
    """
    side = size.microns / slide.mpp
    grid = SquareGrid.covering(rectangle, slide.width, slide.height, side)
    left, top = round(grid.x / side), round(grid.y / side)
    middle = np.array([rectangle[0] + rectangle[2] / 2, rectangle[1] + rectangle[3] / 2]) / side - 0.5
    places = np.indices((grid.columns, grid.rows)).reshape(2, -1).T + np.array([left, top])
    order = np.abs(places - middle).max(1).argsort(kind="stable")[:most]
    return tuple((int(column), int(row)) for column, row in places[order])
