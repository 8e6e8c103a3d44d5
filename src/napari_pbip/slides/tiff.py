"""SVS, OME-TIFF and other tiled TIFF through tifffile.

tifffile finds pyramids in SubIFDs, which OpenSlide opens as a single level, and decodes whole tiles without
OpenSlide's blitting. TIFF of vendors whose tiles overlap, repeat or are padded (NDPI, SCN, BIF, Philips ...) is left
to OpenSlide, and so are two rare kinds of SVS that tifffile would show wrongly: see :func:`_is_for_openslide`.
"""

from __future__ import annotations

import logging
import re
import threading
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import tifffile

from napari_pbip.errors import SlideError
from napari_pbip.slides.image import WholeImage
from napari_pbip.slides.mpp import from_header, to_microns
from napari_pbip.slides.reader import Image, Level, Reader, fingerprint, over_white, pyramid

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RESOLUTION_OF_SLIDES = (0.05, 2.5)
"""Microns per pixel that resolution tags are believed for: from 100x oil to 4x objectives. Printers' 72 or 300 dots
per inch (353 and 85 microns) and flatbed scanners (2.6 microns and more) are not a microscope's."""
_APERIO_JPEG2000_YCC = 33003

# tifffile logs what is wrong with a damaged file, and Python prints such logs when nobody listens;
# the user gets a SlideError instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(path: Path) -> Reader | None:
    """Open a TIFF file, or return None if it is none or belongs to OpenSlide.

    Raises
    ------
    SlideError
        If it holds no RGB image of 8 bits, holds a stack, or was cut off.
    """
    if path.is_dir():
        return None
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return None
    # The formats that need their vendor's rules; OpenSlide knows them by their header.
    if openslide.OpenSlide.detect_format(str(path)) not in (None, "aperio", "generic-tiff"):
        return None
    tiff = tifffile.TiffFile(path)
    try:
        _require_whole(tiff, path)
        series = _largest(tiff)
        if _is_for_openslide(tiff, series):
            tiff.close()
            return None
        _require_rgb(series, path)
        if not series.keyframe.is_tiled:
            image = WholeImage.of_size(path, series.keyframe.imagewidth, series.keyframe.imagelength)
            image.pixels = _pixels(series)
            image.mpp = _mpp(tiff, series)
            tiff.close()
            return image
        return TiffReader(path, tiff, series)
    except BaseException:
        tiff.close()
        raise


