"""The job that finds what differs between two maps of one slide: of two models, or by two sets of thresholds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.jobs import job
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results.label_files import CorrectedLabels, open_labels
from napari_pbip.results.labels import Labels
from napari_pbip.results.lazy import analysed_blocks, label_blocks
from napari_pbip.results.store import ScoreStore
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME

_LONGEST = 4096
"""Longer side in pixels of the picture of the differences, which is kept in memory."""


@dataclass(frozen=True, slots=True)
class AreaChange:
    """The area of a class in two maps of a slide, in mm² of the tissue that both have analysed."""

    name: str
    before: float
    after: float


@job
def compare_labels(before: Path, after: Path, thresholds: ThresholdSettings) -> Job:
    """Compare the saved labels of a result with the labels of a result of the same slide at some thresholds.

    Classes are the same if their names are. Cells of different sizes are compared at those of ``after``.

    Parameters
    ----------
    before
        Score store with labels.
    after
        Score store; it may be the same one.
    thresholds
        Thresholds by which the scores of ``after`` become labels.

    Yields
    ------
    Event
        ``Finished`` with ``areas``, a list of :class:`AreaChange`; ``changed`` and ``compared``, the areas in mm² that
        have another label and of all cells that both have analysed; and ``picture`` of the cells that have another
        label, uint8 (h, w), with their label in ``after`` and 0 elsewhere, and its ``pixel_um``.

    Raises
    ------
    DataError
        If the results are those of two slides.
    OutputError
        If ``before`` has no labels, or a store is damaged.
    """
    old, new = ScoreStore.open(before), ScoreStore.open(after)
    if old.facts.slide.identity != new.facts.slide.identity:
        raise DataError(
            f"{before.name} is the map of {old.facts.slide.name}, not of {new.facts.slide.name}; choose one of the "
            "same slide."
        )
    saved, names = open_labels(old)[0][0], list(new.taxonomy.names)
    names += [name for name in old.taxonomy.names if name not in names]
    values = np.zeros(256, np.uint8)
    values[UNASSIGNED] = UNASSIGNED
    values[1 : len(old.taxonomy) + 1] = [names.index(name) + 1 for name in old.taxonomy.names]
    height, width = new.scores[0].shape[1:]
    step = -(-max(height, width) // _LONGEST)
    picture = np.zeros((-(-height // step), -(-width // step)), np.uint8)
    counts = np.zeros((256, 256), np.int64)
    yield Started("Comparing", total=len(analysed_blocks(new)), unit="blocks")
    with closing(label_blocks(new, thresholds)) as blocks:
        for done, (top, left, labels) in enumerate(blocks, 1):
            earlier = values[_nearest(saved, labels.shape, (top, left), new.cell_um / old.cell_um)]
            both = (earlier > 0) & (labels > 0)
            pairs = earlier[both].astype(np.intp) * 256 + labels[both]
            counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
            changed = np.where(both & (earlier != labels), labels, 0)[-top % step :: step, -left % step :: step]
            y, x = -(-top // step), -(-left // step)
            picture[y : y + changed.shape[0], x : x + changed.shape[1]] = changed
            yield Step(done)
    mm2 = (new.cell_um / 1000) ** 2
    labelled = [*enumerate(names, 1), (UNASSIGNED, UNASSIGNED_NAME)]
    areas = [AreaChange(name, float(counts[n].sum() * mm2), float(counts[:, n].sum() * mm2)) for n, name in labelled]
    summary = {
        "areas": areas,
        "changed": float((counts.sum() - counts.trace()) * mm2),
        "compared": float(counts.sum() * mm2),
        "picture": picture,
        "pixel_um": step * new.cell_um,
    }
    yield Finished(None, summary)


def _nearest(
    saved: CorrectedLabels, shape: tuple[int, ...], first: tuple[int, int], scale: float
) -> npt.NDArray[np.uint8]:
    """Return the saved label in the middle of each cell of a block of a map with cells ``scale`` times as wide."""
    rows, columns = (
        ((start + np.arange(count) + 0.5) * scale).astype(np.intp) for start, count in zip(first, shape, strict=True)
    )
    inside = rows < saved.shape[0], columns < saved.shape[1]
    found: Labels = np.zeros(shape, np.uint8)
    rows, columns = rows[inside[0]], columns[inside[1]]
    if len(rows) and len(columns):
        part = np.asarray(saved[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        found[np.ix_(*inside)] = part[np.ix_(rows - rows[0], columns - columns[0])]
    return found
