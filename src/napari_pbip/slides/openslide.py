"""Vendor formats through OpenSlide: NDPI, MRXS, SCN, BIF, Philips, VMS, DICOM and rare kinds of SVS."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import openslide

from napari_pbip.errors import SlideError
from napari_pbip.slides.mpp import from_header
from napari_pbip.slides.reader import Image, over_white, pyramid


def open_openslide(path: Path) -> OpenSlideReader | None:
    """Open a file that OpenSlide knows, or a folder with the files of one DICOM slide; None for all others.

    Raises
    ------
    SlideError
        If a folder holds several DICOM slides.
    openslide.OpenSlideError
        If the file is damaged.
    """
    if path.is_dir():
        return _open_dicom_folder(path)
    if openslide.OpenSlide.detect_format(str(path)) is None:
        return None
    return OpenSlideReader(openslide.OpenSlide(str(path)))


def _open_dicom_folder(folder: Path) -> OpenSlideReader | None:
    """OpenSlide gathers the files of a slide from any one of them: all must lead to the same slide."""
    first: OpenSlideReader | None = None
    for file in sorted(folder.iterdir()):
        if not file.is_file() or openslide.OpenSlide.detect_format(str(file)) != "dicom":
            continue
        found = OpenSlideReader(openslide.OpenSlide(str(file)))
        if first is None:
            first = found
            continue
        same = found.identity() == first.identity()
        found.close()
        if not same:
            first.close()
            raise SlideError(f"{folder} holds several DICOM slides; give one .dcm file of the slide you mean.")
    return first


class OpenSlideReader:
    """A slide that OpenSlide reads; its handles are safe to share between threads."""

    def __init__(self, slide: openslide.OpenSlide) -> None:
        self._slide = slide
        # Slide caches decoded blocks itself; a second cache would hold the same pixels twice.
        slide.set_cache(openslide.OpenSlideCache(0))
        properties = slide.properties
        self.levels = pyramid(
            slide.level_dimensions,
            [
                (
                    int(properties.get(f"openslide.level[{i}].tile-width", 1024)),
                    int(properties.get(f"openslide.level[{i}].tile-height", 1024)),
                )
                for i in range(slide.level_count)
            ],
        )
        x, y = (properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y))
        self.mpp = from_header(float(x) if x else None, float(y) if y else None)
        self.associated = tuple(slide.associated_images)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        # OpenSlide takes level-0 pixels and divides them by its own downsample, not by the rounded one.
        downsample = self._slide.level_downsamples[level]
        corner = round(x * downsample), round(y * downsample)
        return over_white(np.asarray(self._slide.read_region(corner, level, (width, height))))

    def read_associated(self, name: str) -> Image:
        return over_white(np.asarray(self._slide.associated_images[name]))

    def identity(self) -> str:
        facts = self._slide.properties.get(openslide.PROPERTY_NAME_QUICKHASH1), self._slide.level_dimensions
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def close(self) -> None:
        self._slide.close()
