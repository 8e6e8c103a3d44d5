"""The dock *Workflow*, which is there at once, while its panel is still imported in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari.viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_pbip.gui import imports
from napari_pbip.gui.timers import single_shot

if TYPE_CHECKING:
    from napari_pbip.gui.state.steps import Step
    from napari_pbip.gui.workflow_panel import WorkflowPanel

_CHECK_MS = 30


class WorkflowWidget(QWidget):
    """Widget with the panel of all steps.

    Attributes
    ----------
    panel
        The panel, or None until its modules have been imported.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._begun = False
        self.panel: WorkflowPanel | None = None
        self._loading = QLabel("Loading…")
        self._loading.setAlignment(Qt.AlignmentFlag.AlignCenter)
        # else napari would add a stretch below the label, and the panel would have the other half of the height
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self._loading)
        self._soon = single_shot(_CHECK_MS, self._open_soon, self)
        imports.begin()
        self._open_soon()

    def show_step(self, step: Step) -> None:
        """Show the page of a step; if the panel is still being imported, wait for it."""
        self._open().show_step(step)

    def _open_soon(self) -> None:
        if not imports.panel_imported():
            self._soon.start()
        elif not self._begun:  # the session first, and the panel in the next turn of the event loop
            from napari_pbip.gui.sessions import session_of

            session_of(self._viewer)
            self._begun = True
            self._soon.start(0)
        else:
            self._open()

    def _open(self) -> WorkflowPanel:
        from napari_pbip.gui.workflow_panel import WorkflowPanel

        if self.panel is None:
            self.panel = WorkflowPanel(self._viewer)
            self._loading.hide()
            self._layout.addWidget(self.panel)
            self.panel.show()  # at once, for who presses its buttons; Qt would in the next turn of the event loop
        return self.panel
