"""The corrections of a result by hand: painted in a layer over the map, and saved a moment after each stroke.

The session owns it, so that corrections outlive the widget.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.gui.layers.corrections import CorrectionLayer
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.state.turns import Turns
from napari_pbip.gui.timers import single_shot
from napari_pbip.results import ScoreStore, label_region
from napari_pbip.results.corrections import Cells, CorrectionEditor, Corrections, Rectangle, TakenBack
from napari_pbip.results.patch import patch_at
from napari_pbip.taxonomy import NOT_ANALYSED

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_SETTLE_MS = 400
"""Milliseconds without a change after which corrections are saved."""


class Correcting:
    """The result that is being corrected, one at a time.

    Attributes
    ----------
    result
        The result that is being corrected, or None.
    opening
        The result whose corrections are being read, to be corrected then, or None.
    problem
        Why corrections could not be read or saved, or None.
    turns
        The turns of whatever reads or changes corrections on disk, one after another.
    """

    changed = Signal()
    """Emitted when correcting begins, has begun or ended, another label is chosen, and corrections are saved or taken
    back."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self.result: ResultLayer | None = None
        self.opening: ResultLayer | None = None
        self.problem: PbipError | None = None
        self._shown: CorrectionLayer | None = None
        self._editor: CorrectionEditor | None = None
        self.turns = Turns(session)
        self.turns.busy_changed.connect(self._on_busy)
        self._quiet = single_shot(_SETTLE_MS, self._save)
        session.viewer.layers.events.removed.connect(self._on_removed)
        session.results.changed.connect(self._on_results)
        session.history.moving.connect(self._save)
        session.classes.changed.connect(self._show_classes)

    @property
    def layer(self) -> Any:
        """The layer of labels in which the user paints, or None."""
        return None if self._shown is None else self._shown.layer

    @property
    def saved(self) -> bool:
        """Whether what was painted, undone or taken back is on disk."""
        return not self._quiet.isActive() and not self.turns.busy

    def begin(self, result: ResultLayer, who: str = "") -> None:
        """Show the layer of the corrections of a result, in which the user can paint, once a thread has read them.

        Parameters
        ----------
        result
            The result.
        who
            Name of the person who corrects, if it was given.
        """
        self.end()
        corrections = result.store.corrections

        def make() -> Callable[[], CorrectionEditor] | None:
            if self.opening is not result:
                return None
            return lambda: CorrectionEditor(corrections, who)

        def then(editor: CorrectionEditor) -> None:
            if self.opening is result:
                self._begin(result, editor)
            else:  # the user wants something else by now
                editor.close()

        def otherwise(error: PbipError) -> None:
            if self.opening is result:
                self.opening, self.problem = None, error
                self.changed.emit()

        def ask() -> None:
            if self.result is None:  # else what was painted is not saved
                self.problem, self.opening = None, result
                self.turns.add(make, then, otherwise)
                self.changed.emit()

        self.turns.after(ask)

    def _begin(self, result: ResultLayer, editor: CorrectionEditor) -> None:
        self.opening, self.result, self._editor = None, result, editor
        self._shown = CorrectionLayer(
            self._session.viewer, result, self._on_painted, self._fill, self._session.classes.title
        )
        self._shown.layer.events.selected_label.connect(self._on_paint)
        self.changed.emit()

    def _show_classes(self) -> None:
        if self._shown is not None:
            self._shown.show_classes(self._session.classes.title)

    def end(self) -> None:
        """Save what was painted last, and remove the layer; it stays if that cannot be saved."""
        if self.opening is not None:
            self.opening = None
            self.changed.emit()

        def close() -> None:
            if self._save():
                self.close()

        self.turns.after(close)

    def close(self) -> None:
        """Remove the layer even if what was painted last cannot be saved."""
        self.opening = None
        self._save()
        result, shown, editor = self.result, self._shown, self._editor
        if result is None or shown is None or editor is None:
            return
        self.result = self._shown = self._editor = None
        shown.close()
        shown.layer.events.selected_label.disconnect(self._on_paint)
        try:
            editor.close()
        except PbipError as error:
            self.problem = error
        layers = self._session.viewer.layers
        if shown.layer in layers:
            layers.remove(shown.layer)
        if result.layer in layers:
            layers.selection.active = result.layer
        self.changed.emit()

    def flush(self) -> None:
        """Save what was painted since the last time, and wait until what is undone or taken back is on disk."""
        if self.opening is None:
            self.turns.wait()
        self._save()

    def _save(self) -> bool:
        """Save what was painted since the last time; return False if it cannot be saved."""
        self._quiet.stop()
        if self.result is None or self._editor is None or self.turns.busy:  # then nobody can paint
            return True
        corrections, path = self.result.store.corrections, self.result.store.path
        try:
            saved = self._editor.save()
        except PbipError as error:
            self.problem = error
            self.changed.emit()
            return False
        if saved is not None:
            changed, before = saved
            assert corrections.cells is not None
            self.problem = None
            sitting = corrections.sittings[-1].who, len(corrections.sittings)
            undo = partial(self._restore, path, changed, before, sitting)
            redo = partial(self._restore, path, changed, corrections.cells[changed].copy(), sitting)
            self._session.history.push("corrections", undo, redo, about=self)
            self._show(path)
        return True

    def take_back(self, result: ResultLayer) -> None:
        """Take back the newest sitting of a result as a whole, in a thread; this can be undone."""
        path = result.store.path
        taken: list[TakenBack] = []

        def take(_: Corrections, editor: CorrectionEditor) -> None:
            taken[:] = [editor.take_back()]

        def put(_: Corrections, editor: CorrectionEditor) -> None:
            editor.put_back(taken[0])

        def record() -> None:
            self._session.history.push(
                "corrections", lambda: self._edit(path, put), lambda: self._edit(path, take), about=self
            )

        self._edit(path, take, done=record)

    def _restore(self, path: Path, changed: Rectangle, values: Cells, sitting: tuple[str, int]) -> None:
        def put(corrections: Corrections, editor: CorrectionEditor) -> None:
            assert corrections.cells is not None
            corrections.cells[changed] = values
            editor.save()

        self._edit(path, put, sitting)

    def _edit(
        self,
        path: Path,
        act: Callable[[Corrections, CorrectionEditor], object],
        sitting: tuple[str, int] = ("", 0),
        done: Callable[[], object] = lambda: None,
    ) -> None:
        """Change the corrections of a result in a thread, whether or not it is shown or being corrected.

        Parameters
        ----------
        path
            Folder of the store.
        act
            Changes the corrections; called in the thread.
        sitting
            Who made a change that is undone or redone, and in which sitting, which is gone on with.
        done
            Called when they are changed.
        """

        def make() -> Callable[[], object]:
            self._save()
            result, editor = self._session.results.of_store(path), self._editor
            if editor is not None and self.result is not None and self.result.store.path == path:
                return partial(act, self.result.store.corrections, editor)

            def work() -> None:
                corrections = ScoreStore.open(path).corrections if result is None else result.store.corrections
                editor = CorrectionEditor(corrections, *sitting)
                try:
                    act(corrections, editor)
                finally:
                    editor.close()

            return work

        def then(_: object) -> None:
            self.problem = None
            done()
            self._show(path)

        def otherwise(error: PbipError) -> None:
            self.problem = error
            self._show(path)

        self.turns.add(make, then, otherwise)

    def _show(self, path: Path) -> None:
        """Draw a result with its present corrections, if it is shown."""
        if (result := self._session.results.of_store(path)) is not None:
            result.renew()
        if self.layer is not None:
            self.layer.refresh()
        self.changed.emit()

    def _on_busy(self, busy: bool) -> None:
        """Let nobody paint what a thread is changing."""
        if self._shown is not None:
            self._shown.hold(busy)

    def _fill(self, row: int, column: int, value: int) -> None:
        """Give the patch of the map at a cell this label; it is found in a thread, because it may be large."""
        result = self.result
        if result is None:
            return
        path, thresholds, largest = result.store.path, result.thresholds, result.view.largest

        def work() -> tuple[Rectangle, Any] | None:
            store = ScoreStore.open(path)

            def read(y: slice, x: slice) -> Cells:
                return label_region(store, thresholds, largest, 0, y, x)

            if read(slice(row, row + 1), slice(column, column + 1)) == NOT_ANALYSED:
                return None
            return patch_at(read, store.facts.score_shape, row, column)

        def then(found: tuple[Rectangle, Any] | None) -> None:
            if found is not None and result is self.result:
                (y, x), patch = found
                rows, columns = np.nonzero(patch)
                self.layer.data_setitem((rows + y.start, columns + x.start), value)

        self._session.in_thread(work, then)

    def _on_painted(self) -> None:
        self._quiet.start()

    def _on_paint(self, event: Any) -> None:
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.turns.after(self.close)

    def _on_results(self) -> None:
        there = list(self._session.results)
        if self.opening is not None and self.opening not in there:
            self.end()
        if self.result is not None and self.result not in there:
            self.turns.after(self.close)
