"""The dock *Legend*: the classes of the map in view, also while another step is in front."""

from __future__ import annotations

import napari.viewer
from qtpy.QtWidgets import QWidget

from napari_pbip.gui.panels.legend import LegendPanel
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.scroll_column import scrolling_layout


class LegendWidget(QWidget):
    """Widget with the legend of the selected result or live map."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.legend = LegendPanel(session_of(viewer))
        layout = scrolling_layout(self)
        layout.addWidget(self.legend)
        layout.addStretch()
