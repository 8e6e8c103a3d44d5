"""A slide as pixels at any microns per pixel.

There are three pixel spaces: *level-0 pixels* of the slide, *read-level pixels* of the pyramid level that is decoded,
and *output pixels* at the microns per pixel that the caller asks for. Names in this module say which they are in.
"""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
import PIL.Image

from napari_pbip.errors import DamagedPlace, SlideError
from napari_pbip.slides.array import ArrayReader, Pixels
from napari_pbip.slides.cache import BlockCache
from napari_pbip.slides.image import WholeImage
from napari_pbip.slides.mpp import is_usual, read_sidecar, require_believable, sidecar
from napari_pbip.slides.reader import Image, Level, Reader, damaged, readers, reason

_BLOCK = 1024
"""Approximate side, in read-level pixels, of a block that is decoded and cached as one; blocks are whole tiles."""
_CACHE_BYTES = 256 << 20
_SOURCE = 4096
"""Largest side, in read-level pixels, that is resampled at once; larger reads are composed of several parts."""
_TOLERANCE = 1.01
"""A level may be coarser than asked for by this factor, so that a read at 1.99x uses the level at 2.00x."""
_SQUARE = 1.05
_BACKGROUND = 255
_SCANNERS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide"})
"""Suffixes of file names that only slides have."""


def open_slide(path: Path | str, mpp: float | None = None) -> Slide:
    """Open a slide: a file, an OME-Zarr folder or a folder with the files of one DICOM slide.

    Parameters
    ----------
    path
        SVS, NDPI, MRXS, SCN, BIF, OME-TIFF, tiled TIFF, OME-Zarr, DICOM, PNG, JPEG, BMP or TIFF without tiles.
    mpp
        Microns per level-0 pixel; takes precedence over the sidecar ``<slide file name>.mpp.json`` and the header.
        Of headers these are used: Aperio's ``MPP``, OpenSlide's ``mpp-x/y``, OME's ``PhysicalSize``, OME-Zarr scales
        with a unit of length, and TIFF resolution tags of 0.05 to 2.5 microns per pixel.

    Raises
    ------
    SlideError
        If the file does not exist, no reader can open it, it is damaged or not RGB, or ``mpp`` is impossible.
    """
    path = Path(path).absolute()
    _require_readable(path)
    override = read_sidecar(path) if mpp is None else require_believable(mpp, "The given value")
    for entry in readers():
        try:
            reader = entry.open(path)
        except SlideError:
            raise
        except ImportError as error:
            raise SlideError(
                f"{path.name} cannot be read, because the reader {entry.name!r} cannot be loaded ({reason(error)}); "
                "napari-pbip doctor says what to do."
            ) from error
        except Exception as error:
            raise SlideError(damaged(path, error)) from error
        if reader is not None:
            return Slide(path, entry.name, reader, override)
    if path.is_dir():
        raise SlideError(f"{path} is a folder without a DICOM slide or OME-Zarr image; give the slide file itself.")
    if zipfile.is_zipfile(path):
        raise SlideError(f"{path.name} is a zip archive; unzip it and give the slide or OME-Zarr folder that it holds.")
    raise SlideError(
        f"{path.name} is not a slide that can be read; formats are "
        + "; ".join(entry.formats for entry in readers())
        + "."
    )


def is_slide(path: Path | str) -> bool:
    """Return whether a file or folder was written by a scanner or converter of slides, even if it is damaged.

    Pictures (PNG, JPEG, TIFF without tiles), which :func:`open_slide` opens too, do not count, and neither do images
    that are not RGB: they belong to other programs. A damaged file counts if only slides have its suffix.
    """
    path = Path(path).absolute()
    scanner = path.suffix.lower() in _SCANNERS
    try:
        with open_slide(path) as slide:
            return scanner or not slide.is_picture
    except SlideError:
        return scanner


def slides_in(path: Path) -> list[Path]:
    """Return the slide at a path, or the slides directly in a folder (a DICOM or OME-Zarr folder is itself a slide).

    Every file of the folder is opened, which may take seconds. A folder without slides is returned itself, so that
    opening it raises the error that explains it.
    """
    if not path.is_dir() or is_slide(path):
        return [path]
    return [one for one in sorted(path.iterdir()) if is_slide(one)] or [path]


