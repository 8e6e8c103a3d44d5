"""The button that labels tiles of the present slide by annotations of another program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_pbip.errors import DataError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.slides import Position
from napari_pbip.slides.annotations import Annotations, read_annotations
from napari_pbip.slides.geojson import SUFFIXES


class ImportAnnotations(QWidget):
    """Widget with a button that asks for a GeoJSON file, and what came of it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._labelling = session.labelling
        self.button = push_button(
            "Import GeoJSON…",
            "Label tiles by annotations of QuPath: each by the classes that cover at least half of it",
            self._ask,
        )
        self.notice = Notice()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.notice)
        listen(self, (self._labelling.changed, self._show))
        self._show()

    def _show(self) -> None:
        self.button.setEnabled(self._labelling.facts is not None)

    def _ask(self) -> None:
        formats = f"Annotations ({' '.join(f'*{one}' for one in SUFFIXES)})"
        ask_for(self, "Import GeoJSON", Mode.ExistingFile, lambda files: self.read(files[0]), formats=formats)

    def read(self, path: Path) -> None:
        """Label the tiles of the present slide by the annotations in a file."""
        facts, labels = self._labelling.facts, self._labelling.labels
        self.notice.clear()
        if facts is None:
            return
        size, titles = labels.size, self._session.classes.display.names(labels.taxonomy)

        def work() -> tuple[Annotations, Mapping[str, Sequence[Position]]]:
            found = read_annotations(path, titles)
            return found, found.tiles_of(facts, size)

        def then(read: tuple[Annotations, Mapping[str, Sequence[Position]]]) -> None:
            found, tiles = read
            if labels is not self._labelling.labels or size != labels.size:
                self.notice.error("The project or the size of tiles has changed meanwhile; import the file again.")
                return
            try:
                labelled = labels.annotate(facts.identity, tiles, found.colours)
            except DataError as error:
                self.notice.error(error)
                return
            self.notice.info(" ".join((f"{labelled:,} tiles of {facts.name} have new labels.", *found.notes)))

        self._session.in_thread(work, then, self.notice.error)
