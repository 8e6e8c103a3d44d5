"""A reader of SVS, OME-TIFF and other tiled TIFF, which uses tifffile.

tifffile finds pyramids in SubIFDs, of which OpenSlide opens a single level, and decodes whole tiles without
OpenSlide's blitting. OpenSlide reads the TIFF files of vendors whose tiles overlap, repeat or are padded (NDPI, SCN,
BIF, Philips ...), and two rare kinds of SVS that tifffile would show wrongly: see :func:`_is_for_openslide`.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import PIL.Image
import tifffile

from napari_pbip.errors import SlideError
from napari_pbip.slides.channels import why_not_rgb
from napari_pbip.slides.image import WholeImage
from napari_pbip.slides.mpp import from_header, number, to_microns
from napari_pbip.slides.reader import LARGEST_PIECE, Image, Level, Reader, fingerprint, over_white, pyramid

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RESOLUTION_OF_SLIDES = (0.05, 2.5)
"""Range of microns per pixel in which resolution tags are believed, from 100x oil to 4x objectives. The 72 or 300 dots
per inch of printers (353 and 85 microns) and what flatbed scanners give (2.6 microns and more) are no microscope's."""
_APERIO_JPEG2000_YCC = 33003
_PHOTOMETRIC, _COMPRESSION, _EXTRA = tifffile.PHOTOMETRIC, tifffile.COMPRESSION, tifffile.EXTRASAMPLE
_JPEG = (_COMPRESSION.JPEG, _COMPRESSION.OJPEG, _COMPRESSION.ALT_JPEG)
"""Compressions whose decoder converts YCbCr to RGB; with others, tifffile returns YCbCr."""
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
_MEANING = {
    _PHOTOMETRIC.MINISWHITE: "grey levels, or three without a meaning",
    _PHOTOMETRIC.MINISBLACK: "grey levels, or three without a meaning",
    _PHOTOMETRIC.PALETTE: "numbers of a palette",
    _PHOTOMETRIC.SEPARATED: "CMYK, for printing",
    _PHOTOMETRIC.YCBCR: "YCbCr that is not compressed as JPEG",
    _PHOTOMETRIC.CIELAB: "CIE L*a*b*",
}
"""Descriptions of the samples of a picture that is not RGB."""
_DESCRIBED = ("is_ome", "is_imagej", "is_shaped", "is_svs", "is_scn", "is_micromanager", "is_scanimage", "is_lsm")
"""Kinds of files whose pictures tifffile finds by metadata rather than by their headers."""
_NOT_LIGHT = ("fluorescence", "epifluorescence")

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
        _require_whole(tiff, path)
        series = _largest(tiff)
        if _is_for_openslide(tiff, series):
            tiff.close()
            return None
        if why := _why_not_rgb(tiff, series):
            raise SlideError(
                f"{path.name} is not one RGB image of 8 bits a colour ({why}); export a single plane as RGB."
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
        _require_an_end(tiff, path)
        _require_single_file(tiff, path)
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
    sideways, mpp = _orientation(frame) > 4, _mpp(tiff, series)
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
        self._series = series
        self._lock = threading.Lock()
        stored = _levels(tiff, series)
        frames = [level.keyframe for level in stored]
        self.levels: tuple[Level, ...] = pyramid(
            path.name,
            [(frame.imagewidth, frame.imagelength) for frame in frames],
            [_segment(frame) for frame in frames],
        )
        self.mpp = _mpp(tiff, series)
        self.notes: tuple[str, ...] = ()
        if _orientation(series.keyframe) != 1:
            self.notes = ("says that it is to be turned or mirrored to be looked at; it is read as it is stored",)
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
            if _why_not_rgb(self._tiff, s) is None and s.keyframe.imagewidth * s.keyframe.imagelength < LARGEST_PIECE
        }

    @property
    def associated(self) -> tuple[str, ...]:
        return tuple(self._associated)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        decode = self._decode[level]
        planes = [self._read_page(page, decode, x, y, width, height) for page in self._pages[level]]
        return _to_rgb(np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0], self._frames[level])

    def _read_page(self, page: Any, decode: Any, x: int, y: int, width: int, height: int) -> Image:
        """Read a rectangle of one page, shape (height, width, samples)."""
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
        # Tiles that were never written (length 0) show empty glass, which is white.
        out = np.full((height, width, frame.samplesperpixel), 255, np.uint8)
        for index, data in zip(wanted, self._read_bytes(page, wanted), strict=True):
            if not data:
                continue
            _require_fits(data, frame)
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


def _require_fits(data: bytes, frame: Any) -> None:
    """Refuse a picture whose header gives a much larger size than its tile's, for which the decoder would allocate.

    Raises
    ------
    ValueError
        If the picture is too large.
    """
    if frame.compression in _JPEG:
        size = _jpeg_size(data)
    elif frame.compression in _PICTURES:
        size = _picture_size(data, _PICTURES[frame.compression])
    else:
        return
    width, height = _segment(frame)
    if size[0] * size[1] > _MARGIN * width * height:
        raise ValueError(f"a picture of {size[0]} x {size[1]} pixels in a tile of {width} x {height} pixels")


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


