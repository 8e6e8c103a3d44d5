"""The state of the encoders on this machine: which weights exist, and which are being fetched."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.models.encoders import EncoderSpec, catalogue, find_weights

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class Encoders:
    """The encoders whose weights are on this machine.

    Attributes
    ----------
    places
        Path of the weights of each encoder in the catalogue, None if they are not on this machine; as of the last
        :meth:`refresh`, and empty before it.
    job
        The running download, or None.
    """

    found = Signal()
    """Emitted when :attr:`places` are known."""
    fetching = Signal(RunningJob)
    """Emitted when a download has started."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self._search: RunningJob | None = None
        self.places: Mapping[str, Path | None] = {}
        self.job: RunningJob | None = None

    def refresh(self) -> None:
        """Find the weights on this machine, in a thread; :attr:`found` is emitted when they are known."""
        if self._search is None or self._search.state.ended:
            self._search = self._session.in_thread(_find, self._take)

    def _take(self, places: Mapping[str, Path | None]) -> None:
        self.places = places
        self.found.emit()

    def lacks_weights(self, spec: EncoderSpec) -> bool:
        """Return whether the weights of an encoder are missing; False while it is not known."""
        return spec.needs_weights and spec.name in self.places and self.places[spec.name] is None

    def fetch(self, name: str) -> RunningJob:
        """Fetch the weights of an encoder; to be called only after the user has agreed."""

        def make() -> Job:
            from napari_pbip.engine.fetch_weights import fetch_weights

            return fetch_weights(name)

        job: RunningJob = self._session.start(make)
        self.job = job
        job.ended.connect(self._on_end)
        self.fetching.emit(job)
        return job

    def _on_end(self, state: State) -> None:
        self.job = None
        if state is State.FINISHED:
            self.refresh()


def _find() -> Mapping[str, Path | None]:
    return {name: find_weights(spec) for name, spec in catalogue().items() if spec.needs_weights}
