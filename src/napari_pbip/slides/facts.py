"""What is remembered of a slide by those who made something of it: labels of its tiles, scores of its cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from napari_pbip.slides.grid import SquareGrid
from napari_pbip.slides.slide import Slide


class TileSize(BaseModel):
    """How large a labelled tile is: pixels a side, and microns per pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: Annotated[int, Field(ge=32, le=2048)] = 224
    mpp: Annotated[float, Field(ge=0.05, le=20)] = 0.5

    @property
    def microns(self) -> float:
        """Side in micrometres."""
        return self.pixels * self.mpp

    def __str__(self) -> str:
        return f"{self.pixels} px at {self.mpp:g} µm"


class SlideFacts(BaseModel):
    """Which slide it was, and how large; more facts may be added."""

    model_config = ConfigDict(frozen=True, extra="allow")

    identity: str
    """Hash of its content, which stays when it is moved."""
    name: str
    path: Path
    """Where it was last seen."""
    mpp: Annotated[float, Field(gt=0)]
    """Micrometres per level-0 pixel that what was made of it was laid out by."""
    width: int
    """Level-0 pixels."""
    height: int

    @classmethod
    def from_slide(cls, slide: Slide) -> Self:
        """The facts of an open slide.

        Raises
        ------
        SlideError
            If its microns per pixel are not known, or its pixels are not square.
        """
        return cls(
            identity=slide.identity,
            name=slide.name,
            path=slide.path,
            mpp=slide.require_mpp(),
            width=slide.width,
            height=slide.height,
        )

    def grid(self, size: TileSize) -> SquareGrid:
        """The tiles of this size that lie wholly in the slide."""
        side = size.microns / self.mpp
        return SquareGrid(math.floor(self.height / side + 1e-6), math.floor(self.width / side + 1e-6), side)
