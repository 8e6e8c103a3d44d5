"""Facts about a slide that are saved beside what was made from it, such as tile labels and score stores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from napari_pbip.slides.grid import SquareGrid
from napari_pbip.slides.slide import Slide


class TileSize(BaseModel):
    """Size of a labelled tile: its side in pixels, and its microns per pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: Annotated[int, Field(ge=32, le=2048)] = 224
    mpp: Annotated[float, Field(ge=0.05, le=20)] = 0.5

    @property
    def microns(self) -> float:
        """Side of the tile in micrometres."""
        return self.pixels * self.mpp

    def __str__(self) -> str:
        return f"{self.pixels} px at {self.mpp:g} µm"


class SlideFacts(BaseModel):
    """Identity and size of a slide. A subclass may add more."""

    model_config = ConfigDict(frozen=True, extra="allow")

    identity: str
    """Hash of the slide's content, which stays the same when the file is moved."""
    name: str
    path: Path
    """Path of the slide when it was last used."""
    mpp: Annotated[float, Field(gt=0)]
    """Microns per level-0 pixel by which the labels or scores were laid out."""
    width: int
    """Level-0 pixels."""
    height: int
    mpp_from: Literal["slide", "user"] | None = None
    """Who says the microns per pixel: the file of the slide, or the user; None in records of earlier versions."""

    @classmethod
    def from_slide(cls, slide: Slide) -> Self:
        """Return the facts of an open slide.

        Raises
        ------
        SlideError
            If the slide's microns per pixel are not known, or its pixels are not square.
        """
        return cls(
            identity=slide.identity,
            name=slide.name,
            path=slide.path,
            mpp=slide.require_mpp(),
            width=slide.width,
            height=slide.height,
            mpp_from="user" if slide.mpp_is_given else "slide",
        )

    def grid(self, size: TileSize) -> SquareGrid:
        """Return the grid of the tiles of this size that lie wholly inside the slide."""
        side = size.microns / self.mpp
        return SquareGrid(math.floor(self.height / side + 1e-6), math.floor(self.width / side + 1e-6), side)
