"""The areas of the classes of a result: estimated at once, and then counted cell by cell in a thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from psygnal import Signal

from napari_pbip.engine.outputs.measure import measure
from napari_pbip.events import Event, Job, Step
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.result_view import ResultView
from napari_pbip.gui.timers import single_shot
from napari_pbip.results import LargestScores, ScoreStore
from napari_pbip.results.areas import Area
from napari_pbip.slides.regions import Regions

_ESTIMATE_MS = 120
_COUNT_MS = 400
"""Milliseconds without a change of thresholds after which every cell is counted."""
_COUNT_GROWING_MS = 3000


class AreaCounts:
    """The areas of the classes of a result.

    Parameters
    ----------
    view
        The view of the result. Its ``largest`` is set when the largest scores have been counted.

    Attributes
    ----------
    rows
        One row per class, then unassigned tissue, then tissue that was not analysed: of all that counts, then of each
        region.
    exact
        Whether every cell was counted; else the areas are estimated from a coarse level.
    """

    changed = Signal()
    """Emitted when the areas have changed."""
    largest_changed = Signal()
    """Emitted when the largest scores are known, so that the view has other labels."""
    counted = Signal()
    """Emitted when all cells have been counted."""
    failed = Signal(str)
    """Emitted with a sentence when scores could not be read."""

    def __init__(self, view: ResultView) -> None:
        self.rows: list[Area] = []
        self.exact = False
        self._view = view
        self._closed = False
        self._largest: tuple[Regions, LargestScores] | None = None
        self._job: RunningJob | None = None
        self._estimate_timer = single_shot(_ESTIMATE_MS, self._estimate)
        self._count_timer = single_shot(_COUNT_MS, self._count)
        self.renew()

    @property
    def begun(self) -> bool:
        """Whether cells have been counted, so that the largest scores are more than estimates of a coarse level."""
        return self._largest is not None

    @property
    def pending(self) -> bool:
        """Whether cells are being counted, or will be in a moment."""
        return self._job is not None or self._count_timer.isActive()

    @property
    def counting(self) -> bool:
        """Whether cells are being counted."""
        return self._job is not None

    def renew(self) -> None:
        """Start again with other thresholds, regions or corrections."""
        self.exact = False
        if not self._estimate_timer.isActive():  # areas follow a slider while it moves
            self._estimate_timer.start()
        if self._job is not None:
            self._job.cancel()
        self._count_timer.start(_COUNT_MS)

    def grow(self) -> None:
        """Count the cells that were written since the last count, too."""
        self._estimate_timer.start()
        if not self._count_timer.isActive():
            self._count_timer.start(_COUNT_GROWING_MS)

    def close(self) -> RunningJob | None:
        """Stop; return the job that is still stopping, or None."""
        self._closed = True
        self._estimate_timer.stop()
        self._count_timer.stop()
        if self._job is not None:
            self._job.cancel()
        return self._job

    def _estimate(self) -> None:
        self._take(self._view.areas(), exact=False)

    def _take(self, rows: list[Area], *, exact: bool) -> None:
        self.rows, self.exact = rows, exact
        self.changed.emit()

    def _count(self) -> None:
        if self._job is not None:
            self._count_timer.start()  # the earlier count is still stopping
            return
        path, regions, thresholds = self._view.store.path, self._view.store.regions, self._view.thresholds

        def make() -> Job:
            store = ScoreStore.open(path)  # with its present corrections
            store.use_regions(regions)
            if self._largest is None or self._largest[0] is not regions:
                self._largest = regions, LargestScores(store)
            yield from measure(store, self._largest[1], thresholds)

        self._job = RunningJob(make)
        self._job.events.connect(self._on_events)
        self._job.ended.connect(self._on_end)

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._closed:  # the job is still stopping, and the view reads no more
            return
        store = self._view.store
        for event in events:
            if isinstance(event, Step) and event.values:
                largest = np.array([event.values[name] for name in store.taxonomy.names], np.float32)
                largest = np.where(largest > 0, largest, store.guess_largest(self._view.thresholds.percentile))
                if not np.array_equal(largest, self._view.largest):
                    self._view.largest = largest
                    self.largest_changed.emit()

    def _on_end(self, state: State) -> None:
        job, self._job = self._job, None
        if self._closed or job is None:
            return
        if state is State.FINISHED and job.result is not None and not self._count_timer.isActive():
            self._estimate_timer.stop()
            self._take([Area(**row) for row in job.result.summary["areas"]], exact=not self._view.store.growing)
            self.counted.emit()
        elif state is State.FAILED and job.error is not None:
            self.failed.emit(str(job.error))
