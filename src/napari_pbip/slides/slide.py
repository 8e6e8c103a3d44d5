"""A slide as pixels at any microns per pixel.

There are three pixel spaces: *level-0 pixels* of the slide, *read-level pixels* of the pyramid level that is decoded,
and *output pixels* at the microns per pixel that the caller asks for. Names in this module say which they are in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from napari_pbip.errors import SlideError
from napari_pbip.slides.array import ArrayReader, Pixels
from napari_pbip.slides.image import WholeImage
from napari_pbip.slides.mpp import is_usual, require_believable, sidecar
from napari_pbip.slides.reader import Image, Level, Reader, damaged
from napari_pbip.slides.resampling import Resampler

_SQUARE = 1.05


class Slide:
    """An open slide, made by :func:`.open_slide` or :meth:`from_array`; a context manager that closes it.

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
        self._pixels = Resampler(path.name, reader)

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
        return self._pixels.damage

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
        return f'in the Slides widget, with --mpp 0.5, or in a file {sidecar(self.path)} that holds {{"mpp": 0.5}}'

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
        return self._pixels.resample(x, y, width, height, scale, damage_is_white)

    def thumbnail(self, longest: int = 1024) -> Image:
        """Read the whole slide, its longer side being ``longest`` pixels: RGB, shape (height, width, 3), uint8.

        Places that cannot be decoded are white and listed in :attr:`damage`.
        """
        scale = max(self.width, self.height) / longest
        width, height = (max(1, round(side / scale)) for side in (self.width, self.height))
        return self._pixels.resample(0, 0, width, height, scale, damage_is_white=True)

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
        return self._pixels.region(level, 1, x, y, x + width, y + height)

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
        return self._pixels.resample(x, y, width, height, scale, damage_is_white)

    def close(self) -> None:
        """Close the file; the slide cannot be read afterwards."""
        self._pixels.clear()
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
