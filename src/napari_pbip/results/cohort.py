"""The results of many slides side by side: a summary of each, and one table of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results.areas import NOT_ANALYSED_NAME, Area, areas, of_whole
from napari_pbip.results.label_files import LabelFacts, open_labels
from napari_pbip.results.labels import Labels
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.overlay import LabelSummary, labels_like, overlay
from napari_pbip.results.provenance import Provenance, write_with_provenance
from napari_pbip.results.store import ScoreStore
from napari_pbip.taxonomy import UNASSIGNED_NAME, Taxonomy

_PAPER = 255
_OTHERS = (UNASSIGNED_NAME, NOT_ANALYSED_NAME)


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """What a result says about its slide."""

    store: Path
    model: str
    """Name of the run."""
    done: int
    """Number of analysed tiles."""
    planned: int
    tissue_mm2: float
    areas: tuple[Area, ...]
    """The table of :func:`~napari_pbip.results.areas.areas` of all that counts on the slide."""
    labels: Labels = field(compare=False)
    """The labels as a small picture of the whole slide, (H, W)."""
    taxonomy: Taxonomy
    provenance: Provenance
    """What they come from."""

    def picture(self, colours: Mapping[str, str] | None = None) -> npt.NDArray[np.uint8]:
        """Return the labels in the colours of their classes, or in these by class name, on white; RGB, (H, W, 3)."""
        paper = np.full((*self.labels.shape, 3), _PAPER, np.uint8)
        return overlay(paper, self.labels, self.taxonomy.in_colours(colours or {}), 1)


@dataclass(frozen=True, slots=True)
class CohortRow:
    """A slide of a cohort."""

    slide: str
    path: Path
    mpp: float | None
    """Microns per level-0 pixel."""
    mpp_from: str | None
    """Who says so: ``slide`` or ``user``."""
    tissue_mm2: float | None
    result: ResultSummary | None


def summarise(path: Path, thresholds: ThresholdSettings | None = None, side: int = 64) -> ResultSummary:
    """Summarise a score store, finished or not.

    All its scores are read, which takes seconds for a large slide, unless its labels were written with these
    thresholds, and nothing that they follow has changed since.

    Parameters
    ----------
    path
        Folder of the store.
    thresholds
        Thresholds by which scores become labels; by default those of the labels in the store, else the usual ones.
    side
        Longer side of the picture in pixels.

    Raises
    ------
    OutputError
        If the folder is not a score store, or the store is damaged.
    """
    store = ScoreStore.open(path)
    slide = store.facts.slide
    height, width = (
        max(1, round(side * length / max(slide.height, slide.width))) for length in (slide.height, slide.width)
    )
    written = _written(store)
    own = ThresholdSettings() if written is None else written.thresholds
    chosen = (thresholds or own).of_classes(store.taxonomy.names)
    done, planned = store.progress
    right = written is not None and _says(written, store, chosen, done)
    rows, picture = (right and _of_labels(store, height, width)) or _of_scores(store, chosen, height, width)
    return ResultSummary(
        store=path,
        model=store.facts.model.run,
        done=done,
        planned=planned,
        tissue_mm2=store.tissue_cells * (store.cell_um / 1000) ** 2,
        areas=tuple(of_whole(rows)),
        labels=picture,
        taxonomy=store.taxonomy,
        provenance=Provenance(store.facts, chosen, regions=store.regions.identity),
    )


def class_names(rows: Iterable[CohortRow]) -> tuple[str, ...]:
    """Return the names of all classes that occur in results, then those of tissue without a class."""
    names = dict.fromkeys(area.name for row in rows if row.result is not None for area in row.result.areas)
    return (*(name for name in names if name not in _OTHERS), *(name for name in _OTHERS if name in names))


def write_cohort(path: Path, rows: Sequence[CohortRow]) -> None:
    """Write one row per slide as CSV (UTF-8, commas, decimal points); what is not known is left empty.

    The columns are slide, path, mpp, mpp_from, model, tiles_done, tiles_planned, tissue_mm2, corrected_mm2 (by hand),
    of each class its area ``<class> mm2``, its share of the tissue ``<class> percent`` and its threshold ``<class>
    delta``, and then what they come from (:data:`~napari_pbip.results.provenance.COLUMNS`).

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full.
    """
    names = class_names(rows)
    header = ["slide", "path", "mpp", "mpp_from", "model", "tiles_done", "tiles_planned", "tissue_mm2", "corrected_mm2"]
    header += [f"{name} {unit}" for name in names for unit in ("mm2", "percent", *_delta(name))]
    table = ((_fields(row, names), None if row.result is None else row.result.provenance, "") for row in rows)
    write_with_provenance(path, header, table)


def _fields(row: CohortRow, names: Sequence[str]) -> list[object]:
    """Return the fields of a row, of which the last are area and share of each of these classes."""
    result = row.result
    areas = {} if result is None else {area.name: area for area in result.areas}
    values: list[object] = [row.slide, row.path, row.mpp, row.mpp_from]
    values += [None] * 3 if result is None else [result.model, result.done, result.planned]
    values += [row.tissue_mm2, None if result is None else sum(area.corrected_mm2 for area in result.areas)]
    for name in names:
        area = areas.get(name)
        values += [None, None] if area is None else [area.area_mm2, area.percent_of_tissue]
        deltas = {} if result is None else result.provenance.columns(name)
        values += [deltas.get(column) for column in _delta(name)]
    return values


def _delta(name: str) -> tuple[str, ...]:
    """Return the column for the threshold of a class; tissue without a class has none."""
    return () if name in _OTHERS else ("delta",)


def _written(store: ScoreStore) -> LabelFacts | None:
    """Return the facts of the labels in a store, or None if there are none that can be read."""
    try:
        return open_labels(store)[1]
    except OutputError:
        return None


def _of_labels(store: ScoreStore, height: int, width: int) -> tuple[list[Area], Labels] | None:
    """Return areas and picture of the labels in a store, or None if they cannot be read."""
    try:
        return areas(store), labels_like(store, height, width)
    except OutputError:
        return None


def _of_scores(store: ScoreStore, thresholds: ThresholdSettings, height: int, width: int) -> tuple[list[Area], Labels]:
    """Return areas and picture of the labels at these thresholds, for which all scores are read."""
    summary = LabelSummary(store, height, width)
    for block in label_blocks(store, thresholds):
        summary.add(*block)
    return summary.areas, summary.picture


def _says(written: LabelFacts, store: ScoreStore, thresholds: ThresholdSettings, done: int) -> bool:
    """Return whether the labels in a store are those of its present scores and regions at these thresholds."""
    same = written.thresholds.of_classes(store.taxonomy.names) == thresholds
    return same and not written.refined and written.done == done and written.regions == store.regions.identity
