"""The interface of slide readers, and the catalogue of them.

A reader opens one family of files and reads whole pixels of one pyramid level. Resampling, caching and the white
outside the image are done by :class:`napari_pbip.slides.Slide`.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from napari_pbip.errors import PbipError, SlideError
from napari_pbip.plugins import plugins

Image = npt.NDArray[np.uint8]
"""RGB, shape (height, width, 3), uint8."""

LARGEST_PIECE = 178_956_970
"""Largest number of pixels of an image that can only be read whole: Pillow's limit (512 MiB of RGB)."""
_LARGEST_SLIDE = 2 * 10**11
"""Largest number of pixels of a slide, 75 x 26 mm at 0.1 microns per pixel. A header that says more is damaged."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid; level 0 is the finest."""

    width: int
    """Size in pixels of this level."""
    height: int
    downsample: float
    """Level-0 pixels per pixel of this level, 1 or more."""
    tile: tuple[int, int]
    """Width and height, in pixels of this level, of the pieces that the file stores and that are decoded as one."""
    stored: int
    """Index of this level in the file, which may hold further levels that are not used."""


class Reader(Protocol):
    """An open slide file. ``read`` may be called from several threads at once."""

    @property
    def levels(self) -> tuple[Level, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings that do not prevent reading the file, as sentences that begin after the file's name."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Microns per level-0 pixel in x and y in the file's metadata, or None."""

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the associated images: label, macro, thumbnail."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Read a rectangle that lies within the level; errors of the underlying library are not caught."""

    def read_associated(self, name: str) -> Image: ...

    def identity(self) -> str:
        """Return a hash of the file's header, sizes and samples of its content. It does not depend on the path."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ReaderEntry:
    """An entry of the catalogue of readers."""

    name: str
    """Name of the reader, as in ``Slide.reader``."""
    formats: str
    """The formats that it opens, for the user."""
    package: str
    """Name of the distribution that it needs."""
    factory: str
    """``module:function`` that opens a path, or returns None for a file of another reader."""

    def open(self, path: Path) -> Reader | None:
        """Open a file, or return None if it belongs to another reader.

        Raises
        ------
        SlideError
            If the file is of this reader's format but not an RGB slide.
        Exception
            Any error that the underlying library raises on a damaged file.
        """
        module, _, function = self.factory.partition(":")
        factory = cast("Callable[[Path], Reader | None]", getattr(importlib.import_module(module), function))
        return factory(path)


_READERS = (
    ReaderEntry("ome-zarr", "OME-Zarr 0.1 to 0.5", "zarr", "napari_pbip.slides.ngff:open_ngff"),
    ReaderEntry(
        "tifffile",
        "SVS, OME-TIFF, tiled TIFF with or without a pyramid",
        "tifffile",
        "napari_pbip.slides.tiff:open_tiff",
    ),
    ReaderEntry(
        "openslide",
        "NDPI, MRXS, SCN, BIF, Philips and Trestle TIFF, VMS, SVSLIDE, CZI, DICOM folder",
        "openslide-python",
        "napari_pbip.slides.openslide:open_openslide",
    ),
    ReaderEntry("image", "PNG, JPEG, BMP, TIFF without tiles", "pillow", "napari_pbip.slides.image:open_image"),
)


@cache
def readers() -> tuple[ReaderEntry, ...]:
    """Return all readers in the order in which they are tried: the built-in ones, then those of other packages.

    The libraries of the built-in ones are not imported.
    """
    return (*_READERS, *plugins("reader", [entry.name for entry in _READERS], _checked).values())


def _checked(name: str, entry: Any) -> ReaderEntry:
    """Check the reader that another package registered under a name, and return it."""
    if not isinstance(entry, ReaderEntry) or entry.name != name:
        raise PbipError(f"it is no ReaderEntry with the name {name!r}")
    return entry


def pyramid(name: str, sizes: Sequence[tuple[int, int]], tiles: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Return the levels that show the whole slide, finest first, from the sizes and tiles of all levels in a file.

    Writers divide the size of a level by 2, 4 ... and drop or add the odd pixel, so that a ratio such as 2.0005 means
    2. The downsample is therefore the integer that explains both sizes to within a pixel, else the ratio that does. A
    level without a common ratio is left out: it was padded, or reduced by different factors in x and y, so that its
    pixels lie elsewhere. A level of whole tiles with a fractional ratio is left out too, because a slide with the
    proportions of a tile gets such a ratio when it is padded to whole tiles.

    Parameters
    ----------
    name
        File name, for messages.
    sizes, tiles
        Width and height of every level, and of its stored tiles, in pixels of the level.

    Raises
    ------
    SlideError
        If the slide or one of its stored tiles is larger than the limits of this module.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i][0] * sizes[i][1])
    width, height = sizes[order[0]]
    if min(width, height) < 1:
        raise SlideError(f"{name} has no pixels ({width} x {height}); export it again.")
    if width * height > _LARGEST_SLIDE:
        raise SlideError(
            f"{name} says it has {width:,} x {height:,} pixels, more than any slide; copy or export it again."
        )
    levels = [Level(width, height, 1.0, tiles[order[0]], order[0])]
    for i in order[1:]:
        ratio = _downsample((width, height), sizes[i], tiles[i])
        if ratio is not None and ratio > levels[-1].downsample:
            levels.append(Level(*sizes[i], ratio, tiles[i], i))
    for level in levels:
        if level.tile[0] * level.tile[1] > LARGEST_PIECE:
            raise SlideError(
                f"{name} is stored in pieces of {level.tile[0]:,} x {level.tile[1]:,} pixels, too large to be read "
                "one by one; convert it with vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg."
            )
    return tuple(levels)


def _downsample(finest: tuple[int, int], size: tuple[int, int], tile: tuple[int, int]) -> float | None:
    """Return the level-0 pixels per pixel of a level, or None if no ratio explains both its width and its height."""
    if min(size) < 1:
        return None
    lowest = max(full / (side + 1) for full, side in zip(finest, size, strict=True))
    highest = min(full / (side - 1) if side > 1 else math.inf for full, side in zip(finest, size, strict=True))
    if lowest > highest:
        return None
    ratio = sum(full / side for full, side in zip(finest, size, strict=True)) / 2
    if lowest <= round(ratio) <= highest:
        return float(max(1, round(ratio)))
    padded = all(side % piece == 0 for side, piece in zip(size, tile, strict=True))
    return None if padded else min(max(ratio, lowest), highest)


_BAND = 512


def over_white(image: Image) -> Image:
    """Return RGB unchanged and RGBA composited over white: (H, W, 3) or (H, W, 4) to (H, W, 3)."""
    if image.shape[2] == 3:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    if bool(alpha.min() == 255):
        return np.ascontiguousarray(colour)
    mixed = np.empty(colour.shape, np.uint8)
    for top in range(0, len(image), _BAND):  # in bands, to limit the memory of the 16-bit products
        rows = slice(top, top + _BAND)
        weight = alpha[rows].astype(np.uint16)
        mixed[rows] = (colour[rows] * weight + 255 * (255 - weight) + 127) // 255
    return mixed


def damaged(path: Path, error: Exception) -> str:
    """Return the message for an error that a library raised on a damaged file."""
    return f"{path.name} is damaged and cannot be read ({reason(error)}); copy or export it again."


def reason(error: Exception) -> str:
    """Return the first line of an error's message, shortened for use in a sentence."""
    return brief((str(error).splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__)


def brief(text: str) -> str:
    """Return a text of a file or a library on one line, shortened for use in a sentence."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "\N{HORIZONTAL ELLIPSIS}"


_LONGEST_QUOTE = 200
_PIECES, _PIECE = 32, 4096


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size, its first and last 64 KiB and 32 pieces in between, in a few milliseconds."""
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        sha.update(file.read(1 << 16))
        for i in range(_PIECES):
            file.seek(size * i // _PIECES)
            sha.update(file.read(_PIECE))
        file.seek(max(0, size - (1 << 16)))
        sha.update(file.read())
    return sha.hexdigest()
