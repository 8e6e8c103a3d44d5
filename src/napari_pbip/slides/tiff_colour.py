"""What the samples of a TIFF mean, and how they become RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile

from napari_pbip.slides.channels import why_not_rgb as why_channels_not_rgb
from napari_pbip.slides.reader import Image, over_white
from napari_pbip.slides.tiff_metadata import ome_pixels

_PHOTOMETRIC, _COMPRESSION, _EXTRA = tifffile.PHOTOMETRIC, tifffile.COMPRESSION, tifffile.EXTRASAMPLE
JPEG = (_COMPRESSION.JPEG, _COMPRESSION.OJPEG, _COMPRESSION.ALT_JPEG)
"""Compressions whose decoder converts YCbCr to RGB; with others, tifffile returns YCbCr."""
_MEANING = {
    _PHOTOMETRIC.MINISWHITE: "grey levels, or three without a meaning",
    _PHOTOMETRIC.MINISBLACK: "grey levels, or three without a meaning",
    _PHOTOMETRIC.PALETTE: "numbers of a palette",
    _PHOTOMETRIC.SEPARATED: "CMYK, for printing",
    _PHOTOMETRIC.YCBCR: "YCbCr that is not compressed as JPEG",
    _PHOTOMETRIC.CIELAB: "CIE L*a*b*",
}
"""Descriptions of the samples of a picture that is not RGB."""
_NOT_LIGHT = ("fluorescence", "epifluorescence")


def meaning(frame: Any) -> tuple[Any, ...]:
    """Return what has to be equal for the samples of two pages to mean the same."""
    colour = _PHOTOMETRIC.RGB if _is_colour(frame) else frame.photometric
    return colour, _is_8_bits(frame), frame.samplesperpixel, frame.extrasamples


def _is_8_bits(frame: Any) -> bool:
    return bool(frame.dtype == np.uint8 and frame.bitspersample == 8)


def _is_colour(frame: Any) -> bool:
    """Return whether the samples of a page are red, green and blue in the file or after decoding."""
    decoded = frame.photometric == _PHOTOMETRIC.YCBCR and frame.compression in JPEG
    return bool(decoded or frame.photometric == _PHOTOMETRIC.RGB)


def why_not_rgb(tiff: Any, series: Any) -> str | None:
    """Describe samples that are not red, green and blue (and alpha) of 8 bits; return None if they are."""
    frame = series.keyframe
    sizes = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 or axis in "YXS"}
    axes = "".join(sizes)
    colours = axes in ("YXS", "SYX") and sizes["S"] in (3, 4)
    if None in list(series):
        return "parts of it are missing"
    if not _is_8_bits(frame) or not (colours or (axes == "CYX" and sizes["C"] == 3)):
        palette = ", numbers of a palette" if frame.photometric == _PHOTOMETRIC.PALETTE else ""
        shape = " x ".join(f"{n} {axis}" for axis, n in zip(series.axes, series.shape, strict=True))
        return f"it holds {shape} of {frame.bitspersample} bits {np.dtype(frame.dtype).name}{palette}"
    if colours:
        return None if _is_colour(frame) else f"its samples are {_MEANING.get(frame.photometric, frame.photometric)}"
    return _why_planes_not_rgb(tiff, series)


def _why_planes_not_rgb(tiff: Any, series: Any) -> str | None:
    """The same for three grey planes: libvips writes RGB so in OME-TIFF, but most such files are fluorescence."""
    pixels = ome_pixels(tiff, series) if series.kind == "ome" else None
    if pixels is None:
        return "it holds three grey planes, and does not say that they are red, green and blue"
    channels = pixels.findall("{*}Channel")
    for channel in channels:
        said = f"{channel.get('ContrastMethod', '')} {channel.get('IlluminationType', '')}".lower().split()
        if channel.get("Fluor") or channel.get("EmissionWavelength") or set(said) & set(_NOT_LIGHT):
            return "its channels are fluorescence"
    if not channels:
        return None
    return why_channels_not_rgb(
        [one.get("Name", "") for one in channels], [_ome_colour(one.get("Color")) for one in channels]
    )


def _ome_colour(text: str | None) -> tuple[int, int, int] | None:
    """Return the RGB of an OME colour, which is a signed 32-bit number of red, green, blue and alpha."""
    try:
        red, green, blue, _ = (int(text or "") & 0xFFFFFFFF).to_bytes(4, "big")
    except ValueError:
        return None
    return red, green, blue


def to_rgb(image: Image, frame: Any) -> Image:
    """Return RGB: a fourth sample is composited over white if the file says that it is alpha, and else left out."""
    if image.shape[2] == 3:
        return image
    fourth = frame.extrasamples[0] if frame.extrasamples else _EXTRA.UNSPECIFIED
    if fourth == _EXTRA.UNASSALPHA:
        return over_white(image)
    colour, alpha = image[..., :3], image[..., 3:]
    if fourth == _EXTRA.ASSOCALPHA:  # the colours were multiplied by alpha when they were written
        return np.asarray(colour + np.minimum(255 - alpha, 255 - colour), np.uint8)
    return np.ascontiguousarray(colour)
