"""A slide as pixels at any microns per pixel.

Three pixel spaces: *level-0 pixels* of the slide, *read-level pixels* of the pyramid level that is decoded, and
*output pixels* at the microns per pixel that the caller asks for. Every name below says which it is in.
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
"""Side of what is decoded and cached as one, about, in read-level pixels: whole tiles of the file."""
_CACHE_BYTES = 256 << 20
_SOURCE = 4096
"""Largest side of what is resampled at once, in read-level pixels; larger reads are put together."""
_TOLERANCE = 1.01
"""A level (or average of pixels) this much coarser than asked still counts as fine enough (2.00x of a 1.99x read)."""
_SQUARE = 1.05
_BACKGROUND = 255
_SCANNERS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide"})
"""Endings that only slides have."""


def open_slide(path: Path | str, mpp: float | None = None) -> Slide:
    """Open a slide: a file, an OME-Zarr folder or a folder with the files of one DICOM slide.

    Parameters
    ----------
    path
        SVS, NDPI, MRXS, SCN, BIF, OME-TIFF, tiled TIFF, OME-Zarr, DICOM, PNG, JPEG, BMP or TIFF without tiles.
    mpp
        Microns per level-0 pixel, over what the sidecar ``<slide file name>.mpp.json`` and the header say.
        A header counts where it names the unit: Aperio's ``MPP``, OpenSlide's ``mpp-x/y``, OME's ``PhysicalSize``,
        OME-Zarr scales with a unit of length, and TIFF resolution tags of 0.05 to 2.5 microns per pixel.

    Raises
    ------
    SlideError
        If there is no such file, no reader can open it, it is damaged or no RGB image, or an ``mpp`` is impossible.
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
    """Whether a file or folder is meant as a slide: what a scanner or converter wrote, whole or damaged.

    Pictures (PNG, JPEG, TIFF without tiles), which :func:`open_slide` opens too, do not count, nor does what is no RGB
    image: they belong to other programs. A file whose name only slides have counts even if it is damaged.
    """
    path = Path(path).absolute()
    scanner = path.suffix.lower() in _SCANNERS
    try:
        with open_slide(path) as slide:
            return scanner or not slide.is_picture
    except SlideError:
        return scanner


def slides_in(path: Path) -> list[Path]:
    """A slide itself, or the slides directly in a folder that is none (a DICOM or OME-Zarr folder is one).

    Opens every file of a folder, which may take seconds. A folder without slides comes back itself: whoever opens it
    says what is wrong.
    """
    if not path.is_dir() or is_slide(path):
        return [path]
    return [one for one in sorted(path.iterdir()) if is_slide(one)] or [path]


