"""The trainings of a project: the models on disk, and the one that is being trained. It outlives the widget."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank.image_bank import FACTS as BANK
from napari_pbip.config import JobSettings, TrainSettings
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.run_facts import RunFacts, runs_in
from napari_pbip.errors import ModelError
from napari_pbip.events import Epoch, Event, Finished, Job, Started
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
        The facts of each model on disk by name, newest first, or what is wrong with it; as of the last :meth:`look`.
    backbones, devices
        What there is to choose from, once :meth:`find_choices` has found out.
    job
        The running training, or None.
    run
        Folder of the model being trained, or of the last one that was.
    """

    looked = Signal()
    """:attr:`models` were read again."""
    choices_found = Signal()
    """:attr:`backbones` and :attr:`devices` are known."""
    changed = Signal()
    """A training began or ended."""
    curves_changed = Signal()
    """There is more in :attr:`curves`, or another model was selected."""

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
        self._looking = False
        self._again = False

    # what is on disk -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what models there are, in a thread; :attr:`looked` tells when that is done."""
        if self._looking:
            self._again = True
            return
        self._looking = True
        folder = self._session.models_folder

        found: list[Mapping[str, RunFacts | ModelError]] = []

        def make() -> Job:
            found.append(runs_in(folder))
            yield Finished(folder)

        self._session.start(make).ended.connect(lambda state: self._looked(state, found))

    def _looked(self, state: State, found: Sequence[Mapping[str, RunFacts | ModelError]]) -> None:
        self._looking = False
        if found:
            self.models = found[0]
        self.looked.emit()
        if self._again and state is not State.CANCELLED:
            self._again = False
            self.look()

    def find_choices(self) -> None:
        """Find out what there is to choose from, once, in a thread; :attr:`choices_found` tells when it is known."""
        if self.backbones:
            return
        found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

        def make() -> Job:
            from napari_pbip.engine.device import devices
            from napari_pbip.models import backbones

            found.append((tuple(backbones.catalogue()), devices()))
            yield Finished(None)

        def take(_: State) -> None:
            if found:
                self.backbones, self.devices = found[0]
                self.choices_found.emit()

        self._session.start(make).ended.connect(take)

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
        found: list[Curves] = []

        def make() -> Job:
            found.append(_curves_on_disk(run))
            yield Finished(run)

        def show(_: State) -> None:
            if self._selected == run and found:
                self._read = found[0]
                self.curves_changed.emit()

        self._session.start(make).ended.connect(show)

    # training ------------------------------------------------------------------------------------------------

    def start(self, name: str, *, replace: bool = False) -> RunningJob:
        """Train a new model with the session's settings; ``replace`` deletes an earlier one of that name."""
        settings, out = job_settings(self._session), self._session.models_folder / name

        def make() -> Job:
            from napari_pbip.engine.training.train import train

            return train(settings, out, overwrite=replace)

        return self._begin(out, Curves(), make)

    def resume(self, name: str, further: TrainSettings | None = None) -> RunningJob:
        """Go on with a model, with the settings that it was begun with.

        Parameters
        ----------
        name
            The model.
        further
            Epochs or steps to train a finished model further.
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
        self._session.models_changed.emit()
        return job

    def _on_events(self, events: Sequence[Event]) -> None:
        if self._earlier:
            self._live = self._earlier.pop()
        grew = self._live.add(events)
        if (grew or last(events, Started)) and self._selected == self.run:
            self.curves_changed.emit()
        if last(events, Epoch) or last(events, Started):
            self._session.models_changed.emit()

    def took(self, run: Path) -> float | None:
        """Seconds that a training of this sitting took that ran to its end; None for other models."""
        return self._took.get(run)

    def _on_end(self, state: State) -> None:
        self.job = None
        if state is State.FINISHED and self.run is not None:
            self._took[self.run] = time.monotonic() - self._began
        self.changed.emit()
        self._session.models_changed.emit()


def job_settings(session: Session) -> JobSettings:
    """The session's settings as a job takes them: with the project's image bank, if there is one and no other named."""
    settings = session.settings
    if settings.bank_folder is None and (session.bank_folder / BANK).exists():
        settings = settings.model_copy(update={"bank_folder": session.bank_folder})
    return settings


def _curves_on_disk(folder: Path) -> Curves:
    from napari_pbip.engine.runs import read_curves

    facts = RunFacts.read(folder)
    return Curves.of_run(read_curves(folder, facts.step), facts.validations)
