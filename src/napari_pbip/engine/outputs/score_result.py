"""The job that compares the labels of a slide with a mask, under :data:`~napari_pbip.results.metrics.PROTOCOLS`.

``predicted`` are the labels as they are displayed. If the classes are given, those of each tile are taken from the
mask, as the published evaluation takes those of each image from its label. All are of the model alone; where a result
was corrected by hand, ``corrected`` are the predicted labels with the corrections.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_pbip.bank import numbering_warning
from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.inference.refine import refiner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.pictures import read_values, whole_numbers
from napari_pbip.results import LargestScores, ScoreStore, SegmentationScores
from napari_pbip.results.calibration import Calibration
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.labels import score_window
from napari_pbip.results.lazy import computed, lazy_labels
from napari_pbip.results.metrics import PROTOCOLS, Protocol
from napari_pbip.results.resampling import intervals
from napari_pbip.slides.annotations import read_annotations
from napari_pbip.slides.proportions import scale_over
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, ClassDisplay

RESULT_PROTOCOLS: Mapping[str, Protocol] = {
    **PROTOCOLS,
    "corrected": Protocol(
        "corrected by hand",
        "The map with the corrections by hand; nothing comes from the mask.",
        classes_given=False,
        background_given=False,
    ),
}
"""Protocols of the map of a model, and of the same map as somebody has corrected it."""
Mask = npt.NDArray[np.integer[Any]]
_LOSSY = frozenset({6, 7, 33007, 34892})
"""Values of the TIFF tag Compression that mean JPEG."""
_SQUARE_UM = 1000
"""Side in micrometres of the squares that intervals are over."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A mask of a whole slide."""

    values: Mask
    """Values, (H, W), at any resolution and with the slide's proportions, or with the shape of the score grid."""
    first: int
    """Value of the first class: 1 as in label images, where 0 is ignored, or 0 as in published data sets, where the
    value after the last class is background. Other values above the last class are ignored."""


