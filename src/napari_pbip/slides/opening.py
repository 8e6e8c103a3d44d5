"""Opening slides, and telling which files and folders are slides."""

from __future__ import annotations

import zipfile
from pathlib import Path

from napari_pbip.errors import MissingSlide, SlideError
from napari_pbip.slides.mpp import read_sidecar, require_believable
from napari_pbip.slides.reader import damaged, readers, reason
from napari_pbip.slides.slide import Slide

_SCANNERS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide"})
"""Suffixes of file names that only slides have."""


def open_slide(path: Path | str, mpp: float | None = None) -> Slide:
    """Open a slide: a file, an OME-Zarr folder or a folder with the files of one DICOM slide.

    Parameters
    ----------
    path
        SVS, NDPI, MRXS, SCN, BIF, OME-TIFF, tiled TIFF, OME-Zarr, DICOM, PNG, JPEG, BMP or TIFF without tiles.
    mpp
        Microns per level-0 pixel; takes precedence over the sidecar ``<slide file name>.mpp.json`` and the header.
        Of headers these are used: Aperio's ``MPP``, OpenSlide's ``mpp-x/y``, OME's ``PhysicalSize``, OME-Zarr scales
        with a unit of length, and TIFF resolution tags of 0.05 to 2.5 microns per pixel.

    Raises
    ------
    MissingSlide
        If the file does not exist.
    SlideError
        If no reader can open it, it is damaged or not RGB, or ``mpp`` is impossible.
    """
    path = Path(path).absolute()
    _require_readable(path)
    override = read_sidecar(path) if mpp is None else require_believable(mpp, "The given value")
    for entry in readers():
        try:
            reader = entry.open(path)
        except SlideError:
            raise
        except ImportError as error:
            raise SlideError(
                f"{path.name} cannot be read, because the reader {entry.name!r} cannot be loaded ({reason(error)}); "
                "napari-pbip doctor says what to do."
            ) from error
        except Exception as error:
            raise SlideError(damaged(path, error)) from error
        if reader is not None:
            return Slide(path, entry.name, reader, override)
    if path.is_dir():
        raise SlideError(f"{path} is a folder without a DICOM slide or OME-Zarr image; give the slide file itself.")
    if zipfile.is_zipfile(path):
        raise SlideError(f"{path.name} is a zip archive; unzip it and give the slide or OME-Zarr folder that it holds.")
    raise SlideError(
        f"{path.name} is not a slide that can be read; formats are "
        + "; ".join(entry.formats for entry in readers())
        + "."
    )


def is_slide(path: Path | str) -> bool:
    """Return whether a file or folder was written by a scanner or converter of slides, even if it is damaged.

    Pictures (PNG, JPEG, TIFF without tiles), which :func:`open_slide` opens too, do not count, and neither do images
    that are not RGB: they belong to other programs. A damaged file counts if only slides have its suffix.
    """
    path = Path(path).absolute()
    scanner = path.suffix.lower() in _SCANNERS
    try:
        with open_slide(path) as slide:
            return scanner or not slide.is_picture
    except SlideError:
        return scanner


def slides_in(path: Path) -> list[Path]:
    """Return the slide at a path, or the slides directly in a folder (a DICOM or OME-Zarr folder is itself a slide).

    Every file of the folder is opened, which may take seconds. A folder without slides is returned itself, so that
    opening it raises the error that explains it.
    """
    if not path.is_dir() or is_slide(path):
        return [path]
    return [one for one in sorted(path.iterdir()) if is_slide(one)] or [path]


def _require_readable(path: Path) -> None:
    try:
        if path.is_dir():
            empty = next(path.iterdir(), None) is None
        else:
            with path.open("rb") as file:
                empty = not file.read(1)
    except FileNotFoundError as error:
        raise MissingSlide(f"There is no slide at {path}; check the path.") from error
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror}.") from error
    if empty:
        raise SlideError(f"{path} is empty; give a slide file, an OME-Zarr folder or a DICOM folder.")
