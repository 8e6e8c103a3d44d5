"""Refusing TIFF files that are not whole, and pictures in them that are larger than their tiles."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import PIL.Image
import tifffile

from napari_pbip.errors import SlideError
from napari_pbip.slides.reader import LARGEST_PIECE
from napari_pbip.slides.tiff_colour import JPEG
from napari_pbip.slides.tiff_metadata import ome

_COMPRESSION = tifffile.COMPRESSION
_PICTURES = {
    _COMPRESSION.JPEG2000: "JPEG2000",
    _COMPRESSION.APERIO_JP2000_RGB: "JPEG2000",
    _COMPRESSION.PNG: "PNG",
    _COMPRESSION.WEBP: "WEBP",
    34927: "WEBP",
}
"""Compressions whose tiles are pictures with a header of their own, by the names of Pillow."""
_MARGIN = 4
"""Largest ratio of the pixels that such a picture's header gives to those of its tile."""


def require_single_file(tiff: Any, path: Path) -> None:
    """Refuse an OME-TIFF whose planes lie in several files, because the others may be missing."""
    if not tiff.is_ome or (root := ome(tiff)) is None:
        return
    if root.find("{*}BinaryOnly") is not None or len({one.text for one in root.iter() if _is_uuid(one)}) > 1:
        raise SlideError(f"{path.name} is one of several files that make an OME-TIFF; export it as a single file.")


def _is_uuid(element: ElementTree.Element) -> bool:
    return element.tag.rpartition("}")[2] == "UUID"


def require_an_end(tiff: Any, path: Path) -> None:
    """Refuse a file whose list of pages is circular, which tifffile may follow for ever."""
    handle, form = tiff.filehandle, tiff.tiff
    place, seen = tiff.pages.first.offset, set()
    while 0 < place < handle.size:
        if place in seen:
            raise SlideError(
                f"{path.name} is damaged: its list of pictures leads back to itself; copy or export it again."
            )
        seen.add(place)
        handle.seek(_end_of_page(handle, form, place) - form.offsetsize)
        place = int.from_bytes(handle.read(form.offsetsize), "little" if form.byteorder == "<" else "big")


def require_whole(tiff: Any, path: Path) -> None:
    """Refuse a truncated file: one of whose pages, or tiles of a page, would lie past its end.

    tifffile leaves out pages that it cannot find, so that a truncated file would open with levels missing.
    """
    handle, form = tiff.filehandle, tiff.tiff
    handle.seek(tiff.pages.next_page_offset)
    following = int.from_bytes(handle.read(form.offsetsize), "little" if form.byteorder == "<" else "big")
    pages = [page for series in tiff.series for level in series.levels for page in level if page is not None]
    whole = not following  # the list of pages ends with its end marker
    for page in pages if whole else ():
        whole = whole and len(page.dataoffsets) == len(page.databytecounts)
        ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
        ends += [_end_of_page(handle, form, start) for start in page.subifds or ()]
        whole = whole and max(ends, default=0) <= handle.size
    if not whole:
        raise SlideError(f"{path.name} is incomplete: its end is missing; copy or export it again.")


def _end_of_page(handle: Any, form: Any, start: int) -> int:
    """Return the offset at which the page header that starts at ``start`` ends; past the file if ``start`` is."""
    handle.seek(start)
    tags = int.from_bytes(handle.read(form.tagnosize), "little" if form.byteorder == "<" else "big")
    return int(start + form.tagnosize + tags * form.tagsize + form.offsetsize)


def require_fits(data: bytes, frame: Any) -> None:
    """Refuse a picture whose header gives a much larger size than its tile's, for which the decoder would allocate.

    Raises
    ------
    ValueError
        If the picture is too large.
    """
    if frame.compression in JPEG:
        size = _jpeg_size(data)
    elif frame.compression in _PICTURES:
        size = _picture_size(data, _PICTURES[frame.compression])
    else:
        return
    width, height = segment_size(frame)
    if size[0] * size[1] > _MARGIN * width * height:
        raise ValueError(f"a picture of {size[0]} x {size[1]} pixels in a tile of {width} x {height} pixels")


def require_pictures_fit(page: Any) -> None:
    """Refuse a page with a picture that says it is much larger than its tile (ValueError)."""
    if page.keyframe.compression in (*JPEG, *_PICTURES):
        for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            if data:
                require_fits(data, page.keyframe)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in a JPEG's header, or 0 if it has none."""
    place = 2  # after the marker that begins the image
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame, not tables
            height, width = (int.from_bytes(data[place + i : place + i + 2], "big") for i in (5, 7))
            return width, height
        place += 2 + length
    return 0, 0


def _picture_size(data: bytes, kind: str) -> tuple[int, int]:
    """Return the width and height in a picture's header; Pillow reads no further."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large pictures, which the caller refuses
        try:
            with PIL.Image.open(io.BytesIO(data), formats=(kind,)) as picture:
                return picture.size
        except PIL.Image.DecompressionBombError:
            raise ValueError(f"a picture of more than {LARGEST_PIECE:,} pixels in a tile") from None


def segment_size(frame: Any) -> tuple[int, int]:
    """Return the width and height of a tile, or of a strip if the level is too small to be tiled."""
    if frame.is_tiled:
        return frame.tilewidth, frame.tilelength
    return frame.imagewidth, frame.rowsperstrip
