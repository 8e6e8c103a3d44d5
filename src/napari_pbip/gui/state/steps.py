"""The steps of the work in their order: which of them are done, and which one the workflow panel shows."""

from __future__ import annotations

import weakref
from enum import Enum
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank.features import FeatureFile
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.state.queued_slide import Status

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class Step(Enum):
    """A step of the work; its value is the name of its dock in the menu."""

    PROJECT = "Project"
    SLIDES = "1 Slides"
    LABEL_TILES = "2 Label tiles"
    BANK = "3 Image bank"
    TRAIN = "4 Train"
    SEGMENT = "5 Segment"
    TUNE = "6 Tune"
    EVALUATE = "Evaluate and export"


class Steps:
    """The steps of a session's work.

    Attributes
    ----------
    done
        The steps that are done. The project is a place to return to, and never done; segmenting and what follows count
        for the current slide.
    """

    changed = Signal()
    """Emitted when a step was done or is no longer done."""
    moved = Signal(Step)
    """Emitted with the step that the workflow panel shows from now on."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._shown = Step.SLIDES
        self.done: frozenset[Step] = frozenset()
        for signal in (
            session.slides.changed,
            session.slide_selected,
            session.settings_changed,
            session.folder_changed,
            session.bank.changed,
            session.training.models_changed,
            session.segmenting.changed,
            session.segmenting.updated,
            session.results.changed,
            session.results.selected,
            session.remembered.marked,
        ):
            signal.connect(self._check)

    @property
    def shown(self) -> Step:
        """The step that the workflow panel shows, or will show when it is opened again."""
        return self._shown

    @shown.setter
    def shown(self, step: Step) -> None:
        if step is not self._shown:
            self._shown = step
            self.moved.emit(step)

    def show(self, name: str) -> None:
        """Let the workflow panel show the step with this name in the file of a project; other names are ignored."""
        self.shown = Step.__members__.get(name.upper(), self.shown)

    def following(self, step: Step) -> Step | None:
        """Return the step to go on with after this one, or None after the last.

        A slide that is opened in a project with tiles, bank or model goes on where the project is; thresholds need a
        map first.
        """
        if step is Step.TUNE and Step.SEGMENT not in self.done:
            return Step.SEGMENT
        order = list(Step)
        place = order.index(step)
        if step is Step.SLIDES:
            reached = max((order.index(one) for one in self.done), default=place)
            place = min(max(place, reached), len(order) - 2)
        return order[place + 1] if place + 1 < len(order) else None

    def _check(self, _: object = None) -> None:
        done = frozenset(step for step, fulfilled in self._conditions().items() if fulfilled)
        if done != self.done:
            self.done = done
            self.changed.emit()

    def _conditions(self) -> dict[Step, bool]:
        session, result = self._session, self._result()
        models = session.training.models.values()
        known = None if result is None else session.remembered.of_store(result.store.path)
        return {
            Step.SLIDES: len(session.slides) > 0,
            Step.LABEL_TILES: session.settings.data.folder is not None,
            Step.BANK: FeatureFile.exists(session.bank_folder),
            Step.TRAIN: any(isinstance(facts, RunFacts) and facts.finished for facts in models),
            Step.SEGMENT: result is not None,
            Step.TUNE: known is not None and known.tuned,
            Step.EVALUATE: known is not None and known.exported,
        }

    def _result(self) -> ResultLayer | None:
        """Return the result of the current slide, or None while it is being segmented or was stopped."""
        result: ResultLayer | None = self._session.results.current
        for slide in self._session.segmenting.slides:
            whole = slide.status in (Status.DONE, Status.OCCUPIED)  # in the second case, by another model
            if result is not None and slide.store == result.store.path and not whole:
                return None
        return result
