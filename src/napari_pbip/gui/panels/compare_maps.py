"""The panel that compares the map in view with an earlier one of the same slide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QHeaderView, QMenu, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_pbip.engine.outputs.compare_labels import compare_labels
from napari_pbip.errors import PbipError
from napari_pbip.gui.compat import grid_of
from napari_pbip.gui.connections import listen, while_alive
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.results import MADE_OF, ResultLayer, result_colormap
from napari_pbip.gui.layers.side_by_side import EarlierMap, SideBySide
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.words import caption
from napari_pbip.results.places import slide_folder
from napari_pbip.results.slide_maps import SlideMaps


class CompareMaps(QWidget):
    """Compares the present map of a result with its saved labels, or with those of another result of the slide."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._result: ResultLayer | None = None
        self.saved_button = push_button(
            "What changed?", "Compare the map as it is now with the labels that were saved last", self._with_saved
        )
        self.other_button = push_button(
            "Compare with…",
            "Compare the map with another map of this slide, as of another model",
            self._ask,
        )
        self.beside_button = toggle_button(
            "Side by side",
            "Show the earlier map beside the present one, in two views that move together",
            self._show_beside,
        )
        self.beside_button.hide()
        self.menu = QMenu(self)
        self.bar, self.notice, self.beside_notice = JobBar(), Notice(), Notice()
        self.bar.hide()
        self._before: Path | None = None
        self._before_title = ""
        self._drawn: tuple[str, Path] | None = None
        """Identity of the slide and store of the map whose difference was drawn last."""
        self._beside: SideBySide | None = None
        self._ended = single_shot(0, self._end_if_left)
        events = session.viewer.layers.events
        listen(
            self,
            (session.slide_selected, self._end_soon),
            (session.classes.changed, self._recolour),
            (events.removed, self._end_soon),
            (grid_of(session.viewer).events.enabled, self._end_soon),
        )
        self.destroyed.connect(self._ended.stop)
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["Class", "Before, mm²", "Now, mm²", "Change"])
        self.table.setAccessibleName("Areas before and now")
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        self.table.setTabKeyNavigation(False)
        if (header := self.table.horizontalHeader()) is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        if (vertical := self.table.verticalHeader()) is not None:
            vertical.hide()
        self.table.hide()
        buttons = QHBoxLayout()
        buttons.addWidget(self.saved_button)
        buttons.addWidget(self.other_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for part in (self.bar, self.notice, self.beside_button, self.beside_notice, self.table):
            layout.addWidget(part)

    def show_result(self, result: ResultLayer | None) -> None:
        """Compare this result from now on; None hides the panel."""
        if self._result is not None:
            self._result.display.events.thresholds.disconnect(self._outdate)
        if result is not None:
            result.display.events.thresholds.connect(self._outdate)
        self._result = result
        if result is not None and self._drawn is not None:
            slide, store = self._drawn
            if slide == result.store.facts.slide.identity and store != result.store.path:
                self._hide_difference()  # it would cover another map
        self._leave()
        self.setVisible(result is not None)
        self.notice.clear()
        self.table.hide()

    def _outdate(self) -> None:
        if self.table.isVisible():
            self.notice.warn("The map has changed since; compare again.")

    def _with_saved(self) -> None:
        if self._result is not None:
            self.compare(self._result.store.path)

    def _ask(self) -> None:
        """Offer the other maps of the slide, which are looked for in a thread, and any other folder."""
        result = self._result
        if result is None:
            return
        path, slide = result.store.path, result.store.facts.slide

        def work() -> tuple[Path, dict[Path, str]]:
            return path, SlideMaps.find(slide_folder(path.parent), slide.name, slide.identity, path).others

        self._session.in_thread(work, while_alive(self._offer))

    def _offer(self, found: tuple[Path, dict[Path, str]]) -> None:
        path, others = found
        if self._result is None or self._result.store.path != path:
            return
        if not others:
            self._browse()
            return
        self.menu.clear()
        for store, title in others.items():
            self._add_choice(caption(f"The map by “{title}”"), partial(self.compare, store, title))
        self.menu.addSeparator()
        self._add_choice("Another folder…", self._browse)
        self.menu.popup(self.other_button.mapToGlobal(self.other_button.rect().bottomLeft()))

    def _add_choice(self, text: str, act: Callable[[], object]) -> None:
        if (choice := self.menu.addAction(text)) is not None:
            choice.triggered.connect(lambda: act())  # without the argument that Qt passes

    def _browse(self) -> None:
        start = self._session.results_folder
        ask_for(self, "Result (.ome.zarr)", Mode.Directory, lambda folders: self.compare(folders[0]), start=start)

    def compare(self, before: Path, title: str = "") -> None:
        """Compare the map with the saved labels of a result, and show what differs.

        Parameters
        ----------
        before
            The score store of the result.
        title
            What to call it; by default it is the earlier map.
        """
        result = self._result
        if result is None:
            return
        path, thresholds = result.store.path, result.thresholds
        self._leave()
        job = self._session.start(lambda: compare_labels(before, path, thresholds), reads_maps=True)
        for button in (self.saved_button, self.other_button):
            button.setEnabled(False)
        self.bar.show()
        self.bar.follow(job)
        job.ended.connect(partial(self._on_end, job, result, before, title))

    def _on_end(self, job: RunningJob, result: ResultLayer, before: Path, title: str, state: State) -> None:
        for button in (self.saved_button, self.other_button):
            button.setEnabled(True)
        self.bar.setVisible(state is State.FAILED)
        if job.result is None or result is not self._result:
            return
        found = job.result.summary
        share = found["changed"] / found["compared"] if found["compared"] else 0.0
        than = f" than in the map by “{title}”" if title else ""
        self.notice.info(
            f"{found['changed']:.3g} mm² have another label{than}, {share:.1%} of what both maps have analysed."
        )
        self.table.setHorizontalHeaderLabels(["Class", f"{title or 'Before'}, mm²", "Now, mm²", "Change"])
        self.table.setRowCount(len(found["areas"]))
        for row, area in enumerate(found["areas"]):
            figures = (f"{area.before:.4f}", f"{area.after:.4f}", f"{area.after - area.before:+.4f}")
            for column, text in enumerate((self._session.classes.title(area.name), *figures)):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(row, column, item)
        header, vertical = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and vertical is not None:
            self.table.setFixedHeight(header.sizeHint().height() + vertical.length() + 2 * self.table.frameWidth())
        self.table.show()
        self._draw(result, before, found["picture"], found["pixel_um"])
        self._before, self._before_title = before, title
        self.beside_button.show()

    # side by side --------------------------------------------------------------------------------------------

    def _show_beside(self, on: bool) -> None:
        result, before = self._result, self._before
        if not on or result is None or before is None:
            self._close_beside()
            return

        def then(earlier: EarlierMap) -> None:
            slide = self._session.slides.of_layer(result.layer)
            if not self.beside_button.isChecked() or result is not self._result or self._beside is not None:
                return
            if slide is None:
                self.beside_button.setChecked(False)
                self.beside_notice.error("The slide of these maps is not open; open it in Slides.")
                return
            self._hide_difference()
            result.layer.visible = True
            coloured = self._session.classes.coloured
            self._beside = SideBySide(self._session.viewer, slide, earlier, result.display.opacity, coloured)
            right = f"that by “{self._before_title}”" if self._before_title else "the earlier one"
            self.beside_notice.info(f"Left: the map as it is now. Right: {right}.")

        def otherwise(error: PbipError) -> None:
            self.beside_button.setChecked(False)
            self.beside_notice.error(error)

        self.beside_notice.clear()
        self._session.in_thread(lambda: EarlierMap(before), then, otherwise)

    def _close_beside(self) -> None:
        beside, self._beside = self._beside, None
        self.beside_notice.clear()
        if beside is not None:
            beside.close()

    def _end_soon(self, _: object = None) -> None:
        self._ended.start()

    def _end_if_left(self) -> None:
        """Show one view again if another slide is in view, or the user has ended it with napari's own controls."""
        slide = self._session.current_slide
        other = (
            slide is not None
            and self._result is not None
            and slide is not self._session.slides.of_layer(self._result.layer)
        )
        if self._beside is not None and (other or not self._beside.shown):
            self.beside_button.setChecked(False)

    def _leave(self) -> None:
        """End what was shown of the last comparison."""
        self.beside_button.setChecked(False)
        self.beside_button.hide()
        self._before = None

    def _hide_difference(self) -> None:
        for layer in self._differences():
            layer.visible = False

    def _differences(self) -> list[Any]:
        """Return the layers that show what changed in this result."""
        result = self._result
        return [] if result is None else [one for one in self._session.viewer.layers if one.name == _difference(result)]

    def _recolour(self) -> None:
        if self._result is not None:
            for layer in self._differences():
                layer.colormap = result_colormap(self._result.taxonomy)
        if self._beside is not None:
            self._beside.recolour(self._session.classes.coloured)

    def _draw(self, result: ResultLayer, before: Path, picture: Any, pixel_um: float) -> None:
        """Show the cells that have another label above the map, in the colours of their classes, instead of the map."""
        viewer, slide, name = self._session.viewer, result.store.facts.slide, _difference(result)
        for layer in [layer for layer in viewer.layers if layer.name == name]:
            viewer.layers.remove(layer)
        layer = LabelsLayer(
            picture,
            name=name,
            colormap=result_colormap(result.taxonomy),
            scale=(pixel_um, pixel_um),
            translate=((pixel_um - slide.mpp) / 2,) * 2,
            units=MICRONS,
            metadata={SLIDE: result.layer.metadata[SLIDE], MADE_OF: [str(before), str(result.store.path)]},
        )
        layer.editable = False
        viewer.layers.insert(viewer.layers.index(result.layer) + 1, layer)
        viewer.layers.selection.active = result.layer
        result.layer.visible = False
        self._drawn = slide.identity, result.store.path


def _difference(result: ResultLayer) -> str:
    """Return the name of the layer that shows what changed."""
    return f"What changed on {result.store.facts.slide.name}"
