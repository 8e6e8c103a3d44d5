"""Readers of pictures in plain files, such as tiles and masks, with their orientation applied.

Decoders that run another program, such as that of PostScript, are never used.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from napari_pbip.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k"}
)
"""Suffixes of the pictures that can be read, in lower case."""
FORMATS = ", ".join(sorted(SUFFIXES))
"""The formats that can be read, for messages."""
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WebP", "JPEG2000": "JPEG 2000"}
# 8-bit pictures, with or without colour and transparency
_RGB_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr"})
_VALUE_MODES = frozenset({"L", "P", "1", "I", "I;16", "I;16B", "F"})
_OTHERS = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x93NUMPY": "a numpy array",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
}
"""First bytes of files that are not read as pictures here."""
_SIDEWAYS = 5
"""Smallest Exif orientation with which rows and columns of a picture are exchanged."""


def is_picture(path: Path) -> bool:
    """Return whether a file has the suffix of a picture that can be read."""
    return path.suffix.lower() in SUFFIXES


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB, shape (H, W, 3), uint8; transparent pixels become white, like glass.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a picture, contains several pictures, or has over 8 bits per channel.
    """
    with _opened(path) as image:
        _require_one(image, path)
        bits = _bits(image, path)
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode not in _RGB_MODES or bits > 8:
        kind = f"{bits} bits per channel" if upright.mode in _RGB_MODES else f"mode {upright.mode}"
        raise DataError(f"The tile {path} is no 8-bit picture ({kind}); save it as 8-bit RGB.")
    if upright.has_transparency_data:
        colour = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    return np.asarray(upright.convert("RGB"))


def read_values(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Read the values of a mask, shape (H, W): its grey values, or its palette indices.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a picture, contains several pictures, colours or fractions, or was
        compressed with losses.
    """
    upright = _drawing(path)
    if upright.mode not in _VALUE_MODES:
        kind = "has an alpha channel" if upright.mode == "LA" else "is a colour picture"
        raise DataError(
            f"The mask {path} {kind} ({upright.mode}); save it with grey or palette values that number the classes."
        )
    return whole_numbers(np.asarray(upright), path)


def read_drawn(path: Path) -> npt.NDArray[np.bool_]:
    """Read where a picture is drawn on, shape (H, W): the pixels that are neither black nor transparent.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a picture, contains several pictures, or was compressed with losses, so
        that black is not exactly black.
    """
    upright = _drawing(path)
    if upright.has_transparency_data:
        red, green, blue, alpha = np.moveaxis(np.asarray(upright.convert("RGBA")), -1, 0)
        return np.asarray((red | green | blue).astype(bool) & (alpha > 0))
    if upright.mode in ("P", "CMYK", "YCbCr"):
        upright = upright.convert("RGB")
    values = np.asarray(upright)
    return np.asarray(values.any(axis=2) if values.ndim == 3 else values > 0)


def whole_numbers(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.integer[Any]]:
    """Convert the values of a mask to integers; integers are not copied, because a mask may be as large as a slide.

    Raises
    ------
    DataError
        If a value is not an integer.
    """
    if values.dtype.kind in "ui":
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if (broken := values[values != whole]).size:
        raise DataError(f"The mask {path} holds the value {broken[0]}; save it with whole numbers for the classes.")
    return whole


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture with its orientation applied, without decoding the pixels.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a picture.
    """
    with _opened(path) as image:
        width, height = image.size
        # Pillow applies the orientation to the size of a TIFF itself
        if image.format != "TIFF" and image.getexif().get(0x0112, 1) >= _SIDEWAYS:
            return height, width
        return width, height


def _drawing(path: Path) -> Image.Image:
    """Read a picture whose values mean something, upright."""
    with _opened(path) as image:
        _require_one(image, path)
        _require_exact(image, path)
        image.load()
        return ImageOps.exif_transpose(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; errors of Pillow on damaged files become a DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only its error counts
            image = Image.open(path, formats=_FORMATS)
        with image:
            yield image
    except FileNotFoundError:
        raise DataError(f"The picture {path} does not exist; correct the path or restore the file.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"The picture {path} cannot be read ({_reason(path)}); replace or remove it.") from error


def _reason(path: Path) -> str:
    """Return why Pillow cannot read a file."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        return error.strerror or "it cannot be opened"
    for first, name in _OTHERS.items():
        if start.startswith(first):
            return f"it is {name}"
    if start[4:8] == b"ftyp":
        return "it is HEIF or AVIF"
    if start[:2] in (b"II", b"MM"):
        import tifffile  # imported here because this is rare

        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                if page.dtype is not None and page.dtype != np.uint8:
                    return f"it is a TIFF of {page.dtype} values"
        except Exception:  # noqa: BLE001  # it is damaged, however that shows
            pass
    return "damaged, or no picture"


def _require_one(image: Image.Image, path: Path) -> None:
    """Raise DataError if a file contains several pictures; smaller copies of the first (a pyramid) do not count."""
    if image.format not in ("TIFF", "GIF", "WEBP", "PNG"):
        return
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format == "TIFF":
        size, first = image.size, image.tell()
        pages = 0
        for page in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(page)
            pages += page == 0 or (image.size == size and not image.tag_v2.get(254, 0) & 1)  # type: ignore[attr-defined]
        image.seek(first)
    if pages > 1:
        raise DataError(f"{path} holds {pages} pictures; save each in a file of its own.")


def _require_exact(image: Image.Image, path: Path) -> None:
    lossy = _LOSSY.get(image.format or "")
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        lossy = "JPEG"
    if lossy:
        raise DataError(f"The mask {path} is compressed as {lossy}, which changes its values; draw it again as PNG.")


def _bits(image: Image.Image, path: Path) -> int:
    """Return the bits per channel in the file, before decoding: Pillow silently reduces 16 bits to the upper 8."""
    if image.format == "JPEG2000":
        with path.open("rb") as file:
            start = file.read(1 << 16)
        place = start.find(b"\xff\x4f\xff\x51")  # start of codestream, then the sizes of image and components
        return (start[place + 42] & 0x7F) + 1 if 0 <= place < len(start) - 42 else 8
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        raw = arguments if isinstance(arguments, str) else next(iter(arguments or ("",)), "")
        if ";16" in str(raw) and not str(raw).startswith("BGR"):  # BGR;16 are 16 bits a pixel
            return 16
    return 8
