"""The job that exports a result in a format of other programs, and the table of these formats."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.inference.refine import refiner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.events import Event, Finished, Job, Started, Step, Warned
from napari_pbip.files import present
from napari_pbip.results.areas import write_areas
from napari_pbip.results.dicom_seg import is_dicom_seg, write_dicom_seg
from napari_pbip.results.geojson import write_geojson
from napari_pbip.results.label_files import FOLDER, copy_labels, open_labels, writing_labels
from napari_pbip.results.label_image import is_label_image
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.ome_tiff import write_label_tiff, write_score_tiff
from napari_pbip.results.overlay import write_overlay
from napari_pbip.results.places import OVERLAY_SIDE
from napari_pbip.results.statistics import write_statistics
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide
from napari_pbip.taxonomy import ClassDisplay, Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of files or folders for other programs."""

    ending: str
    """Ending of the name of a file or folder."""
    title: str
    about: str
    """What is written and what for, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFormat(Format):
    """A format for the result of a slide."""

    write: Callable[[Path, ScoreStore, Path, Taxonomy], Job]
    """Writes a target, whole or not at all, from a store, a folder with its labels, and the classes as they are called
    and coloured in it; yields no ``Finished``. Tables have the names of the store."""
    labels: bool = True
    """Whether it depends on the labels."""
    is_earlier: Callable[[Path], bool] = Path.is_file
    """Whether what exists at a path is an earlier export, which may be replaced."""


def _areas(path: Path, store: ScoreStore, folder: Path, _: Taxonomy) -> Job:
    yield Started(f"Writing {path.name}", total=1, unit="files")
    write_areas(path, store, folder)
    yield Step(1)


def _statistics(path: Path, store: ScoreStore, folder: Path, _: Taxonomy) -> Job:
    return write_statistics(path, store, folder)


def _overlay(path: Path, store: ScoreStore, folder: Path, classes: Taxonomy) -> Job:
    yield Started(f"Writing {path.name}", total=1, unit="files")
    facts = store.facts.slide
    try:
        with open_slide(facts.path, facts.mpp) as slide:
            thumbnail = slide.thumbnail(OVERLAY_SIDE)
    except SlideError as error:
        raise OutputError(
            f"The picture needs the slide, and the slide of {store.path.name} is gone: {error}"
        ) from error
    write_overlay(path, store, thumbnail, folder, classes)
    yield Step(1)


def _scores(path: Path, store: ScoreStore, _: Path, classes: Taxonomy) -> Job:
    return write_score_tiff(path, store, classes)


FORMATS: Mapping[str, ResultFormat] = {
    "csv": ResultFormat(
        ending=".csv",
        title="Areas (CSV)",
        about="A table with the area of each class in mm² and its share of the tissue",
        write=_areas,
    ),
    "statistics": ResultFormat(
        ending=".statistics.csv",
        title="Statistics (CSV)",
        about="A table with areas, patches, interfaces between classes and distances from one class to another",
        write=_statistics,
    ),
    "png": ResultFormat(
        ending=".png",
        title="Picture (PNG)",
        about="The slide with its labels in colour and a legend, for talks and reports",
        write=_overlay,
    ),
    "geojson": ResultFormat(
        ending=".geojson",
        title="Polygons (GeoJSON)",
        about="A polygon around each patch of a class, to open in QuPath as annotations",
        write=write_geojson,
    ),
    "ome-tiff": ResultFormat(
        ending=".ome.tiff",
        title="Labels (OME-TIFF)",
        about="An image whose values are the classes, with a pyramid, for QuPath, Fiji and OMERO",
        write=write_label_tiff,
    ),
    "ome-zarr": ResultFormat(
        ending=".ome.zarr",
        title="Labels (OME-Zarr)",
        about="A folder with the same image as OME-Zarr 0.5, for napari and Python",
        write=copy_labels,
        is_earlier=is_label_image,
    ),
    "dicom-seg": ResultFormat(
        ending=".dicom-seg",
        title="Labels (DICOM)",
        about="A folder of DICOM segmentations in the place of the slide, which must be DICOM itself, for a PACS",
        write=write_dicom_seg,
        is_earlier=is_dicom_seg,
    ),
    "scores": ResultFormat(
        ending=".scores.ome.tiff",
        title="Scores (OME-TIFF)",
        about="The scores of every class before thresholds, an image with a channel for each class",
        write=_scores,
        labels=False,
    ),
}
"""The formats by the name that the command line gives them."""


@job
def export(
    store: Path | str,
    target: Path | str,
    format: str,
    thresholds: ThresholdSettings | None = None,
    *,
    refine: RefineSettings | None = None,
    class_display: ClassDisplay | None = None,
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
    class_display
        The titles and colours of classes, such as those of a project; by default classes have the names and colours of
        the store. Tables have its names always, because they are what other tables and scripts know a class by.
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
    store, target, chosen = Path(store), Path(target), FORMATS[format]
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; use `overwrite=True` to replace it, or choose another name.")
    if target.exists() and not chosen.is_earlier(target):
        raise OutputError(f"{target} is no earlier export of this kind and is not deleted; choose another name.")
    scores = ScoreStore.open(store)
    shown = (class_display or ClassDisplay()).of(scores.taxonomy)
    done, planned = scores.progress
    if done < planned:
        yield Warned(
            f"Only {done:,} of {planned:,} tiles of this slide are segmented; {target.name} shows these alone."
        )
    with ExitStack() as stack:
        folder = (yield from labels_at(stack, scores, thresholds, refine)) if chosen.labels else store
        yield from stack.enter_context(closing(chosen.write(target, scores, folder, shown)))
    yield Finished(target)


def labels_at(
    stack: ExitStack, store: ScoreStore, thresholds: ThresholdSettings | None, refine: RefineSettings | None
) -> Generator[Event, None, Path]:
    """Return the folder with the labels of a store at these thresholds, and yield the progress of computing them.

    Parameters
    ----------
    stack
        The folder is deleted when it is closed, unless it is that of the labels in the store.
    store
        A finished or growing store.
    thresholds
        Thresholds by which scores become labels; None takes the labels in the store.
    refine
        Settings that say whether a dense CRF refines labels.

    Raises
    ------
    OutputError
        If the labels in the store are asked for and there are none, they are damaged, or of other regions.
    """
    if thresholds is None:
        open_labels(store)[1].check_regions(store)  # raises if there are none, too
        return present(store.path / FOLDER)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napari-pbip-"))) / "labels"
    yield Started("Computing labels", total=len(analysed_blocks(store)), unit="parts")
    with (
        refiner(store, thresholds, refine) as refined,
        closing(writing_labels(store, thresholds, refined, folder)) as done,
    ):
        for number in done:
            yield Step(number)
    return folder
