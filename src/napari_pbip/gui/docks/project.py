"""The dock *Project*: the project folder, and the table of its slides, their maps and their areas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari.viewer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from napari_pbip.engine.outputs.cohort_statistics import cohort_statistics
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import PbipError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import State
from napari_pbip.gui.panels.cohort_table import CohortTable
from napari_pbip.gui.panels.deleting import ask_to_delete
from napari_pbip.gui.panels.opening import OpeningNotice
from napari_pbip.gui.panels.project import ProjectPanel
from napari_pbip.gui.panels.undo import UndoButtons
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.dropped import DropZone
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for, ask_where_to_save
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.own_window import OwnWindow
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.words import caption, shortened, some_of, tip
from napari_pbip.replay import SCRIPT, Script, find_commands, replay_command
from napari_pbip.results.cohort import write_cohort
from napari_pbip.sharing import REPORT, report

_TABLES = {".csv": "CSV (*.csv)", ".parquet": "Parquet (*.parquet)"}
_NAMED = 3
"""Number of notes on the steps that are shown."""
_LONGEST_TITLE = 14
"""Characters of the name of a slide on a button."""
_SOON_MS = 50
"""Milliseconds in which several changes are shown at once."""


class ProjectWidget(DropZone):
    """Widget with the project folder and the table of its slides, to which slides can be dropped."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        session = self._session = session_of(viewer)
        self.project = ProjectPanel(session)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Filter by any column")
        self.search.setAccessibleName("Filter of the slides")
        self.search.setClearButtonEnabled(True)
        self.add_button = push_button("Add slides…", "Slides of the project are not opened until you do", self._choose)
        self.table = CohortTable(session.cohort, session.classes, session.project.show)
        self.search.textChanged.connect(session.cohort.show_only)
        self._above_and_table = QWidget()
        self.sheet = OwnWindow(
            self._above_and_table, "Slides of the project", "Show the table in a window of its own, with all columns"
        )
        self.opening = OpeningNotice(session)
        self.notice = Notice()
        self.bar = JobBar(keeps=True)
        self.model = QComboBox()
        self.model.setToolTip("The model that segments the selected slides")
        self.model.setAccessibleName("Model")
        self.segment_button = push_button(
            "Segment", "Segment the selected slides with this model; 5 Segment shows the progress", self._segment
        )
        self.remove_button = push_button(
            "Remove", "Take the selected slides out of the project; labels and results stay on disk", self._remove
        )
        self.maps = QComboBox()
        self.maps.setToolTip("Which map of the selected slides is shown and counted, by its model; the others stay")
        self.maps.setAccessibleName("Map that is shown and counted")
        self.maps.setPlaceholderText("different models")
        self.maps_label = QLabel("Count the map by")
        self.maps_label.setBuddy(self.maps)
        self.delete_button = push_button(
            "Delete…", "Delete this map of the selected slides; you are asked first, and can undo it", self._delete
        )
        self.thresholds_button = push_button("", clicked=self._use_thresholds)
        self.save_button = push_button("Save table…", "This table with all slides, as CSV or Parquet", self._save)
        self.statistics_button = push_button(
            "Statistics…",
            "Save areas, patches, interfaces and distances of all maps, each with its range, as one table",
            self._save_statistics,
        )
        self.report_button = push_button(
            "Report…", "One page with the maps of all slides, their areas, and how they were made", self._ask_report
        )
        self.script_button = push_button(
            "Save steps",
            "The commands that make image bank, models and maps again without the window",
            self._save_steps,
        )
        self.undo = UndoButtons(session, self)
        self._lay_out()
        self._soon = single_shot(_SOON_MS, self._show, self)
        model = self.table.cohort_model
        model.mpp_given.connect(self._give_mpp)
        model.refused.connect(self.notice.error)
        if (selection := self.table.selectionModel()) is not None:
            selection.selectionChanged.connect(self._enable)
        self.model.activated.connect(self._enable)
        self.maps.activated.connect(self._show_maps)
        listen(
            self,
            (session.cohort.changed, self._show_soon),
            (session.cohort.arranged, self._show_filter),
            (session.folder_changed, self.notice.clear),
            (session.training.models_changed, self._show_models),
            (session.results.selected, self._enable),
        )
        self._show()
        self._show_filter()
        self._show_models()
        session.training.refresh()

    def take(self, paths: Sequence[Path]) -> None:
        """Add slides, and all slides directly in folders, to the project."""
        self.notice.clear()
        self.bar.follow(self._session.project.add(paths))

    def _lay_out(self) -> None:
        above, maps, model, saved = QHBoxLayout(), QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        sheet = QVBoxLayout(self._above_and_table)
        sheet.setContentsMargins(0, 0, 0, 0)
        sheet.addLayout(above)
        above.addWidget(self.search, 1)
        above.addWidget(self.sheet.button)
        above.addWidget(self.add_button)
        sheet.addWidget(self.table, 1)  # last, so that the Tab key comes to it last
        maps.addWidget(self.maps_label)
        maps.addWidget(self.maps, 1)
        maps.addWidget(self.delete_button)
        label = QLabel("Model")
        label.setBuddy(self.model)
        model.addWidget(label)
        model.addWidget(self.model, 1)
        model.addWidget(self.segment_button)
        model.addWidget(self.remove_button)
        for button in (self.save_button, self.statistics_button, self.report_button, self.script_button):
            saved.addWidget(button)
        layout = scrolling_layout(self)
        layout.addWidget(self.project)
        layout.addWidget(self.sheet, 1)
        layout.addWidget(self.opening)
        layout.addWidget(self.bar)
        layout.addWidget(self.notice)
        layout.addLayout(maps)
        layout.addWidget(self.thresholds_button)
        layout.addLayout(model)
        layout.addWidget(self.undo)
        layout.addLayout(saved)
        for part in (self.model, self.maps, self.thresholds_button):
            part.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def _show_soon(self) -> None:
        if not self._soon.isActive():  # while values arrive, the table is renewed at this interval
            self._soon.start()

    def _show(self) -> None:
        self.table.refresh()
        self._enable()

    def _show_filter(self) -> None:
        if self.search.text() != self._session.cohort.filter:
            self.search.setText(self._session.cohort.filter)

    def _show_models(self) -> None:
        session = self._session
        usable = [name for name, facts in session.training.models.items() if isinstance(facts, RunFacts)]
        chosen = self.model.currentText() or (session.segmenting.run.name if session.segmenting.run else "")
        self.model.clear()
        self.model.addItems(usable)
        self.model.setCurrentIndex(max(0, self.model.findText(chosen)))
        self._enable()

    def _enable(self, _: object = None) -> None:
        entries, some = self.table.cohort_model.entries, bool(self.table.selected())
        self.segment_button.setEnabled(some and bool(self.model.currentText()))
        self.remove_button.setEnabled(some)
        self._offer_maps()
        self._offer_thresholds()
        known = bool(entries) and all(entry.known for entry in entries)
        self.save_button.setEnabled(known)
        self.statistics_button.setEnabled(known and bool(self._stores()))
        self.report_button.setEnabled(any(entry.row.result is not None for entry in entries))

    def _offer_maps(self) -> None:
        """Offer the maps of the selected slides."""
        entries = self.table.selected_entries()
        for part in (self.maps_label, self.maps, self.delete_button):
            part.setVisible(any(entry.maps for entry in entries))
        titles = list(dict.fromkeys(title for entry in entries for title in entry.maps))
        if titles != [self.maps.itemText(n) for n in range(self.maps.count())]:
            self.maps.clear()
            self.maps.addItems(titles)
        shown = {entry.shown for entry in entries if entry.maps}
        self.maps.setCurrentIndex(self.maps.findText(shown.pop()) if len(shown) == 1 else -1)
        self.delete_button.setEnabled(self.maps.currentIndex() >= 0)

    def _offer_thresholds(self) -> None:
        """Offer the thresholds of the map in view for the maps of the selected slides."""
        source, entries = self._session.results.current, self.table.selected_entries()
        stores = {entry.row.result.store for entry in entries if entry.row.result is not None}
        button = self.thresholds_button
        button.setVisible(bool(stores))
        if source is None:
            button.setText("Use thresholds of the map in view for selection")
            button.setToolTip("First double-click the slide whose thresholds the selected slides are to have")
        else:
            button.setText(f"Use thresholds of “{caption(shortened(source.title, _LONGEST_TITLE))}” for selection")
            button.setToolTip(
                tip(
                    f"The maps of the selected slides are shown and counted with the thresholds of {source.title}, the "
                    "map in view; Undo takes that back for all of them"
                )
            )
        button.setEnabled(
            source is not None and bool(stores - {source.store.path}) and all(entry.known for entry in entries)
        )

    # what the user does --------------------------------------------------------------------------------------

    def _choose(self) -> None:
        ask_for(self, "Add slides", Mode.ExistingFiles, self.take)

    def _give_mpp(self, path: Path, mpp: float) -> None:
        try:
            self._session.project.give_mpp(path, mpp)
        except PbipError as error:
            self.notice.error(error)

    def _segment(self) -> None:
        run = self._session.models_folder / self.model.currentText()
        self._session.segmenting.add(self.table.selected(), run)

    def _chosen_maps(self) -> dict[Path, Path]:
        """Return the score stores of the maps of the selected slides that are chosen, by the paths of the slides."""
        title, entries = self.maps.currentText(), self.table.selected_entries()
        return {entry.row.path: entry.maps[title] for entry in entries if title in entry.maps}

    def _show_maps(self) -> None:
        self._session.maps.show(self._chosen_maps())

    def _use_thresholds(self) -> None:
        source = self._session.results.current
        if source is None:
            return
        done = self._session.cohort.use_thresholds(source, self.table.selected_entries())
        self._show()  # nothing is saved before areas are counted again
        left_out = [
            f"{why}: {some_of(names)}."
            for why, names in (
                ("Left out, because their maps are by another model or of other classes", done.other_model),
                ("Without a map", done.without_map),
            )
            if names
        ]
        for_which = f"{some_of(done.used)}; areas in italics are being counted again" if done.used else "no slide"
        used = f"The thresholds of {source.title} are used for {for_which}."
        (self.notice.warn if left_out else self.notice.info)(" ".join((used, *left_out)))

    def _delete(self) -> None:
        ask_to_delete(self, self._session, self._chosen_maps(), self.maps.currentText())

    def _remove(self) -> None:
        self._session.project.remove(self.table.selected())

    def _save(self) -> None:
        ask_where_to_save(self, "Save table", self._session.folder / "slides", _TABLES, self.write)

    def _save_statistics(self) -> None:
        start = self._session.folder / "statistics"
        ask_where_to_save(self, "Save statistics", start, _TABLES, self.write_statistics)

    def _ask_report(self) -> None:
        start = self._session.folder / "report"
        ask_where_to_save(self, "Report", start, {REPORT.ending: f"Report (*{REPORT.ending})"}, self.report)

    def report(self, path: Path) -> None:
        """Write the report of the project; an earlier one is replaced, for which the dialog asks."""
        self.notice.clear()
        self._session.project.save()  # thresholds are those that are shown
        session = self._session
        folder, refine, shown = session.folder, session.settings.refine, session.classes.display
        job = session.start(
            lambda: report(folder, path, refine=refine, class_display=shown, overwrite=True), reads_maps=True
        )
        self.bar.follow(job)

        def on_end(state: State) -> None:
            if state is State.FINISHED:
                self.notice.info(f"Written: {path}")

        job.ended.connect(on_end)

    def _save_steps(self) -> None:
        folder = self._session.folder

        def work() -> Script:
            script = find_commands(folder, folder)
            if script.commands:
                script.write(folder)
            return script

        def then(script: Script) -> None:
            if not script.commands:
                self.notice.warn(" ".join(script.notes) or "There is no image bank, model or map yet.")
                return
            done = f"Saved as {SCRIPT} in the project folder; {replay_command(folder)} runs them."
            show = self.notice.warn if script.notes else self.notice.info
            more = len(script.notes) - _NAMED
            show(
                " ".join((done, *script.notes[:_NAMED], *([f"It names {more} more differences."] if more > 0 else [])))
            )

        self.notice.clear()
        self._session.project.save()
        self._session.in_thread(work, then, self.notice.error)

    def write(self, path: Path) -> None:
        """Write the table of all slides, also of those that are filtered out."""
        try:
            write_cohort(path, [entry.row for entry in self.table.cohort_model.entries])
        except PbipError as error:
            self.notice.error(error)
        else:
            self.notice.info(f"Saved as {path.name}.")

    def write_statistics(self, path: Path) -> None:
        """Write the statistics of all maps, at the thresholds that they are, or were last, shown with."""
        thresholds, settings = self._session.remembered.thresholds, self._session.settings
        stores = {store: thresholds.get(store) for store in self._stores()}
        self.notice.clear()
        job = self._session.start(
            lambda: cohort_statistics(stores, path, settings.refine, scheduler=settings.scheduler), reads_maps=True
        )
        self.bar.follow(job)

        def ended(_: State) -> None:
            if job.result is not None:
                self.notice.info(f"Saved as {path.name}.")

        job.ended.connect(ended)

    def _stores(self) -> list[Path]:
        results = [entry.row.result for entry in self.table.cohort_model.entries]
        return [result.store for result in results if result is not None]
