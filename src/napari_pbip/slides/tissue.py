"""Where on a slide there is tissue: found by a threshold at low resolution, or drawn by the user."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy import ndimage
from skimage import filters

from napari_pbip.config import TissueSettings
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.slides.reader import Image
from napari_pbip.slides.slide import Slide

_OTSU_RANGE = (0.05, 0.15)
"""Otsu's threshold is kept within this range, for either measure: below lies what sensor noise and JPEG make of
empty glass; a threshold above divides dark from pale tissue, as Otsu's does where a slide has no empty glass."""
_BLACK = 30
"""Grey values below this in all colours are a scanner's border or the edge of a cover slip."""
_INK = 30
"""Haematoxylin and eosin absorb green most; what is greener than red by more than this is blue or green ink."""
_PROPORTION = 0.02


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one slide at low resolution; mask pixel (0, 0) lies at the slide's top left corner."""

    array: npt.NDArray[np.bool_]
    """True where there is tissue, shape (height, width)."""
    scale: float
    """Level-0 pixels per mask pixel."""
    mpp: float
    """Microns per mask pixel."""
    threshold: float | None = None
    """What Otsu or the settings chose, or None for a mask of the user's own."""

    @property
    def area_mm2(self) -> float:
        """Area of the tissue in square millimetres."""
        return float(np.count_nonzero(self.array)) * (self.mpp / 1000) ** 2

    def fraction(self, x: npt.ArrayLike, y: npt.ArrayLike, width: float, height: float) -> npt.NDArray[np.float64]:
        """Share of rectangles that is tissue, 0 to 1; what lies outside the slide is none.

        Parameters
        ----------
        x, y
            Left and top edges in level-0 pixels; arrays broadcast.
        width, height
            Level-0 pixels.

        Returns
        -------
        Shape of ``x`` and ``y`` broadcast.
        """
        left, top = np.asarray(x, np.float64) / self.scale, np.asarray(y, np.float64) / self.scale
        right, bottom = left + width / self.scale, top + height / self.scale
        inside = self._sum_to(bottom, right) - self._sum_to(top, right)
        inside -= self._sum_to(bottom, left) - self._sum_to(top, left)
        share = inside / (width * height / self.scale**2)
        return np.asarray(np.clip(share, 0, 1))

    @cached_property
    def _integral(self) -> npt.NDArray[np.float64]:
        return np.pad(self.array.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))

    def _sum_to(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Tissue pixels above and left of a place, exact between pixels (bilinear in the integral image)."""
        at = np.stack(np.broadcast_arrays(y, x))
        return np.asarray(ndimage.map_coordinates(self._integral, at, order=1, mode="nearest"))

    def write(self, path: Path | str) -> None:
        """Write as a black and white PNG, which :meth:`read` turns into an equal mask.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        try:
            PIL.Image.fromarray(self.array.astype(np.uint8) * 255).save(path, format="PNG", optimize=True)
        except OSError as error:
            raise OutputError(f"The tissue mask {path} cannot be written: {error.strerror}.") from error

    @classmethod
    def read(cls, path: Path | str, slide: Slide) -> Self:
        """A mask of the user's own: any image of the slide's proportions, in which tissue is not black.

        Raises
        ------
        SlideError
            If the image cannot be read, is all black, its proportions are more than 2 % off, or the slide does not
            say its microns per pixel.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
                with PIL.Image.open(path) as file:
                    pixels = np.asarray(np.asarray(file.convert("RGB")).max(axis=2) > 0)
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise SlideError(f"The tissue mask {path} cannot be read as an image; give a PNG.") from error
        height, width = pixels.shape
        # Along the longer side, which is how find_tissue sizes its masks; the other is off by less than a pixel.
        scale = max(slide.width, slide.height) / max(width, height)
        off = abs(slide.width - width * scale), abs(slide.height - height * scale)
        if max(off) > max(scale, _PROPORTION * min(slide.width, slide.height)):
            raise SlideError(
                f"The tissue mask {path} has {width} x {height} pixels, not the proportions of {slide.path.name} "
                f"({slide.width} x {slide.height}); draw it on a thumbnail of the slide."
            )
        if not pixels.any():
            raise SlideError(f"The tissue mask {path} is all black; paint tissue in any other colour.")
        return cls(pixels, scale, slide.require_mpp() * scale)


def find_tissue(slide: Slide, settings: TissueSettings) -> TissueMask:
    """Tissue by Otsu's threshold on optical density or saturation, small pieces dropped and small holes closed.

    Blue and green ink, and the black borders of some scanners, are left out; red and black ink look like tissue, so
    such slides need a mask of the user's own (:meth:`TissueMask.read`).

    Otsu (1979), "A threshold selection method from gray-level histograms". The threshold is kept between 0.05 and
    0.15: see the source.

    Parameters
    ----------
    slide
        Read at ``settings.mpp`` or at its own, if that is coarser; memory does not grow with the slide's pixels
        beyond the mask's.
    settings
        Resolution, measure, threshold and sizes.

    Raises
    ------
    SlideError
        If there is no tissue, or the slide does not say its microns per pixel.
    """
    slide_mpp = slide.require_mpp()
    longest = max(slide.width, slide.height)
    side = math.ceil(longest * slide_mpp / max(settings.mpp, slide_mpp))
    scale = longest / side
    mpp = slide_mpp * scale
    width, height = (math.ceil(round(length / scale, 6)) for length in (slide.width, slide.height))
    image = slide.read(0, 0, width, height, mpp)
    values = _saturation(image) if settings.measure == "saturation" else _optical_density(image)
    stained = ~_is_ink_or_black(image)
    threshold = settings.threshold or _otsu(values[stained])
    mask = _drop_small((values > threshold) & stained, (settings.smallest_um / mpp) ** 2)
    mask = _close_small(mask, (settings.largest_hole_um / mpp) ** 2)
    if not mask.any():
        raise SlideError(
            f"No tissue was found on {slide.path.name} ({settings.measure} above {threshold:.3g}); lower "
            "segment.tissue.threshold or segment.tissue.smallest_um, or give a mask of your own (segment.tissue_mask)."
        )
    return TissueMask(mask, scale, mpp, threshold)


def _otsu(values: npt.NDArray[np.float32]) -> float:
    """Otsu's threshold of values, shape (n,), within the range that tissue can have."""
    lowest, highest = _OTSU_RANGE
    if values.size == 0:
        return lowest
    threshold: float = filters.threshold_otsu(values)  # type: ignore[no-untyped-call]
    return min(max(float(threshold), lowest), highest)


def _optical_density(image: Image) -> npt.NDArray[np.float32]:
    """Mean over the colours of -log10(I / 255), shape (H, W); 0 is white."""
    density = -np.log10(np.maximum(np.arange(256), 1) / 255)
    return np.asarray(density.astype(np.float32)[image].mean(axis=2))


def _saturation(image: Image) -> npt.NDArray[np.float32]:
    """HSV saturation, shape (H, W), 0 to 1."""
    highest, lowest = image.max(axis=2).astype(np.float32), image.min(axis=2)
    return np.asarray((highest - lowest) / np.maximum(highest, 1))


def _is_ink_or_black(image: Image) -> npt.NDArray[np.bool_]:
    red, green = image[..., 0].astype(np.int16), image[..., 1].astype(np.int16)
    return np.asarray((green - red > _INK) | (image.max(axis=2) < _BLACK))


def _drop_small(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    """The mask without pieces (corners connect) of fewer than ``smallest`` pixels."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    return np.asarray(keep[labels])


def _close_small(mask: npt.NDArray[np.bool_], largest: float) -> npt.NDArray[np.bool_]:
    """The mask with holes of fewer than ``largest`` pixels filled; what touches the image's edge is no hole."""
    labels, _ = ndimage.label(~mask)
    hole = np.bincount(labels.ravel()) < largest
    hole[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    return np.asarray(mask | hole[labels])
