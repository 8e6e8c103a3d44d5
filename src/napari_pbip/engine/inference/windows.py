"""How a model looks at what is larger than its tiles: square windows that overlap, with mirrored pixels at the edges.

Validation, evaluation, pseudo masks, pictures of comparisons and slides take their windows from here, so that the same
pixels get the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from napari_pbip.config import SegmentSettings
from napari_pbip.engine.loading import Image
from napari_pbip.models.backbones.catalogue import SMALLEST
from napari_pbip.slides import TileGrid


@dataclass(frozen=True, slots=True)
class Windows:
    """Overlapping square windows in model pixels."""

    tile: int
    """Side of the training tiles; an image that is no larger is one window."""
    side: int
    overlap: int
    """Pixels that neighbouring windows share."""

    @classmethod
    def plan(cls, tile: int, settings: SegmentSettings, least: int = 0) -> Self:
        """Return the windows of a model.

        Parameters
        ----------
        tile
            Side of the training tiles in pixels.
        settings
            Settings of segmentation, of which the side and the overlap count.
        least
            Side in pixels of windows that are not given, if tiles are smaller (:attr:`MethodSettings.window`).
        """
        side = settings.tile or max(SMALLEST, least, tile // 16 * 16)
        return cls(tile, side, min(settings.overlap, side // 2))

    def grid(self, width: int, height: int, mpp: float = 1, model_mpp: float = 1) -> TileGrid:
        """Return the windows over an image or slide of this size in its own pixels, of ``mpp`` microns each."""
        return TileGrid.plan(width, height, mpp, model_mpp, self.side, self.overlap)


def mirrored(image: Image, side: int) -> Image:
    """Fill a window beyond the right and lower edge of an image, (h, w, 3), with its mirrored pixels, (side, side, 3).

    White pixels would look like the edge of the tissue.
    """
    height, width = image.shape[:2]
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")
