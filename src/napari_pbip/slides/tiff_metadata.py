"""What the metadata of a TIFF say: microns per pixel, and OME's XML."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_pbip.slides.mpp import from_header, number, to_microns

_RESOLUTION_OF_SLIDES = (0.05, 2.5)
"""Range of microns per pixel in which resolution tags are believed, from 100x oil to 4x objectives. The 72 or 300 dots
per inch of printers (353 and 85 microns) and what flatbed scanners give (2.6 microns and more) are no microscope's."""


def stored_mpp(tiff: Any, series: Any) -> tuple[float, float] | None:
    """Return microns per pixel from Aperio's description, OME's PhysicalSize or believable resolution tags."""
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=([^|\r\n]*)", series.keyframe.description)
        aperio = number(found[1]) if found else None
        return from_header(aperio, aperio)
    if tiff.is_ome:
        return _ome_mpp(ome_pixels(tiff, series))
    return _tag_mpp(series.keyframe)


def ome(tiff: Any) -> ElementTree.Element | None:
    """Return the OME-XML of a file; None if there is none, or it is invalid."""
    try:
        return ElementTree.fromstring(tiff.ome_metadata or "")
    except (ElementTree.ParseError, ValueError):
        return None


def ome_pixels(tiff: Any, series: Any) -> ElementTree.Element | None:
    """Return the OME element of a series; None if the XML is invalid or describes fewer images."""
    root = ome(tiff)
    index = next(i for i, s in enumerate(tiff.series) if s is series)
    images = [] if root is None else root.findall("{*}Image/{*}Pixels")
    return images[index] if index < len(images) else None


def _ome_mpp(pixels: ElementTree.Element | None) -> tuple[float, float] | None:
    if pixels is None:
        return None
    sizes = []
    for axis in "XY":
        size, unit = number(pixels.get(f"PhysicalSize{axis}")), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append(None if size is None else to_microns(size, unit))
    return from_header(*sizes)


def _tag_mpp(frame: Any) -> tuple[float, float] | None:
    unit = {tifffile.RESUNIT.CENTIMETER: 1e4, tifffile.RESUNIT.INCH: 25_400.0}.get(frame.resolutionunit)
    across, down = (_fraction(frame.tags.get(code)) for code in ("XResolution", "YResolution"))
    if unit is None or across is None or down is None:
        return None
    x, y = unit / across, unit / down
    smallest, largest = _RESOLUTION_OF_SLIDES
    return (x, y) if smallest <= min(x, y) and max(x, y) <= largest else None


def _fraction(tag: Any) -> float | None:
    """Return the value of a rational tag if it is above 0, else None."""
    try:
        numerator, denominator = tag.value
        return numerator / denominator if numerator > 0 and denominator > 0 else None
    except (AttributeError, TypeError, ValueError):
        return None
