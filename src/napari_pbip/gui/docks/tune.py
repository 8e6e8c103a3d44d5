"""The dock *Tune*: legend and values of the map, explanations of its places, and thresholds that change it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari.viewer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.write_results import write_results
from napari_pbip.engine.run_facts import MARKER
from napari_pbip.errors import PbipError
from napari_pbip.gui.clicks import on_click
from napari_pbip.gui.connections import listen, while_alive
from napari_pbip.gui.jobs import RunningJob, State, loading
from napari_pbip.gui.keys import Key
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.panels.compare_maps import CompareMaps
from napari_pbip.gui.panels.correct import CorrectPanel
from napari_pbip.gui.panels.display_controls import DisplayControls
from napari_pbip.gui.panels.edit_copy import EditCopy
from napari_pbip.gui.panels.legend import LegendPanel
from napari_pbip.gui.panels.undo import UndoButtons
from napari_pbip.gui.scrolling import scrolling_to
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.why import WhyPanel
from napari_pbip.gui.widgets.words import rich
from napari_pbip.results.areas import NOT_ANALYSED_NAME
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED_NAME

if TYPE_CHECKING:  # it brings torch, which takes seconds to load
    from napari_pbip.engine.inference.explain import Explainer, Explanation

_NOTHING = "No tissue map is open. Segment a slide, or open a result folder here."
_HOVER = "Move over the map to read its scores."


class TuneWidget(QWidget):
    """Widget with the legend of the selected result that explains its places, edits its thresholds, and corrects it."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session_of(viewer)
        self._result: ResultLayer | None = None
        self._explainer: Explainer | None = None  # of the result, with its model loaded, from the first question on
        self._explaining: RunningJob | None = None
        self._asked: tuple[float, float, str] | None = None  # the place to be explained next
        self._open: tuple[float, float, str] | None = None  # the place whose explanation is still wanted
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.open_button = push_button(
            "Open a result…", "Choose the .ome.zarr folder that segmenting a slide has made", self._choose
        )
        self.notice = Notice()
        self.legend = LegendPanel(self._session, in_tune=True)
        self.controls = DisplayControls()
        self.hover = QLabel(_HOVER)
        self.hover.setWordWrap(True)
        self.hover.setToolTip("For each class: 100 % is where the map shows it most clearly, 0 % where nothing does")
        self.reset_button = push_button("Reset", "Back to the default thresholds, with all classes shown", self._reset)
        self.save_button = push_button(
            "Save labels",
            "Write the map as it is now: labels into the result, areas.csv and overlay.png beside it",
            self._save_labels,
        )
        self.compare = CompareMaps(self._session)
        self.edit_copy = EditCopy(viewer, self._session)
        self.correct = CorrectPanel(self._session)
        self.undo = UndoButtons(self._session, self)
        self.bar = JobBar()
        self.bar.hide()
        self.why_button = toggle_button(
            "Why? Click on the map",
            f"While this is pressed, a click on the map shows labelled tiles that are most similar ({Key.WHY.keys})",
            self._toggle_why,
        )
        self.why_button.setObjectName(Key.WHY.name)
        self.why = WhyPanel()
        self.why.hide()
        self._to_why = scrolling_to(self.why)
        self._lay_out()
        results = self._session.results
        listen(
            self,
            (results.selected, self._select),
            (self._session.classes.changed, self._bind),
            (self._session.folder_changed, self.notice.clear),
        )
        self._on_click = on_click(self._explain)
        viewer.mouse_move_callbacks.append(self._on_move)
        self.destroyed.connect(_without(viewer.mouse_move_callbacks, self._on_move))
        self.destroyed.connect(_without(viewer.mouse_drag_callbacks, self._on_click))
        self.destroyed.connect(self._forget)
        self._select(results.current)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.reset_button)
        buttons.addWidget(self.save_button)
        map_and_places = (self.legend, self.hover, self.why_button, self.why)  # to be in sight without scrolling
        layout = scrolling_layout(self)
        for part in (self.edit_copy, self.title, self.open_button, self.notice, *map_and_places, self.controls):
            layout.addWidget(part)
        layout.addLayout(buttons)
        for below in (self.bar, self.correct, self.undo, self.compare):
            layout.addWidget(below)
        layout.addStretch(1)

    # the selected result -------------------------------------------------------------------------------------

    def _select(self, result: ResultLayer | None) -> None:
        if result is self._result and result is not None:
            return
        self._forget()
        self._result = result
        self._explainer = None
        self.title.setText(_NOTHING if result is None else f"<b>{rich(result.title)}</b>")
        self.notice.clear()
        self.hover.setText(_HOVER)
        self.why.ask()
        self.open_button.setVisible(result is None)
        for part in (self.controls, self.reset_button, self.correct, self.hover, self.why_button):
            part.setVisible(result is not None)
        self.save_button.setVisible(result is not None)
        self.why.setVisible(result is not None and self.why_button.isChecked())
        if result is None:
            return
        self.compare.show_result(result)
        self.correct.show_result(result)
        self._bind()
        result.failed.connect(self.notice.error)
        if result.error:
            self.notice.error(result.error)

    def _bind(self) -> None:
        if self._result is not None:
            self.controls.bind(self._result.display, self._result.taxonomy, self._session.classes.title)

    def _forget(self) -> None:
        result, self._result = self._result, None
        self.compare.show_result(None)
        if result is not None:
            result.failed.disconnect(self.notice.error)
            self.controls.unbind()

    def _choose(self) -> None:
        ask_for(
            self,
            "Result (.ome.zarr)",
            Mode.Directory,
            lambda folders: self.open(folders[0]),
            start=self._session.results_folder,
        )

    def open(self, folder: Path) -> None:
        """Open a result and its slide, which are read in threads, or show why they cannot be opened."""
        self.notice.info(f"Opening {folder.name}…")
        self._session.opening.result_with_slide(
            folder, while_alive(self._opened), while_alive(self.notice.error), while_alive(self.notice.warn)
        )

    def _opened(self, result: ResultLayer) -> None:
        self.notice.clear()
        self._select(result)

    # thresholds ----------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        if self._result is not None:
            self._result.display.thresholds = ThresholdSettings()
            self._result.display.hidden = frozenset()

    def _save_labels(self) -> None:
        if self._result is None:
            return
        path, thresholds, refine = self._result.store.path, self._result.thresholds, self._session.settings.refine
        job = self._session.start(lambda: write_results(path, thresholds, refine), reads_maps=True)
        self.notice.clear()
        self.save_button.setEnabled(False)
        self.bar.show()
        self.bar.follow(job)
        job.ended.connect(partial(self._on_saved, path))

    def _on_saved(self, path: Path, state: State) -> None:
        self.save_button.setEnabled(True)
        if state is State.FINISHED:
            self._session.remembered.mark(path, "tuned")
            self.notice.info(f"The map is written: labels in {path.name}, areas.csv and overlay.png in {path.parent}.")

    # the place under the cursor ------------------------------------------------------------------------------

    def _on_move(self, viewer: Any, event: Any) -> None:
        found = None if self._result is None else self._result.value_at(event.position)
        if self._result is None or found is None:
            self.hover.setText(_HOVER)
            return
        label, shares = found
        names = map(self._session.classes.title, self._result.store.taxonomy.names)
        text = f"<b>{rich(self._session.classes.title(self._name(label)))}</b>"
        if label == NOT_ANALYSED:
            text += f" {rich(self._why_not(event.position))}"
        else:
            shown = shares.clip(0).tolist()
            text += " · " + " · ".join(f"{rich(name)} {share:.0%}" for name, share in zip(names, shown, strict=True))
        self.hover.setText(text)

    def _name(self, label: int) -> str:
        names: Sequence[str] = () if self._result is None else self._result.store.taxonomy.names
        if label == NOT_ANALYSED:
            return NOT_ANALYSED_NAME
        return names[label - 1] if label <= len(names) else UNASSIGNED_NAME

    def _why_not(self, position: Sequence[float]) -> str:
        """Return why the regions leave a place out, as a sentence; empty if they do not."""
        return "" if self._result is None else self._result.store.regions.why_not(*_pixel(self._result, position))

    def _toggle_why(self, on: bool) -> None:
        self.why.setVisible(on)
        callbacks = self._viewer.mouse_drag_callbacks
        if on:
            callbacks.append(self._on_click)
        elif self._on_click in callbacks:
            callbacks.remove(self._on_click)

    def _explain(self, position: Sequence[float]) -> None:
        result = self._result
        found = None if result is None else result.value_at(position)
        if result is None or found is None or not self.isVisible():  # on another page a click labels tiles
            return
        if found[0] == NOT_ANALYSED and (reason := self._why_not(position)):
            self._asked = self._open = None
            self.why.tell(f"This place is not analysed. {reason}")
            self._to_why.start()
            return
        self._asked = *_pixel(result, position), self._name(found[0])
        if self._explainer is None:
            self.why.wait(loading(f"the model {result.store.facts.model.run}"))
        else:
            self.why.wait()
        if self._explaining is None or self._explaining.state.ended:
            self._answer()

    def _answer(self) -> None:
        """Start the explanation of the place that was asked for last."""
        result, session, explainer = self._result, self._session, self._explainer
        if result is None or self._asked is None:
            return
        asked, self._asked = self._asked, None
        self._open, (x, y, drawn) = asked, asked
        models, bank = session.models_folder, session.bank_folder

        def work() -> tuple[Explainer, Explanation]:
            from napari_pbip.engine.inference.explain import Explainer

            runs = tuple(marker.parent for marker in models.glob(f"*/{MARKER}"))
            loaded = explainer or Explainer.from_store(result.store.path, runs, (bank,))
            return loaded, loaded.explain(x, y)

        def then(found: tuple[Explainer, Explanation]) -> None:
            if result is self._result:
                self._explainer = found[0]
            if self._asked is not None:
                self._answer()
            elif result is self._result and asked is self._open:
                self.why.show_explanation(found[1], drawn, session.classes.title)
                self._to_why.start()

        def otherwise(error: PbipError) -> None:
            if self._asked is not None:
                self._answer()
            elif result is self._result and asked is self._open:
                self.why.fail(error)

        self._explaining = session.in_thread(work, then, otherwise)


def _pixel(result: ResultLayer, position: Sequence[float]) -> tuple[float, float]:
    """Return a position on the canvas, in micrometres, as level-0 pixels (x, y) of the slide of a result."""
    y, x = (float(p) / result.store.facts.slide.mpp + 0.5 for p in position[-2:])  # 0 is the first pixel's centre
    return x, y


def _without(callbacks: list[Any], callback: object) -> Callable[[], None]:
    """Return a function that removes a callback from a list, if it is still there."""

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove
