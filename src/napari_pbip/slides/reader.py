"""What a slide reader is, and which there are.

A reader knows one family of files: it gives whole pixels of one pyramid level, nothing else. Resampling,
caching and everything outside the image belong to :class:`napari_pbip.slides.Slide`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""RGB, shape (height, width, 3), uint8."""


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


class Reader(Protocol):
    """An open slide file. ``read`` may be called from several threads at once."""

    @property
    def levels(self) -> tuple[Level, ...]: ...

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
    ReaderEntry("ome-zarr", "OME-Zarr 0.4 and 0.5", "zarr", "napari_pbip.slides.ngff:open_ngff"),
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


def readers() -> tuple[ReaderEntry, ...]:
    """All readers, in the order in which they are asked; listing them imports none of their libraries."""
    return _READERS


def pyramid(sizes: Sequence[tuple[int, int]], tiles: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their sizes and stored tiles, finest first.

    Writers halve (quarter ...) a level and cut off or add the odd pixel, so a ratio of sizes such as 2.0005 means
    2: a downsample is the whole number that explains both sizes to within a pixel, else the mean ratio.
    """
    (width, height), levels = sizes[0], []
    for (w, h), tile in zip(sizes, tiles, strict=True):
        ratio = (width / w + height / h) / 2
        whole = round(ratio)
        explains = abs(width / whole - w) < 1 and abs(height / whole - h) < 1
        levels.append(Level(w, h, float(whole) if explains else ratio, tile))
    return tuple(levels)


def over_white(image: Image) -> Image:
    """RGB as it is, or RGBA laid over white: shape (H, W, 3) or (H, W, 4) to (H, W, 3)."""
    if image.shape[2] == 3:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    if bool(alpha.min() == 255):
        return np.ascontiguousarray(colour)
    weight = alpha.astype(np.uint16)
    mixed = (colour * weight + 255 * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)


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
