"""The slides and results of a project, which are opened one after another."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.errors import MissingSlide, PbipError
from napari_pbip.gui.timers import single_shot
from napari_pbip.project import ProjectSlide

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class OpeningQueue:
    """Opens slides and the stores of results of a project, each when those added before it are there."""

    missing = Signal(ProjectSlide)
    """Emitted with a slide that is not where it was."""
    failed = Signal(str)
    """Emitted with a sentence when a slide or a result cannot be opened."""
    advanced = Signal()
    """Emitted when one has been opened, or cannot be."""
    emptied = Signal()
    """Emitted when that was the last one, before :attr:`advanced`."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._waiting: deque[ProjectSlide | Path] = deque()
        self._to_show: tuple[ProjectSlide | Path, ...] = ()
        self._next = single_shot(0, self._open_next)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def paths(self) -> set[Path]:
        """The paths of the slides and stores that wait."""
        return {one.path if isinstance(one, ProjectSlide) else one for one in self._waiting}

    def add(self, these: Iterable[ProjectSlide | Path]) -> None:
        """Add slides, and stores of results by their paths."""
        idle = not self._waiting
        self._waiting.extend(these)
        if idle:
            self._next.start()

    def show(self, slide: ProjectSlide, store: Path | None) -> None:
        """Add a slide that is to be shown, and its result, instead of the last one if that has not begun to open."""
        self.show_none()
        mine = slide.model_copy()  # the slide itself may wait for another reason, too
        self._to_show = (mine,) if store is None else (mine, store)
        self.add(self._to_show)

    def show_none(self) -> None:
        """Do not open the slide that was to be shown last, if that has not begun to open."""
        if self._waiting and not any(self._waiting[0] is one for one in self._to_show):
            self._waiting = deque(one for one in self._waiting if not any(one is other for other in self._to_show))

    def clear(self) -> None:
        """Open none of those that wait."""
        self._waiting.clear()
        self.stop()

    def stop(self) -> None:
        """Open no more, but keep those that wait."""
        self._next.stop()

    def _open_next(self) -> None:
        if not self._waiting:
            return
        one, session = self._waiting[0], self._session
        then, otherwise = partial(self._advance, one), partial(self._fail, one)
        if isinstance(one, Path):
            session.opening.result(one, then, otherwise)
        elif session.slides.of_path(one.path) is not None:  # it is brought into view when it is the current one
            self._advance(one)
        else:
            session.opening.slide(one.path, then, otherwise)

    def _fail(self, one: ProjectSlide | Path, error: PbipError) -> None:
        if self._expects(one):
            if isinstance(error, MissingSlide) and isinstance(one, ProjectSlide):
                self.missing.emit(one)
            else:
                self.failed.emit(str(error))
            self._advance(one)

    def _advance(self, one: ProjectSlide | Path, _: object = None) -> None:
        if self._expects(one):
            self._waiting.popleft()
            if self._waiting:
                self._next.start()
            else:
                self.emptied.emit()
            self.advanced.emit()

    def _expects(self, one: ProjectSlide | Path) -> bool:
        """Return whether it is the turn of this one; it is not if another project was opened meanwhile."""
        return bool(self._waiting) and self._waiting[0] is one
