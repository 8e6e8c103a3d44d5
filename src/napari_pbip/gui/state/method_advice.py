"""The method that is recommended for the labelled tiles of the project, found in a thread."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank import TileSet, load_tiles
from napari_pbip.config import DataSettings, JobSettings, PbipSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.advice import Advice, advise
from napari_pbip.gui.state.training import job_settings, training_encoder

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class MethodAdvice:
    """Which method suits the tiles that a training would learn from.

    Attributes
    ----------
    advice
        The recommendation, or None while there is none.
    """

    changed = Signal()
    """Emitted when :attr:`advice` has changed."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._tiles: tuple[DataSettings, TileSet, int] | None = None
        self._asked: object = None
        self.advice: Advice | None = None
        session.labelling.tiles_cut.connect(self._forget)
        session.folder_changed.connect(self._forget)

    def _forget(self) -> None:
        self._tiles = self._asked = None

    def find(self) -> None:
        """Find the recommendation for the tiles and settings of now, in a thread."""
        settings = job_settings(self._session)
        models = [one for one in self._session.training.models.values() if isinstance(one, RunFacts) and one.finished]
        titles = self._session.classes.display.titles
        method = settings.method if isinstance(settings.method, PbipSettings) else PbipSettings()
        if encoder := training_encoder(self._session, settings.model_copy(update={"method": method})):
            settings = settings.model_copy(update={"bank": settings.bank.model_copy(update={"encoder": encoder})})
        asked = settings, len(models), titles
        if asked == self._asked:
            return
        self._asked, known = asked, self._tiles
        if settings.data.folder is None:
            self._show(None)
            return

        def work() -> tuple[Advice | None, tuple[DataSettings, TileSet, int]]:
            found = known if known is not None and known[0] == settings.data else _read(settings)
            return _advise(settings, found, models, titles), found

        def then(found: tuple[Advice | None, tuple[DataSettings, TileSet, int]]) -> None:
            if asked == self._asked:
                self._tiles = found[1]
                self._show(found[0])

        self._session.in_thread(work, then, lambda error: self._show(None))  # the training shows the error

    def _show(self, advice: Advice | None) -> None:
        if advice != self.advice:
            self.advice = advice
            self.changed.emit()


def _read(settings: JobSettings) -> tuple[DataSettings, TileSet, int]:
    """Return the training tiles and their side in pixels, with the settings that they were read with."""
    from napari_pbip.engine.training.train import smaller_side  # torch takes seconds to import

    assert settings.data.folder is not None
    tiles = load_tiles(settings.data.folder, "train", settings.data)
    return settings.data, tiles, smaller_side(tiles)


def _advise(
    settings: JobSettings,
    found: tuple[DataSettings, TileSet, int],
    models: list[RunFacts],
    titles: Mapping[str, str],
) -> Advice | None:
    from napari_pbip.engine.training.schedule import planned_steps

    _, tiles, side = found
    return advise(settings, tiles, planned_steps(settings.train, len(tiles)), side, models, titles)
