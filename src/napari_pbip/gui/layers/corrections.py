"""The layer in which a result is corrected with napari's own tools: what was corrected, over the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.layers.painting import Painting
from napari_pbip.gui.layers.results import ResultLayer, result_colormap
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import ViewerModel

KIND = "corrections"
"""Value of ``metadata["kind"]`` of the layer."""
AS_MODEL_NAME = "as the model says"
_BRUSH = 30
"""Width of the brush in screen pixels, at the zoom at which correcting began."""


class CorrectionLayer:
    """A layer of the corrections of a result, whose pixels are the cells of its store.

    Parameters
    ----------
    viewer, result
        The viewer, and the result.
    painted
        Called when pixels have changed.
    fill
        Called with a row, a column and a label when the user fills with napari's bucket.
    title
        Returns what the window calls a class.

    Attributes
    ----------
    layer
        The napari layer, whose labels are those of the result, with 0 where the model's label stands.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        result: ResultLayer,
        painted: Callable[[], object],
        fill: Callable[[int, int, int], object],
        title: Callable[[str], str],
    ) -> None:
        store = result.store
        self._result = result
        self.layer: Labels = viewer.add_labels(
            store.corrections.cells,
            name=f"{store.facts.slide.name} corrections",
            scale=result.layer.scale,
            translate=result.layer.translate,
            units=MICRONS,
            metadata={SLIDE: str(store.facts.slide.path), "kind": KIND},
        )
        self.show_classes(title)
        self._fill = fill
        # napari's bucket fills connected pixels of the layer, which are all cells that nobody has corrected
        self.layer.fill = self._fill_patch
        self.layer.brush_size = max(1, round(_BRUSH / (camera_of(viewer).zoom * store.cell_um)))
        self.layer.selected_label = 1
        self.layer.mode = "paint"
        self._painting = Painting(self.layer, painted)
        self._mode = str(self.layer.mode)

    def show_classes(self, title: Callable[[str], str]) -> None:
        """Show the classes by their titles under the mouse, and in the colours of the map."""
        taxonomy = self._result.taxonomy
        names = [AS_MODEL_NAME, *map(title, taxonomy.names), UNASSIGNED_NAME]
        self.layer.features = {"index": [*range(len(taxonomy) + 1), UNASSIGNED], "class": names}
        self.layer.colormap = result_colormap(taxonomy)

    def hold(self, on: bool) -> None:
        """Let nobody paint, or let them paint again with the tool that they had."""
        if on:
            self._mode = str(self.layer.mode)
            self.layer.editable = False
        else:
            self.layer.editable = True
            self.layer.mode = self._mode

    def close(self) -> None:
        """Stop following the layer, which need not be in the viewer any more."""
        self._painting.close()
        del self.layer.fill

    def _fill_patch(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        row, column = (int(np.round(one)) for one in coord)
        if all(0 <= at < side for at, side in zip((row, column), self.layer.data.shape, strict=True)):
            self._fill(row, column, new_label)
