"""The choice of a folder or CSV file of labelled tiles, and a summary of what it contains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QWidget,
)

from napari_pbip import samples
from napari_pbip.config import DataSettings
from napari_pbip.config.labels import label
from napari_pbip.engine.banks.inspect_tiles import inspect_tiles
from napari_pbip.errors import DataError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.panels.mpp_panel import MppBox
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.class_table import ClassTable
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.slides.mpp import is_usual
from napari_pbip.taxonomy import Taxonomy
from napari_pbip.wording import LAYOUTS


class TileFolder(QWidget):
    """Widget that edits the data settings; a folder is read at once, and used if it is valid."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._job: RunningJob | None = None
        self._inspected: DataSettings | None = None
        self._classes: tuple[Taxonomy, list[int]] | None = None
        self.path = QLineEdit()
        self.path.setPlaceholderText("folder or CSV file")
        self.path.setToolTip("Folder (or CSV file) with pictures of tissue and their labels")
        self.path.editingFinished.connect(self._on_edited)
        folder = push_button("Folder…", "Choose the folder with the labelled tiles", self._ask_folder)
        table = push_button("CSV…", "Choose a table that lists the labelled tiles", self._ask_table)
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        row.addWidget(folder)
        row.addWidget(table)
        self.sample_button = push_button(
            "Use sample tiles",
            "41 colorectal tiles of nine classes that come with napari-pbip, for a first try",
            self._use_samples,
        )
        self.layout_box = QComboBox()
        for key, text in LAYOUTS.items():
            self.layout_box.addItem(text, key)
        self.layout_box.setToolTip("How the labels of a tile are written down")
        self.layout_box.activated.connect(self._on_edited)
        self.names = QLineEdit()
        self.names.setPlaceholderText("as the folder has them")
        self.names.setToolTip("Names of the classes in the order of their labels, with commas between them")
        self.names.editingFinished.connect(self._on_edited)
        self.mpp = MppBox(empty="not known")
        self.mpp.setAccessibleName("Microns per pixel of the tiles")
        self.mpp.setToolTip("Microns per pixel of the tiles; slides are then read at the same resolution")
        self.mpp.valueChanged.connect(self._on_mpp)
        resolution = QHBoxLayout()
        resolution.addWidget(self.mpp, 1)
        resolution.addWidget(QLabel("µm per pixel"))
        form = QFormLayout()
        form.addRow("Tiles", row)
        form.addRow("", self.sample_button)
        form.addRow(_label("layout"), self.layout_box)
        form.addRow(_label("classes"), self.names)
        form.addRow("Resolution", resolution)
        self.notice = Notice()
        self.mpp_notice = Notice()
        self.mpp.problem.connect(self._show_mpp_problem)
        self.bar = JobBar()
        self.found = PlainLabel()
        self.found.setWordWrap(True)
        self.table = ClassTable(own=False)
        self.table.renamed.connect(self._give_title)
        self.table.hide()
        layout = scrolling_layout(self)
        layout.addLayout(form)
        layout.addWidget(self.mpp_notice)
        layout.addWidget(self.notice)
        layout.addWidget(self.found)
        layout.addWidget(self.table)
        layout.addWidget(self.bar)
        layout.addStretch(1)
        listen(self, (session.settings_changed, self._show_settings), (session.classes.changed, self._show_classes))
        self._show_settings()

    def choose(self, path: Path) -> None:
        """Choose a folder or CSV file."""
        self.path.setText(str(path))
        self._on_edited()

    def use(self) -> None:
        """Make the bank and the training use this folder again, after they used other tiles."""
        self._inspect(self._entered())

    def _ask_folder(self) -> None:
        self._ask("Folder with labelled tiles", Mode.Directory)

    def _use_samples(self) -> None:
        self.mpp.setValue(samples.TILES_MPP)
        self.choose(samples.tiles())

    def _ask_table(self) -> None:
        self._ask("Table of labelled tiles", Mode.ExistingFile, "CSV (*.csv)")

    def _ask(self, title: str, mode: Mode, formats: str = "") -> None:
        ask_for(self, title, mode, lambda paths: self.choose(paths[0]), start=self.path.text(), formats=formats)

    def _entered(self) -> DataSettings:
        text = self.path.text().strip()
        names = tuple(name.strip() for name in self.names.text().split(",") if name.strip())
        changes: dict[str, Any] = {
            "folder": Path(text).expanduser() if text else None,
            "layout": self.layout_box.currentData(),
            "classes": names or None,
            "mpp": self.mpp.value() or None,
        }
        return self._session.settings.data.model_copy(update=changes)

    def _on_edited(self) -> None:
        entered = self._entered()
        if entered.folder is None:
            self.notice.clear()
        elif entered != self._inspected:  # also if these settings are in use: invalid ones may have been entered since
            self._inspect(entered)

    def _on_mpp(self) -> None:
        """Change the resolution, for which the labels need not be read again."""
        data = self._session.settings.data
        if data.folder is not None and str(data.folder) == self.path.text():
            self._session.change(data=data.model_copy(update={"mpp": self.mpp.value() or None}))

    def _show_mpp_problem(self, problem: str) -> None:
        mpp = self.mpp.value()
        if problem:
            self.mpp_notice.error(problem)
        elif mpp and not is_usual(mpp):
            self.mpp_notice.warn(f"{mpp:g} µm per pixel is unusual for tiles: most have 0.25 to 2.")
        else:
            self.mpp_notice.clear()

    def _inspect(self, data: DataSettings) -> None:
        if self._job is not None:
            self._job.cancel()
        self._inspected = data
        job = self._job = self._session.start(lambda: inspect_tiles(data))
        self.notice.clear()
        self.bar.follow(job)
        job.ended.connect(lambda state: self._on_end(job, state, data))

    def _on_end(self, job: RunningJob, state: State, data: DataSettings) -> None:
        if job is not self._job:
            return  # other settings were entered meanwhile
        self.table.hide()
        self.found.clear()
        if state is not State.FINISHED or job.result is None:
            return  # the bar below the fields shows the error
        self._show(job.result.summary)
        self._session.change(data=data)

    def _show(self, summary: Any) -> None:
        splits = summary["splits"]
        self.found.setText("\n".join(summary["notes"]))
        shown = splits.get("train") or next(iter(splits.values()))
        self._classes = Taxonomy.from_json(summary["classes"]), shown["counts"]
        self._show_classes()
        self.table.show()

    def _show_classes(self) -> None:
        if self._classes is not None:
            (taxonomy, counts), shown = self._classes, self._session.classes
            self.table.show_classes(shown.coloured(taxonomy), counts, shown.title)

    def _give_title(self, index: int, title: str) -> None:
        self.notice.clear()
        if self._classes is not None:
            names = self._classes[0].names
            try:
                self._session.classes.give(names[index], title, names)
            except DataError as error:
                self.notice.error(error)

    def _show_settings(self, settings: Any = None) -> None:
        """Show the data settings, unless they are those of the tiles labelled on slides."""
        data = self._session.settings.data
        self.sample_button.setVisible(data.folder is None)
        if data.folder is None or data.folder == self._session.tiles_folder or data == self._entered():
            return
        blocked = [QSignalBlocker(w) for w in (self.path, self.layout_box, self.names, self.mpp)]
        self.path.setText(str(data.folder))
        self.layout_box.setCurrentIndex(self.layout_box.findData(data.layout))
        self.names.setText(", ".join(data.classes or ()))
        self.mpp.setValue(data.mpp or 0)
        del blocked
        self._inspect(data)


def _label(name: str) -> str:
    return label(name, DataSettings.model_fields[name])
