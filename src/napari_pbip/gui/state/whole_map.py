"""The map of a whole slide from its labelled tiles in one step: a linear probe is trained and segments the slide."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.config import ProbeSettings
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.state.queued_slide import QueuedSlide, Status

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class WholeMap:
    """Maps a whole slide from the labels, by an ordinary training and an entry in the queue of slides.

    Attributes
    ----------
    queued
        The slide in the queue, or None before its model is trained.
    note
        A sentence on the progress, or an empty string.
    problem
        A sentence on why the map cannot be made, or an empty string.
    """

    changed = Signal()
    """Emitted when an attribute has changed."""
    training = Signal(RunningJob)
    """Emitted with the job when the training of the model has started."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.queued: QueuedSlide | None = None
        self.note = self.problem = ""
        self._path: Path | None = None
        session.labelling.cutting.connect(self._on_cutting)
        session.labelling.tiles_cut.connect(self._train)
        session.segmenting.updated.connect(self._on_segmented)

    def start(self) -> None:
        """Start to map the slide that is being labelled."""
        slide = self._session.labelling.slide
        self.queued, self._path = None, None
        if slide is None:
            self._report(problem="No slide is selected; open one, or select its layer.")
        elif self._session.training.job is not None:
            self._report(problem="A model is being trained already; stop it in 4 Train, or wait until it is finished.")
        else:
            self._path = slide.slide.path
            self._report("Cutting the labelled tiles…")
            self._session.labelling.use()

    def _on_cutting(self, job: RunningJob) -> None:
        def ended(state: State) -> None:
            if state is State.FAILED and self._path is not None:
                self._path = None
                self._report()  # the labelling reports the error

        job.ended.connect(ended)

    def _train(self) -> None:
        path, self._path = self._path, None
        if path is None:
            return
        session = self._session
        chosen = session.settings.method
        method = chosen if isinstance(chosen, ProbeSettings) else ProbeSettings()
        run = session.models_folder / session.training.free_name
        job = session.training.start(run.name, method)
        job.ended.connect(lambda state: self._segment(state, path, run))
        self._report()
        self.training.emit(job)

    def _segment(self, state: State, path: Path, run: Path) -> None:
        if state is State.FINISHED:
            queue = self._session.segmenting
            queue.add([path], run)
            self.queued = next(slide for slide in queue.slides if slide.path == path)
            self._on_segmented(self.queued)

    def _on_segmented(self, slide: QueuedSlide) -> None:
        if slide is not self.queued:
            return
        name = slide.path.name
        match slide.status:
            case Status.WAITING:
                self._report(f"{name} waits for its turn in 5 Segment.")
            case Status.RUNNING | Status.STOPPING if slide.total:
                self._session.live_map.on = False  # because its layer would cover the growing map
                self._report(f"{name}: {slide.done:,} of {slide.total:,} tiles. 5 Segment can stop it.")
            case Status.RUNNING | Status.STOPPING:
                self._report(f"{name}: starting…")
            case Status.STOPPED | Status.LEFT:
                self._report(f"{name} was stopped; 5 Segment resumes it.")
            case Status.DONE:
                self._report(f"{name} is mapped by “{slide.run.name}”. Next: 6 Tune.")
            case Status.OCCUPIED:
                self._report(
                    problem=f"{name} has a tissue map already, which was made with another model or other settings."
                )
            case Status.FAILED:
                self._report(problem=slide.sentence)

    def _report(self, note: str = "", problem: str = "") -> None:
        self.note, self.problem = note, problem
        self.changed.emit()
