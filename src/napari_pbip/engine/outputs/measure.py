"""The job that measures the displayed labels: the largest scores and the area of each class, from all cells."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.jobs import job
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.lazy import analysed_blocks, label_blocks
from napari_pbip.results.overlay import LabelSummary
from napari_pbip.results.store import ScoreStore


@job
def measure(store: ScoreStore, counts: LargestScores, thresholds: ThresholdSettings) -> Job:
    """Measure the labels at these thresholds without writing them.

    Parameters
    ----------
    store
        A finished or growing store.
    counts
        Counts of scores of this store; blocks that are not included are counted first.
    thresholds
        Thresholds by which scores become labels.

    Yields
    ------
    Event
        ``Started``; a first ``Step`` with the largest score of each class by name; a ``Step`` per block; ``Finished``
        with the rows of :func:`~napari_pbip.results.areas.areas` as ``areas``.

    Raises
    ------
    OutputError
        If the store is damaged.
    """
    yield Started("Measuring", total=len(analysed_blocks(store)), unit="blocks")
    largest = counts.percentile(thresholds.percentile)
    yield Step(0, dict(zip(store.taxonomy.names, largest.tolist(), strict=True)))
    summary = LabelSummary(store)
    with closing(label_blocks(store, thresholds, largest)) as labels:
        for done, block in enumerate(labels, 1):
            summary.add(*block)
            yield Step(done)
    yield Finished(store.path, {"areas": [asdict(row) for row in summary.areas]})