class Slide:
    """An open slide; made by :func:`open_slide` or of arrays, closed as a context manager.

    Safe to use from several threads.
    """

    path: Path
    """Where it lies; of an array its name."""
    reader: str
    """Name of the reader, as in the catalogue :func:`napari_pbip.slides.readers`."""
    mpp_xy: tuple[float, float] | None
    """Microns per level-0 pixel in x and y, or None if unknown."""
    mpp_is_given: bool
    """Whether ``mpp_xy`` was given by a user, rather than by the slide's header."""

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
        """A slide of pixels that are an array already; what is read of a dask array is computed when it is read.

        Parameters
        ----------
        pixels
            RGB, shape (height, width, 3), uint8: a numpy, dask or zarr array, or those of a pyramid.
        mpp
            Microns per level-0 pixel.
        name
            What it is called, in messages and by its results.

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
        """Whether the file holds one plain image without tiles, which lies in memory whole."""
        return isinstance(self._reader, WholeImage)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about this file that do not prevent reading it, as sentences: an odd header."""
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
        """Places that could not be decoded so far, in level-0 pixels, in words."""
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
        """Microns per level-0 pixel, the geometric mean of x and y, or None if unknown."""
        return math.sqrt(self.mpp_xy[0] * self.mpp_xy[1]) if self.mpp_xy else None

    @property
    def size_um(self) -> tuple[float, float] | None:
        """Width and height in micrometres, or None without microns per pixel."""
        return (self.width * self.mpp_xy[0], self.height * self.mpp_xy[1]) if self.mpp_xy else None

    def give_mpp(self, mpp: float) -> None:
        """Take these microns per pixel, as long as the slide is open, over what the slide says.

        Raises
        ------
        SlideError
            If they are impossible.
        """
        mpp = require_believable(mpp, "The given value")
        self.mpp_xy, self.mpp_is_given = (mpp, mpp), True

    def is_square(self) -> bool:
        """Whether pixels are known to be square, to within 5 %."""
        return self.mpp_xy is not None and max(self.mpp_xy) <= _SQUARE * min(self.mpp_xy)

    def require_mpp(self) -> float:
        """Microns per level-0 pixel.

        Raises
        ------
        SlideError
            If it is unknown, or pixels are not square (more than 5 % off).
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
        """Hash that stays when the slide is moved or renamed and differs for another slide (hexadecimal)."""
        return self._reader.identity()

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the pictures that come along, such as label, macro and thumbnail."""
        return self._reader.associated

    def read_associated(self, name: str) -> Image:
        """A picture that comes along: RGB, shape (height, width, 3), uint8.

        Raises
        ------
        SlideError
            If there is none of this name, or it is damaged.
        """
        if name not in self.associated:
            has = ", ".join(self.associated) or "none"
            raise SlideError(f"{self.path.name} has no associated image {name!r} (it has: {has}).")
        try:
            return self._reader.read_associated(name)
        except Exception as error:
            raise SlideError(damaged(self.path, error)) from error

    def read(self, x: float, y: float, width: int, height: int, mpp: float, *, damage_is_white: bool = False) -> Image:
        """Pixels at exactly ``mpp``, resampled from the nearest finer level (bicubic, anti-aliased).

        Positions are exact to a fraction of a pixel, so a read equals the same part of a larger read (to a grey
        level), and neighbouring reads join without a seam.

        Parameters
        ----------
        x, y
            Top left corner in level-0 pixels; fractions and places outside the slide are fine.
        width, height
            Output pixels, each ``mpp`` microns wide.
        mpp
            Microns per output pixel; finer than level 0 is interpolated.
        damage_is_white
            Whether what cannot be decoded is white and noted in :attr:`damage`, rather than an error.

        Returns
        -------
        RGB, shape (height, width, 3), uint8; white outside the slide.

        Raises
        ------
        SlideError
            If the slide does not say its microns per pixel, ``mpp`` is impossible, or the file is damaged.
        DamagedPlace
            If it is damaged here.
        """
        scale = require_believable(mpp, "The asked value") / self.require_mpp()
        return self._resample(x, y, width, height, scale, damage_is_white)

    def thumbnail(self, longest: int = 1024) -> Image:
        """The whole slide with its longest side ``longest`` pixels: RGB, shape (height, width, 3), uint8.

        What cannot be decoded is white, and noted in :attr:`damage`.
        """
        scale = max(self.width, self.height) / longest
        width, height = (max(1, round(side / scale)) for side in (self.width, self.height))
        return self._resample(0, 0, width, height, scale, damage_is_white=True)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """Pixels of one level as they are; ``x, y, width, height`` in pixels of this level, white outside.

        Returns
        -------
        RGB, shape (height, width, 3), uint8.

        Raises
        ------
        SlideError
            If the file is damaged.
        DamagedPlace
            If it is damaged here.
        """
        return self._region(level, 1, x, y, x + width, y + height)

    def read_scaled(
        self, x: float, y: float, width: int, height: int, scale: float, *, damage_is_white: bool = False
    ) -> Image:
        """Pixels that are ``scale`` level-0 pixels wide, whether the microns per pixel are known or not.

        The downsample of a level, times a power of two, needs no resampling and is read at the speed of the decoder.

        Parameters
        ----------
        x, y
            Top left corner in level-0 pixels.
        width, height
            Output pixels.
        scale
            Level-0 pixels per output pixel, above 0.
        damage_is_white
            Whether what cannot be decoded is white and noted in :attr:`damage`, rather than an error.

        Returns
        -------
        RGB, shape (height, width, 3), uint8; white outside the slide.

        Raises
        ------
        SlideError
            If the file is damaged.
        DamagedPlace
            If it is damaged here.
        """
        return self._resample(x, y, width, height, scale, damage_is_white)

    def close(self) -> None:
        """Close the file; reading is over."""
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
        """Output pixels that are ``scale`` level-0 pixels wide."""
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
        """One piece; ``left, top`` in pixels of the reduced level, ``factor`` of them per output pixel."""
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
        """A rectangle of a level whose pixels were averaged ``reduction x reduction``; white outside."""
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
        """Whole tiles of the file, averaged; from the cache if they are there. Not to be changed."""
        level = self.levels[number]
        width, height = _block_size(level)
        x, y = column * width, row * height
        width, height = min(width, level.width - x), min(height, level.height - y)

        def decode() -> Image:
            try:
                pixels = self._reader.read(number, x, y, width, height)
            except SlideError:
                raise  # none of it can be read
            except Exception as error:  # noqa: BLE001 (whatever the library below raises)
                self._require_reachable(error)
                pixels = self._decode_pieces(number, x, y, width, height)
            return pixels if reduction == 1 else np.asarray(PIL.Image.fromarray(pixels).reduce(reduction))

        return self._blocks.get((number, reduction, column, row), decode)

    def _decode_pieces(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        """A block in which something is damaged, tile by tile: what cannot be decoded is white and is noted."""
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
        """Tell a drive that does not answer from a file that is damaged."""
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
    """Width and height of a block: as many whole tiles of the file as come closest to 1024 pixels."""
    width, height = (side * max(1, round(_BLOCK / side)) for side in level.tile)
    return width, height


def _reduction(factor: float, block: tuple[int, int]) -> int:
    """Power of two by which blocks are averaged before they are resampled by the rest of ``factor``, 1 to 2.

    Averages over whole cells are what pyramids are made of, are cheap, and stay small in the cache. The power divides
    the block's sides, so that pixels of the reduced level lie on one lattice over the whole slide.
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