class TiffReader:
    """A tiled TIFF; tiles are decoded in the threads that ask, only the file handle is locked."""

    def __init__(self, path: Path, tiff: Any, series: Any) -> None:
        self._path = path
        self._tiff = tiff
        self._series = series
        self._lock = threading.Lock()
        frames = [level.keyframe for level in series.levels]
        self.levels: tuple[Level, ...] = pyramid(
            [(frame.imagewidth, frame.imagelength) for frame in frames], [_segment(frame) for frame in frames]
        )
        self.mpp = _mpp(tiff, series)
        # tifffile reads pages, and what decoding them needs, from the file when first asked: here, so that threads
        # that read find all of it in memory and move the file's position only under the lock.
        self._pages = [list(level) for level in series.levels]
        self._decode = [frame.decode for frame in frames]

    @cached_property
    def _associated(self) -> dict[str, Any]:
        others = [s for s in self._tiff.series if s is not self._series and s.keyframe is not self._series.keyframe]
        return {(s.name or f"image {i}").lower(): s for i, s in enumerate(others, 1) if _is_rgb(s)}

    @property
    def associated(self) -> tuple[str, ...]:
        return tuple(self._associated)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        decode = self._decode[level]
        planes = [self._read_page(page, decode, x, y, width, height) for page in self._pages[level]]
        return over_white(np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0])

    def _read_page(self, page: Any, decode: Any, x: int, y: int, width: int, height: int) -> Image:
        """A rectangle of one page, shape (height, width, samples)."""
        frame = page.keyframe
        tile_width, tile_height = _segment(frame)
        across = -(-frame.imagewidth // tile_width)
        per_plane = across * -(-frame.imagelength // tile_height)
        planes = frame.samplesperpixel if frame.planarconfig == 2 else 1
        wanted = [
            plane * per_plane + row * across + column
            for plane in range(planes)
            for row in range(y // tile_height, -(-(y + height) // tile_height))
            for column in range(x // tile_width, -(-(x + width) // tile_width))
        ]
        # Tiles that were never written (length 0) are empty glass.
        out = np.full((height, width, frame.samplesperpixel), 255, np.uint8)
        for index, data in zip(wanted, self._read_bytes(page, wanted), strict=True):
            if not data:
                continue
            pixels, (plane, _, top, left, _), _ = decode(data, index, jpegtables=page.jpegtables)
            pixels = pixels[0]  # depth 1
            y0, y1 = max(top, y), min(top + pixels.shape[0], y + height)
            x0, x1 = max(left, x), min(left + pixels.shape[1], x + width)
            samples = slice(plane, plane + 1) if planes > 1 else slice(None)
            out[y0 - y : y1 - y, x0 - x : x1 - x, samples] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _read_bytes(self, page: Any, wanted: list[int]) -> list[bytes]:
        file = self._tiff.filehandle
        found = []
        with self._lock:
            for index in wanted:
                file.seek(page.dataoffsets[index])
                found.append(file.read(page.databytecounts[index]))
        return found

    def read_associated(self, name: str) -> Image:
        with self._lock:
            return _pixels(self._associated[name])

    def identity(self) -> str:
        return fingerprint(self._path)

    def close(self) -> None:
        self._tiff.close()


def _segment(frame: Any) -> tuple[int, int]:
    """Width and height of a tile, or of a strip of a level too small to be tiled."""
    if frame.is_tiled:
        return frame.tilewidth, frame.tilelength
    return frame.imagewidth, frame.rowsperstrip


def _require_whole(tiff: Any, path: Path) -> None:
    """Refuse a file whose end is missing: a page of it, or tiles of a page, would lie past the end.

    tifffile leaves out pages that it cannot find, so a file that was cut off would open with levels missing.
    """
    handle, form = tiff.filehandle, tiff.tiff
    handle.seek(tiff.pages.next_page_offset)
    whole = handle.read(form.offsetsize) == bytes(form.offsetsize)  # the chain of pages ends where it says so
    pages = [page for series in tiff.series for level in series.levels for page in level if page is not None]
    for page in pages if whole else ():
        whole = whole and len(page.dataoffsets) == len(page.databytecounts)
        ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
        ends += [_end_of_page(handle, form, start) for start in page.subifds or ()]
        whole = whole and max(ends) <= handle.size
    if not whole:
        raise SlideError(f"{path.name} is incomplete: its end is missing; copy or export it again.")


def _end_of_page(handle: Any, form: Any, start: int) -> int:
    """Where the header of a page ends that starts at a place of the file; past the file if it starts there."""
    handle.seek(start)
    tags = int.from_bytes(handle.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
    return int(start + form.tagnosize + tags * form.tagsize + form.offsetsize)


def _largest(tiff: Any) -> Any:
    """The slide itself; the smaller images of a file are its label, macro and thumbnail."""
    return max(tiff.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)


def _is_for_openslide(tiff: Any, series: Any) -> bool:
    """Two kinds of SVS: JPEG 2000 in YCbCr, which tifffile does not convert to RGB, and lost tiles.

    Some Aperio scans lack tiles in one level; OpenSlide fills them from another level.
    """
    return bool(tiff.is_svs) and any(
        level.keyframe.compression == _APERIO_JPEG2000_YCC or 0 in level.keyframe.databytecounts
        for level in series.levels
    )


def _is_rgb(series: Any) -> bool:
    shape = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if size > 1}
    axes = "".join(shape)
    if series.dtype != np.uint8 or None in list(series):
        return False
    photometric = tifffile.PHOTOMETRIC
    if axes in ("YXS", "SYX"):
        return shape["S"] in (3, 4) and series.keyframe.photometric in (photometric.RGB, photometric.YCBCR)
    return bool(axes == "CYX" and shape["C"] == 3)  # RGB as three pages, as libvips writes OME-TIFF


def _require_rgb(series: Any, path: Path) -> None:
    if not _is_rgb(series):
        shape = " x ".join(f"{n} {axis}" for axis, n in zip(series.axes, series.shape, strict=True))
        raise SlideError(
            f"{path.name} is not one RGB image of 8 bits a colour (it holds {shape} of {series.dtype}); "
            "export a single plane as RGB."
        )


def _pixels(series: Any) -> Image:
    """All of a series' finest level, its colours last."""
    image = np.squeeze(series.asarray(level=0))
    return over_white(np.ascontiguousarray(image if image.shape[-1] in (3, 4) else np.moveaxis(image, 0, -1)))


def _mpp(tiff: Any, series: Any) -> tuple[float, float] | None:
    """Microns per pixel: Aperio's description, OME's PhysicalSize, else resolution tags a microscope could have."""
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=\s*(\d+[.,]?\d*)", series.keyframe.description)
        aperio = float(found[1].replace(",", ".")) if found else None
        return from_header(aperio, aperio)
    if tiff.is_ome:
        return _ome_mpp(tiff.ome_metadata, next(i for i, s in enumerate(tiff.series) if s is series))
    return _tag_mpp(series.keyframe)


def _ome_mpp(xml: str, index: int) -> tuple[float, float] | None:
    """Of the image with this place in the file; None if the XML is broken or knows fewer images."""
    try:
        pixels = ElementTree.fromstring(xml).findall("{*}Image/{*}Pixels")[index]
    except (ElementTree.ParseError, IndexError):
        return None
    sizes = []
    for axis in "XY":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append(None if size is None else to_microns(float(size), unit))
    return from_header(*sizes)


def _tag_mpp(frame: Any) -> tuple[float, float] | None:
    unit = {tifffile.RESUNIT.CENTIMETER: 1e4, tifffile.RESUNIT.INCH: 25_400.0}.get(frame.resolutionunit)
    across, down = frame.resolution
    if unit is None or across <= 0 or down <= 0:
        return None
    x, y = unit / across, unit / down
    smallest, largest = _RESOLUTION_OF_SLIDES
    return (x, y) if smallest <= min(x, y) and max(x, y) <= largest else None
