"""The state of zero-shot classification: the sentences and the result, which outlive the dialog."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_pbip.bank import find_splits
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.models.encoders import EncoderSpec, catalogue, default_sentence

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class ZeroShot:
    """Zero-shot classification of the session's tiles with the encoder of its settings.

    Attributes
    ----------
    sentences
        The user's sentences by class; other classes have a default sentence.
    splits
        Splits of the data set that can be classified, after :meth:`find_splits` has found them.
    job
        The running classification, or None.
    result
        Summary of the last one (:func:`napari_pbip.engine.banks.zero_shot.zero_shot`), or None.
    """

    changed = Signal()
    """Emitted when sentences, splits or metrics have changed."""
    started = Signal(RunningJob)
    """Emitted when a classification has started."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.sentences: dict[str, str] = {}
        self.splits: tuple[str, ...] = ()
        self.job: RunningJob | None = None
        self.result: Mapping[str, Any] | None = None

    @property
    def encoder(self) -> EncoderSpec | None:
        """The encoder of the settings, or None if its name is unknown."""
        return catalogue().get(self._session.settings.bank.encoder)

    @property
    def with_bank(self) -> bool:
        """Whether the project's image bank was built with that encoder, so that its prototypes can be used."""
        bank = self._session.bank.bank
        return bank is not None and bank.encoder["name"] == self._session.settings.bank.encoder

    @property
    def classes(self) -> Sequence[str]:
        """The classes of the tiles; empty while they are not known."""
        tiles = self._session.bank.tiles
        return () if tiles is None else tiles.taxonomy.names

    def sentence(self, class_name: str) -> str:
        """Return the sentence that describes a class to the text encoder."""
        return self.sentences.get(class_name) or default_sentence(class_name)

    def say(self, class_name: str, sentence: str) -> None:
        """Set the sentence of a class; an empty one restores the default."""
        sentence = sentence.strip()
        self.sentences.pop(class_name, None)
        if sentence and sentence != default_sentence(class_name):
            self.sentences[class_name] = sentence
        self.changed.emit()

    def find_splits(self) -> None:
        """Find the splits of the data set, in a thread."""
        data = self._session.settings.data
        if data.folder is None:
            return
        folder = data.folder

        def take(splits: Sequence[str]) -> None:
            self.splits = tuple(splits)
            self.changed.emit()

        self._session.in_thread(lambda: find_splits(folder, data), take, lambda error: take(()))

    def start(self, split: str | None) -> RunningJob:
        """Classify the tiles of a split, or for None those from which a bank is built."""
        settings, bank = self._session.settings, self._session.bank_folder if self.with_bank else None
        own = {name: text for name, text in self.sentences.items() if name in self.classes}

        def make() -> Job:
            from napari_pbip.engine.banks.zero_shot import zero_shot  # torch takes seconds to load: not in the window

            return zero_shot(
                settings.data,
                encoder=settings.bank.encoder,
                weights=settings.bank.weights,
                bank=bank,
                split=split,
                sentences=own,
                device=settings.train.device,
            )

        job: RunningJob = self._session.start(make)
        self.job = job
        job.ended.connect(self._on_end)
        self.started.emit(job)
        return job

    def _on_end(self, state: State) -> None:
        job, self.job = self.job, None
        if state is State.FINISHED and job is not None and job.result is not None:
            self.result = job.result.summary
        self.changed.emit()
