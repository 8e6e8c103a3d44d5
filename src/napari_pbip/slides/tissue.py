"""Where on a slide there is tissue: found by a threshold at low resolution, or drawn by the user."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.PngImagePlugin
from scipy import ndimage
from skimage import filters

from napari_pbip.config import TissueSettings
from napari_pbip.errors import DataError, SlideError
from napari_pbip.files import write_picture
from napari_pbip.pictures import read_drawn
from napari_pbip.slides.reader import LARGEST_PIECE, Image
from napari_pbip.slides.slide import Slide

_OTSU_RANGE = (0.05, 0.08)
"""Otsu's threshold is kept within this range, for either measure. Below lies what sensor noise and JPEG make of empty
glass (0.02 to 0.04 on real slides). Otsu's own lies halfway to dark tissue, at 0.14 to 0.18, which loses pale tissue:
of colorectal mucus it keeps a third of the area, at 0.08 three quarters, and the outlines of sections barely move."""
_BLACK, _DARK_GREY, _GREY = 30, 50, 12
"""Values below the first in all colours, or below the second and no more than the third apart, are a scanner's border
or the edge of a cover slip."""
_INK = 30
"""Haematoxylin and eosin absorb green most; what is greener than red by more than this is blue or green ink."""
_BLUE_INK_RED, _BLUE_INK_GREEN, _BLUE_INK_BLUE, _BLUE_INK_EDGE = 75, 8, 30, 5
"""Dark blue and violet ink: red below the first, green no more than the second below red, blue above red by more than
the third, or than the fourth beside such ink. Of real slides at 8 microns per pixel, 0.1 % at most looks like that:
nuclei as dark are mixed with the pink around them."""
_ALL = 0.98
"""Share of a slide that is tissue from which its glass is likely to be taken for it."""
_PART = 4
"""A piece that is at least one in so many parts of the picture is no dust, however small the picture."""
_NAMED = 3
"""Damaged places that a sentence names."""
_THRESHOLD, _CORRECTED = "napari-pbip threshold", "napari-pbip corrected"
"""Texts of a mask's PNG file: what the tissue was found by (pictures that somebody drew have none), and ``yes`` if it
was painted by hand since."""
_PROPORTION = 0.02
_BINS = np.linspace(0, 3, 769)
"""Of the histogram that Otsu's threshold is found in."""
_BAND = 512
"""Rows of the mask that are worked on at once, so that only the mask itself is as large as the slide."""


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
    corrected: bool = False
    """Whether it was painted by hand since it was found."""
    notes: tuple[str, ...] = ()
    """What the user should know of it: sentences."""

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
        return np.asarray(np.clip(share.round(9), 0, 1))  # sums of millions leave 1e-17 where there is nothing

    @cached_property
    def _integral(self) -> npt.NDArray[np.uint32]:
        height, width = self.array.shape
        sums = np.zeros((height + 1, width + 1), np.uint32)
        np.cumsum(self.array.cumsum(0, dtype=np.uint32), 1, out=sums[1:, 1:])
        return sums

    def _sum_to(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Tissue pixels above and left of a place, exact between pixels (bilinear in the integral image)."""
        at = np.stack(np.broadcast_arrays(y, x))
        sums = ndimage.map_coordinates(self._integral, at.reshape(2, -1), np.float64, order=1, mode="nearest")
        return np.asarray(sums.reshape(at.shape[1:]))

    def write(self, path: Path | str) -> None:
        """Write as a black and white PNG, which :meth:`read` turns into an equal mask.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        facts = PIL.PngImagePlugin.PngInfo()
        if self.threshold is not None:
            facts.add_text(_THRESHOLD, repr(float(self.threshold)))
        if self.corrected:
            facts.add_text(_CORRECTED, "yes")
        picture = PIL.Image.fromarray(self.array.astype(np.uint8) * 255)
        write_picture(Path(path), picture, "PNG", optimize=True, pnginfo=facts)

    @classmethod
    def read(cls, path: Path | str, slide: Slide) -> Self:
        """A mask that :meth:`write` wrote, or the user's own: any image of the slide's proportions.

        Tissue is what is neither black nor transparent.

        Raises
        ------
        SlideError
            If the image cannot be read, is a JPEG (which has no clear borders), is all black, its proportions are
            more than 2 % off, or the slide does not say its microns per pixel.
        """
        try:
            pixels = read_drawn(Path(path))
        except DataError as error:
            raise SlideError(f"The tissue mask cannot be used: {error}") from error
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
        threshold, corrected = _found_by(path)
        return cls(pixels, scale, slide.require_mpp() * scale, threshold, corrected)


def _found_by(path: Path | str) -> tuple[float | None, bool]:
    """The threshold that a mask's file says it was found by, and whether it was painted by hand since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the picture was read before
        with PIL.Image.open(path) as file:
            text, corrected = str(file.info.get(_THRESHOLD)), _CORRECTED in file.info
    try:
        threshold = float(text)
    except ValueError:
        return None, corrected
    return (threshold if math.isfinite(threshold) else None), corrected


@dataclass(frozen=True)
class TissueMap:
    """Low-resolution map of a whole slide that the tissue threshold is applied to, without reading the slide again."""

    values: npt.NDArray[np.float32]
    """Optical density or saturation, shape (height, width); 0 where there is ink or a black border."""
    counts: npt.NDArray[np.int64]
    """Histogram of the values."""
    settings: TissueSettings
    """Resolution and measure it was made with."""
    damage: tuple[str, ...]
    """Places that could not be decoded, which count as glass."""
    scale: float
    """Level-0 pixels per pixel."""
    mpp: float
    """Microns per pixel."""
    slide: str
    """File name, for messages."""

    @classmethod
    def from_slide(cls, slide: Slide, settings: TissueSettings) -> Self:
        """Read a slide at ``settings.mpp`` or at its own, if that is coarser.

        Memory does not grow with the slide's pixels beyond the mask's. Places that are damaged count as glass.

        Raises
        ------
        SlideError
            If the slide does not say its microns per pixel, is larger than any, or damaged as a whole.
        """
        slide_mpp = slide.require_mpp()
        longest = max(slide.width, slide.height)
        side = math.ceil(longest * slide_mpp / max(settings.mpp, slide_mpp))
        scale = longest / side
        mpp = slide_mpp * scale
        width, height = (math.ceil(round(length / scale, 6)) for length in (slide.width, slide.height))
        if width * height > LARGEST_PIECE:
            raise SlideError(
                f"{slide.path.name} would be {width * mpp / 1000:.3g} x {height * mpp / 1000:.3g} mm large at its "
                f"{slide_mpp:.4g} microns per pixel; correct them, or raise segment.tissue.mpp."
            )
        measure = _saturation if settings.measure == "saturation" else _optical_density
        values = np.empty((height, width), np.float32)
        counts = np.zeros(len(_BINS) - 1, np.int64)
        for top in range(0, height, _BAND):
            image = slide.read(0, top * scale, width, min(_BAND, height - top), mpp, damage_is_white=True)
            band = measure(image)
            band[_is_ink_or_black(image)] = 0
            counts += np.histogram(band, _BINS)[0]
            values[top : top + _BAND] = band
        return cls(values, counts, settings, slide.damage, scale, mpp, slide.path.name)

    def fits(self, settings: TissueSettings) -> bool:
        """Whether these settings need no other reading of the slide."""
        return (settings.mpp, settings.measure) == (self.settings.mpp, self.settings.measure)

    def mask(self, settings: TissueSettings) -> TissueMask:
        """Tissue by these settings: Otsu's threshold or theirs, small pieces dropped and small holes closed.

        A piece that is a quarter of the picture or more is never too small.

        Raises
        ------
        SlideError
            If there is no tissue.
        """
        threshold = settings.threshold or _otsu(self.counts)
        smallest = min((settings.smallest_um / self.mpp) ** 2, self.values.size / _PART)
        mask = _drop_small(self.values > threshold, smallest)
        mask = _close_small(mask, (settings.largest_hole_um / self.mpp) ** 2)
        if not mask.any():
            if self.damage:
                raise SlideError(
                    f"No tissue was found on {self.slide}, which is damaged at {self._places}; copy or export it again."
                )
            raise SlideError(
                f"No tissue was found on {self.slide} ({settings.measure} above {threshold:.3g}); lower "
                "segment.tissue.threshold or segment.tissue.smallest_um, or give a mask of your own "
                "(segment.tissue_mask)."
            )
        return TissueMask(mask, self.scale, self.mpp, threshold, notes=tuple(self._notes(mask, threshold)))

    def _notes(self, mask: npt.NDArray[np.bool_], threshold: float) -> Iterator[str]:
        if self.damage:
            yield (
                f"{self.slide} is damaged at {self._places} and was not searched for tissue there; "
                "copy or export it again."
            )
        if (share := mask.mean()) >= _ALL:
            yield (
                f"{share:.0%} of {self.slide} counts as tissue; if there is glass on it, raise "
                f"segment.tissue.threshold above {threshold:.3g}, or give a mask of your own (segment.tissue_mask)."
            )

    @property
    def _places(self) -> str:
        more = len(self.damage) - _NAMED
        return "; ".join(self.damage[:_NAMED]) + (f" and {more} more places" if more > 0 else "")


def find_tissue(slide: Slide, settings: TissueSettings) -> TissueMask:
    """Tissue by Otsu's threshold on optical density or saturation, small pieces dropped and small holes closed.

    Blue and green ink, and the black borders of some scanners, are left out; red ink looks like tissue, so
    such slides need a mask of the user's own (:meth:`TissueMask.read`).

    Otsu (1979), "A threshold selection method from gray-level histograms". Its threshold is kept between 0.05 and
    0.08, so that pale tissue (mucus, loose stroma) counts; glass darker than that, grey values below 212, needs a
    ``settings.threshold``.

    Parameters
    ----------
    slide
        Read at ``settings.mpp`` or at its own, if that is coarser.
    settings
        Resolution, measure, threshold and sizes.

    Raises
    ------
    SlideError
        If there is no tissue, or the slide does not say its microns per pixel.
    """
    return TissueMap.from_slide(slide, settings).mask(settings)


def _otsu(counts: npt.NDArray[np.int64]) -> float:
    """Otsu's threshold from a histogram over ``_BINS``, within the range that tissue can have."""
    lowest, highest = _OTSU_RANGE
    if np.count_nonzero(counts) < 2:  # a single colour has nothing to divide
        return lowest
    centres = (_BINS[:-1] + _BINS[1:]) / 2
    threshold: float = filters.threshold_otsu(hist=(counts, centres))  # type: ignore[no-untyped-call]
    return min(max(float(threshold), lowest), highest)


def _optical_density(image: Image) -> npt.NDArray[np.float32]:
    """Mean over the colours of -log10(I / 255), shape (H, W); 0 is white."""
    third = (-np.log10(np.maximum(np.arange(256), 1) / 255) / 3).astype(np.float32)
    mean = third[image[..., 0]]
    for colour in (1, 2):
        mean += third[image[..., colour]]
    return mean


def _saturation(image: Image) -> npt.NDArray[np.float32]:
    """HSV saturation, shape (H, W), 0 to 1."""
    highest, lowest = image.max(axis=2).astype(np.float32), image.min(axis=2)
    return np.asarray((highest - lowest) / np.maximum(highest, 1))


def _is_ink_or_black(image: Image) -> npt.NDArray[np.bool_]:
    red, green, blue = (image[..., colour].astype(np.int16) for colour in range(3))
    highest, lowest = image.max(axis=2), image.min(axis=2)
    black = (highest < _BLACK) | ((highest < _DARK_GREY) & (highest - lowest <= _GREY))
    bluish = green > red - _BLUE_INK_GREEN
    ink = (green - red > _INK) | (bluish & (red < _BLUE_INK_RED) & (blue - red > _BLUE_INK_BLUE))
    # Along its edge, ink is mixed with glass.
    edge = ndimage.binary_dilation(ink, np.ones((3, 3), bool)) & bluish & (blue - red > _BLUE_INK_EDGE)
    return np.asarray(ink | edge | black)


def _drop_small(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    """The mask without pieces (corners connect) of fewer than ``smallest`` pixels."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    keep = _sizes(labels, count) >= smallest
    keep[0] = False
    return np.asarray(keep[labels])


def _close_small(mask: npt.NDArray[np.bool_], largest: float) -> npt.NDArray[np.bool_]:
    """The mask with holes of fewer than ``largest`` pixels filled; what touches the image's edge is no hole."""
    labels, count = ndimage.label(~mask)
    hole = _sizes(labels, count) < largest
    hole[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    return np.asarray(mask | hole[labels])


def _sizes(labels: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.int64]:
    """Pixels of each label 0..count."""
    # By rows, because bincount turns what it counts into 64 bits.
    sizes = np.zeros(count + 1, np.int64)
    for top in range(0, len(labels), _BAND):
        sizes += np.bincount(labels[top : top + _BAND].ravel(), minlength=count + 1)
    return sizes
