"""A reader of SVS, OME-TIFF and other tiled TIFF, which uses tifffile.

tifffile finds pyramids in SubIFDs, of which OpenSlide opens a single level, and decodes whole tiles without
OpenSlide's blitting. OpenSlide reads the TIFF files of vendors whose tiles overlap, repeat or are padded (NDPI, SCN,
BIF, Philips ...), and two rare kinds of SVS that tifffile would show wrongly: see :func:`_is_for_openslide`.
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile

from napari_pbip.errors import SlideError
from napari_pbip.slides.image import WholeImage
from napari_pbip.slides.reader import LARGEST_PIECE, Image, Level, Reader, fingerprint, pyramid
from napari_pbip.slides.tiff_checks import (
    require_an_end,
    require_fits,
    require_pictures_fit,
    require_single_file,
    require_whole,
    segment_size,
)
from napari_pbip.slides.tiff_colour import meaning, to_rgb, why_not_rgb
from napari_pbip.slides.tiff_metadata import stored_mpp

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_APERIO_JPEG2000_YCC = 33003
_DESCRIBED = ("is_ome", "is_imagej", "is_shaped", "is_svs", "is_scn", "is_micromanager", "is_scanimage", "is_lsm")
"""Kinds of files whose pictures tifffile finds by metadata rather than by their headers."""

# tifffile logs the faults of a damaged file, and Python prints logs that have no handler. The user gets a SlideError
# instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(path: Path) -> Reader | None:
    """Open a TIFF file; return None if it is not a TIFF or is to be read by OpenSlide.

    Raises
    ------
    SlideError
        If the file holds a stack or no RGB image of 8 bits per colour, is one of several files, or was truncated.
    """
    if path.is_dir():
        return None
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return None
    # These formats need rules of their vendors, which OpenSlide knows.
    if openslide.OpenSlide.detect_format(str(path)) not in (None, "aperio", "generic-tiff"):
        return None
    tiff = _open(path)
    try:
        require_whole(tiff, path)
        series = _largest(tiff)
        if _is_for_openslide(tiff, series):
            tiff.close()
            return None
        if why := why_not_rgb(tiff, series):
            raise SlideError(
                f"{path.name} is not one RGB image of 8 bits per channel ({why}); export a single plane as RGB."
            )
        if not series.keyframe.is_tiled:
            image = _whole_image(path, tiff, series)
            tiff.close()
            return image
        return TiffReader(path, tiff, series)
    except BaseException:
        tiff.close()
        raise


def _open(path: Path) -> Any:
    """Open the file and find its series of images; metadata that cannot be parsed are ignored.

    Raises
    ------
    SlideError
        If the file is one of several files of an OME-TIFF, or its list of pages is circular.
    """
    tiff: Any = tifffile.TiffFile(path)
    try:
        require_an_end(tiff, path)
        require_single_file(tiff, path)
        tiff.series  # noqa: B018 (what is wrong with the metadata is found now)
    except SlideError:
        tiff.close()
        raise
    except Exception:  # noqa: BLE001 (whatever tifffile makes of them)
        tiff.close()
        by_headers: dict[str, Any] = dict.fromkeys(_DESCRIBED, False)
        return tifffile.TiffFile(path, **by_headers)
    return tiff


def _whole_image(path: Path, tiff: Any, series: Any) -> WholeImage:
    """Return a TIFF without tiles as one image, turned by its orientation tag."""
    frame = series.keyframe
    sideways, mpp = _orientation(frame) > 4, stored_mpp(tiff, series)
    width, height = frame.imagewidth, frame.imagelength
    if sideways:
        width, height, mpp = height, width, mpp and (mpp[1], mpp[0])

    def decode() -> Image:
        with _open(path) as again:
            whole = _largest(again)
            return _turned(_pixels(whole), _orientation(whole.keyframe))

    return WholeImage(path, width, height, decode, mpp)


class TiffReader:
    """A reader of a tiled TIFF. Tiles are decoded in the threads that read them; only the file handle is locked."""

    def __init__(self, path: Path, tiff: Any, series: Any) -> None:
        self._path = path
        self._tiff = tiff
        self._lock = threading.Lock()
        stored = _levels(tiff, series)
        frames = [level.keyframe for level in stored]
        self.levels: tuple[Level, ...] = pyramid(
            path.name,
            [(frame.imagewidth, frame.imagelength) for frame in frames],
            [segment_size(frame) for frame in frames],
        )
        self.mpp = stored_mpp(tiff, series)
        self.notes: tuple[str, ...] = ()
        if _orientation(series.keyframe) != 1:
            self.notes = ("is marked to be turned or mirrored for display; it is read as it is stored",)
        used = [stored[level.stored] for level in self.levels]
        self._frames = [level.keyframe for level in used]
        # tifffile reads the headers and tables of a page lazily. They are read here, so that reading threads find
        # them in memory and move the file's position only under the lock.
        self._pages = [list(level) for level in used]
        self._decode = [frame.decode for frame in self._frames]

    @cached_property
    def _associated(self) -> dict[str, Any]:
        others = [s for s in self._tiff.series if not any(s.keyframe is frame for frame in self._frames)]
        return {
            (s.name or f"image {i}").lower(): s
            for i, s in enumerate(others, 1)
            if why_not_rgb(self._tiff, s) is None and s.keyframe.imagewidth * s.keyframe.imagelength < LARGEST_PIECE
        }

    @property
    def associated(self) -> tuple[str, ...]:
        return tuple(self._associated)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        decode = self._decode[level]
        planes = [self._read_page(page, decode, x, y, width, height) for page in self._pages[level]]
        return to_rgb(np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0], self._frames[level])

    def _read_page(self, page: Any, decode: Any, x: int, y: int, width: int, height: int) -> Image:
        """Read a rectangle of one page, shape (height, width, samples)."""
        frame = page.keyframe
        tile_width, tile_height = segment_size(frame)
        across = -(-frame.imagewidth // tile_width)
        per_plane = across * -(-frame.imagelength // tile_height)
        planes = frame.samplesperpixel if frame.planarconfig == 2 else 1
        wanted = [
            plane * per_plane + row * across + column
            for plane in range(planes)
            for row in range(y // tile_height, -(-(y + height) // tile_height))
            for column in range(x // tile_width, -(-(x + width) // tile_width))
        ]
        # Tiles that were never written (length 0) show empty glass, which is white.
        out = np.full((height, width, frame.samplesperpixel), 255, np.uint8)
        for index, data in zip(wanted, self._read_bytes(page, wanted), strict=True):
            if not data:
                continue
            require_fits(data, frame)
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


def _levels(tiff: Any, series: Any) -> list[Any]:
    """Return the pages that could be levels of the slide: those that tifffile found, and reduced pages beside them.

    In files without metadata, tifffile finds only levels that differ by one constant factor of 2, 3 or 4.
    """
    found = list(series.levels)
    if series.kind not in ("ome", "svs"):
        found += [
            level
            for other in tiff.series
            if other is not series
            for level in other.levels
            if level.keyframe.is_reduced and level.keyframe.is_tiled
        ]
    finest = found[0]
    return [finest] + [level for level in found[1:] if _shows_the_same(finest, level)]


def _shows_the_same(finest: Any, level: Any) -> bool:
    """Return whether the samples of a level have the same meaning as those of the finest level."""
    pages = list(level)
    return len(pages) == len(finest) and None not in pages and meaning(level.keyframe) == meaning(finest.keyframe)


def _largest(tiff: Any) -> Any:
    """Return the largest series, which is the slide; the smaller ones are its label, macro and thumbnail."""
    return max(tiff.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)


def _is_for_openslide(tiff: Any, series: Any) -> bool:
    """Return whether an SVS is JPEG 2000 in YCbCr, which tifffile does not convert to RGB, or lacks tiles.

    Some Aperio scans lack tiles in one level, which OpenSlide fills from another level.
    """
    return bool(tiff.is_svs) and any(
        level.keyframe.compression == _APERIO_JPEG2000_YCC or 0 in level.keyframe.databytecounts
        for level in series.levels
    )


def _pixels(series: Any) -> Image:
    """Read the whole finest level of a series as RGB."""
    for page in series:
        require_pictures_fit(page)
    image = series.asarray(level=0)
    samples = "S" if "S" in series.axes else "C"
    kept = [axis for axis in series.axes if axis in ("Y", "X", samples)]
    image = image.reshape([size for axis, size in zip(series.axes, image.shape, strict=True) if axis in kept])
    return to_rgb(
        np.ascontiguousarray(image.transpose([kept.index(axis) for axis in ("Y", "X", samples)])), series.keyframe
    )


def _orientation(frame: Any) -> int:
    """Return the orientation of a picture, 1 to 8 as in Exif; 1 is as it is stored."""
    tag = frame.tags.get(274)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _turned(image: Image, orientation: int) -> Image:
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
