"""A reader that uses OpenSlide: NDPI, MRXS, SCN, BIF, Philips, VMS, DICOM and rare kinds of SVS."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import openslide
import PIL.Image

from napari_pbip.errors import SlideError
from napari_pbip.slides.mpp import from_header, number
from napari_pbip.slides.reader import Image, fingerprint, over_white, pyramid

_MISSING = {
    "No pyramid levels": "{} holds only label and overview pictures; put the files of the slide itself beside them.",
    "concatenation": "{} is only a part of a slide that consists of several files; put the others beside it.",
}
"""Errors that OpenSlide raises on undamaged DICOM slides, and what the user can do."""


def open_openslide(path: Path) -> OpenSlideReader | None:
    """Open a file that OpenSlide knows, or a folder with the files of one DICOM slide; return None for others.

    Raises
    ------
    SlideError
        If a folder holds several DICOM slides, or files of a DICOM slide are missing.
    openslide.OpenSlideError
        If the file is damaged.
    """
    if path.is_dir():
        return _open_dicom_folder(path)
    if openslide.OpenSlide.detect_format(str(path)) is None:
        return None
    return _open(path, path.name)


def _open(path: Path, name: str) -> OpenSlideReader:
    """Open a file; ``name`` is the file or folder that the user gave, for messages about missing files."""
    try:
        return OpenSlideReader(path)
    except openslide.OpenSlideError as error:
        for said, sentence in _MISSING.items():
            if said in str(error):
                raise SlideError(sentence.format(name)) from error
        raise


def _open_dicom_folder(folder: Path) -> OpenSlideReader | None:
    """Open a folder of DICOM files. OpenSlide finds the whole slide from any file, so all must give the same slide."""
    first: OpenSlideReader | None = None
    for file in sorted(folder.iterdir()):
        if not _is_dicom(file) or openslide.OpenSlide.detect_format(str(file)) != "dicom":
            continue
        found = _open(file, folder.name)
        if first is None:
            first = found
            continue
        same = found.identity() == first.identity()
        found.close()
        if not same:
            first.close()
            raise SlideError(f"{folder} holds several DICOM slides; give one .dcm file of the slide you mean.")
    return first


def _is_dicom(file: Path) -> bool:
    """Return whether a file has the DICOM prefix, which is faster than OpenSlide in a folder of thousands of files."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


class OpenSlideReader:
    """A reader that uses OpenSlide, whose handles may be shared by threads."""

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        slide = openslide.OpenSlide(str(path))
        self._use(slide)
        properties = slide.properties
        self.levels = pyramid(
            path.name,
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
        self.mpp = from_header(number(x), number(y))
        self.associated = tuple(slide.associated_images)
        self._downsamples = slide.level_downsamples
        self._facts = properties.get(openslide.PROPERTY_NAME_QUICKHASH1), slide.level_dimensions

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        # OpenSlide divides level-0 pixels by its own downsample, which is not the rounded one.
        stored = self.levels[level].stored
        downsample = self._downsamples[stored]
        where = (round(x * downsample), round(y * downsample)), stored, (width, height)
        try:
            region = self._slide.read_region(*where)
        except openslide.OpenSlideError:
            region = self._read_afresh(*where)
        return over_white(np.asarray(region))

    def _read_afresh(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> PIL.Image.Image:
        """Read with a new handle: after one damaged place, a handle of OpenSlide fails at every place."""
        slide = openslide.OpenSlide(str(self._path))
        try:
            region = slide.read_region(corner, level, size)
        except openslide.OpenSlideError:
            slide = openslide.OpenSlide(str(self._path))
            raise
        finally:
            self._use(slide)
        return region

    def _use(self, slide: openslide.OpenSlide) -> None:
        # Slide caches decoded blocks, and a second cache would keep the same pixels twice.
        slide.set_cache(openslide.OpenSlideCache(0))
        self._slide = slide  # the earlier handle closes when the last thread that uses it has finished

    def read_associated(self, name: str) -> Image:
        return over_white(np.asarray(self._slide.associated_images[name]))

    def identity(self) -> str:
        quickhash, _ = self._facts
        # OpenSlide has no hash for a slide whose smallest level is large, and slides of equal size are common
        content = "" if quickhash or self._path.is_dir() else fingerprint(self._path)
        return hashlib.sha256(f"{self._facts!r}{content}".encode()).hexdigest()

    def close(self) -> None:
        self._slide.close()
