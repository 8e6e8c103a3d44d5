"""The layer of a slide's regions, which are drawn and changed with napari's own tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from napari.layers import Shapes
from psygnal import Signal

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.layers.tiles import placement
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides.regions import COLOURS, Kind, Region, Regions

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

KIND = "regions"
"""Value of ``metadata["kind"]`` of the layers."""
_EDGE = 2.5
"""Width of an edge in screen pixels, at the zoom at which the layer was made."""
_FACES = {Kind.ANALYSE: "transparent", Kind.LEAVE_OUT: f"{COLOURS[Kind.LEAVE_OUT]}40"}
_DECIMALS = 2
"""Of coordinates in level-0 pixels; napari has no more on large slides."""
_ELLIPSE = np.linspace(0, 2 * np.pi, 72, endpoint=False)


class RegionsLayer:
    """A layer with a shape for each polygon of a slide's regions, and their names beside them.

    A polygon with holes is one line that runs along the holes, too.
    """

    changed = Signal()
    """Emitted a moment after the user has drawn, changed or removed a shape."""

    def __init__(self, viewer: ViewerModel, slide: SlideLayer) -> None:
        self._kind = Kind.ANALYSE
        self._soon = single_shot(0, self._on_settled)  # after napari has finished the shape
        options = placement(slide, 1)
        options["metadata"]["kind"] = KIND
        self.layer = Shapes(
            ndim=2,
            name=f"regions of {slide.slide.name}",
            features={"name": np.empty(0, object), "kind": np.empty(0, object)},
            text={"string": "{name}", "size": 12, "color": "#1A1A1A", "anchor": "upper_left"},
            opacity=1.0,
            **options,
        )
        self.layer.current_edge_width = _EDGE / (camera_of(viewer).zoom * options["scale"][0])
        self._colour_next()
        with selection_kept(viewer):
            viewer.layers.append(self.layer)
        self.layer.events.data.connect(self._on_data)

    def place(self, slide: SlideLayer) -> None:
        """Set scale and position, which change with the microns per pixel."""
        for name, value in placement(slide, 1).items():
            if name != "metadata":
                setattr(self.layer, name, value)

    def draw(self, kind: Kind) -> None:
        """Choose the lasso for regions of a kind; napari's other tools draw them, too."""
        self._kind = kind
        self.layer.selected_data = set()
        self._colour_next()
        self.layer.visible = True
        self.layer.mode = "add_polygon_lasso"

    def read(self, size: tuple[int, int]) -> Regions:
        """Return the regions that are drawn on a slide of this size, one for each polygon; lines enclose none."""
        found, features = [], self.layer.features
        for data, form, name, kind in zip(
            self.layer.data, self.layer.shape_type, features["name"], features["kind"], strict=True
        ):
            if name:  # it is finished
                parts = shapely.get_parts(enclosed(data, form))
                found += [Region(name, Kind(kind), part) for part in parts if not part.is_empty]
        return Regions(tuple(found), size)

    def show(self, regions: Regions) -> None:
        """Show these regions in place of those that are drawn."""
        parts = [(one, part) for one in regions for part in shapely.get_parts(one.shape)]
        with self.layer.events.data.blocker():
            self.layer.selected_data = set(range(self.layer.nshapes))
            self.layer.remove_selected()
            if parts:
                self.layer.add_polygons([_line(part) for _, part in parts])
            self.layer.selected_data = set()
        self._name([one.name for one, _ in parts], [one.kind for one, _ in parts])

    def close(self) -> None:
        """Stop following the layer."""
        self._soon.stop()
        self.layer.events.data.disconnect(self._on_data)

    def _on_data(self, event: Any) -> None:
        if event.action in ("added", "removed", "changed"):
            self._soon.start()

    def _on_settled(self) -> None:
        """Name new shapes."""
        features = self.layer.features
        names, kinds = [str(name) if name else "" for name in features["name"]], list(features["kind"])
        for n, name in enumerate(names):
            if not name:
                kinds[n] = self._kind
                names[n] = free_name(self._kind, names)
        self._name(names, kinds)
        self.changed.emit()

    def _name(self, names: list[str], kinds: list[Kind]) -> None:
        self.layer.features = {"name": np.array(names, object), "kind": np.array([str(kind) for kind in kinds], object)}
        self.layer.feature_defaults = {"name": "", "kind": ""}
        if names:
            self.layer.edge_color = [COLOURS[Kind(kind)] for kind in kinds]
            self.layer.face_color = [_FACES[Kind(kind)] for kind in kinds]
        self._colour_next()

    def _colour_next(self) -> None:
        self.layer.current_edge_color = COLOURS[self._kind]
        self.layer.current_face_color = _FACES[self._kind]


def free_name(kind: Kind, names: list[str]) -> str:
    """Return the first name of the form ``region 1`` that is not among these."""
    word = "region" if kind is Kind.ANALYSE else "left out"
    return next(name for n in range(1, len(names) + 2) if (name := f"{word} {n}") not in names)


def enclosed(data: npt.NDArray[Any], form: str) -> shapely.Geometry:
    """Return what a shape of napari encloses, in level-0 pixels: a valid polygon, several, or none for a line.

    Parameters
    ----------
    data, form
        Corners and type of the shape, of a layer that is placed as that of its slide.
    """
    if form == "ellipse":  # given by the corners of its box
        centre, across, down = data.mean(0), (data[1] - data[0]) / 2, (data[3] - data[0]) / 2
        data = centre + np.outer(np.cos(_ELLIPSE), across) + np.outer(np.sin(_ELLIPSE), down)
    if form in ("line", "path") or len(data) < 3:
        return shapely.Polygon()
    drawn = shapely.Polygon(np.round(data[:, ::-1] + 0.5, _DECIMALS))  # napari counts from the first pixel's centre
    return shapely.make_valid(drawn, method="structure", keep_collapsed=False)


def _line(polygon: shapely.Polygon) -> npt.NDArray[np.float64]:
    """Return the corners (y, x) of a polygon as one line, which goes to each hole and back the same way."""
    outer = shapely.get_coordinates(polygon.exterior)
    holes = [np.concatenate([shapely.get_coordinates(hole), outer[:1]]) for hole in polygon.interiors]
    corners = np.concatenate([outer, *holes]) if holes else outer[:-1]
    return np.asarray(corners[:, ::-1] - 0.5)
