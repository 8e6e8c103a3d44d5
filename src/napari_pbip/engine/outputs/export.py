"""The job that exports a result in a format of other programs, and the table of these formats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.inference.refine import refiner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import present, writing_folder
from napari_pbip.results.areas import areas, write_areas
from napari_pbip.results.dicom_seg import is_dicom_seg, write_dicom_seg
from napari_pbip.results.geojson import write_geojson
from napari_pbip.results.label_files import FOLDER, open_labels, writing_labels
from napari_pbip.results.label_image import is_label_image
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.ome_tiff import write_label_tiff, write_score_tiff
from napari_pbip.results.overlay import write_overlay
from napari_pbip.results.places import OVERLAY_SIDE
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide


@dataclass(frozen=True, slots=True)
class Format:
    """A format that a result can be exported in."""

    ending: str
    """Ending of the name of a file or folder."""
    title: str
    about: str
    """What is written and what for, in one line."""
    write: Callable[[Path, ScoreStore, Path], Job]
    """Writes a target, whole or not at all, from a store and a folder with its labels; yields no ``Finished``."""
    labels: bool = True
    """Whether it depends on the labels."""
    is_earlier: Callable[[Path], bool] | None = None
    """If a folder is written and not a file: whether a folder is an earlier export, which may be replaced."""


def _areas(path: Path, store: ScoreStore, folder: Path) -> Job:
    yield Started(f"Writing {path.name}", total=1, unit="files")
    write_areas(path, areas(store, folder))
    yield Step(1)


def _overlay(path: Path, store: ScoreStore, folder: Path) -> Job:
    yield Started(f"Writing {path.name}", total=1, unit="files")
    facts = store.facts.slide
    try:
        with open_slide(facts.path, facts.mpp) as slide:
            thumbnail = slide.thumbnail(OVERLAY_SIDE)
    except SlideError as error:
        raise OutputError(
            f"The picture needs the slide, and the slide of {store.path.name} is gone: {error}"
        ) from error
    write_overlay(path, store, thumbnail, folder)
    yield Step(1)


def _label_image(path: Path, store: ScoreStore, folder: Path) -> Job:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    yield Started(f"Writing {path.name}", total=len(files), unit="files")
    with writing_folder(path) as begun:
        for done, file in enumerate(files, 1):
            copy = begun / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            yield Step(done)
        group = zarr.open_group(begun, mode="r+", zarr_format=3)
        ome: Any = group.attrs["ome"]
        ome["image-label"].pop("source", None)  # it lies in no image now
        group.attrs["ome"] = ome


def _scores(path: Path, store: ScoreStore, _: Path) -> Job:
    return write_score_tiff(path, store)


FORMATS: Mapping[str, Format] = {
    "csv": Format(
        ".csv", "Areas (CSV)", "A table with the area of each class in mm² and its share of the tissue", _areas
    ),
    "png": Format(
        ".png", "Picture (PNG)", "The slide with its labels in colour and a legend, for slides and reports", _overlay
    ),
    "geojson": Format(
        ".geojson",
        "Polygons (GeoJSON)",
        "A polygon around each patch of a class, to open in QuPath as annotations",
        write_geojson,
    ),
    "ome-tiff": Format(
        ".ome.tiff",
        "Labels (OME-TIFF)",
        "An image whose values are the classes, with a pyramid, for QuPath, Fiji and OMERO",
        write_label_tiff,
    ),
    "ome-zarr": Format(
        ".ome.zarr",
        "Labels (OME-Zarr)",
        "A folder with the same image as OME-Zarr 0.5, for napari and Python",
        _label_image,
        is_earlier=is_label_image,
    ),
    "dicom-seg": Format(
        ".dicom-seg",
        "Segmentation (DICOM)",
        "A folder of DICOM segmentations in the place of the slide, which must be DICOM itself, for a PACS",
        write_dicom_seg,
        is_earlier=is_dicom_seg,
    ),
    "scores": Format(
        ".scores.ome.tiff",
        "Scores (OME-TIFF)",
        "The raw score of every class before thresholds, an image with a channel for each class",
        _scores,
        labels=False,
    ),
}
"""The formats by the name that the command line gives them."""


@job
def export(
    store: Path,
    target: Path,
    format: str,
    thresholds: ThresholdSettings | None = None,
    *,
    refine: RefineSettings | None = None,
    overwrite: bool = False,
) -> Job:
    """Export the result of a slide. The store is not changed, and the target appears only when it is complete.

    Parameters
    ----------
    store
        Path of the score store.
    target
        The file or folder to write.
    format
        One of :data:`FORMATS`.
    thresholds
        Thresholds by which scores become labels; by default the labels that are saved in the store are exported.
    refine
        Settings that say whether a dense CRF refines the labels of these thresholds.
    overwrite
        Whether an earlier export is replaced.

    Raises
    ------
    ConfigError
        If the thresholds name an unknown class.
    OutputError
        If the format is unknown, the target exists or cannot be written, the store is damaged or has no labels, or the
        picture cannot be drawn because the slide does not exist.
    SlideError
        If labels are to be refined and the slide cannot be read.
    """
    if format not in FORMATS:
        raise OutputError(f"There is no format {format!r}; choose one of {', '.join(FORMATS)}.")
    chosen = FORMATS[format]
    _check(target, chosen, overwrite)
    scores = ScoreStore.open(store)
    done, planned = scores.progress
    if done < planned:
        yield Warned(
            f"Only {done:,} of {planned:,} tiles of this slide are segmented; {target.name} shows these alone."
        )
    with ExitStack() as stack:
        folder = present(store / FOLDER)
        if thresholds is None and chosen.labels:
            open_labels(scores)  # raises if there are none
        elif thresholds is not None and chosen.labels:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napari-pbip-"))) / "labels"
            yield Started("Computing labels", total=len(analysed_blocks(scores)), unit="parts")
            refined = stack.enter_context(refiner(scores, thresholds, refine))
            for number in stack.enter_context(closing(writing_labels(scores, thresholds, refined, folder))):
                yield Step(number)
        yield from stack.enter_context(closing(chosen.write(target, scores, folder)))
    yield Finished(target)


def _check(target: Path, chosen: Format, overwrite: bool) -> None:
    """Raise OutputError if the target exists and may not be replaced."""
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"{target} exists already; use `overwrite=True` to replace it, or choose another name.")
    if not (target.is_file() if chosen.is_earlier is None else target.is_dir() and chosen.is_earlier(target)):
        raise OutputError(f"{target} is no earlier export of this kind and is not deleted; choose another name.")
