"""A layer in which the user draws a region of a slide with napari's own tools, and the tiles that lie in it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.layers.regions import enclosed
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.layers.tiles import REGION, placement
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import Position, SquareGrid
from napari_pbip.slides.geojson import cells_inside

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_COLOUR = "#1E6BFF"
_EDGE = 2.5
"""Width of the region's edge in screen pixels, at the zoom at which drawing began."""


class RegionToLabel:
    """The layer of a region, which is on top of the others and active until it is closed or another one is selected.

    Tiles with their centre in the region lie in it. Regions that touch therefore share no tile, and leave none out
    between them.
    """

    drawn = Signal()
    """Emitted when the user has drawn another region, which replaces the one before."""
    ended = Signal()
    """Emitted when another layer was selected or the layer removed."""

    def __init__(self, viewer: ViewerModel, slide: SlideLayer, grid: SquareGrid) -> None:
        self._viewer = weakref.ref(viewer)
        self.slide, self.grid = slide, grid
        place = placement(slide, 1)
        place["metadata"]["kind"] = REGION
        self._layer = Shapes(ndim=2, name="Region to label", edge_color=_COLOUR, face_color="transparent", **place)
        self._layer.current_edge_width = _EDGE / (camera_of(viewer).zoom * place["scale"][0])
        self._shapes = 0
        self._soon = single_shot(0, self._replace)  # after napari has finished the shape
        self._ending = single_shot(0, self._end_if_left)  # napari selects every new layer, but it may not stay so
        viewer.layers.append(self._layer)
        viewer.layers.selection.active = self._layer
        self._layer.mode = "add_polygon_lasso"
        self._layer.events.data.connect(self._on_data)
        viewer.layers.selection.events.active.connect(self._on_active)

    @property
    def tiles(self) -> list[Position]:
        """The tiles in the region, row by row; none before one is drawn."""
        if not self._layer.nshapes:
            return []
        region = enclosed(self._layer.data[-1], self._layer.shape_type[-1])
        y, x = ((np.arange(count) + 0.5) * self.grid.side for count in (self.grid.rows, self.grid.columns))
        rows, columns = np.nonzero(cells_inside(region, y, x))
        return list(zip(columns.tolist(), rows.tolist(), strict=True))

    def close(self) -> None:
        """Remove the layer, and select that of the slide."""
        self._soon.stop()
        self._ending.stop()
        self._layer.events.data.disconnect(self._on_data)
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.selection.events.active.disconnect(self._on_active)
            if self._layer in viewer.layers:
                was_active = viewer.layers.selection.active is self._layer
                viewer.layers.remove(self._layer)
                if was_active and self.slide.layer in viewer.layers:
                    viewer.layers.selection.active = self.slide.layer

    def _on_data(self, event: Any) -> None:
        if event.action == "added" and self._layer.nshapes > self._shapes:  # a line that encloses nothing adds no shape
            self._soon.start()
        elif event.action == "removed":  # with the tools of the layer
            self._shapes = self._layer.nshapes

    def _replace(self) -> None:
        self._layer.selected_data = set(range(self._layer.nshapes - 1))
        self._layer.remove_selected()
        self._shapes = self._layer.nshapes
        self.drawn.emit()

    def _on_active(self, event: Any) -> None:
        if event.value is not self._layer:
            self._ending.start()

    def _end_if_left(self) -> None:
        viewer = self._viewer()
        if viewer is None or viewer.layers.selection.active is not self._layer:
            self.ended.emit()
