"""Tissue masks of slides: found by a threshold at low resolution, or drawn by the user."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
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
from napari_pbip.slides.proportions import scale_over
from napari_pbip.slides.reader import LARGEST_PIECE, Image
from napari_pbip.slides.slide import Slide

_OTSU_RANGE = (0.05, 0.08)
"""Range that Otsu's threshold is clipped to, for both measures. Sensor noise and JPEG give empty glass values up to
0.02 to 0.04 on real slides. Without the upper limit, the threshold lies halfway to dark tissue, at 0.14 to 0.18, and
loses pale tissue: it keeps a third of the area of colorectal mucus, while 0.08 keeps three quarters and hardly moves
the outlines of sections."""
_BLACK, _DARK_GREY, _GREY = 30, 50, 12
"""A pixel is a scanner's border or the edge of a cover slip if all colours are below the first value, or if all are
below the second and differ by no more than the third."""
_INK = 30
"""A pixel whose green exceeds its red by more than this is blue or green ink: haematoxylin and eosin absorb green
most."""
_BLUE_INK_RED, _BLUE_INK_GREEN, _BLUE_INK_BLUE, _BLUE_INK_EDGE = 75, 8, 30, 5
"""Dark blue and violet ink: red below the first, green no more than the second below red, blue above red by more than
the third, or than the fourth beside such ink. Of real slides at 8 microns per pixel, 0.1 % at most looks like that:
nuclei as dark are mixed with the pink around them."""
_ALL = 0.98
"""Share of tissue from which it is likely that glass was taken for tissue."""
_PART = 4
"""A piece that covers at least this fraction (one divided by this number) of the picture is never taken for dust."""
_NAMED = 3
"""Largest number of damaged places that a sentence lists."""
_THRESHOLD, _CORRECTED = "napari-pbip threshold", "napari-pbip corrected"
"""Text keys of a mask's PNG file: the threshold that found the tissue (missing in masks that the user drew), and
``yes`` if the mask was corrected by hand."""
_BINS = np.linspace(0, 3, 769)
"""Bins of the histogram from which Otsu's threshold is computed."""
_BAND = 512
"""Rows of the mask that are computed at once, to limit memory."""


