"""The slides and results of a project that are opened one after another, in threads, so that the window stays alive."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.gui.layers.results import open_store
from napari_pbip.gui.timers import single_shot
from napari_pbip.project import ProjectSlide
from napari_pbip.results.view import ViewedStore
from napari_pbip.slides import Slide, open_slide

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class OpeningQueue:
    """Opens slides and the stores of results, which are read in a thread, in the order in which they were added."""

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
        self._next = single_shot(0, self._open_next)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def paths(self) -> set[Path]:
        """The paths of the slides and stores that wait."""
        return {one.path if isinstance(one, ProjectSlide) else one for one in self._waiting}

    def add(self, these: Iterable[ProjectSlide | Path]) -> None:
        """Add slides, and stores of results by their paths."""
        self._waiting.extend(these)
        self._next.start()

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
        if isinstance(one, Path):
            if session.results.of_store(one.absolute()) is not None:
                self._advance()
            else:
                session.in_thread(
                    lambda: open_store(one),
                    lambda store: self._take_store(one, store),
                    lambda error: self._take_store(one, error),
                )
        elif session.slides.of_path(one.path) is not None:
            self._advance()
        elif not one.path.exists():
            self.missing.emit(one)
            self._advance()
        else:
            session.in_thread(
                lambda: _read(one), lambda slide: self._take(one, slide), lambda error: self._take(one, error)
            )

    def _take(self, one: ProjectSlide, got: Slide | PbipError) -> None:
        """Take a slide from its thread."""
        expected = bool(self._waiting) and self._waiting[0] is one  # else another project was opened meanwhile
        if isinstance(got, PbipError):
            if expected:
                self.failed.emit(str(got))
        elif expected and self._session.slides.of_path(got.path) is None:
            self._session.slides.add(got)
        else:  # or the user has opened it meanwhile
            got.close()
        if expected:
            self._advance()

    def _take_store(self, one: Path, got: ViewedStore | PbipError) -> None:
        """Take a store from its thread."""
        expected = bool(self._waiting) and self._waiting[0] is one
        if isinstance(got, PbipError):
            if expected:
                self.failed.emit(str(got))
        elif expected and self._session.results.of_store(got.path) is None:
            self._session.results.add(got)
        else:
            got.close()
        if expected:
            self._advance()

    def _advance(self) -> None:
        self._waiting.popleft()
        if self._waiting:
            self._next.start()
        else:
            self.emptied.emit()
        self.advanced.emit()


def _read(slide: ProjectSlide) -> Slide:
    """Open a slide, with the microns per pixel that the user gave; called in a thread.

    Raises
    ------
    SlideError
        If it cannot be opened.
    """
    opened = open_slide(slide.path)
    slide.give_mpp(opened)
    _ = opened.identity  # it is needed on the main thread, and reads the file
    return opened