@job
def score_result(
    store_path: Path, truth: Truth, thresholds: ThresholdSettings, refine: RefineSettings | None = None
) -> Job:
    """Score the labels of a store against a mask.

    Every cell of the score grid is compared with the mask at its centre. Cells that were not analysed or not assigned
    are background. Intervals are over squares of 1 mm of the slide in which the mask has a value: they say how much the
    metrics vary over this slide, not over slides.

    Parameters
    ----------
    store_path
        Path of the score store.
    truth
        The mask.
    thresholds
        Thresholds by which scores become labels.
    refine
        Settings that say whether a dense CRF refines the labels.

    Yields
    ------
    Event
        ``Warned`` if the mask lacks a class; ``Finished`` with ``protocols``, the metrics in percent as
        :func:`napari_pbip.engine.inference.evaluate.evaluate` returns them, with intervals over ``squares``, and the
        ``confusion`` of each protocol: counts of cells of (true class, predicted class or none), (N, N + 1); and with
        the ``calibration`` of the presence of classes in tiles and, if they are probabilities, of the scores of cells.
        ``corrected`` is among the protocols if the result was corrected by hand.

    Raises
    ------
    DataError
        If the mask has other proportions than the slide, or contains none of the classes.
    SlideError
        If labels are to be refined and the slide cannot be read.
    OutputError
        If the store cannot be read.
    """
    store = ScoreStore.open(store_path)
    _check(truth, store)
    _, height, width = store.scores[0].shape
    blocks = list(np.ndindex(-(-height // CHUNK), -(-width // CHUNK)))
    passes = 2 if store.ceiling is None else 3
    yield Started("Comparing with the mask", total=passes * len(blocks), unit="parts")
    at_cells = _at_cells(truth, store)
    true = _class_indices(at_cells, truth, store)
    held = frozenset(np.unique(at_cells).tolist())
    if warning := numbering_warning(held, store.taxonomy.names, truth.first):
        yield Warned(warning)
    largest = LargestScores(store).percentile(thresholds.percentile)
    classes, square = len(store.taxonomy), max(1, round(_SQUARE_UM / store.cell_um))
    corrections = store.corrections
    protocols = PROTOCOLS if corrections.cells is None else RESULT_PROTOCOLS
    scores = {name: SegmentationScores(store.taxonomy.names) for name in protocols}
    done = 0
    for classes_given in (True, False):
        # all at once, with one byte per cell, because the contours of boundary IoU cross blocks
        labels = np.empty((height, width), np.uint8)
        presence = _shown(true, store) if classes_given else store.presence()
        with refiner(store, thresholds, refine, presence) as refined:
            lazy = lazy_labels(store, thresholds, largest=largest, presence=presence, refine=refined, corrected=False)
            with closing(computed(lazy.data, blocks, together=refined is None)) as parts:
                for (row, column), block in parts:
                    y, x = row * CHUNK, column * CHUNK
                    labels[y : y + block.shape[0], x : x + block.shape[1]] = block
                    done += 1
                    yield Step(done)
        for name, protocol in protocols.items():
            if protocol.classes_given == classes_given:
                shown = labels if name in PROTOCOLS else corrections.over(labels, 0, slice(None), slice(None))
                seen = np.where((shown == NOT_ANALYSED) | (shown == UNASSIGNED), UNASSIGNED, shown - 1)
                scores[name].add_squares(protocol.truth(true, classes), seen, square)
    calibration = {"presence": _calibrate_presence(store, true), "scores": Calibration()}
    if store.ceiling is not None:  # then scores are logarithms of N times a probability
        for y, x in ((row * CHUNK, column * CHUNK) for row, column in blocks):
            spans = slice(y, min(y + CHUNK, height)), slice(x, min(x + CHUNK, width))
            window = score_window(store, thresholds, largest, 0, *spans)
            for strip in window.strips:
                scored = store.ceiling[:, None, None] * window.rows(strip).shares
                of_cells = true[spans][strip]
                known = (of_cells <= classes) & ~np.isnan(scored[0])
                probability = np.exp(scored[:, known]) / classes
                calibration["scores"].add(probability, of_cells[known] == np.arange(classes)[:, None])
            done += 1
            yield Step(done)
    summary = {
        "protocols": {name: one.report() | {"intervals": _intervals(one)} for name, one in scores.items()},
        "confusion": {name: one.confusion.tolist() for name, one in scores.items()},
        "calibration": {name: found for name, one in calibration.items() if (found := one.report())},
        "classes": store.taxonomy.names,
    }
    yield Finished(store_path, summary)


def _calibrate_presence(store: ScoreStore, true: npt.NDArray[np.uint8]) -> Calibration:
    """Return the calibration of the presence of classes in tiles, of those that the mask knows all of."""
    calibration, lattice, presence = Calibration(), store.lattice, store.presence()
    classes = np.arange(len(presence))
    for row, column in np.argwhere(~np.isnan(presence[0])):
        y, x = row * lattice.stride, column * lattice.stride
        tile = true[y : y + lattice.tile, x : x + lattice.tile]
        if (tile <= len(classes)).all():
            calibration.add(presence[:, row, column], np.isin(classes, tile))
    return calibration


def _intervals(scores: SegmentationScores) -> dict[str, Any]:
    return intervals({"squares": scores.counts}, scores.names)


def read_mask(path: Path) -> Mask:
    """Read a mask file, (H, W): a grey or palette picture, a TIFF or a label image of one channel.

    Raises
    ------
    DataError
        If it cannot be read, is a colour picture, contains several pictures, or was compressed with losses.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return read_values(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.pages.first.compression in _LOSSY:
                raise DataError(
                    f"The mask {path} is compressed as JPEG, which changes its values; draw it again as PNG."
                )
            values = np.asarray(tiff.asarray())
    except DataError:
        raise
    except Exception as error:  # a codec may raise any error on a damaged file
        raise DataError(f"The mask {path} cannot be read; give a PNG or TIFF with one number per class.") from error
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape))
        raise DataError(
            f"The mask {path} is a colour picture or holds several ({shape}); save one with grey or palette values "
            "that number the classes."
        )
    return whole_numbers(values, path)


def annotated_truth(path: Path, store: ScoreStore, class_display: ClassDisplay | None = None) -> Truth:
    """Return annotations of QuPath as a mask of the cells of a store.

    Cells without an annotation, or with those of several classes, are ignored. Annotations have the names of the
    classes, or their titles in ``class_display``.

    Raises
    ------
    DataError
        If the file cannot be read, or the annotations are of another slide or of none of the classes.
    """
    shown = class_display or ClassDisplay()
    found = read_annotations(path, shown.names(store.taxonomy))
    slide, names = store.facts.slide, store.taxonomy.names
    found.check_on(slide)
    if not set(names) & set(found.polygons):
        raise DataError(
            f"The annotations in {path.name} have the classes {', '.join(found.polygons)}, and the result has "
            f"{', '.join(map(shown.title, names))}; name the classes alike."
        )
    _, height, width = store.scores[0].shape
    return Truth(found.mask(names, (height, width), store.cell_um / slide.mpp), 1)


def _check(truth: Truth, store: ScoreStore) -> None:
    slide = store.facts.slide
    height, width = truth.values.shape
    if scale_over(slide, height, width) is None:
        raise DataError(
            f"The mask has {width} x {height} pixels, not the proportions of {slide.name} "
            f"({slide.width} x {slide.height}); draw it over the whole slide."
        )


def _at_cells(truth: Truth, store: ScoreStore) -> npt.NDArray[np.int64]:
    """Return the value of the mask at the centre of each cell of the score grid."""
    slide = store.facts.slide
    _, height, width = store.scores[0].shape
    cell = store.cell_um / slide.mpp  # level-0 pixels
    picked = truth.values
    if picked.shape != (height, width):  # else it is a label image of a store, whose last cells reach beyond the slide
        rows, columns = (
            np.minimum((np.arange(count) + 0.5) * cell / side * length, length - 1).astype(np.intp)
            for count, side, length in zip((height, width), (slide.height, slide.width), picked.shape, strict=True)
        )
        picked = picked[rows[:, None], columns]
    return picked.astype(np.int64)


def _class_indices(at_cells: npt.NDArray[np.int64], truth: Truth, store: ScoreStore) -> npt.NDArray[np.uint8]:
    """Return the class index of each cell, N for background.

    255 is a cell that is ignored, because the mask says so or because it does not count by the regions of the slide.

    Raises
    ------
    DataError
        If no cell has a class.
    """
    classes = len(store.taxonomy)
    index = at_cells - truth.first
    last_known = classes if truth.first == 0 else classes - 1
    true = np.where((index >= 0) & (index <= last_known), index, UNASSIGNED).astype(np.uint8)
    if (true >= classes).all():
        last = truth.first + classes - 1
        raise DataError(
            f"The mask shows none of the classes: they are numbered {truth.first} to {last} "
            f"({', '.join(store.taxonomy.names)}); choose the other class numbers in the mask, or another mask."
        )
    true[~store.counted(0, slice(None), slice(None))] = UNASSIGNED
    if (true == UNASSIGNED).all():
        raise DataError(
            f"The mask shows no class where {store.facts.slide.name} counts by its regions; draw the mask there, or "
            "change the regions."
        )
    return true


def _shown(true: npt.NDArray[np.uint8], store: ScoreStore) -> npt.NDArray[np.float32]:
    """Return the classes in each tile of the mask as presence, (N, rows, columns); NaN where not analysed."""
    lattice = store.lattice
    shown = np.full((len(store.taxonomy), lattice.rows, lattice.columns), np.nan, np.float32)
    for row, column in np.argwhere(~np.isnan(store.presence()[0])):
        y, x = row * lattice.stride, column * lattice.stride
        counts = np.bincount(true[y : y + lattice.tile, x : x + lattice.tile].ravel(), minlength=UNASSIGNED + 1)
        shown[:, row, column] = counts[: len(store.taxonomy)] > 0
    return shown
