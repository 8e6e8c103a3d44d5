"""An earlier map of a slide beside the present one: two views in napari's grid, which move together."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_pbip.gui.compat import grid_of
from napari_pbip.gui.layers.results import MADE_OF, result_colormap
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import SlideLayer, SlideLevel
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.gui.timers import single_shot
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_SPACING = 4
"""Screen pixels between the two views."""


class EarlierMap:
    """The saved labels of a result, opened in a thread.

    Raises
    ------
    OutputError
        If the store has no labels, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.store = ScoreStore.open(path)
        levels = open_labels(self.store)[0]
        self.levels = [da.from_array(level, chunks=level.chunks) for level in levels]  # type: ignore[no-untyped-call]


class SideBySide:
    """Shows an earlier map, over the slide, beside all that the viewer shows, until it is closed.

    napari's grid puts as many layers into a view as its stride says, from the bottom of the list. Therefore the two
    layers of the second view stay on top, and the stride is the number of the others.

    Parameters
    ----------
    viewer, slide
        The viewer, and the slide of both maps.
    earlier
        The earlier map.
    opacity
        Opacity of the earlier map.
    coloured
        Returns classes in the colours in which they are shown.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide: SlideLayer,
        earlier: EarlierMap,
        opacity: float,
        coloured: Callable[[Taxonomy], Taxonomy],
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._pyramid = slide.pyramid
        self._taxonomy = earlier.store.taxonomy
        self._grid = {name: getattr(grid_of(viewer), name) for name in ("enabled", "stride", "shape", "spacing")}
        store, name = earlier.store, slide.slide.name
        with selection_kept(viewer):
            picture = viewer.add_image(
                [_SameLevel(level) for level in slide.pyramid.levels],
                name=f"{name}, second view",
                rgb=True,
                multiscale=True,
                scale=slide.layer.scale,
                translate=slide.layer.translate,
                units=slide.layer.units,
            )
            labels = viewer.add_labels(
                earlier.levels if len(earlier.levels) > 1 else earlier.levels[0],
                name=f"Earlier map of {name}",
                multiscale=len(earlier.levels) > 1,
                opacity=opacity,
                colormap=result_colormap(coloured(store.taxonomy)),
                scale=(store.cell_um, store.cell_um),
                translate=((store.cell_um - store.facts.slide.mpp) / 2,) * 2,
                units=MICRONS,
                metadata={MADE_OF: [str(store.path)]},
            )
        labels.editable = False
        self.layers = (picture, labels)
        self._soon = single_shot(0, self._arrange)  # after napari has handled the change of its list
        for signal in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            signal.connect(self._on_layers)
        self._pyramid.arrived.connect(self._refresh)
        grid_of(viewer).enabled = True
        self._arrange()

    def close(self) -> None:
        """Show one view again, and remove the two layers."""
        self._soon.stop()
        self._pyramid.arrived.disconnect(self._refresh)
        if (viewer := self._viewer()) is None:
            return
        events = viewer.layers.events
        for signal in (events.inserted, events.removed, events.reordered):
            signal.disconnect(self._on_layers)
        for name, value in self._grid.items():
            setattr(grid_of(viewer), name, value)
        with selection_kept(viewer):
            for layer in self.layers:
                if layer in viewer.layers:
                    viewer.layers.remove(layer)

    def recolour(self, coloured: Callable[[Taxonomy], Taxonomy]) -> None:
        """Show the classes of the earlier map in these colours."""
        self.layers[1].colormap = result_colormap(coloured(self._taxonomy))

    @property
    def shown(self) -> bool:
        """Whether both layers are there, and the grid is on; the user may remove or switch off either."""
        viewer = self._viewer()
        return viewer is not None and grid_of(viewer).enabled and all(layer in viewer.layers for layer in self.layers)

    def _on_layers(self, _: Any = None) -> None:
        self._soon.start()

    def _arrange(self) -> None:
        viewer = self._viewer()
        if viewer is None or not self.shown:
            return
        layers, grid = viewer.layers, grid_of(viewer)
        if tuple(layers[-2:]) != self.layers:
            for layer in self.layers:
                layers.move(layers.index(layer), len(layers))
        grid.stride, grid.shape, grid.spacing = len(layers) - 2, (1, 2), _SPACING

    def _refresh(self) -> None:
        self.layers[0].refresh(highlight=False, extent=False)


class _SameLevel:
    """A level of a slide that another layer shows, too, so that both share the decoded pixels."""

    def __init__(self, level: SlideLevel) -> None:
        self._level = level
        self.shape, self.dtype, self.ndim, self.chunks = level.shape, level.dtype, level.ndim, level.chunks
        self.size = math.prod(level.shape)

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        return self._level[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._level, dtype)
