"""Layers of labelled tiles over a slide: one small picture with a few pixels per tile, and the lines between tiles.

A picture with ten thousand labelled tiles is as fast as with one, unlike one shape per tile. The lines are a picture,
too, which is computed for the view: lines with a width in micrometres would vanish at one zoom and be bars at another.
The outline of the tile under the mouse is a part of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels as LabelsLayer

from napari_pbip.bank.labelled_slides import Labels
from napari_pbip.bank.slide_labels import NONE
from napari_pbip.gui.compat import batched_update
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import METADATA, SlideLayer
from napari_pbip.slides import Position, SquareGrid
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari.utils.colormaps import DirectLabelColormap
    from napari.viewer import ViewerModel

_CELLS = 8
"""Pixels per side of a tile, enough for an outline, and for stripes if it has several labels."""
_OUTLINE = 255
"""Value of the outline of a labelled tile, which stands out from a map in the same colours."""
_LONGEST = 8192
"""Largest side in pixels of a picture that every graphics card supports."""
_FINEST = 512
"""Pixels per side of a tile in the finest level of the lines; each further level has half as many."""
_SMALLEST = 16
"""Side of a tile in pixels below which no lines are drawn, because they would merge into grey."""
_LINE, _EDGE, _CLASSES = 1, 2, 3
"""Values of the lines, of the white edge inside the outline of a tile, and of that outline for the first class."""
_WIDTH, _INSET = 4, 2
"""Widths of outline and edge in pixels; the edge makes it stand out from a map in the same colour."""

REGION = "region"
"""Value of ``metadata["kind"]`` of a layer in which regions are drawn, which stays on top."""

Places = npt.NDArray[np.intp]


class TileOverlay:
    """The two layers of a slide's labelled tiles. The user may hide or remove them; nothing depends on them.

    The layer of the lines is made when they are first shown, because napari takes a while for each layer. While nobody
    labels, both are hidden rather than removed, because napari collects garbage when a layer is removed, which takes up
    to a second beside torch.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._place: tuple[Any, ...] | None = None
        self._picture: LabelsLayer | None = None
        self._frame: LabelsLayer | None = None
        self._cells = np.zeros((0, 0, 1, 1), np.uint8)
        self._shown: dict[Position, Labels] = {}
        self._taxonomy: Taxonomy | None = None
        self._outlined: tuple[Position, int] | None = None
        self._concealed: bool | None = None  # whether the picture was visible before

    def show(
        self, slide: SlideLayer, grid: SquareGrid, taxonomy: Taxonomy, tiles: Mapping[Position, Labels], *, lines: bool
    ) -> None:
        """Draw the labelled tiles, and if asked for the lines of the grid; only changes are drawn."""
        viewer = self._viewer()
        if viewer is None or slide.layer not in viewer.layers:
            self.remove()
            return
        place = (slide.layer, grid, tuple(slide.layer.scale), tuple(slide.layer.translate))
        if place != self._place or any(layer not in viewer.layers for layer in self._layers):
            self.remove()
            self._place = place
        classes = taxonomy != self._taxonomy
        self._taxonomy = taxonomy
        picture, frame = self._picture, self._frame
        if picture is None:
            picture = self._picture = self._add_picture(viewer, slide, grid, taxonomy)
        elif classes:
            picture.colormap = _picture_colours(taxonomy)
        if self._concealed is not None:
            self._concealed, picture.visible = None, self._concealed
        if frame is None and lines:
            frame = self._frame = self._add_frame(viewer, slide, grid, taxonomy)
        elif frame is not None and classes:
            frame.colormap = _frame_colours(taxonomy)
        top = _above(viewer, slide)
        if viewer.layers.index(self._layers[-1]) < top - 1:  # a map was opened since
            for layer in self._layers:
                viewer.layers.move(viewer.layers.index(layer), top)
        if frame is not None and frame.visible != lines:  # napari redraws everything whenever it is set
            frame.visible = lines
        if self._paint(tiles):
            picture.refresh(thumbnail=False, highlight=False, extent=False)

    def outline(self, position: Position | None, label: int) -> None:
        """Outline a tile in the colour of a class, as far as the lines are shown; None outlines no tile."""
        outlined = None if position is None else (position, label)
        if self._frame is not None and outlined != self._outlined:
            self._outlined = outlined
            for level in self._frame.data:
                level.outlined = outlined
            self._frame.refresh(thumbnail=False, highlight=False, extent=False)

    def conceal(self) -> None:
        """Hide the layers until they are shown again."""
        if self._picture is not None and self._concealed is None:
            self._concealed = self._picture.visible
            for layer in self._layers:
                layer.visible = False

    def remove(self) -> None:
        """Remove the layers."""
        viewer = self._viewer()
        there = [] if viewer is None else [layer for layer in self._layers if layer in viewer.layers]
        if viewer is not None and there:
            with batched_update(viewer.layers):
                for layer in there:
                    viewer.layers.remove(layer)
        self._picture = self._frame = self._place = self._taxonomy = self._outlined = None
        self._shown, self._concealed = {}, None

    @property
    def _layers(self) -> list[LabelsLayer]:
        """The layers that are made, from below."""
        return [layer for layer in (self._picture, self._frame) if layer is not None]

    def _add_picture(self, viewer: ViewerModel, slide: SlideLayer, grid: SquareGrid, taxonomy: Taxonomy) -> LabelsLayer:
        cells = _CELLS if max(grid.rows, grid.columns) * _CELLS <= _LONGEST else 1
        data = np.zeros((grid.rows * cells, grid.columns * cells), np.uint8)
        self._cells = data.reshape(grid.rows, cells, grid.columns, cells).transpose(0, 2, 1, 3)  # a view
        picture = LabelsLayer(
            data,
            name="Labelled tiles",
            opacity=0.5,
            colormap=_picture_colours(taxonomy),
            **placement(slide, grid.side / cells),
        )
        _add(viewer, slide, picture)
        return picture

    def _add_frame(self, viewer: ViewerModel, slide: SlideLayer, grid: SquareGrid, taxonomy: Taxonomy) -> LabelsLayer:
        frame = LabelsLayer(
            [_Lines(grid, _FINEST >> halvings) for halvings in range(_FINEST.bit_length())],
            name="Tile grid",
            multiscale=True,
            opacity=1.0,
            colormap=_frame_colours(taxonomy),
            **placement(slide, grid.side / _FINEST),
        )
        _add(viewer, slide, frame)
        return frame

    def _paint(self, tiles: Mapping[Position, Labels]) -> bool:
        """Update the picture where labels have changed; return whether any have."""
        changes: dict[Labels, list[Position]] = {}
        for place in self._shown.keys() - tiles.keys():
            changes.setdefault(NONE, []).append(place)
        for place, labels in tiles.items():
            if self._shown.get(place) != labels:
                changes.setdefault(labels, []).append(place)
        for labels, places in changes.items():
            columns, rows = np.array(places).T
            self._cells[rows, columns] = _stripes(labels, self._cells.shape[-1])
        self._shown = dict(tiles)
        return bool(changes)


class _Lines:
    """The lines between tiles at one zoom, and the outline of one tile, as an array for napari; 0 elsewhere.

    Lines are two pixels wide, because napari draws every pixel or every second one, so that one could be skipped.

    Attributes
    ----------
    outlined
        Position of the tile with an outline and the index of the class in whose colour it is, or None.
    """

    dtype = np.dtype(np.uint8)
    ndim = 2

    def __init__(self, grid: SquareGrid, pixels: int) -> None:
        self.shape = (grid.rows * pixels, grid.columns * pixels)
        self.chunks = (512, 512)
        self.size = self.shape[0] * self.shape[1]
        self._pixels = pixels
        self.outlined: tuple[Position, int] | None = None

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (2 - len(key))
        rows, columns = (np.arange(n)[k] for n, k in zip(self.shape, key, strict=True))
        lines = (self._at_border(places.ravel(), n) for places, n in zip((rows, columns), self.shape, strict=True))
        values = np.logical_or.outer(*lines).astype(np.uint8)
        if self.outlined is not None:
            self._draw_outline(values, rows.ravel(), columns.ravel(), *self.outlined)
        return values.reshape(*rows.shape, *columns.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        return np.asarray(self[:], dtype)

    def _draw_outline(self, values: npt.NDArray[np.uint8], rows: Places, columns: Places, at: Position, n: int) -> None:
        """Draw the outline inside its tile; a tile that is too small for one is filled."""
        side = self._pixels
        across, down = (np.flatnonzero(places // side == one) for places, one in zip((columns, rows), at, strict=True))
        to_edge = (np.minimum(one % side, side - 1 - one % side) for one in (rows[down], columns[across]))
        depth = np.minimum.outer(*to_edge)
        tile = values[np.ix_(down, across)]
        tile[depth < _WIDTH + _INSET] = _EDGE
        tile[depth < _WIDTH] = _CLASSES + n
        values[np.ix_(down, across)] = tile

    def _at_border(self, places: Places, length: int) -> npt.NDArray[np.bool_]:
        if self._pixels < _SMALLEST:
            return np.zeros_like(places, bool)
        return np.isin(places % self._pixels, (0, self._pixels - 1)) | np.isin(places, (1, length - 2))


def _add(viewer: ViewerModel, slide: SlideLayer, layer: LabelsLayer) -> None:
    """Add a layer that the user cannot edit above a slide and its maps."""
    layer.editable = False
    with selection_kept(viewer):
        viewer.layers.insert(_above(viewer, slide), layer)


def _picture_colours(taxonomy: Taxonomy) -> DirectLabelColormap:
    return label_colormap({n: one.rgb for n, one in enumerate(taxonomy, 1)} | {_OUTLINE: "#000000"})


def _frame_colours(taxonomy: Taxonomy) -> DirectLabelColormap:
    outlines = {_CLASSES + n: one.rgb for n, one in enumerate(taxonomy)}
    return label_colormap({_LINE: "#60606099", _EDGE: "#FFFFFF", **outlines})


def _above(viewer: ViewerModel, slide: SlideLayer) -> int:
    """Return the place in the layer list above a slide and its maps."""
    path = str(slide.slide.path)
    layers = [layer.metadata for layer in viewer.layers]
    return 1 + max(n for n, one in enumerate(layers) if one.get(METADATA) == path and one.get("kind") != REGION)


def placement(slide: SlideLayer, side: float) -> dict[str, Any]:
    """Return scale, position, units and slide of a layer whose pixels are ``side`` level-0 pixels wide.

    The origin of a layer is the centre of its first pixel, so that larger pixels are moved by half the difference.
    """
    scale = np.asarray(slide.layer.scale)
    translate = np.asarray(slide.layer.translate) + scale * (side - 1) / 2
    return {
        "scale": scale * side,
        "translate": translate,
        "units": slide.layer.units,
        "metadata": {METADATA: str(slide.slide.path)},
    }


def _stripes(labels: Labels, cells: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of one tile: its classes alternate along the diagonals, class n as n + 1, in an outline."""
    values = np.array(sorted(labels), np.uint8) + 1 if labels else np.zeros(1, np.uint8)
    places = np.arange(cells) // 2
    stripes: npt.NDArray[np.uint8] = values[np.add.outer(places, places) % len(values)]
    if labels and cells > 2:
        stripes[[0, -1]] = stripes[:, [0, -1]] = _OUTLINE
    return stripes
