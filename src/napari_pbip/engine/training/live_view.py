"""The input and the events of the job ``live_map``, without torch, so that the window can import them."""

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
from napari_pbip.slides.regions import Regions

if TYPE_CHECKING:
    from napari_pbip.engine.training.linear_probe import Ints, LinearProbe
    from napari_pbip.engine.training.probe import Cells

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """The part of a slide that is to be coloured."""

    slide: SlideFacts
    size: TileSize
    """Size of the squares (:func:`squares_for`)."""
    places: tuple[Position, ...]
    """Squares of the slide in the order in which they are to be coloured; they may reach beyond its edges."""
    tissue_file: Path
    """Tissue mask of the slide; if the file does not exist, tissue is found by ``tissue``."""
    tissue: TissueSettings = field(default_factory=TissueSettings)
    regions: Regions = field(default_factory=Regions)
    """The regions of the slide; what does not count is not coloured."""
    smoothing_um: float = 0.0
    """Width over which scores are smoothed (:attr:`~napari_pbip.config.ThresholdSettings.smoothing_um`)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A probe and the tiles that it was fitted to."""

    names: tuple[str, ...]
    """The classes of the probe, (N,): those that at least one tile shows alone."""
    values: Labels
    """Class index + 1 in the taxonomy of each class of the probe, (N,)."""
    single: Cells
    """Cells of the tiles that show one class alone."""
    classes: Ints
    """Class of each of these tiles, as an index into :attr:`names`."""
    probe: LinearProbe


@dataclass(frozen=True, slots=True)
class Fitted(Step):
    """The event that the probe has been fitted to the labels."""

    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Coloured(Step):
    """The event that labels of some squares have been computed."""

    tiles: Mapping[Position, Labels] = field(default_factory=dict)
    """Class index + 1 of each cell of each square, (h, w); 0 where there is no tissue that counts."""


def squares_for(size: TileSize) -> TileSize:
    """Return the size of a map's squares: that of a tile, or of several if tiles are smaller than a probe's window."""
    return TileSize(pixels=size.pixels * -(-ProbeSettings.window // size.pixels), mpp=size.mpp)


def places_in(
    slide: SlideFacts,
    size: TileSize,
    rectangle: tuple[float, float, float, float],
    most: int,
    regions: Regions | None = None,
) -> tuple[Position, ...]:
    """Return the squares of a slide that a rectangle touches, from its middle outwards.

    Parameters
    ----------
    slide
        The slide.
    size
        Size of the squares.
    rectangle
        Left edge, top edge, width and height in level-0 pixels.
    most
        Largest number of squares.
    regions
        The regions of the slide; squares in which nothing counts are left out.
    """
    side = size.microns / slide.mpp
    grid = SquareGrid.covering(rectangle, slide.width, slide.height, side)
    left, top = round(grid.x / side), round(grid.y / side)
    middle = np.array([rectangle[0] + rectangle[2] / 2, rectangle[1] + rectangle[3] / 2]) / side - 0.5
    places = np.indices((grid.columns, grid.rows)).reshape(2, -1).T + np.array([left, top])
    if regions:
        places = places[regions.touched(places[:, 0] * side, places[:, 1] * side, side)]
    order = np.abs(places - middle).max(1).argsort(kind="stable")[:most]
    return tuple((int(column), int(row)) for column, row in places[order])
