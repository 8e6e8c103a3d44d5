"""Pixels of a slide at any scale: blocks of whole tiles are decoded, kept, and resampled."""

from __future__ import annotations

import math
import threading

import numpy as np
import PIL.Image

from napari_pbip.errors import DamagedPlace, SlideError
from napari_pbip.slides.cache import BlockCache
from napari_pbip.slides.reader import Image, Level, Reader, reason

_BLOCK = 1024
"""Approximate side, in read-level pixels, of a block that is decoded and cached as one; blocks are whole tiles."""
_CACHE_BYTES = 256 << 20
_SOURCE = 4096
"""Largest side, in read-level pixels, that is resampled at once; larger reads are composed of several parts."""
_TOLERANCE = 1.01
"""A level may be coarser than asked for by this factor, so that a read at 1.99x uses the level at 2.00x."""
_BACKGROUND = 255


class Resampler:
    """Reads a slide at any scale, and keeps what it decoded. It may be used from several threads.

    Parameters
    ----------
    name
        Name of the file, for messages.
    reader
        Decodes pixels of the levels.
    """

    def __init__(self, name: str, reader: Reader) -> None:
        self._name = name
        self._reader = reader
        self._levels = reader.levels
        self._blocks = BlockCache(_CACHE_BYTES)
        self._damage: dict[tuple[int, int, int, int, int], str] = {}
        self._lock = threading.Lock()

    @property
    def damage(self) -> tuple[str, ...]:
        """Descriptions of the places that could not be decoded so far, in level-0 pixels."""
        with self._lock:
            return tuple(self._place(box) for box in sorted(self._damage))

    def clear(self) -> None:
        """Forget what was decoded."""
        self._blocks.clear()

    def resample(
        self, x: float, y: float, width: int, height: int, scale: float, damage_is_white: bool = False
    ) -> Image:
        """Read output pixels that are ``scale`` level-0 pixels wide."""
        number = max(i for i, level in enumerate(self._levels) if i == 0 or level.downsample <= scale * _TOLERANCE)
        level = self._levels[number]
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
            return self.region(level, reduction, *box, damage_is_white)
        margin = math.ceil(2 * max(factor, 1)) + 1  # pixels that the bicubic kernel reaches
        x0, y0 = math.floor(left) - margin, math.floor(top) - margin
        x1, y1 = math.ceil(left + width * factor) + margin, math.ceil(top + height * factor) + margin
        source = PIL.Image.fromarray(self.region(level, reduction, x0, y0, x1, y1, damage_is_white))
        part = (left - x0, top - y0, left - x0 + width * factor, top - y0 + height * factor)
        # A copy: Pillow's own memory is read-only, which torch warns about.
        return np.array(source.resize((width, height), PIL.Image.Resampling.BICUBIC, part))

    def region(
        self, number: int, reduction: int, x0: int, y0: int, x1: int, y1: int, damage_is_white: bool = False
    ) -> Image:
        """Read a rectangle of a level after averaging ``reduction x reduction`` pixels; white outside."""
        level = self._levels[number]
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
        level = self._levels[number]
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
        across, down = self._levels[number].tile
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
            raise SlideError(f"{self._name} cannot be read ({error.strerror}); check its drive.") from error

    def _require_undamaged(self, number: int, x0: int, y0: int, x1: int, y1: int) -> None:
        with self._lock:
            for box, why in self._damage.items():
                level, x, y, width, height = box
                if level == number and x < x1 and x + width > x0 and y < y1 and y + height > y0:
                    raise DamagedPlace(
                        f"{self._name} is damaged at {self._place(box)} and cannot be read there ({why}); "
                        "copy or export it again."
                    )

    def _place(self, box: tuple[int, int, int, int, int]) -> str:
        level, *sides = box
        downsample = self._levels[level].downsample
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
