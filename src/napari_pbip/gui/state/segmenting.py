"""The queue of slides that are segmented one after the other, which outlives the widget that shows it.

If a slide fails, its error is shown and the next slide starts. A result belongs to its slide by the slide's identity,
not to the active layer. A slide that was stopped can be resumed.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.config import JobSettings
from napari_pbip.errors import OtherResult, PbipError, UnreadableResult
from napari_pbip.events import Event, RegionDone, Started, Step, Warned
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.slides import SlideLayer, in_view
from napari_pbip.gui.state.growing_results import GrowingResults
from napari_pbip.gui.state.queued_slide import QueuedSlide, Status, what_failed
from napari_pbip.gui.state.segment_job import segment_job
from napari_pbip.gui.unassigned import why_unassigned
from napari_pbip.project import SlidesToSegment
from napari_pbip.results.areas import Area, of_whole
from napari_pbip.slides import slides_in

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class SegmentQueue:
    """A queue that segments slides one after the other.

    Parameters
    ----------
    session
        The session, whose settings, slides and project folder are used.

    Attributes
    ----------
    run
        Folder of the model that the user has chosen for the next slides.
    slides
        Slides in the order in which they were added, including finished ones; each slide occurs once.
    """

    changed = Signal()
    """Emitted when slides were added or removed, or another model was chosen."""
    updated = Signal(QueuedSlide)
    """Emitted with a slide whose progress or state has changed."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.run: Path | None = None
        self.slides: list[QueuedSlide] = []
        self._running: tuple[QueuedSlide, RunningJob] | None = None
        self._closed = False
        self._results = GrowingResults(session, self._on_not_opened)
        session.slides.changed.connect(self._on_slides)

    @property
    def running(self) -> QueuedSlide | None:
        """The slide that is being segmented."""
        return None if self._running is None else self._running[0]

    def choose(self, run: Path) -> None:
        """Choose the model for the next slides."""
        self.run = run
        self.changed.emit()

    def drop(self, paths: Sequence[Path], run: Path) -> None:
        """Add slides, and all slides directly in folders, which are searched in a thread."""
        folders = [path for path in paths if path.is_dir()]
        settings, results = self._session.settings, self._session.results_folder
        self.add([path for path in paths if path not in folders], run)
        if folders:
            self._session.in_thread(
                lambda: [path for folder in folders for path in slides_in(folder)],
                lambda found: self._add(found, run, settings, results),
            )

    def add(self, paths: Sequence[Path], run: Path) -> None:
        """Queue slides to be segmented with a model and the session's present settings.

        A slide that is in the queue already is queued again, unless it is waiting or running.
        """
        self._add(paths, run, self._session.settings, self._session.results_folder)

    def _add(self, paths: Sequence[Path], run: Path, settings: JobSettings, results: Path) -> None:
        added = []
        for path in dict.fromkeys(Path(path).absolute() for path in paths):
            old = next((one for one in self.slides if one.path == path), None)
            if old is not None:
                if old.status.active:
                    continue
                self.slides.remove(old)
            added.append(QueuedSlide(path, run, settings, results))
        self.slides += added
        self.changed.emit()
        self._begin_next()

    def cancel(self, slide: QueuedSlide) -> None:
        """Stop a running or waiting slide; what is finished is kept."""
        if self._running is not None and self._running[0] is slide:
            self._running[1].cancel()
            self._become(slide, Status.STOPPING)
        elif slide.status is Status.WAITING:
            self._become(slide, Status.STOPPED)

    def resume(self, slide: QueuedSlide) -> None:
        """Resume a slide that was stopped, or try one again that failed, with the scheduler that is chosen now."""
        if not slide.status.active:
            here = {"scheduler": self._session.settings.scheduler}  # the last one may be lost; the result is the same
            slide.settings = slide.settings.model_copy(update=here)
            self._become(slide, Status.WAITING)
            self._begin_next()

    def resume_all(self) -> None:
        """Resume all slides that were stopped, by the user or because the project was closed."""
        for slide in [one for one in self.slides if one.status.resumable]:
            self.resume(slide)

    def replace(self, slide: QueuedSlide) -> None:
        """Segment a slide from the beginning, replacing its earlier result."""
        slide.overwrite = True
        self.resume(slide)

    def keep_both(self, slides: Sequence[QueuedSlide]) -> None:
        """Segment slides of which there are other maps, and keep those beside the new ones."""
        for slide in slides:
            slide.beside, slide.overwrite = True, False
            self.resume(slide)

    def remove(self, slide: QueuedSlide) -> None:
        """Remove a slide from the queue; its result stays on disk."""
        if slide in self.slides and slide is not self.running:
            self.slides.remove(slide)
            self.changed.emit()

    def remove_left(self) -> None:
        """Remove the slides that were not done when the project was closed; their results stay on disk."""
        self.slides = [slide for slide in self.slides if slide.status is not Status.LEFT]
        self.changed.emit()

    def unfinished(self, results: Path) -> tuple[SlidesToSegment, ...]:
        """Return the slides of a project, given by its folder of results, that are not done."""
        slides = [one for one in self.slides if one.results == results and one.status is not Status.DONE]
        return tuple(
            SlidesToSegment(
                slides=tuple(one.path for one in some), model=run, settings=settings, beside=beside, replace=replace
            )
            for (run, settings, beside, replace), some in groupby(
                slides, lambda one: (one.run, one.settings, one.beside, one.overwrite)
            )
        )

    def restore(self, queue: Sequence[SlidesToSegment], results: Path) -> None:
        """Add the slides of a project that were not done when it was closed; none is begun.

        Of other projects, the slides that are waiting or running stay in the queue.

        Parameters
        ----------
        queue
            The slides, as :meth:`unfinished` returned them.
        results
            The project's folder of results.
        """
        kept = [slide for slide in self.slides if slide.status.active or slide.results == results]
        known = {slide.path for slide in kept if slide.results == results}
        left = [
            QueuedSlide(
                path, some.model, some.settings, results, Status.LEFT, overwrite=some.replace, beside=some.beside
            )
            for some in queue
            for path in some.slides
            if path not in known
        ]
        self.slides = [*kept, *left]
        self.changed.emit()

    def move(self, earlier: Path, path: Path) -> None:
        """Record that a slide lies elsewhere now."""
        for slide in self.slides:
            if slide.path == earlier and not slide.status.active:
                slide.path = path
        self.changed.emit()

    def stop(self) -> None:
        """Stop all waiting and running slides."""
        for slide in self.slides:
            self.cancel(slide)

    def stop_opening(self) -> None:
        """Wait for none of the results that are being opened."""
        self._results.stop()

    def close(self) -> None:
        """Start no further slide."""
        self._closed = True

    def show(self, slide: QueuedSlide) -> None:
        """Bring a slide and its result into view, which are read in threads; an error becomes the slide's sentence."""

        def then(_: SlideLayer) -> None:
            if slide.store is not None and slide.store.exists():
                self._choose(slide)
                self._results.open(slide)

        self._session.opening.slide(slide.path, then, partial(self._on_not_opened, slide))

    # the running one -----------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if self._closed or self._running is not None:
            return
        slide = next((one for one in self.slides if one.status is Status.WAITING), None)
        if slide is None:
            return
        slide.sentence, slide.error, slide.warnings, slide.advice = "", None, [], ""
        slide.since = 0.0
        self._results.begin(slide)
        layer = self._layer_of(slide)
        slide.view = None if layer is None else in_view(layer)
        job = self._session.start(segment_job(self._session, slide))
        slide.job, self._running = job, (slide, job)
        job.followed = True
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self._become(slide, Status.RUNNING)

    def _on_events(self, events: Sequence[Event]) -> None:
        slide = self.running
        if slide is None:
            return
        for event in events:
            if isinstance(event, Started):
                slide.done = slide.first = event.done
                slide.total = event.total
                slide.since = time.monotonic()
                if slide.overwrite and slide.store is not None:
                    self._session.remembered.unmark(slide.store)
                slide.overwrite = False  # the earlier result has been replaced, and the new one can be resumed
                self._choose(slide)
                self._results.open_with_slide(slide)
            elif isinstance(event, Step):
                slide.done = event.done
            elif isinstance(event, Warned):
                slide.warnings.append(event.message)
                slide.sentence = " ".join(slide.warnings)
        layer = self._layer_of(slide)
        slide.view = None if layer is None else in_view(layer)
        if regions := [event for event in events if isinstance(event, RegionDone)]:
            self._results.update(slide, regions)
        self.updated.emit(slide)

    def _on_end(self, state: State) -> None:
        if self._running is None:
            return
        (slide, job), self._running = self._running, None
        slide.since = 0.0
        if state is State.FINISHED and job.result is not None:
            slide.done = slide.total
            slide.tissue_mm2 = float(job.result.summary["tissue_mm2"])
            slide.advice = why_unassigned(of_whole(Area(**row) for row in job.result.summary["areas"]))
            self._become(slide, Status.DONE)
            job.end_shown |= any(other.status is Status.WAITING for other in self.slides)  # the last one is announced
        elif state is State.CANCELLED:
            self._become(slide, Status.STOPPED)
        else:
            slide.error = job.error
            other = isinstance(job.error, OtherResult) and job.error.what != "slide"
            slide.sentence = what_failed(slide, job.error)
            self._become(slide, Status.OCCUPIED if other or isinstance(job.error, UnreadableResult) else Status.FAILED)
        self._begin_next()

    def _choose(self, slide: QueuedSlide) -> None:
        """Let the project show and count the map of a slide, unless another project was opened since."""
        if slide.store is not None and slide.results == self._session.results_folder:
            self._session.maps.choose(slide.path, slide.store)

    def _become(self, slide: QueuedSlide, status: Status) -> None:
        slide.status = status
        self.updated.emit(slide)

    def _layer_of(self, slide: QueuedSlide) -> SlideLayer | None:
        layer: SlideLayer | None = self._session.slides.of_path(slide.path)
        return layer

    def _on_slides(self) -> None:
        if not self._closed and self.running is not None and self.running.total:
            self._results.open_with_slide(self.running)

    def _on_not_opened(self, slide: QueuedSlide, error: PbipError) -> None:
        slide.sentence = str(error)
        self.updated.emit(slide)