def _segment(frame: Any) -> tuple[int, int]:
    """Return the width and height of a tile, or of a strip if the level is too small to be tiled."""
    if frame.is_tiled:
        return frame.tilewidth, frame.tilelength
    return frame.imagewidth, frame.rowsperstrip


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
    return len(pages) == len(finest) and None not in pages and _meaning(level.keyframe) == _meaning(finest.keyframe)


def _meaning(frame: Any) -> tuple[Any, ...]:
    colour = _PHOTOMETRIC.RGB if _is_colour(frame) else frame.photometric
    return colour, _is_8_bits(frame), frame.samplesperpixel, frame.extrasamples


def _require_single_file(tiff: Any, path: Path) -> None:
    """Refuse an OME-TIFF whose planes lie in several files, because the others may be missing."""
    if not tiff.is_ome or (root := _ome(tiff)) is None:
        return
    if root.find("{*}BinaryOnly") is not None or len({one.text for one in root.iter() if _is_uuid(one)}) > 1:
        raise SlideError(f"{path.name} is one of several files that make an OME-TIFF; export it as a single file.")


def _is_uuid(element: ElementTree.Element) -> bool:
    return element.tag.rpartition("}")[2] == "UUID"


def _require_an_end(tiff: Any, path: Path) -> None:
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


def _require_whole(tiff: Any, path: Path) -> None:
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


def _is_8_bits(frame: Any) -> bool:
    return bool(frame.dtype == np.uint8 and frame.bitspersample == 8)


def _is_colour(frame: Any) -> bool:
    """Return whether the samples of a page are red, green and blue in the file or after decoding."""
    decoded = frame.photometric == _PHOTOMETRIC.YCBCR and frame.compression in _JPEG
    return bool(decoded or frame.photometric == _PHOTOMETRIC.RGB)


def _why_not_rgb(tiff: Any, series: Any) -> str | None:
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
    pixels = _ome_pixels(tiff, series) if series.kind == "ome" else None
    if pixels is None:
        return "it holds three grey planes, and does not say that they are red, green and blue"
    channels = pixels.findall("{*}Channel")
    for channel in channels:
        said = f"{channel.get('ContrastMethod', '')} {channel.get('IlluminationType', '')}".lower().split()
        if channel.get("Fluor") or channel.get("EmissionWavelength") or set(said) & set(_NOT_LIGHT):
            return "its channels are fluorescence"
    if not channels:
        return None
    return why_not_rgb([one.get("Name", "") for one in channels], [_ome_colour(one.get("Color")) for one in channels])


def _ome_colour(text: str | None) -> tuple[int, int, int] | None:
    """Return the RGB of an OME colour, which is a signed 32-bit number of red, green, blue and alpha."""
    try:
        red, green, blue, _ = (int(text or "") & 0xFFFFFFFF).to_bytes(4, "big")
    except ValueError:
        return None
    return red, green, blue


def _pixels(series: Any) -> Image:
    """Read the whole finest level of a series as RGB."""
    for page in series:
        _require_pictures_fit(page)
    image = series.asarray(level=0)
    samples = "S" if "S" in series.axes else "C"
    kept = [axis for axis in series.axes if axis in ("Y", "X", samples)]
    image = image.reshape([size for axis, size in zip(series.axes, image.shape, strict=True) if axis in kept])
    return _to_rgb(
        np.ascontiguousarray(image.transpose([kept.index(axis) for axis in ("Y", "X", samples)])), series.keyframe
    )


def _require_pictures_fit(page: Any) -> None:
    if page.keyframe.compression in (*_JPEG, *_PICTURES):
        for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            if data:
                _require_fits(data, page.keyframe)


def _to_rgb(image: Image, frame: Any) -> Image:
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


def _mpp(tiff: Any, series: Any) -> tuple[float, float] | None:
    """Return microns per pixel from Aperio's description, OME's PhysicalSize or believable resolution tags."""
    if tiff.is_svs:
        found = re.search(r"\bMPP\s*=([^|\r\n]*)", series.keyframe.description)
        aperio = number(found[1]) if found else None
        return from_header(aperio, aperio)
    if tiff.is_ome:
        return _ome_mpp(_ome_pixels(tiff, series))
    return _tag_mpp(series.keyframe)


def _ome(tiff: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tiff.ome_metadata or "")
    except (ElementTree.ParseError, ValueError):
        return None


def _ome_pixels(tiff: Any, series: Any) -> ElementTree.Element | None:
    """Return the OME element of a series; None if the XML is invalid or describes fewer images."""
    root = _ome(tiff)
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
