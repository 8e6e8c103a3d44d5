"""The state of the trainings of a project: the models on disk, and the running training."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank.bank_folder import FACTS as BANK
from napari_pbip.config import JobSettings, MethodSettings, TrainSettings
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.run_facts import RunFacts, runs_in
from napari_pbip.engine.training.requirements import starts_from_bank
from napari_pbip.errors import ModelError
from napari_pbip.events import Epoch, Event, Job, Started
from napari_pbip.gui.curves import Curves
from napari_pbip.gui.jobs import RunningJob, State, last

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

# torch takes seconds to import: whatever needs it is imported in the thread that does


class Training:
    """The trainings of a session's project.

    Attributes
    ----------
    models
        Facts of each model on disk by name, or its error, newest first; as of the last :meth:`refresh`.
    backbones, devices
        Available choices, after :meth:`find_choices` has found them.
    job
        The running training, or None.
    run
        Folder of the model being trained, or of the last one that was.
    """

    models_changed = Signal()
    """Emitted when :attr:`models` have been read again."""
    choices_found = Signal()
    """Emitted when :attr:`backbones` and :attr:`devices` are known."""
    changed = Signal()
    """Emitted when a training has started or ended."""
    curves_changed = Signal()
    """Emitted when :attr:`curves` have grown, or another model was selected."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.models: Mapping[str, RunFacts | ModelError] = {}
        self.backbones: tuple[str, ...] = ()
        self.devices: tuple[str, ...] = ()
        self.job: RunningJob | None = None
        self.run: Path | None = None
        self._live = Curves()
        self._earlier: list[Curves] = []
        self._began = 0.0
        self._took: dict[Path, float] = {}
        self._selected: Path | None = None
        self._read = Curves()
        self._reading: RunningJob | None = None
        self._again = False
        session.folder_changed.connect(self._on_folder)

    # what is on disk -----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the models on disk, in a thread; :attr:`models_changed` is emitted when they have been read.

        This also happens when a training starts, is saved or ends, and when another project is opened.
        """
        if self._reading is not None:
            self._again = True
            return
        folder = self._session.models_folder
        self._again = False
        self._reading = self._session.in_thread(lambda: runs_in(folder), self._take)
        self._reading.ended.connect(self._on_read)

    def _on_folder(self) -> None:
        self.models, self._selected, self._read = {}, None, Curves()
        if self.job is None:
            self.run, self._live = None, Curves()
        self.curves_changed.emit()
        self.models_changed.emit()
        self.refresh()

    def _take(self, models: Mapping[str, RunFacts | ModelError]) -> None:
        self.models = models

    def _on_read(self, state: State) -> None:
        self._reading = None
        self.models_changed.emit()
        if self._again and state is not State.CANCELLED:
            self.refresh()

    def find_choices(self) -> None:
        """Find the available choices, once and in a thread; :attr:`choices_found` is emitted when they are known."""
        if self.backbones:
            return

        def find() -> tuple[tuple[str, ...], tuple[str, ...]]:
            from napari_pbip.engine.device import devices
            from napari_pbip.models import backbones

            return tuple(backbones.catalogue()), devices()

        def take(choices: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
            self.backbones, self.devices = choices
            self.choices_found.emit()

        self._session.in_thread(find, take)

    @property
    def selected(self) -> Path | None:
        """Folder of the model whose :attr:`curves` are shown."""
        return self._selected

    @property
    def curves(self) -> Curves:
        """The curves of the selected model."""
        return self._live if self._selected == self.run else self._read

    def select(self, run: Path) -> None:
        """Show the curves of a model; those on disk are read in a thread."""
        if run == self._selected:
            return
        self._selected, self._read = run, Curves()
        self.curves_changed.emit()
        if run == self.run:
            return

        def show(curves: Curves) -> None:
            if self._selected == run:
                self._read = curves
                self.curves_changed.emit()

        self._session.in_thread(lambda: _curves_on_disk(run), show, lambda error: None)  # the list shows the error

    # training ------------------------------------------------------------------------------------------------

    @property
    def free_name(self) -> str:
        """A name that no model has, also while :attr:`models` are being read."""
        folder, models = self._session.models_folder, self.models
        return next(name for n in count(1) if (name := f"model {n}") not in models and not (folder / name).exists())

    def start(self, name: str, method: MethodSettings | None = None, *, replace: bool = False) -> RunningJob:
        """Train a new model with the session's settings.

        Parameters
        ----------
        name
            Of the model.
        method
            Another one than the settings name.
        replace
            Whether an earlier model of that name is deleted.
        """
        settings, out = job_settings(self._session), self._session.models_folder / name
        if method is not None:
            settings = settings.model_copy(update={"method": method})

        def make() -> Job:
            from napari_pbip.engine.training.train import train

            return train(settings, out, overwrite=replace)

        return self._begin(out, Curves(), make)

    def resume(self, name: str, further: TrainSettings | None = None) -> RunningJob:
        """Resume the training of a model, with the settings that it was started with.

        Parameters
        ----------
        name
            The model.
        further
            Settings whose epochs or steps a finished model is trained to.
        """
        out = self._session.models_folder / name

        def make() -> Job:
            from napari_pbip.engine.training.train import train

            settings = RunFacts.read(out).settings
            if further is not None:
                longer = {"epochs": further.epochs, "steps": further.steps}
                settings = settings.model_copy(update={"train": settings.train.model_copy(update=longer)})
            self._earlier.append(_curves_on_disk(out))
            return train(settings, out, resume=True)

        return self._begin(out, self.curves if self._selected == out else Curves(), make)

    def _begin(self, run: Path, curves: Curves, make: JobMaker) -> RunningJob:
        self._began = time.monotonic()
        self._live, self._earlier, self.run, self._selected = curves, [], run, run
        job: RunningJob = self._session.start(make)
        self.job = job
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self.curves_changed.emit()
        self.changed.emit()
        self.refresh()
        return job

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._earlier:
            self._live = self._earlier.pop()
        grew = self._live.add(events)
        if (grew or last(events, Started)) and self._selected == self.run:
            self.curves_changed.emit()
        if last(events, Epoch) or last(events, Started):
            self.refresh()

    def took(self, run: Path) -> float | None:
        """Return the seconds that a training took if it ran to its end in this session, else None."""
        return self._took.get(run)

    def _on_end(self, state: State) -> None:
        self.job = None
        if state is State.FINISHED and self.run is not None:
            self._took[self.run] = time.monotonic() - self._began
        self.changed.emit()
        self.refresh()


def job_settings(session: Session) -> JobSettings:
    """Return the session's settings for a job: with the project's image bank if it exists and no other is named."""
    settings = session.settings
    if settings.bank_folder is None and (session.bank_folder / BANK).exists():
        settings = settings.model_copy(update={"bank_folder": session.bank_folder})
    return settings


def training_encoder(session: Session, settings: JobSettings) -> str:
    """Return the name of the encoder of a training with these :func:`job_settings`.

    It is that of the image bank if the training starts from one, and empty while that is not known.
    """
    bank = session.bank
    if not starts_from_bank(settings) or settings.bank_folder is None:
        return settings.bank.encoder
    return bank.bank.encoder["name"] if bank.bank is not None and settings.bank_folder == bank.folder else ""


def _curves_on_disk(folder: Path) -> Curves:
    from napari_pbip.engine.runs import read_curves

    facts = RunFacts.read(folder)
    return Curves.from_run(read_curves(folder, facts.step), facts.validations)