class Slide:
    """An open slide, made by :func:`open_slide` or :meth:`from_array`; a context manager that closes it.

    It may be used from several threads.
    """

    path: Path
    """Path of the slide; of an array, its name."""
    reader: str
    """Name of the reader, as in the catalogue :func:`napari_pbip.slides.readers`."""
    mpp_xy: tuple[float, float] | None
    """Microns per level-0 pixel in x and y, or None if unknown."""
    mpp_is_given: bool
    """Whether ``mpp_xy`` was given by the user rather than by the slide's header."""

    def __init__(
        self, path: Path, reader_name: str, reader: Reader, mpp: float | None, name: str | None = None
    ) -> None:
        self.path = path
        self._name = name
        self.reader = reader_name
        self.mpp_xy = reader.mpp if mpp is None else (mpp, mpp)
        self.mpp_is_given = mpp is not None
        self._reader = reader
        self._blocks = BlockCache(_CACHE_BYTES)
        self._damage: dict[tuple[int, int, int, int, int], str] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_array(cls, pixels: Pixels | Sequence[Pixels], mpp: float, name: str = "array") -> Self:
        """Make a slide of an array; the parts of a dask array are computed when they are read.

        Parameters
        ----------
        pixels
            RGB, shape (height, width, 3), uint8: a numpy, dask or zarr array, or the arrays of a pyramid.
        mpp
            Microns per level-0 pixel.
        name
            Name of the slide, for messages and results.

        Raises
        ------
        SlideError
            If an array has another shape or type, or chunks too large to be read, or ``mpp`` is impossible.
        """
        levels = [pixels] if hasattr(pixels, "dtype") else pixels
        reader = ArrayReader(name, cast("Sequence[Pixels]", levels))
        return cls(Path(name), "array", reader, require_believable(mpp, "The given value"), name)

    @property
    def name(self) -> str:
        """The file's name without its ending (``slide`` of ``slide.ome.tif``)."""
        if self._name is not None:
            return self._name
        if self.path.is_dir() and self.path.suffix.lower() != ".zarr":
            return self.path.name
        return self.path.stem.removesuffix(".ome").removesuffix(".OME")

    @property
    def is_picture(self) -> bool:
        """Whether the file is one plain image without tiles, which is held in memory whole."""
        return isinstance(self._reader, WholeImage)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about this file that do not prevent reading it, such as an unusual header, as sentences."""
        notes = [f"{self.path.name} {note}." for note in self._reader.notes]
        if not self.mpp_is_given and (mpp := self.mpp) is not None and not is_usual(mpp):
            width, height = (side / 1000 for side in self.size_um or (0, 0))
            notes.append(
                f"{self.path.name} says it has {mpp:.4g} microns per pixel, which makes it {width:.3g} x {height:.3g} "
                f"mm large; if that is wrong, correct it {self._way_out}."
            )
        return tuple(notes)

    @property
    def damage(self) -> tuple[str, ...]:
        """Descriptions of the places that could not be decoded so far, in level-0 pixels."""
        with self._lock:
            return tuple(self._place(box) for box in sorted(self._damage))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest level first."""
        return self._reader.levels

    @property
    def width(self) -> int:
        """Level-0 pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Level-0 pixels."""
        return self.levels[0].height

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel: the geometric mean of x and y, or None if unknown."""
        return math.sqrt(self.mpp_xy[0] * self.mpp_xy[1]) if self.mpp_xy else None

    @property
    def size_um(self) -> tuple[float, float] | None:
        """Width and height in micrometres, or None if the microns per pixel are unknown."""
        return (self.width * self.mpp_xy[0], self.height * self.mpp_xy[1]) if self.mpp_xy else None

    def give_mpp(self, mpp: float) -> None:
        """Use these microns per pixel instead of the slide's own for as long as it is open.

        Raises
        ------
        SlideError
            If ``mpp`` is impossible.
        """
        mpp = require_believable(mpp, "The given value")
        self.mpp_xy, self.mpp_is_given = (mpp, mpp), True

    def is_square(self) -> bool:
        """Whether pixels are known to be square, to within 5 %."""
        return self.mpp_xy is not None and max(self.mpp_xy) <= _SQUARE * min(self.mpp_xy)

    def require_mpp(self) -> float:
        """Return the microns per level-0 pixel.

        Raises
        ------
        SlideError
            If they are unknown, or differ by more than 5 % between x and y.
        """
        mpp, way_out = self.mpp, self._way_out
        if self.mpp_xy is None or mpp is None:
            raise SlideError(f"{self.path.name} does not say its microns per pixel; give it {way_out}.")
        if not self.is_square():
            x, y = self.mpp_xy
            raise SlideError(
                f"{self.path.name} has pixels that are not square ({x:g} x {y:g} microns); correct it {way_out}."
            )
        return mpp

    @property
    def _way_out(self) -> str:
        return f'with `mpp=0.5`, or in a file {sidecar(self.path)} that holds {{"mpp": 0.5}}'

    @cached_property
    def identity(self) -> str:
        """Hash of the content, hexadecimal: it stays when the slide is moved or renamed, and differs between slides."""
        return self._reader.identity()

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the associated images, such as label, macro and thumbnail."""
        return self._reader.associated

    def read_associated(self, name: str) -> Image:
        """Read an associated image: RGB, shape (height, width, 3), uint8.

        Raises
        ------
        SlideError
            If there is no image of this name, or it is damaged.
        """
        if name not in self.associated:
            has = ", ".join(self.associated) or "none"
            raise SlideError(f"{self.path.name} has no associated image {name!r} (it has: {has}).")
        try:
            return self._reader.read_associated(name)
        except Exception as error:
            raise SlideError(damaged(self.path, error)) from error

    def read(self, x: float, y: float, width: int, height: int, mpp: float, *, damage_is_white: bool = False) -> Image:
        """Read pixels at exactly ``mpp``, resampled from the nearest finer level (bicubic, anti-aliased).

        Positions are exact to a fraction of a pixel, so that a read equals the same part of a larger read to within
        one grey level, and neighbouring reads join without a seam.

        Parameters
        ----------
        x, y
            Top left corner in level-0 pixels; may be fractional or outside the slide.
        width, height
            Output pixels, each ``mpp`` microns wide.
        mpp
            Microns per output pixel; values finer than level 0 are interpolated.
        damage_is_white
            Whether places that cannot be decoded are read as white and listed in :attr:`damage`, instead of raising.

        Returns
        -------
        RGB, shape (height, width, 3), uint8; white outside the slide.

        Raises
        ------
        SlideError
            If the slide does not say its microns per pixel, ``mpp`` is impossible, or the file is damaged.
        DamagedPlace
            If the file is damaged at this place.
        """
        scale = require_believable(mpp, "The asked value") / self.require_mpp()
        return self._resample(x, y, width, height, scale, damage_is_white)

    def thumbnail(self, longest: int = 1024) -> Image:
        """Read the whole slide, its longer side being ``longest`` pixels: RGB, shape (height, width, 3), uint8.

        Places that cannot be decoded are white and listed in :attr:`damage`.
        """
        scale = max(self.width, self.height) / longest
        width, height = (max(1, round(side / scale)) for side in (self.width, self.height))
        return self._resample(0, 0, width, height, scale, damage_is_white=True)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Read pixels of one level as they are; ``x, y, width, height`` are in its pixels, and the outside is white.

        Returns
        -------
        RGB, shape (height, width, 3), uint8.

        Raises
        ------
        SlideError
            If the file is damaged.
        DamagedPlace
            If the file is damaged at this place.
        """
        return self._region(level, 1, x, y, x + width, y + height)

    def read_scaled(
        self, x: float, y: float, width: int, height: int, scale: float, *, damage_is_white: bool = False
    ) -> Image:
        """Read pixels that are ``scale`` level-0 pixels wide; the microns per pixel need not be known.

        A scale that is the downsample of a level times a power of two needs no resampling and is fastest.

        Parameters
        ----------
        x, y
            Top left corner in level-0 pixels.
        width, height
            Output pixels.
        scale
            Level-0 pixels per output pixel, above 0.
        damage_is_white
            Whether places that cannot be decoded are read as white and listed in :attr:`damage`, instead of raising.

        Returns
        -------
        RGB, shape (height, width, 3), uint8; white outside the slide.

        Raises
        ------
        SlideError
            If the file is damaged.
        DamagedPlace
            If the file is damaged at this place.
        """
        return self._resample(x, y, width, height, scale, damage_is_white)

    def close(self) -> None:
        """Close the file; the slide cannot be read afterwards."""
        self._blocks.clear()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        mpp = "unknown" if self.mpp is None else f"{self.mpp:g}"
        return f"<Slide {self.path.name}: {self.width} x {self.height}, {len(self.levels)} levels, mpp {mpp}>"

    def _resample(
        self, x: float, y: float, width: int, height: int, scale: float, damage_is_white: bool = False
    ) -> Image:
        """Read output pixels that are ``scale`` level-0 pixels wide."""
        number = max(i for i, level in enumerate(self.levels) if i == 0 or level.downsample <= scale * _TOLERANCE)
        level = self.levels[number]
        reduction = _reduction(scale / level.downsample, _block_size(level))
        source_scale = level.downsample * reduction  # level-0 pixels per source pixel
        factor = scale / source_scale  # source pixels per output pixel
        left, top = x / source_scale, y / source_scale
        step = max(1, int(_SOURCE / max(factor, 1)))
        if width <= step and height <= step:
            return self._resample_part(number, reduction, left, top, width, height, factor, damage_is_white)
        out = np.empty((height, width, 3), np.uint8)
        for row in range(0, height, step):
            for column in range(0, width, step):
                part = out[row : row + step, column : column + step]
                corner = left + column * factor, top + row * factor
                part[:] = self._resample_part(
                    number, reduction, *corner, part.shape[1], part.shape[0], factor, damage_is_white
                )
        return out

    def _resample_part(
        self,
        level: int,
        reduction: int,
        left: float,
        top: float,
        width: int,
        height: int,
        factor: float,
        damage_is_white: bool,
    ) -> Image:
        """Resample one part; ``left, top`` are in pixels of the reduced level, ``factor`` of them per output pixel."""
        if factor == 1 and left.is_integer() and top.is_integer():
            box = int(left), int(top), int(left) + width, int(top) + height
            return self._region(level, reduction, *box, damage_is_white)
        margin = math.ceil(2 * max(factor, 1)) + 1  # pixels that the bicubic kernel reaches
        x0, y0 = math.floor(left) - margin, math.floor(top) - margin
        x1, y1 = math.ceil(left + width * factor) + margin, math.ceil(top + height * factor) + margin
        source = PIL.Image.fromarray(self._region(level, reduction, x0, y0, x1, y1, damage_is_white))
        part = (left - x0, top - y0, left - x0 + width * factor, top - y0 + height * factor)
        # A copy: Pillow's own memory is read-only, which torch warns about.
        return np.array(source.resize((width, height), PIL.Image.Resampling.BICUBIC, part))

    def _region(
        self, number: int, reduction: int, x0: int, y0: int, x1: int, y1: int, damage_is_white: bool = False
    ) -> Image:
        """Read a rectangle of a level after averaging ``reduction x reduction`` pixels; white outside."""
        level = self.levels[number]
        width, height = -(-level.width // reduction), -(-level.height // reduction)
        block_width, block_height = (side // reduction for side in _block_size(level))
        out = np.full((y1 - y0, x1 - x0, 3), _BACKGROUND, np.uint8)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        for row in range(top // block_height, -(-bottom // block_height)):
            for column in range(left // block_width, -(-right // block_width)):
                block_x, block_y = column * block_width, row * block_height
                ax, ay = max(left, block_x), max(top, block_y)
                bx, by = min(right, block_x + block_width), min(bottom, block_y + block_height)
                if ax < bx and ay < by:
                    block = self._block(number, reduction, column, row)
                    out[ay - y0 : by - y0, ax - x0 : bx - x0] = block[
                        ay - block_y : by - block_y, ax - block_x : bx - block_x
                    ]
        if self._damage and not damage_is_white:
            self._require_undamaged(number, *(side * reduction for side in (left, top, right, bottom)))
        return out

    def _block(self, number: int, reduction: int, column: int, row: int) -> Image:
        """Return a block of whole tiles, averaged, from the cache if it is there. It must not be changed."""
        level = self.levels[number]
        width, height = _block_size(level)
        x, y = column * width, row * height
        width, height = min(width, level.width - x), min(height, level.height - y)

        def decode() -> Image:
            try:
                pixels = self._reader.read(number, x, y, width, height)
            except SlideError:
                raise  # no tile of the block can be read
            except Exception as error:  # noqa: BLE001 (whatever the library below raises)
                self._require_reachable(error)
                pixels = self._decode_pieces(number, x, y, width, height)
            return pixels if reduction == 1 else np.asarray(PIL.Image.fromarray(pixels).reduce(reduction))

        return self._blocks.get((number, reduction, column, row), decode)

    def _decode_pieces(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        """Decode a damaged block tile by tile; tiles that cannot be decoded are white and recorded as damaged."""
        out = np.full((height, width, 3), _BACKGROUND, np.uint8)
        across, down = self.levels[number].tile
        for top in range(0, height, down):
            for left in range(0, width, across):
                piece = out[top : top + down, left : left + across]
                box = number, x + left, y + top, piece.shape[1], piece.shape[0]
                try:
                    piece[:] = self._reader.read(*box)
                except Exception as error:  # noqa: BLE001
                    self._require_reachable(error)
                    with self._lock:
                        self._damage[box] = reason(error)
        return out

    def _require_reachable(self, error: Exception) -> None:
        """Raise another error if the drive does not answer, so that its file is not called damaged."""
        if isinstance(error, OSError) and error.errno is not None:
            raise SlideError(f"{self.path.name} cannot be read ({error.strerror}); check its drive.") from error

    def _require_undamaged(self, number: int, x0: int, y0: int, x1: int, y1: int) -> None:
        with self._lock:
            for box, why in self._damage.items():
                level, x, y, width, height = box
                if level == number and x < x1 and x + width > x0 and y < y1 and y + height > y0:
                    raise DamagedPlace(
                        f"{self.path.name} is damaged at {self._place(box)} and cannot be read there ({why}); "
                        "copy or export it again."
                    )

    def _place(self, box: tuple[int, int, int, int, int]) -> str:
        level, *sides = box
        downsample = self.levels[level].downsample
        x, y, width, height = (round(side * downsample) for side in sides)
        return f"x {x} to {x + width}, y {y} to {y + height}"


def _block_size(level: Level) -> tuple[int, int]:
    """Return the width and height of a block: the multiples of a tile's sides that are closest to 1024 pixels."""
    width, height = (side * max(1, round(_BLOCK / side)) for side in level.tile)
    return width, height


def _reduction(factor: float, block: tuple[int, int]) -> int:
    """Return the power of two by which blocks are averaged; what remains of ``factor``, 1 to 2, is resampled.

    Averages of whole pixels are what pyramids consist of; they are fast, and small in the cache. The power divides the
    block's sides, so that the pixels of the reduced level lie on one lattice over the whole slide.
    """
    reduction = 1
    while 2 * reduction <= factor * _TOLERANCE and all(side % (2 * reduction) == 0 for side in block):
        reduction *= 2
    return reduction


def _require_readable(path: Path) -> None:
    try:
        if path.is_dir():
            empty = next(path.iterdir(), None) is None
        else:
            with path.open("rb") as file:
                empty = not file.read(1)
    except FileNotFoundError as error:
        raise SlideError(f"There is no slide at {path}; check the path.") from error
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}.") from error
    if empty:
        raise SlideError(f"{path} is empty; give a slide file, an OME-Zarr folder or a DICOM folder.")
