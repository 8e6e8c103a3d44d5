"""What a slide reader is, and which there are.

A reader knows one family of files: it gives whole pixels of one pyramid level, nothing else. Resampling,
caching and everything outside the image belong to :class:`napari_pbip.slides.Slide`.
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
"""Pixels of what can only be read whole: what Pillow opens at most (512 MiB of RGB)."""
_LARGEST_SLIDE = 2 * 10**11
"""Pixels: a glass of 75 x 26 mm at 0.1 microns. Headers that say more are damaged, and would be read for hours."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid; level 0 is the finest."""

    width: int
    """Pixels of this level."""
    height: int
    downsample: float
    """Level-0 pixels per pixel of this level, 1 or more."""
    tile: tuple[int, int]
    """Width and height of what the file stores (and decodes) as one piece, in pixels of this level."""
    stored: int
    """Number of this level in the file, which may hold others that are not used."""


class Reader(Protocol):
    """An open slide file. ``read`` may be called from several threads at once."""

    @property
    def levels(self) -> tuple[Level, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings that do not prevent reading the file: sentences without the file's name."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Microns per level-0 pixel in x and y as the file says, or None."""

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the pictures that come along: label, macro, thumbnail."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Pixels of a rectangle that lies within the level; raises whatever the library below raises."""

    def read_associated(self, name: str) -> Image: ...

    def identity(self) -> str:
        """Hash of the file's header, sizes and samples of its content: the same wherever the file lies."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ReaderEntry:
    """A row of the catalogue of readers."""

    name: str
    """As in ``Slide.reader``."""
    formats: str
    """What it opens, in the user's words."""
    package: str
    """Distribution it needs."""
    factory: str
    """``module:function`` that opens a path, or returns None for a file of another reader."""

    def open(self, path: Path) -> Reader | None:
        """The open file, or None if it belongs to another reader.

        Raises
        ------
        SlideError
            If the file is of this reader's kind but not an RGB slide.
        Exception
            Anything the library below raises on a damaged file.
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
    """All readers, in the order in which they are asked: ours, then those that installed packages add.

    Listing ours imports none of their libraries.
    """
    return (*_READERS, *plugins("reader", [entry.name for entry in _READERS], _checked).values())


def _checked(name: str, entry: Any) -> ReaderEntry:
    """The reader that another package registered under a name."""
    if not isinstance(entry, ReaderEntry) or entry.name != name:
        raise PbipError(f"it is no ReaderEntry with the name {name!r}")
    return entry


def pyramid(name: str, sizes: Sequence[tuple[int, int]], tiles: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """The levels that show the whole slide, from the sizes and stored tiles of all that a file holds; finest first.

    Writers halve (quarter ...) a level and cut off or add the odd pixel, so a ratio of sizes such as 2.0005 means
    2: a downsample is the whole number that explains both sizes to within a pixel, else the ratio that does. A level
    that no single ratio explains is left out, because its pixels lie elsewhere: it was reduced by different steps in
    x and y, or padded. So is a level of whole tiles whose ratio is no whole number, which is what padding to whole
    tiles makes of a slide that has the proportions of a tile.

    Parameters
    ----------
    name
        File name, for messages.
    sizes, tiles
        Width and height of every level and of what it is stored in, in pixels of the level.

    Raises
    ------
    SlideError
        If the slide, or one of its stored tiles, would be larger than any can be.
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
    """Level-0 pixels per pixel of a level, or None where no ratio explains its width and its height."""
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
    """RGB as it is, or RGBA laid over white: shape (H, W, 3) or (H, W, 4) to (H, W, 3)."""
    if image.shape[2] == 3:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    if bool(alpha.min() == 255):
        return np.ascontiguousarray(colour)
    mixed = np.empty(colour.shape, np.uint8)
    for top in range(0, len(image), _BAND):  # so that 16 bits are needed for a part only
        rows = slice(top, top + _BAND)
        weight = alpha[rows].astype(np.uint16)
        mixed[rows] = (colour[rows] * weight + 255 * (255 - weight) + 127) // 255
    return mixed


def damaged(path: Path, error: Exception) -> str:
    """The sentence for whatever a library raises on a damaged file."""
    return f"{path.name} is damaged and cannot be read ({reason(error)}); copy or export it again."


def reason(error: Exception) -> str:
    """The first line of what a library says of an error, short enough for a sentence."""
    return brief((str(error).splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__)


def brief(text: str) -> str:
    """What a file or a library says, on one line and short enough for a sentence."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "\N{HORIZONTAL ELLIPSIS}"


_LONGEST_QUOTE = 200
_PIECES, _PIECE = 32, 4096


def fingerprint(path: Path) -> str:
    """Hash of a file's size, its first and last 64 KiB and 32 pieces in between; a few ms however large the file."""
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
