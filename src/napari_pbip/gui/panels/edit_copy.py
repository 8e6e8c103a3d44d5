"""The offer of a copy of labels on which napari can paint."""

from __future__ import annotations

from typing import Any

import napari.viewer
import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.words import PlainLabel


class EditCopy(QWidget):
    """Widget that is empty unless labels of several resolutions are selected, on which napari's tools do not paint."""

    def __init__(self, viewer: napari.viewer.Viewer, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.about = PlainLabel()
        self.about.setWordWrap(True)
        self.button = push_button(
            "Edit a copy", "Add a layer with the finest resolution of these labels, on which you can paint", self._copy
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.about)
        layout.addWidget(self.button)
        listen(self, (viewer.layers.selection.events.active, self._show))
        self._show()

    @property
    def _layer(self) -> Any:
        """The selected labels, unless they belong to a slide, as a map does."""
        active = self._viewer.layers.selection.active
        return active if isinstance(active, Labels) and active.multiscale and SLIDE not in active.metadata else None

    def _show(self, _: object = None) -> None:
        layer = self._layer
        for part in (self.about, self.button):
            part.setVisible(layer is not None)
        if layer is not None:
            self.about.setText(f"napari cannot paint on {layer.name}, because it has several resolutions.")

    def _copy(self) -> None:
        layer = self._layer
        if layer is None:
            return
        finest, options = layer.data[0], {"name": f"{layer.name} copy", "features": layer.features}
        placed = {name: getattr(layer, name) for name in ("scale", "translate", "units", "opacity", "colormap")}

        def then(pixels: Any) -> None:
            self._viewer.add_labels(pixels, **options, **placed).mode = "paint"

        self._session.in_thread(lambda: np.array(finest), then)
