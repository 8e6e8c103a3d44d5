"""The panel that exports the current result, as it is shown, and the labelled tiles."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QComboBox, QGroupBox, QHBoxLayout, QVBoxLayout

from napari_pbip.bank import load_tiles
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.outputs.export import FORMATS, export
from napari_pbip.engine.outputs.export_tiles import TILE_FORMATS, export_tiles
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.file_dialogs import ask_where_to_save
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.sharing import REPORT, report

_REPORT = "report"
_FORMATS = {**FORMATS, _REPORT: REPORT, **TILE_FORMATS}


class ExportPanel(QGroupBox):
    """Box with the choice of a format, what it writes, and the progress and the place of an export."""

    def __init__(self, session: Session) -> None:
        super().__init__("Export")
        self._session = session
        self._written_in = Path()
        self.format = QComboBox()
        self.format.setAccessibleName("Format")
        for name, one in _FORMATS.items():
            self.format.addItem(one.title, name)
        self.format.currentIndexChanged.connect(self._show)
        self.about = PlainLabel()
        self.about.setWordWrap(True)
        self.button = push_button("Export…", "Export the result as it is shown now", self._choose_target)
        self.bar = JobBar()
        self.written = Notice()
        self.folder_button = push_button("Open folder", "Show what was written in the file manager", self._open_folder)
        self.folder_button.hide()
        row = QHBoxLayout()
        row.addWidget(self.format, 1)
        row.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self.about)
        layout.addWidget(self.bar)
        layout.addWidget(self.written)
        layout.addWidget(self.folder_button, 0, Qt.AlignmentFlag.AlignLeft)
        results = session.results
        for signal in (results.changed, results.selected, session.settings_changed):
            listen(self, (signal, self._show))
        self._show()

    @property
    def _result(self) -> ResultLayer | None:
        return self._session.results.current

    def _show(self, *_: object) -> None:
        name = self.format.currentData()
        self.about.setText(f"{_FORMATS[name].about}.")
        source = self._session.settings.data.folder if name in TILE_FORMATS else self._result
        self.button.setEnabled(source is not None)

    def _choose_target(self) -> None:
        name, result = self.format.currentData(), self._result
        chosen = _FORMATS[name]
        start = self._session.folder / "labelled"
        if result is not None and name not in TILE_FORMATS:
            start = result.store.path.parent / result.store.facts.slide.name
        words = f"{chosen.title.partition(' (')[0]} (*{chosen.ending})"
        ask_where_to_save(self, "Export", start, {chosen.ending: words}, lambda target: self.export(target, name))

    def export(self, target: Path, name: str) -> None:
        """Export in the format of this name; an earlier export is replaced, for which the dialog asks."""
        make = self._of_tiles(target, name) if name in TILE_FORMATS else self._of_result(target, name)
        if make is None:
            return
        job = self._session.start(make, reads_maps=True)
        self.written.clear()
        self.folder_button.hide()
        self.bar.follow(job)
        store = None if self._result is None or name in TILE_FORMATS else self._result.store.path
        job.ended.connect(partial(self._on_end, job, store))

    def _of_result(self, target: Path, name: str) -> JobMaker | None:
        if (result := self._result) is None:
            return None
        path, thresholds, refine = result.store.path, result.thresholds, self._session.settings.refine
        shown = self._session.classes.display
        if name == _REPORT:
            return lambda: report(path, target, thresholds, refine=refine, class_display=shown, overwrite=True)
        return lambda: export(path, target, name, thresholds, refine=refine, class_display=shown, overwrite=True)

    def _of_tiles(self, target: Path, name: str) -> JobMaker | None:
        data = self._session.settings.data
        folder = data.folder
        return None if folder is None else lambda: export_tiles(load_tiles(folder, settings=data), target, name)

    def _on_end(self, job: RunningJob, store: Path | None, _: State) -> None:
        if job.result is None or job.result.output is None:
            return
        if store is not None:
            self._session.remembered.mark(store, "exported")
        self._written_in = job.result.output.parent
        self.written.info(f"Written: {job.result.output}")
        self.folder_button.show()

    def _open_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._written_in)))
