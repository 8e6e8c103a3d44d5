"""The queue of slides that are segmented one after the other, which outlives the widget that shows it.

If a slide fails, its error is shown and the next slide starts. A result belongs to its slide by the slide's identity,
not to the active layer. A slide that was stopped can be resumed.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.config import JobSettings
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import OtherResult, PbipError, SlideError, UnreadableResult
from napari_pbip.events import Event, Job, RegionDone, Started, Step, Warned
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.layers.slides import SlideLayer, in_view
from napari_pbip.gui.unassigned import why_unassigned
from napari_pbip.project import SlidesToSegment
from napari_pbip.results.areas import Area, of_whole
from napari_pbip.results.places import result_folder, store_for
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.slides import open_slide, slides_in
from napari_pbip.wording import Interface

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

Rectangle = tuple[float, float, float, float]


class Status(Enum):
    """The state of a slide in the queue."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LEFT = "waiting (stopped when the project was closed)"
    """It was not done when the project was closed, and waits until the user resumes it."""
    DONE = "done"
    FAILED = "failed"
    OCCUPIED = "see 5 Segment"
    """There is a result that cannot be resumed; the user may keep it beside the new one, replace it, or mend it."""

    @property
    def active(self) -> bool:
        return self in (Status.WAITING, Status.RUNNING, Status.STOPPING)

    @property
    def resumable(self) -> bool:
        return self in (Status.STOPPED, Status.LEFT)


