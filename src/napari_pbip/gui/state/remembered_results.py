"""How each result of the project is, or was last, shown, and which steps of the work on it are done."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psygnal import Signal

from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.project import ProjectResult

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class RememberedResults:
    """Remembers results, shows those that are opened again as they were, and undoes thresholds."""

    changed = Signal()
    """Emitted when a result is shown in another way."""
    marked = Signal()
    """Emitted when a step of the work on a result is done, or is to be done again."""
    closed_changed = Signal(frozenset)
    """Emitted with the paths of the stores of results that are not open when their thresholds have changed."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._of_store: dict[Path, ProjectResult] = {}
        self._seen: weakref.WeakSet[ResultLayer] = weakref.WeakSet()
        self._setting = False  # thresholds that need not be recorded as changes
        session.results.changed.connect(self._on_results)

    def __iter__(self) -> Iterator[ProjectResult]:
        """Iterate over the results in the order in which they were first shown."""
        return iter(self._of_store.values())

    @property
    def thresholds(self) -> Mapping[Path, ThresholdSettings]:
        """The thresholds by the path of the store."""
        return {path: result.thresholds for path, result in self._of_store.items()}

    def remember(self, results: Iterable[ProjectResult]) -> None:
        """Take the results of a project that is being opened, instead of those of the last one."""
        self._of_store = {result.path: result for result in results}

    def of_store(self, store: Path) -> ProjectResult | None:
        """Return what is remembered of a result, or None."""
        return self._of_store.get(store)

    def use_thresholds(self, thresholds: ThresholdSettings, maps: Mapping[Path, ThresholdSettings]) -> None:
        """Show and count several maps, open or not, with the same thresholds; one step undoes that for all of them.

        Parameters
        ----------
        thresholds
            The new thresholds.
        maps
            The score stores, each with the thresholds that it was counted with, in case that it was never open.
        """
        new = {store: ProjectResult(path=store, thresholds=counted) for store, counted in maps.items()}
        self._of_store |= {store: result for store, result in new.items() if store not in self._of_store}
        before = {store: self._of_store[store].thresholds for store in maps}
        after = dict.fromkeys(maps, thresholds)
        self._set_thresholds(after)
        self._session.history.push(
            "thresholds of several maps" if len(maps) > 1 else "thresholds",
            partial(self._set_thresholds, before),
            partial(self._set_thresholds, after),
            about=self,
        )

    def mark(self, store: Path, step: Literal["tuned", "exported"]) -> None:
        """Record what was done with a result of the project; those of others are ignored."""
        self._update(store, {step: True})

    def unmark(self, store: Path) -> None:
        """Record that nothing was done with a result, because another one has taken its place."""
        self._update(store, {"tuned": False, "exported": False})

    def _update(self, store: Path, done: Mapping[str, bool]) -> None:
        if (result := self._of_store.get(store)) is not None:
            self._of_store[store] = result.model_copy(update=done)
            self.marked.emit()
            self.changed.emit()

    def forget(self, store: Path) -> ProjectResult | None:
        """Forget a result, and return what was remembered for :meth:`recall`."""
        result = self._of_store.pop(store, None)
        self.changed.emit()
        return result

    def recall(self, result: ProjectResult) -> None:
        """Remember a result again."""
        self._of_store[result.path] = result
        self.changed.emit()

    def _on_results(self) -> None:
        for result in self._session.results:
            if result not in self._seen:
                self._seen.add(result)
                result.layer.metadata[SLIDE] = str(self._session.project.path_of(result.store.facts.slide))
                if (earlier := self._of_store.get(result.store.path)) is not None:
                    result.display.thresholds = earlier.thresholds
                    result.display.hidden, result.display.opacity = earlier.hidden, earlier.opacity
                self._on_display(result)
                result.display.events.connect(partial(self._on_display, result))
                result.display.events.thresholds.connect(partial(self._on_thresholds, result.store.path))

    def _on_display(self, result: ResultLayer, _: object = None) -> None:
        if result not in list(self._session.results):
            return  # it was closed; the display of the last result follows the settings all the same
        display, store = result.display, result.store.path
        known = self._of_store.get(store) or ProjectResult(path=store, thresholds=result.thresholds)
        shown = {"thresholds": result.thresholds, "hidden": display.hidden, "opacity": display.opacity}
        self._of_store[store] = known.model_copy(update=shown)
        self.changed.emit()

    def _on_thresholds(self, store: Path, new: ThresholdSettings, old: ThresholdSettings) -> None:
        if self._setting or self._session.results.of_store(store) is None:
            return
        undo, redo = partial(self._set_thresholds, {store: old}), partial(self._set_thresholds, {store: new})
        self._session.history.push("thresholds", undo, redo, about=store, merge=True)

    def _set_thresholds(self, given: Mapping[Path, ThresholdSettings]) -> None:
        """Set the thresholds of results, open or not, without recording that as a change; deleted ones are left out."""
        closed = []
        self._setting = True
        try:
            for store, thresholds in given.items():
                if (result := self._session.results.of_store(store)) is not None:
                    result.display.thresholds = thresholds
                elif (known := self._of_store.get(store)) is not None:
                    closed.append(store)
                    self._of_store[store] = known.model_copy(update={"thresholds": thresholds})
        finally:
            self._setting = False
        if closed:
            self.changed.emit()
            self.closed_changed.emit(frozenset(closed))