@dataclass(frozen=True)
class TissueMask:
    """The tissue of one slide at low resolution; mask pixel (0, 0) lies at the slide's top left corner."""

    array: npt.NDArray[np.bool_]
    """True where there is tissue, shape (height, width)."""
    scale: float
    """Level-0 pixels per mask pixel."""
    mpp: float
    """Microns per mask pixel."""
    threshold: float | None = None
    """Threshold that found the tissue, by Otsu or from the settings; None for a mask that the user drew."""
    corrected: bool = False
    """Whether the mask was corrected by hand."""
    notes: tuple[str, ...] = ()
    """Warnings for the user, as sentences."""

    @property
    def area_mm2(self) -> float:
        """Area of the tissue in square millimetres."""
        return float(np.count_nonzero(self.array)) * (self.mpp / 1000) ** 2

    def fraction(self, x: npt.ArrayLike, y: npt.ArrayLike, width: float, height: float) -> npt.NDArray[np.float64]:
        """Return the share of tissue in rectangles, 0 to 1; nothing outside the slide is tissue.

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
        # Of the sums, only the part under the rectangles is computed: a large slide has 40 million of them.
        rows, columns = _under(top, bottom, self.array.shape[0]), _under(left, right, self.array.shape[1])
        sums = _integral(self.array[rows, columns])
        left, right, top, bottom = left - columns.start, right - columns.start, top - rows.start, bottom - rows.start
        inside = _sum_to(sums, bottom, right) - _sum_to(sums, top, right)
        inside -= _sum_to(sums, bottom, left) - _sum_to(sums, top, left)
        share = inside / (width * height / self.scale**2)
        return np.asarray(np.clip(share.round(9), 0, 1))  # removes rounding errors, such as 1e-17 instead of 0

    def write(self, path: Path | str) -> None:
        """Write as a black and white PNG, one bit for each pixel, which :meth:`read` turns into an equal mask.

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
        write_picture(Path(path), PIL.Image.fromarray(self.array), "PNG", pnginfo=facts)

    @classmethod
    def read(cls, path: Path | str, slide: Slide) -> Self:
        """Read a mask that :meth:`write` wrote or that the user drew: any image with the slide's proportions.

        Pixels that are neither black nor transparent are tissue.

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
        scale = scale_over(slide, height, width)
        if scale is None:
            raise SlideError(
                f"The tissue mask {path} has {width} x {height} pixels, not the proportions of {slide.path.name} "
                f"({slide.width} x {slide.height}); draw it on a thumbnail of the slide."
            )
        if not pixels.any():
            raise SlideError(f"The tissue mask {path} is all black; paint tissue in any other colour.")
        threshold, corrected = _found_by(path)
        return cls(pixels, scale, slide.require_mpp() * scale, threshold, corrected)


def _found_by(path: Path | str) -> tuple[float | None, bool]:
    """Return the threshold in a mask's file, and whether the mask was corrected by hand."""
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
    """A low-resolution map of a whole slide, from which masks at any threshold are made without reading the slide."""

    values: npt.NDArray[np.float32]
    """Optical density or saturation, shape (height, width); 0 where there is ink or a black border."""
    counts: npt.NDArray[np.int64]
    """Histogram of the values."""
    settings: TissueSettings
    """Settings that the map was made with; their resolution and measure count."""
    damage: tuple[str, ...]
    """Descriptions of places that could not be decoded, which count as glass."""
    scale: float
    """Level-0 pixels per pixel."""
    mpp: float
    """Microns per pixel."""
    slide: str
    """File name, for messages."""

    @classmethod
    def from_slide(cls, slide: Slide, settings: TissueSettings) -> Self:
        """Read a slide at ``settings.mpp``, or at its own resolution if that is coarser.

        Of the slide's size, only the map itself takes memory. Damaged places count as glass.

        Raises
        ------
        SlideError
            If the slide's microns per pixel are unknown, it is impossibly large, or all of it is damaged.
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
                f"{slide_mpp:.4g} microns per pixel; correct them, or raise `segment.tissue.mpp`."
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
        """Return whether these settings can be applied to this map, without reading the slide again."""
        return (settings.mpp, settings.measure) == (self.settings.mpp, self.settings.measure)

    def mask(self, settings: TissueSettings) -> TissueMask:
        """Return the tissue by Otsu's or the settings' threshold, with small pieces dropped and small holes closed.

        A piece that covers a quarter of the picture or more is never dropped.

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
                "`segment.tissue.threshold` or `segment.tissue.smallest_um`, or give a mask of your own "
                "(`segment.tissue_mask`)."
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
                f"`segment.tissue.threshold` above {threshold:.3g}, or give a mask of your own (`segment.tissue_mask`)."
            )

    @property
    def _places(self) -> str:
        more = len(self.damage) - _NAMED
        return "; ".join(self.damage[:_NAMED]) + (f" and {more} more places" if more > 0 else "")


def find_tissue(slide: Slide, settings: TissueSettings) -> TissueMask:
    """Find the tissue by Otsu's threshold on optical density or saturation; drop small pieces and close small holes.

    Blue and green ink and the black borders of some scanners are left out. Red ink looks like tissue, so that such
    slides need a mask that the user draws (:meth:`TissueMask.read`).

    Otsu (1979), "A threshold selection method from gray-level histograms". The threshold is clipped to 0.05 to 0.08,
    so that pale tissue (mucus, loose stroma) counts. Darker glass, with grey values below 212, needs a
    ``settings.threshold``.

    Parameters
    ----------
    slide
        The slide; it is read at ``settings.mpp``, or at its own resolution if that is coarser.
    settings
        Resolution, measure, threshold and sizes.

    Raises
    ------
    SlideError
        If there is no tissue, or the slide does not say its microns per pixel.
    """
    return TissueMap.from_slide(slide, settings).mask(settings)


