"""Plain images: PNG, JPEG, BMP, and TIFF without tiles. They are held in memory whole."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import PIL.Image

from napari_pbip.errors import SlideError
from napari_pbip.slides.reader import Image, Level, fingerprint, over_white, pyramid

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_LARGEST = 178_956_970
"""Pixels; what Pillow opens at most (512 MiB of RGB)."""


def open_image(path: Path) -> WholeImage | None:
    """Open a PNG, JPEG or BMP file, or return None if its name does not end like one.

    The name decides because the index files of some slide formats are JPEG files themselves (MRXS). Dots per inch
    in the file are not taken for microns per pixel.

    Raises
    ------
    SlideError
        If the image is not RGB of 8 bits a colour, or larger than 178 million pixels.
    """
    if path.is_dir() or path.suffix.lower() not in _SUFFIXES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the limit below is what counts
        try:
            file = PIL.Image.open(path, formats=("PNG", "JPEG", "BMP"))
        except PIL.Image.DecompressionBombError as error:
            raise _too_large(path) from error
    with file:
        if file.mode not in ("RGB", "RGBA", "P"):
            raise SlideError(f"{path.name} is not RGB of 8 bits a colour (Pillow mode {file.mode}); save it as RGB.")
        image = WholeImage.of_size(path, *file.size)
        image.pixels = over_white(np.asarray(file.convert("RGBA") if file.mode == "P" else file))
    return image


class WholeImage:
    """An image in memory as a slide of one level.

    Attributes
    ----------
    pixels
        RGB, shape (height, width, 3), uint8; set by whoever decodes the file.
    mpp
        Microns per pixel in x and y, or None.
    """

    pixels: Image
    associated: tuple[str, ...] = ()

    def __init__(self, path: Path, levels: tuple[Level, ...]) -> None:
        self._path = path
        self.levels = levels
        self.mpp: tuple[float, float] | None = None

    @classmethod
    def of_size(cls, path: Path, width: int, height: int) -> WholeImage:
        """An image still without pixels.

        Raises
        ------
        SlideError
            If it has more than 178 million pixels.
        """
        if width * height > _LARGEST:
            raise _too_large(path)
        return cls(path, pyramid([(width, height)], [(1024, 1024)]))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        return self.pixels[y : y + height, x : x + width]

    def read_associated(self, name: str) -> Image:
        raise KeyError(name)

    def identity(self) -> str:
        return fingerprint(self._path)

    def close(self) -> None:
        """Nothing is open."""


def _too_large(path: Path) -> SlideError:
    return SlideError(
        f"{path.name} has more than {_LARGEST // 10**6} million pixels and no tiles, so it would have to be read "
        f"whole; convert it with vips tiffsave {path.name} slide.tif --tile --pyramid --compression jpeg."
    )
