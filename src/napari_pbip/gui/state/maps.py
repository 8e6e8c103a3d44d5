"""The maps of the slides of a session's project: which of them are shown and counted, and deleting them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.gui.layers.results import ResultLayer, shows
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.project import ProjectResult, ProjectSlide
from napari_pbip.results.removed_maps import delete_removed, put_back, remove_map
from napari_pbip.wording import Interface

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


@dataclass(eq=False)
class _Deleted:
    """A map that was deleted, and may have been put back."""

    slide: Path
    """Path of the slide."""
    store: Path
    """Path that its score store had."""
    gone: bool = False
    """Whether it is deleted now."""
    open: bool = False
    """Whether it was a layer."""
    counted: bool = False
    """Whether it was the map that is counted."""
    chosen: Path | None = None
    """Score store of the map that was chosen for the slide."""
    display: ProjectResult | None = None
    """How it was shown."""


class Maps:
    """The maps of the slides of a session's project."""

    changed = Signal(str)
    """Emitted with the identity of a slide that has other maps now, or of which another one is shown and counted."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._seen: weakref.WeakSet[ResultLayer] = weakref.WeakSet()
        session.results.changed.connect(self._on_results)
        session.folder_changed.connect(self.delete_for_good)  # what a process left that was killed

    def store_of(self, slide: ProjectSlide) -> Path:
        """Return the path of the score store of the map of a slide that is shown and counted; it need not exist."""
        return slide.store_in(self._session.results_folder)

    def chosen_for(self, path: Path) -> Path | None:
        """Return the score store of the map that was chosen for a slide, or None if it is the first one."""
        slide = self._session.project.of_path(path)
        return None if slide is None else slide.map

    def choose(self, path: Path, store: Path) -> None:
        """Show and count this map of a slide from now on, if the slide is in the project; nothing is opened."""
        slide = self._session.project.of_path(path)
        if slide is not None and self.store_of(slide) != store:
            self._count(slide, store)

    def show(self, stores: Mapping[Path, Path]) -> None:
        """Show and count these maps, by the paths of their slides; those of open slides are opened in a thread."""
        for path, store in stores.items():
            self.choose(path, store)
        self._open(stores)

    def _count(self, slide: ProjectSlide, store: Path | None) -> None:
        """Let a map be the one that is shown and counted; None stands for the first one."""
        counted = slide.model_copy(update={"map": store})
        self._session.project.replace(counted)
        self._hide_others(counted)
        self.changed.emit(slide.identity)

    def _open(self, stores: Mapping[Path, Path]) -> None:
        """Open maps, by the paths of their slides, in a thread: those whose slides are open."""
        slides = self._session.slides
        self._session.project.open([store for path, store in stores.items() if slides.of_path(path) is not None])

    # layers --------------------------------------------------------------------------------------------------

    def _on_results(self) -> None:
        for result in self._session.results:
            if result not in self._seen:
                self._seen.add(result)
                self._arrange(result)

    def _arrange(self, result: ResultLayer) -> None:
        """Show a result that was opened instead of the other maps of its slide, if it is the chosen one."""
        project, identity = self._session.project, result.store.facts.slide.identity
        slide = project.of_path(Path(result.layer.metadata[SLIDE]))
        several = sum(one.store.facts.slide.identity == identity for one in self._session.results) > 1
        if several and slide is not None and (project.opening or result.store.path == self.store_of(slide)):
            self._hide_others(slide)

    def _hide_others(self, slide: ProjectSlide) -> None:
        """Hide the open maps of a slide but the chosen one, if that is open, because they lie at the same place."""
        shown = self._session.results.of_store(self.store_of(slide))
        if shown is not None:
            maps = (one for one in self._session.results if one.store.facts.slide.identity == slide.identity)
            self._session.slides.show_instead(shown.layer, [one.layer for one in maps if one is not shown])

    # deleting ------------------------------------------------------------------------------------------------

    def delete(self, stores: Mapping[Path, Path]) -> None:
        """Delete maps, by the paths of their slides, in a thread; it can be undone until the project is closed.

        Their layers are closed. A map that cannot be deleted, such as one that is being made, stays, and the faults of
        the project say why.
        """
        project = self._session.project
        project.forget_faults()
        if project.claim():
            self._delete([_Deleted(path, store) for path, store in stores.items()], first=True)
        else:
            project.tell("This project is open in another window; delete maps there, or close that window first.")

    def _delete(self, maps: Sequence[_Deleted], *, first: bool = False) -> None:
        if any(job.reads_maps for job in self._session.jobs):
            self._session.project.tell(
                "No map can be deleted while maps are exported, measured, compared or reported; wait until that is "
                "finished, or stop it."
            )
            return
        maps = [one for one in maps if not one.gone and not self._is_being_made(one)]
        for one in maps:
            slide = self._session.project.of_path(one.slide)
            one.open = self._session.results.of_store(one.store) is not None
            one.counted = slide is not None and self.store_of(slide) == one.store
            self._close_layers(one.store)

        def then(moved: Sequence[_Deleted]) -> None:
            for one in moved:
                self._forget(one)
            self._open({one.slide: one.store for one in maps if one.open and not one.gone})
            if first and moved:
                self._session.history.push(
                    "deletion of a map" if len(moved) == 1 else "deletion of maps",
                    lambda: self._put_back(moved),
                    lambda: self._delete(moved),
                    about=self,
                )

        self._move(maps, then, gone=True)

    def _put_back(self, maps: Sequence[_Deleted]) -> None:
        def then(moved: Sequence[_Deleted]) -> None:
            for one in moved:
                self._recall(one)
            self._open({one.slide: one.store for one in moved if one.open})

        self._move([one for one in maps if one.gone], then, gone=False)

    def _move(self, maps: Sequence[_Deleted], then: Callable[[Sequence[_Deleted]], None], *, gone: bool) -> None:
        """Delete maps, or put them back, in a thread; then call a function with those of which that was possible."""
        folder = self._session.folder

        def work() -> list[PbipError | None]:
            return [_tried(remove_map if gone else put_back, one.store) for one in maps]

        def take(errors: Sequence[PbipError | None]) -> None:
            if folder != self._session.folder:
                return
            for one, error in zip(maps, errors, strict=True):
                if error is None:
                    one.gone = gone
                else:
                    self._tell(one, "deleted" if gone else "put back", error)
            then([one for one in maps if one.gone is gone])

        if maps:
            # in the turn of corrections, which may still be written
            self._session.correcting.turns.add(lambda: work, take, self._session.project.tell)

    def _is_being_made(self, one: _Deleted) -> bool:
        """Return whether a map is being made now, which is told."""
        running = self._session.segmenting.running
        if running is None or running.path != one.slide or running.store not in (None, one.store):
            return False
        self._tell(one, "deleted", "it is being made; stop that in 5 Segment, or wait until it is finished.")
        return True

    def _tell(self, one: _Deleted, done: str, why: object) -> None:
        reason = Interface.WINDOW.sentence(why)
        self._session.project.tell(f"The map of {one.slide.name} was not {done}: {reason}")

    def _close_layers(self, store: Path) -> None:
        layers = self._session.viewer.layers
        for layer in [layer for layer in layers if shows(layer, store)]:
            if layer in layers:  # one may have taken another along
                layers.remove(layer)

    def _forget(self, one: _Deleted) -> None:
        """Let the project have a map no more that was deleted, and show the one that is counted now."""
        project = self._session.project
        one.display = self._session.remembered.forget(one.store)
        if (slide := project.of_path(one.slide)) is None:
            return
        one.chosen = slide.map
        self._count(slide, None if slide.map == one.store else slide.map)
        if one.open and one.counted and (store := self.store_of(slide)).exists():
            self._open({one.slide: store})

    def _recall(self, one: _Deleted) -> None:
        """Let the project have a map again that was put back."""
        project = self._session.project
        if one.display is not None:
            self._session.remembered.recall(one.display)
        if (slide := project.of_path(one.slide)) is not None:
            self._count(slide, one.chosen if one.counted else slide.map)

    def delete_for_good(self, _: object = None) -> None:
        """Delete the deleted maps of the present project for good, in a thread, because it is opened or left."""
        session, results = self._session, self._session.results_folder
        if session.project.claimed:
            # after what is being put back; not as one of the turns, for which other jobs wait
            session.correcting.turns.after(lambda: session.in_thread(lambda: delete_removed(results), lambda _: None))


def _tried(move: Callable[[Path], None], store: Path) -> PbipError | None:
    """Move a map; return why that was not possible, or None."""
    try:
        move(store)
    except PbipError as error:
        return error
    return None