def _under(first: npt.NDArray[np.float64], last: npt.NDArray[np.float64], length: int) -> slice:
    """Return the pixels of an axis from the first to the last of some edges, within the axis."""
    start, stop = (min(max(edge, 0), length) for edge in (math.floor(first.min()), math.ceil(last.max())))
    return slice(start, stop)


def _integral(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return the number of pixels of a mask above and to the left of each corner, (height + 1, width + 1)."""
    height, width = mask.shape
    sums = np.zeros((height + 1, width + 1), np.uint32)
    inner = sums[1:, 1:]
    np.cumsum(mask, 0, np.uint32, inner)
    np.cumsum(inner, 1, np.uint32, inner)
    return sums


def _sum_to(
    sums: npt.NDArray[np.uint32], y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the pixels above and to the left of a point (bilinear in the integral image)."""
    at = np.stack(np.broadcast_arrays(y, x))
    found = ndimage.map_coordinates(sums, at.reshape(2, -1), np.float64, order=1, mode="nearest")
    return np.asarray(found.reshape(at.shape[1:]))


def _otsu(counts: npt.NDArray[np.int64]) -> float:
    """Return Otsu's threshold of a histogram over ``_BINS``, clipped to the range that tissue can have."""
    lowest, highest = _OTSU_RANGE
    if np.count_nonzero(counts) < 2:  # a single colour has no threshold
        return lowest
    centres = (_BINS[:-1] + _BINS[1:]) / 2
    threshold: float = filters.threshold_otsu(hist=(counts, centres))  # type: ignore[no-untyped-call]
    return min(max(float(threshold), lowest), highest)


def _optical_density(image: Image) -> npt.NDArray[np.float32]:
    """Return the mean over the colours of -log10(I / 255), shape (H, W); 0 is white."""
    third = (-np.log10(np.maximum(np.arange(256), 1) / 255) / 3).astype(np.float32)
    mean = third[image[..., 0]]
    for colour in (1, 2):
        mean += third[image[..., colour]]
    return mean


def _saturation(image: Image) -> npt.NDArray[np.float32]:
    """Return the HSV saturation, shape (H, W), 0 to 1."""
    highest, lowest = (extreme.astype(np.float32) for extreme in _extremes(image))
    return np.asarray((highest - lowest) / np.maximum(highest, 1))


def _extremes(image: Image) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the largest and smallest colour of each pixel; numpy takes ten times as long over an axis of three."""
    red, green, blue = (image[..., colour] for colour in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _is_ink_or_black(image: Image) -> npt.NDArray[np.bool_]:
    red, green, blue = (image[..., colour].astype(np.int16) for colour in range(3))
    highest, lowest = _extremes(image)
    black = (highest < _BLACK) | ((highest < _DARK_GREY) & (highest - lowest <= _GREY))
    bluish = green > red - _BLUE_INK_GREEN
    ink = (green - red > _INK) | (bluish & (red < _BLUE_INK_RED) & (blue - red > _BLUE_INK_BLUE))
    if not ink.any():
        return np.asarray(black)
    # Along its edge, ink is mixed with glass.
    edge = ndimage.binary_dilation(ink, np.ones((3, 3), bool)) & bluish & (blue - red > _BLUE_INK_EDGE)
    return np.asarray(ink | edge | black)


def _drop_small(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    """Remove pieces (corners connect) of fewer than ``smallest`` pixels from a mask."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    keep = _sizes(labels, count) >= smallest
    keep[0] = False
    return np.asarray(keep[labels])


def _close_small(mask: npt.NDArray[np.bool_], largest: float) -> npt.NDArray[np.bool_]:
    """Fill holes of fewer than ``largest`` pixels in a mask; a gap that touches the image's edge is not a hole."""
    labels, count = ndimage.label(~mask)
    hole = _sizes(labels, count) < largest
    hole[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    return np.asarray(mask | hole[labels])


def _sizes(labels: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.int64]:
    """Return the number of pixels of each label 0..count."""
    # In bands of rows, because bincount converts its input to 64 bits.
    sizes = np.zeros(count + 1, np.int64)
    for top in range(0, len(labels), _BAND):
        sizes += np.bincount(labels[top : top + _BAND].ravel(), minlength=count + 1)
    return sizes