@dataclass(eq=False)
class QueuedSlide:
    """A slide of the queue and its progress."""

    path: Path
    run: Path
    """Folder of the model."""
    settings: JobSettings
    """All settings at the time when the slide was queued."""
    results: Path
    """The project's folder of results at that time."""
    status: Status = Status.WAITING
    sentence: str = ""
    """Sentence for the user: an error or warnings."""
    error: PbipError | None = None
    done: int = 0
    """Number of finished tiles."""
    total: int = 0
    store: Path | None = None
    """Path of the score store, or None while unknown."""
    tissue_mm2: float = 0.0
    advice: str = ""
    """Why most of the finished map is not assigned, and what to change, as sentences; empty if it is not so."""
    view: Rectangle | None = None
    """Rectangle in view in level-0 pixels; written by the window, read by the job."""
    overwrite: bool = False
    """Whether the earlier map is replaced."""
    beside: bool = False
    """Whether the map is made beside those by other models or with other settings."""
    earlier: str = ""
    """Title of the map that was found in the place of this one."""
    job: RunningJob | None = None
    """The job that segments it now, or did last."""
    warnings: list[str] = field(default_factory=list)
    _first: int = 0
    _since: float = 0.0
    _shown: bool = False
    _opening: bool = False
    _missed: list[RegionDone] = field(default_factory=list)

    @property
    def can_keep_both(self) -> bool:
        """Whether there is a map by another model or with other settings, which can be kept beside the new one."""
        other = isinstance(self.error, OtherResult) and self.error.what in ("model", "setting")
        return self.status is Status.OCCUPIED and other

    @property
    def rate(self) -> float:
        """Tiles per second since the job started, or 0 while unknown."""
        took = time.monotonic() - self._since
        return (self.done - self._first) / took if took > 1 and self._since else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds to the end, or None while unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


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
        for slide in self.slides:
            slide._opening = False

    def close(self) -> None:
        """Start no further slide."""
        self._closed = True

    def show(self, slide: QueuedSlide) -> None:
        """Bring a slide and its result into view, which are read in threads; an error becomes the slide's sentence."""

        def then(_: SlideLayer) -> None:
            if slide.store is not None and slide.store.exists():
                slide._shown = True
                self._choose(slide)
                self._open_result(slide)

        def otherwise(error: PbipError) -> None:
            slide.sentence = str(error)
            self.updated.emit(slide)

        self._session.opening.slide(slide.path, then, otherwise)

    # the running one -----------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if self._closed or self._running is not None:
            return
        slide = next((one for one in self.slides if one.status is Status.WAITING), None)
        if slide is None:
            return
        slide.sentence, slide.error, slide.warnings, slide.advice = "", None, [], ""
        slide._since, slide._shown = 0.0, False
        if slide.overwrite:
            self._close_result(slide)
        layer = self._layer_of(slide)
        slide.view = None if layer is None else in_view(layer)
        job = self._session.start(self._make(slide))
        slide.job, self._running = job, (slide, job)
        job.followed = True
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self._become(slide, Status.RUNNING)

    def _make(self, slide: QueuedSlide) -> JobMaker:
        """Return the function that makes the job in its thread."""
        settings, overwrite = slide.settings.segment, slide.overwrite
        chosen = self._session.maps.chosen_for(slide.path)
        layer = self._layer_of(slide)
        # a value that was given in the window counts even if it could not be saved beside the slide
        given = layer.slide.mpp if layer is not None and layer.slide.mpp_is_given else None
        given = given or self._session.project.given_mpp(slide.path)

        def make() -> Job:
            from napari_pbip.engine.inference.segment import segment  # brings torch: not on the main thread
            from napari_pbip.engine.inference.segment_slides import folder_of_map, settings_of

            with open_slide(slide.path) as opened:
                if opened.mpp is None and given is None and settings.mpp is None:
                    raise SlideError(
                        f"{slide.path.name} does not say how large its pixels are; open it in Slides, "
                        "give its microns per pixel there, and try again."
                    )
                folder = result_folder(slide.results, opened.name, opened.identity)
                used = settings_of(opened, folder, settings, given)
                maps = SlideMaps.find(folder, opened.name, opened.identity, chosen)
                out = folder_of_map(maps, slide.run, used, slide.settings.refine, beside=slide.beside)
                slide.store = store_for(out, opened.name, opened.identity)
                slide.earlier = maps.titles.get(slide.store, "")
            return segment(
                slide.path,
                slide.run,
                out,
                used,
                slide.settings.thresholds.of_classes(RunFacts.read(slide.run).taxonomy.names),
                refine=slide.settings.refine,
                resume=not overwrite,
                overwrite=overwrite,
                focus=lambda: slide.view,
                scheduler=slide.settings.scheduler,
            )

        return make

    def _on_events(self, events: Sequence[Event]) -> None:
        slide = self.running
        if slide is None:
            return
        for event in events:
            if isinstance(event, Started):
                slide.done = slide._first = event.done
                slide.total = event.total
                slide._since = time.monotonic()
                slide.overwrite = False  # the earlier result has been replaced, and the new one can be resumed
                self._choose(slide)
                self._open_result_if_slide_is_open(slide)
            elif isinstance(event, Step):
                slide.done = event.done
            elif isinstance(event, Warned):
                slide.warnings.append(event.message)
                slide.sentence = " ".join(slide.warnings)
        layer = self._layer_of(slide)
        slide.view = None if layer is None else in_view(layer)
        if regions := [event for event in events if isinstance(event, RegionDone)]:
            result = self._result_of(slide)
            if result is not None:
                result.update(regions)
            elif slide._opening:
                slide._missed += regions
        self.updated.emit(slide)

    def _on_end(self, state: State) -> None:
        if self._running is None:
            return
        (slide, job), self._running = self._running, None
        slide._since = 0.0
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
            slide.sentence = _sentence(slide, job.error)
            self._become(slide, Status.OCCUPIED if other or isinstance(job.error, UnreadableResult) else Status.FAILED)
        self._begin_next()

    def _choose(self, slide: QueuedSlide) -> None:
        """Let the project show and count the map of a slide, unless another project was opened since."""
        if slide.store is not None and slide.results == self._session.results_folder:
            self._session.maps.choose(slide.path, slide.store)

    def _become(self, slide: QueuedSlide, status: Status) -> None:
        slide.status = status
        self.updated.emit(slide)

    # layers --------------------------------------------------------------------------------------------------

    def _layer_of(self, slide: QueuedSlide) -> SlideLayer | None:
        layer: SlideLayer | None = self._session.slides.of_path(slide.path)
        return layer

    def _result_of(self, slide: QueuedSlide) -> ResultLayer | None:
        result: ResultLayer | None = self._session.results.of_store(slide.store)
        return result

    def _on_slides(self) -> None:
        if not self._closed and self.running is not None and self.running.total:
            self._open_result_if_slide_is_open(self.running)

    def _open_result_if_slide_is_open(self, slide: QueuedSlide) -> None:
        """Open the result once, so that a layer that the user has removed is not added again."""
        if self._layer_of(slide) is not None and not slide._shown:
            slide._shown = True
            self._open_result(slide)

    def _open_result(self, slide: QueuedSlide) -> None:
        """Open the result of a slide, which is read in a thread."""
        store = slide.store
        if store is None or slide._opening:
            return
        slide._opening, slide._missed = True, []

        def then(result: ResultLayer) -> None:
            slide._opening = False
            layer = self._layer_of(slide)
            if layer is not None and not layer.layer.visible:
                self._session.slides.put_away(result.layer)  # all slides lie at the same place
            if slide._missed:  # they were written while the store was read
                result.update(slide._missed)

        def otherwise(error: PbipError) -> None:
            slide._opening, slide.sentence = False, str(error)
            self.updated.emit(slide)

        self._session.opening.result(store, then, otherwise, slide.settings.thresholds, select=False)

    def _close_result(self, slide: QueuedSlide) -> None:
        """Close the layer of a result that is about to be replaced."""
        result = self._result_of(slide)
        if result is not None:
            self._session.viewer.layers.remove(result.layer)


def _sentence(slide: QueuedSlide, error: PbipError | None) -> str:
    """What went wrong; of a result that exists already, with what the buttons of its row do."""
    if isinstance(error, UnreadableResult):
        return f"There is a result already, but {error.reason}; replace it, or restore it and try again."
    if not isinstance(error, OtherResult):
        return str(error)
    if error.what == "slide":
        return "Its results folder holds another slide; move that away, or choose another project folder."
    if error.what == "model":
        return (
            f"There is a map already, made with another model, “{slide.earlier}”; keep both, replace that one, or "
            "remove this row."
        )
    if error.what == "setting":
        return Interface.WINDOW.sentence(
            f"There is a map already, made by this model with other settings ({error.difference}); keep both, replace "
            "that one, or remove this row."
        )
    return (
        "There is a map already, made by this model when the slide had other microns per pixel; replace it, or remove "
        "this row to keep it."
    )
