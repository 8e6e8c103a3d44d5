"""A slide at one resolution, of which overlapping squares are read: blocks are resampled once, and squares cut out."""

from __future__ import annotations

from functools import partial

import numpy as np

from napari_pbip.errors import DamagedPlace
from napari_pbip.slides.cache import BlockCache
from napari_pbip.slides.reader import Image
from napari_pbip.slides.slide import Slide

_BLOCK = 512
"""Side of a block in pixels of the plane. A row of tiles crosses several, which threads resample at the same time."""
_CACHE_BYTES = 96 << 20


class Plane:
    """The pixels of a slide at ``mpp`` microns each, from its top left corner. It may be used from several threads.

    Parameters
    ----------
    slide
        The slide, which stays open as long as the plane is used.
    mpp
        Microns per pixel of the plane.
    """

    def __init__(self, slide: Slide, mpp: float) -> None:
        self._slide, self._mpp = slide, mpp
        self._scale = mpp / slide.require_mpp()
        self._blocks = BlockCache(_CACHE_BYTES)

    def read(self, x: int, y: int, width: int, height: int) -> Image:
        """Read a rectangle, given in pixels of the plane.

        Returns
        -------
        RGB, shape (height, width, 3), uint8; white outside the slide. It equals what :meth:`Slide.read` returns for
        the same place to within two grey levels, of which nearly all are equal.

        Raises
        ------
        SlideError
            If the file is damaged.
        DamagedPlace
            If the file is damaged at this place.
        """
        out = np.empty((height, width, 3), np.uint8)
        try:
            for top in range(y // _BLOCK * _BLOCK, y + height, _BLOCK):
                for left in range(x // _BLOCK * _BLOCK, x + width, _BLOCK):
                    block = self._blocks.get((top, left), partial(self._resample, top, left))
                    y0, y1 = max(top, y), min(top + _BLOCK, y + height)
                    x0, x1 = max(left, x), min(left + _BLOCK, x + width)
                    out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        except DamagedPlace:  # which may be elsewhere in the block
            return self._slide.read(x * self._scale, y * self._scale, width, height, self._mpp)
        return out

    def _resample(self, top: int, left: int) -> Image:
        return self._slide.read(left * self._scale, top * self._scale, _BLOCK, _BLOCK, self._mpp)
