"""The project: its folder, the offer of the last one, and what could not be opened as it was left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_pbip.errors import OutputError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.words import some_of, tip


class ProjectPanel(QWidget):
    """Panel that shows the project folder and lets the user open another project."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, queue = session, session.segmenting
        self.offer = Notice()
        self.offer_button = push_button("Open it", "Open the project as it was left", self._open_last)
        self.folder = QLineEdit()
        self.folder.setReadOnly(True)
        self.folder.setAccessibleName("Project folder")
        self.change_button = push_button("Change…", "Open another project, or begin one in a folder", self._choose)
        self.notice = Notice()
        self.problem = Notice()
        self.missing = Notice()
        self.missing_button = push_button(
            "Find them…", "Choose a folder; the slides are looked for in it and in all folders below", self._find
        )
        self.waiting = Notice()
        self.resume_button = push_button(
            "Resume", "Go on with them, with the model and settings that they were begun with", queue.resume_all
        )
        self.dismiss_button = push_button(
            "Dismiss", "Take them off the list in 5 Segment; what is finished of their maps stays", queue.remove_left
        )
        folder = QHBoxLayout()
        folder.addWidget(QLabel("Project folder"))
        folder.addWidget(self.folder, 1)
        folder.addWidget(self.change_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for notice, *buttons in (
            (self.offer, self.offer_button),
            (self.missing, self.missing_button),
            (self.waiting, self.resume_button, self.dismiss_button),
        ):
            row = QHBoxLayout()
            row.addWidget(notice, 1)
            for button in buttons:
                row.addWidget(button)
            layout.addLayout(row)
        layout.addLayout(folder)
        layout.addWidget(self.notice)
        layout.addWidget(self.problem)
        listen(
            self,
            (session.folder_changed, self._show),
            (session.project.changed, self._show),
            (queue.changed, self._show_waiting),
            (queue.updated, self._show_waiting),
        )
        self._show()
        self._show_waiting()

    def choose_folder(self, folder: Path) -> None:
        """Open the project of a folder, if it can be written."""
        self.notice.clear()
        try:
            _require_writable(folder)
        except OutputError as error:
            self.notice.error(error)
        else:
            self._session.folder = folder

    def _show(self, _: object = None) -> None:
        folder, project = self._session.folder, self._session.project
        self.folder.setText(str(folder))
        self.folder.setCursorPosition(len(str(folder)))
        self.folder.setToolTip(tip(f"{folder}\nTiles, image bank, models and results of this project are written here"))
        offered = project.offered
        self.offer.info("" if offered is None else f"Last time you worked in the project {offered.name}.")
        self.offer.setToolTip("" if offered is None else tip(offered))
        self.offer_button.setVisible(offered is not None)
        self.problem.error(" ".join(filter(None, [str(project.problem or ""), *project.faults])))
        missing = [slide.path for slide in project.missing]
        self.missing.warn(f"Slides that are not where they were: {_named(missing)}." if missing else "")
        self.missing.setToolTip(tip("\n".join(map(str, missing))))
        self.missing_button.setVisible(bool(missing))

    def _show_waiting(self, _: object = None) -> None:
        """Say which slides were not done when the project was closed."""
        left = [slide.path for slide in self._session.segmenting.slides if slide.status is Status.LEFT]
        stopped = "Waiting to be segmented since the project was closed"
        self.waiting.info(f"{stopped}: {_named(left)}." if left else "")
        self.waiting.setToolTip(tip("\n".join(map(str, left))))
        for button in (self.resume_button, self.dismiss_button):
            button.setVisible(bool(left))

    def _open_last(self) -> None:
        if (folder := self._session.project.offered) is not None:
            self.choose_folder(folder)

    def _choose(self) -> None:
        self._ask("Project folder", self.choose_folder)

    def _find(self) -> None:
        self._ask("Folder with the missing slides", self._session.project.find_missing)

    def _ask(self, title: str, then: Callable[[Path], None]) -> None:
        ask_for(self, title, Mode.Directory, lambda folders: then(folders[0]), start=self._session.folder)


def _named(slides: Sequence[Path]) -> str:
    return some_of([path.name for path in slides])


def _require_writable(folder: Path) -> None:
    """Check that a project folder, or the parent of one that does not exist yet, can be written.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(f"Nothing can be saved in {folder} ({error.strerror}); choose another folder.") from error
