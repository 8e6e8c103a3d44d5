"""The prototypes of a trained model with the real tiles nearest to each, which are shown like those of a bank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank import ClusterFacts, Curation, ImageBank
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class ModelPrototypes:
    """The result of :func:`napari_pbip.engine.banks.nearest_tiles.nearest_tiles` for a model; the job starts at once.

    Parameters
    ----------
    session
        The session in which the job runs.
    run
        Folder of the model.

    Attributes
    ----------
    job
        The job.
    """

    changed = Signal()
    """Emitted when the prototypes have been read."""
    selection_changed = Signal()
    """Emitted when the selection has changed."""
    one = "prototype"

    def __init__(self, session: Session, run: Path) -> None:
        self.run = run
        self.thumbnails = session.bank.thumbnails
        self.selected: frozenset[str] = frozenset()
        self.curation = Curation()
        self.bank: ImageBank | None = None
        self.clusters: Sequence[ClusterFacts] = ()
        self.folder = run
        device = session.settings.train.device

        def make() -> Job:
            from napari_pbip.engine.banks.nearest_tiles import nearest_tiles  # torch takes seconds to load

            return nearest_tiles(run, device)

        self.job: RunningJob = session.start(make)
        self.job.ended.connect(lambda _: self._read(session))

    def select(self, hashes: Collection[str]) -> None:
        """Select these tiles."""
        self.selected = frozenset(hashes)
        self.selection_changed.emit()

    def _read(self, session: Session) -> None:
        if self.job.result is not None and self.job.result.output is not None:
            self.folder = self.job.result.output
            session.in_thread(lambda: ImageBank.read(self.folder), self._show)

    def _show(self, bank: ImageBank) -> None:
        self.bank, self.clusters = bank, bank.clusters()
        self.changed.emit()
