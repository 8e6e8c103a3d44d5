"""The tiles that are suggested for labels, shown one after another, whichever slides of the project they are on."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.project import SkippedTiles
from napari_pbip.results.places import result_folder
from napari_pbip.slides import Position, SlideFacts, TileSize

if TYPE_CHECKING:
    from napari_pbip.engine.training.suggest import Searched, Suggester
    from napari_pbip.gui.state.session import Session

# torch takes seconds to import, so modules that need it are imported in the threads of jobs

_AT_ONCE = 10
"""Number of tiles that are suggested at once; the next ones depend on the answers."""


class Suggestions:
    """The suggested tiles of a session, of which the first one without an answer is in view.

    An answer is a label, however it is given, or that the tile was skipped. Therefore undoing an answer goes back.

    Attributes
    ----------
    problem
        Why there are no suggestions, or why the tile cannot be shown; or None.
    """

    changed = Signal()
    """Emitted when another tile is asked for, or :attr:`problem` has changed."""
    searching = Signal(RunningJob)
    """Emitted with the job that looks for tiles."""
    skipped_changed = Signal()
    """Emitted when a tile was skipped, or is no longer."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self.problem: PbipError | None = None
        self._tiles: tuple[tuple[SlideFacts, Position], ...] = ()
        self._size: TileSize | None = None
        self._skipped: set[tuple[str, TileSize, Position]] = set()
        self._held: tuple[SlideFacts, Position] | None = None
        self._shown: tuple[SlideFacts, Position] | None = None
        self._suggester: tuple[object, Suggester] | None = None
        self._job: RunningJob | None = None
        session.labelling.changed.connect(self._on_labels)
        session.folder_changed.connect(self.end)

    @property
    def skipped(self) -> tuple[SkippedTiles, ...]:
        """The tiles that were skipped and are not suggested again, which the project remembers."""
        places: dict[tuple[str, TileSize], list[Position]] = {}
        for slide, size, position in self._skipped:
            places.setdefault((slide, size), []).append(position)
        found = (SkippedTiles(slide=one, size=size, positions=tuple(sorted(at))) for (one, size), at in places.items())
        return tuple(sorted(found, key=lambda one: (one.slide, one.size.pixels, one.size.mpp)))

    @skipped.setter
    def skipped(self, skipped: Sequence[SkippedTiles]) -> None:
        self._skipped = {(one.slide, one.size, position) for one in skipped for position in one.positions}

    @property
    def tile(self) -> tuple[SlideFacts, Position] | None:
        """The tile that is asked for: its slide and its position; or None."""
        if self._size != self._session.labelling.labels.size:
            return None
        return self._held or next((tile for tile in self._tiles if not self._answered(*tile)), None)

    @property
    def progress(self) -> tuple[int, int]:
        """The number of the tile that is asked for, from 1, and that of all tiles; one more if none is left."""
        place = len(self._tiles) if self.tile is None else self._tiles.index(self.tile)
        return place + 1, len(self._tiles)

    def ask(self) -> None:
        """Look for tiles, in a thread, and show the first one."""
        if self._job is not None:
            return
        session, labelled = self._session, self._session.labelling.labels.snapshot()
        settings, folder = session.settings, session.folder
        encoder = settings.bank.encoder, settings.bank.weights, settings.train.device
        present = None if session.labelling.slide is None else session.labelling.slide.slide.path
        places = [
            (
                slide.path,
                slide.mpp,
                result_folder(session.results_folder, slide.name, slide.identity),
                frozenset(p for one, size, p in self._skipped if (one, size) == (slide.identity, labelled.size)),
            )
            for slide in sorted(session.project.slides, key=lambda slide: slide.path != present)
            if slide not in session.project.missing
        ]

        def make() -> Job:
            from napari_pbip.engine.training.suggest import Searched, Suggester, suggest_tiles

            if self._suggester is None or self._suggester[0] != encoder:
                self._suggester = encoder, Suggester(*encoder)
            slides: list[Searched] = [Searched(*place) for place in places]
            return suggest_tiles(self._suggester[1], labelled, slides, _AT_ONCE, settings.segment.tissue)

        def ended(state: State) -> None:
            self._job = None
            if state is State.FINISHED and job.result is not None and folder == session.folder:
                self._tiles, self._size = tuple(job.result.summary["tiles"]), labelled.size
                self._follow()

        self.end()
        self._job = job = session.start(make)
        job.ended.connect(ended)
        self.searching.emit(job)

    def hold(self) -> None:
        """Stay at the present tile although it gets a label, because it may get more."""
        self._held = self.tile

    def go_on(self) -> None:
        """Leave the present tile if it has a label, or if none is held."""
        self._held = None
        self._follow()

    def skip(self) -> None:
        """Go on to the next tile; the present one is not suggested again unless it has a label."""
        if self.tile is not None and not self._answered(*self.tile):
            slide, position = self.tile
            one = slide.identity, self._session.labelling.labels.size, position
            self._skip(one)
            self._session.history.push(
                "skipped tile", lambda: self._skip(one, False), lambda: self._skip(one), about=self._session.labelling
            )
        self.go_on()

    def end(self) -> None:
        """Ask no more."""
        self._tiles, self._held = (), None
        self._follow()

    def _skip(self, tile: tuple[str, TileSize, Position], skipped: bool = True) -> None:
        (self._skipped.add if skipped else self._skipped.discard)(tile)
        self.skipped_changed.emit()
        self._follow()

    def _answered(self, slide: SlideFacts, position: Position) -> bool:
        labels = self._session.labelling.labels
        return position in labels.tiles(slide.identity) or (slide.identity, labels.size, position) in self._skipped

    def _on_labels(self) -> None:
        if self._tiles:
            self._follow()

    def _follow(self) -> None:
        """Bring the tile that is asked for into view, once."""
        tile = self.tile
        if tile != self._shown:
            self._shown, self.problem = tile, None
            if tile is not None:
                try:
                    self._session.places.show_square(*tile)
                except PbipError as error:
                    self.problem = error
        self.changed.emit()
