"""Plain images: PNG, JPEG, BMP, and TIFF without tiles. The first read decodes the whole image into memory."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from napari_pbip.errors import SlideError
from napari_pbip.slides.reader import LARGEST_PIECE, Image, damaged, fingerprint, over_white, pyramid

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("PNG", "JPEG", "BMP")
_ORIENTATION = 0x0112
_BAND = 512


def open_image(path: Path) -> WholeImage | None:
    """Open a PNG, JPEG or BMP file; return None for other files and for names without the suffix of a picture.

    The suffix counts because some slide formats (MRXS) have index files that are JPEG files themselves. Dots per inch
    are not taken for microns per pixel. The Exif orientation of a JPEG file is applied. Only the header is read.

    Raises
    ------
    SlideError
        If the image is damaged, is not RGB with 8 bits per colour, or has more than 178 million pixels.
    """
    if path.is_dir() or path.suffix.lower() not in _SUFFIXES:
        return None
    try:
        file = _open(path)
    except PIL.UnidentifiedImageError:
        return None
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(path) from error
    with file:
        if file.mode not in ("RGB", "RGBA", "P"):
            raise SlideError(f"{path.name} is not RGB of 8 bits per channel (Pillow mode {file.mode}); save it as RGB.")
        if _bits(path, file) > 8:
            raise SlideError(f"{path.name} has 16 bits per channel; save it as RGB of 8 bits per channel.")
        width, height = file.size
        if _orientation(file) in (5, 6, 7, 8):
            width, height = height, width
    return WholeImage(path, width, height, lambda: _decode(path))


def _open(path: Path, *, bare: bool = False) -> PIL.Image.Image:
    """Open with Pillow; ``bare`` strips a PNG of its texts and profiles, whose size Pillow limits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images, which are limited elsewhere, and about odd metadata
        try:
            return PIL.Image.open(_without_texts(path) if bare else path, formats=_FORMATS)
        except ValueError:
            if bare:
                raise
            return _open(path, bare=True)


def _without_texts(path: Path) -> io.BytesIO:
    content = path.read_bytes()
    out, place = io.BytesIO(), len(_PNG)
    out.write(content[:place])
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big") + 12
        if content[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            out.write(content[place : place + length])
        place += length
    out.seek(0)
    return out


def _bits(path: Path, file: PIL.Image.Image) -> int:
    """Return the bits per colour: Pillow silently reduces sixteen bits to the upper eight."""
    if file.format != "PNG":
        return 8
    with path.open("rb") as stream:
        return int(struct.unpack(">24xB", stream.read(25))[0])


def _orientation(file: PIL.Image.Image) -> int:
    """Return the Exif orientation, 1 to 8; 1 is upright."""
    if file.format != "JPEG" and "exif" not in file.info:
        return 1  # to look for Exif data, Pillow would read a PNG to its end
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (whatever Pillow makes of Exif data that are none)
        return 1


def _decode(path: Path, *, bare: bool = False) -> Image:
    try:
        return _pixels(_open(path, bare=bare))
    except ValueError:  # PNG texts may follow the pixels
        if bare:
            raise
        return _decode(path, bare=True)


def _pixels(file: PIL.Image.Image) -> Image:
    with file:
        image = file if _orientation(file) == 1 else PIL.ImageOps.exif_transpose(file)
        transparent = image.mode == "P" or "transparency" in image.info
        out = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, _BAND):  # in bands, so that the intermediate copy is small
            band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
            out[top : top + _BAND] = over_white(np.asarray(band.convert("RGBA") if transparent else band))
        return out


class WholeImage:
    """A reader of an image as a slide of one level. The first read decodes it, and it is kept in memory.

    Parameters
    ----------
    path
        The file.
    width, height
        Pixels.
    decode
        Reads the file: RGB, shape (height, width, 3), uint8.
    mpp
        Microns per pixel in x and y, or None.

    Raises
    ------
    SlideError
        If the image has more than 178 million pixels.
    """

    associated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        decode: Callable[[], Image],
        mpp: tuple[float, float] | None = None,
    ) -> None:
        if width * height > LARGEST_PIECE:
            raise _too_large(path)
        self._path = path
        self._decode = decode
        self._pixels: Image | SlideError | None = None
        self._lock = threading.Lock()
        self.levels = pyramid(path.name, [(width, height)], [(1024, 1024)])
        self.mpp = mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        return self._whole()[y : y + height, x : x + width]

    def _whole(self) -> Image:
        with self._lock:
            if self._pixels is None:
                try:
                    self._pixels = self._decode()
                except Exception as error:  # noqa: BLE001 (kept, because it takes as long every time)
                    self._pixels = SlideError(damaged(self._path, error))
                else:
                    level = self.levels[0]
                    if self._pixels.shape != (level.height, level.width, 3):
                        self._pixels = SlideError(damaged(self._path, ValueError("its size is not that of its header")))
            if isinstance(self._pixels, SlideError):
                raise SlideError(str(self._pixels)) from self._pixels
            return self._pixels

    def read_associated(self, name: str) -> Image:
        raise KeyError(name)

    def identity(self) -> str:
        return fingerprint(self._path)

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def _too_large(path: Path) -> SlideError:
    return SlideError(
        f"{path.name} has more than {LARGEST_PIECE // 10**6} million pixels and no tiles, so it would have to be read "
        f"whole; convert it with vips tiffsave {path.name} slide.tif --tile --pyramid --compression jpeg."
    )
