"""The job that measures what a viewer shows: the largest scores and the area of each class, from every cell."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.jobs import job
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results.areas import area_rows
from napari_pbip.results.blend import BLOCK
from napari_pbip.results.labels import label_region
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.store import ScoreStore


@job
def measure(store: ScoreStore, counts: LargestScores, thresholds: ThresholdSettings) -> Job:
    """Measure the labels that these thresholds give, without writing anything.

    Parameters
    ----------
    store
        Finished or growing.
    counts
        Of this store; blocks that it has not seen are counted first.
    thresholds
        From scores to labels.

    Yields
    ------
    Event
        ``Started``, a first ``Step`` with the largest score of each class by its name, a ``Step`` a block,
        ``Finished`` with the rows of :func:`~napari_pbip.results.areas.areas` as ``areas``.

    Raises
    ------
    OutputError
        If the store is damaged.
    """
    blocks = np.argwhere(store.written) * BLOCK
    yield Started("Measuring", total=len(blocks), unit="blocks")
    largest = counts.percentile(thresholds.percentile)
    yield Step(0, dict(zip(store.taxonomy.names, largest.tolist(), strict=True)))
    cells = np.zeros(256, np.int64)
    for done, (y, x) in enumerate(blocks, 1):
        labels = label_region(store, thresholds, largest, 0, slice(y, y + BLOCK), slice(x, x + BLOCK))
        cells += np.bincount(labels.ravel(), minlength=256)
        yield Step(done)
    rows = area_rows(store, dict(enumerate(cells.tolist())))
    yield Finished(store.path, {"areas": [asdict(row) for row in rows]})
