"""What is shown where no slide is open: what the plugin is for, and something to try it with."""

from __future__ import annotations

from functools import partial

from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button


class Welcome(QWidget):
    """Panel that says in two lines what the plugin does, and opens the samples."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        text = QLabel(
            "Label some tiles of a slide by the tissue they show; a model that learns from them maps whole slides."
        )
        text.setWordWrap(True)
        self.slide_button = push_button(
            "Open the sample slide", "A small section of skin, to try each step with", partial(self._open, "slide")
        )
        self.project_button = push_button(
            "Open the sample project",
            "The same slide with labelled tiles, their image bank and a model, in a folder beside your project folder",
            partial(self._open, "project"),
        )
        row = QHBoxLayout()
        row.addWidget(self.slide_button)
        row.addWidget(self.project_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(text)
        layout.addLayout(row)

    def _open(self, sample: str) -> None:
        self._session.viewer.open_sample("napari-pbip", sample)
