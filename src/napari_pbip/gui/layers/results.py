"""Results as layers: the labels of a score store, computed from its scores for the present view.

Nothing is written and no network runs: a change of a threshold is arithmetic on the scores in view. The layer is
updated when the store grows. It belongs to the slide that the store records, not to the active layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.utils.colormaps import DirectLabelColormap
from psygnal import Signal

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.events import RegionDone
from napari_pbip.gui.compat import camera_of, scale_bar, show_scale_bar
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.layers.area_counts import AreaCounts
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.display import Display
from napari_pbip.gui.layers.growth import StoreGrowth
from napari_pbip.gui.layers.registry import LayerRegistry
from napari_pbip.gui.layers.result_view import LabelLevel, ResultView
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.gui.timers import single_shot
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.results.areas import NOT_ANALYSED_NAME
from napari_pbip.results.places import is_further
from napari_pbip.results.view import ViewedStore
from napari_pbip.slides.regions import Regions
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME, UNASSIGNED_RGB, Taxonomy

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer
    from napari.layers import Layer
    from napari.viewer import ViewerModel

METADATA = "napari_pbip_result"
"""Key in the metadata of a result's layer: the path of the score store."""
MADE_OF = "napari_pbip_made_of"
"""Key in the metadata of other layers that are made of maps: the paths of their score stores."""
_POLL_MS = 40


class ResultLayer:
    """A result and its layer, which follows the result's :class:`Display`; made by :class:`ResultLayers`.

    Attributes
    ----------
    view
        The displayed labels.
    layer
        The napari layer.
    areas
        The area of each class.
    error
        Why scores could not be read, as a sentence; empty if there was no error.
    """

    failed = Signal(str)
    """Emitted with a sentence when scores could not be read."""

    def __init__(self, view: ResultView, layer: LabelsLayer, viewer: ViewerModel) -> None:
        self.view = view
        self.layer = layer
        self._taxonomy = view.store.taxonomy
        self.areas = AreaCounts(view)
        self.error = ""
        self._camera = camera_of(viewer)
        self._growth = StoreGrowth(view.store)
        self._stale = self._closed = False
        self._timer = single_shot(0, self._draw)
        display = self.display
        display.opacity = layer.opacity
        self._connections: tuple[tuple[Any, Any], ...] = (
            (display.events.thresholds, self._on_thresholds),
            (display.events.hidden, self._on_hidden),
            (display.events.opacity, self._on_opacity),
            (self._growth.caught_up, self._on_caught_up),
            (self.areas.counted, self._on_counted),
            (self.areas.largest_changed, self._redraw),
            (self.areas.failed, self._fail),
        )
        for signal, slot in self._connections:
            signal.connect(slot)
        layer.events.opacity.connect(self._on_layer_opacity)
        layer.events.set_data.connect(self._on_drawn)
        self._camera.events.zoom.connect(self._on_zoom)
        self._on_zoom()

    @property
    def store(self) -> ViewedStore:
        """The store of the scores."""
        return self.view.store

    @property
    def title(self) -> str:
        """Name of the result for the user: that of its slide, and of a further map also that of its model."""
        return self.store.facts.slide.name + _by_model(self.store)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes, in the colours in which they are shown."""
        return self._taxonomy

    @property
    def display(self) -> Display:
        """The display settings; the layer follows when its attributes are set."""
        return self.view.display

    @property
    def thresholds(self) -> ThresholdSettings:
        """The thresholds of the classes of this result."""
        return self.view.thresholds

    def show_classes(self, title: Callable[[str], str], coloured: Callable[[Taxonomy], Taxonomy]) -> None:
        """Show the classes by their titles under the mouse, and in the colours of the project."""
        self.layer.features = _features([title(name) for name in self.taxonomy.names])
        taxonomy = coloured(self.store.taxonomy)
        if taxonomy != self._taxonomy:
            self._taxonomy = taxonomy
            self._on_hidden(self.display.hidden)

    def renew(self) -> None:
        """Show the labels again, and count their areas, because thresholds or corrections have changed."""
        self._redraw()
        self.areas.renew()

    def update(self, regions: Sequence[RegionDone] = ()) -> None:
        """Show the new parts of a growing store; to be called with every batch of events."""
        self._growth.update(regions)

    def use_regions(self, regions: Regions) -> None:
        """Show and measure the map by these regions."""
        self.store.use_regions(regions)
        self.view.largest = self.store.guess_largest(self.thresholds.percentile)
        self._redraw()
        self.areas.renew()

    def value_at(self, position: Sequence[float]) -> tuple[int, npt.NDArray[np.float32]] | None:
        """Return the label drawn at a position in micrometres, and the share of each class, (N,); None off the slide.

        A share is the score that the label is chosen by, divided by the largest of its class.
        """
        level = self.view.drawn_level(int(self.layer.data_level))
        row, column = (math.floor(p + 0.5) >> level for p in self.layer.world_to_data(position)[-2:])
        _, height, width = self.store.scores[level].shape
        if not (0 <= row < height and 0 <= column < width):
            return None
        return self.view.label_and_shares(level, row, column)

    def close(self) -> RunningJob | None:
        """Close the store after the layer was removed; return the job that is still stopping, or None."""
        if self._closed:
            return None
        self._closed = True
        self._timer.stop()
        for signal, slot in self._connections:
            signal.disconnect(slot)
        self.layer.events.opacity.disconnect(self._on_layer_opacity)
        self.layer.events.set_data.disconnect(self._on_drawn)
        self._camera.events.zoom.disconnect(self._on_zoom)
        self._growth.close()
        self.view.close()
        return self.areas.close()

    # how it is shown -----------------------------------------------------------------------------------------

    def _on_thresholds(self) -> None:
        self.view.renew_thresholds()
        self.renew()

    def _on_hidden(self, hidden: frozenset[int]) -> None:
        self.layer.colormap = result_colormap(self.taxonomy, hidden)

    def _on_opacity(self, opacity: float) -> None:
        self.layer.opacity = opacity

    def _on_layer_opacity(self) -> None:
        self.display.opacity = self.layer.opacity

    # drawing -------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        """Redraw soon, once for all changes that are made now."""
        self._stale = True
        self._timer.start(0)

    def _draw(self) -> None:
        """Redraw if something changed, or if scores that were missing have been decoded."""
        if self.store.arrived() or self._stale:
            self._stale = False
            self.view.renew_coarsest()
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)
        if self.store.lacking and not self._timer.isActive():
            self._timer.start(_POLL_MS)
        self._check()

    def _on_zoom(self) -> None:
        before = self.view.drawn_level(0)
        self.view.micrometres = 1 / self._camera.zoom
        if self.view.drawn_level(0) != before:
            self._redraw()

    def _on_drawn(self) -> None:
        if self.store.lacking and not self._timer.isActive():
            self._timer.start(_POLL_MS)

    def _on_caught_up(self, new: bool) -> None:
        if new:
            guess = self.store.guess_largest(self.thresholds.percentile)
            self.view.largest = np.maximum(self.view.largest, guess) if self.areas.begun else guess
            self._redraw()
            self.areas.grow()
        self._check()

    def _on_counted(self) -> None:
        self.layer.refresh(highlight=False, extent=False)  # also updates the thumbnail

    def _check(self) -> None:
        if self.store.error is not None:
            self._fail(str(self.store.error))

    def _fail(self, sentence: str) -> None:
        if sentence != self.error:
            self.error = sentence
            self.failed.emit(sentence)


class ResultLayers(LayerRegistry[ResultLayer]):
    """The results that are layers of a viewer."""

    selected = Signal(object)
    """Emitted with the current :class:`ResultLayer`, or None, when it changes."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._stopping: list[RunningJob] = []
        super().__init__(viewer)
        viewer.layers.selection.events.active.connect(self._on_active)

    @property
    def current(self) -> ResultLayer | None:
        """The result of the active layer or of its slide; if that belongs to no slide, the only result, or None.

        Of several results of a slide it is one that is visible, and first that of the active layer.
        """
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        if active is not None:
            path = active.metadata.get(SLIDE)
            of_slide = [
                result
                for result in self
                if result.layer is active or (path is not None and path == result.layer.metadata.get(SLIDE))
            ]
            if of_slide:
                return min(of_slide, key=lambda result: (not result.layer.visible, result.layer is not active))
            if path is not None:  # a slide without a map, whose thresholds are not those of another slide
                return None
        return self[0] if len(self) == 1 else None

    def of_store(self, path: Path | None) -> ResultLayer | None:
        """Return the result of a score store, or None."""
        return next((result for result in self if result.store.path == path), None)

    def open(self, path: Path, thresholds: ThresholdSettings | None = None) -> ResultLayer:
        """Add a layer of a score store, finished or growing, or return the one that exists.

        Parameters
        ----------
        path
            Folder of the store.
        thresholds
            Thresholds for a store without labels; else those of its labels are used.

        Raises
        ------
        OutputError
            If the folder is not a score store, or the store is damaged.
        """
        result = self.of_store(Path(path).absolute())
        return self.add(open_store(path), thresholds) if result is None else result

    def add(self, store: ViewedStore, thresholds: ThresholdSettings | None = None) -> ResultLayer:
        """Add a layer of an open store, which is closed with it; ``thresholds`` as of :meth:`open`."""
        levels, options, _ = store_layer(store, thresholds)
        self.viewer.add_labels(levels, **options)
        return self[-1]

    def close(self) -> None:
        """Close all results and wait for their jobs."""
        super().close()
        for job in list(self._stopping):
            job.wait()

    def _make(self, layer: Layer) -> ResultLayer | None:
        level = layer.data[0] if getattr(layer, "multiscale", False) else None
        return ResultLayer(level.view, layer, self.viewer) if isinstance(level, LabelLevel) else None

    def _close_item(self, result: ResultLayer) -> None:
        job = result.close()
        if job is not None:
            self._stopping.append(job)
            job.ended.connect(lambda _: self._stopping.remove(job))

    def _on_added(self, result: ResultLayer) -> None:
        if not scale_bar(self.viewer).visible:  # a map without its slide is in micrometres too
            show_scale_bar(self.viewer, True)
        self._on_active()

    def _on_gone(self, result: ResultLayer, place: int) -> None:
        self._on_active()

    def _on_active(self) -> None:
        self.selected.emit(self.current)


def layer_data(path: Path, thresholds: ThresholdSettings | None = None) -> tuple[list[Any], dict[str, Any], str]:
    """Return a result as napari's layer data: levels, options of ``add_labels``, and ``"labels"``.

    ``thresholds`` are used for a store without labels.

    Raises
    ------
    OutputError
        If the folder is not a score store, or the store is damaged.
    """
    return store_layer(open_store(path), thresholds)


def open_store(path: Path) -> ViewedStore:
    """Open a store with its corrections, which are read at once; it may be called in a thread, because it may be slow.

    Raises
    ------
    OutputError
        If the folder is not a score store, or the store or its corrections are damaged.
    """
    store = ViewedStore.open(Path(path).absolute())
    try:
        _ = store.corrections
    except OutputError:
        store.close()
        raise
    return store


def store_layer(
    store: ViewedStore, thresholds: ThresholdSettings | None = None
) -> tuple[list[Any], dict[str, Any], str]:
    """Return an open store as :func:`layer_data` does."""
    display = Display(_first_thresholds(store, thresholds or ThresholdSettings()))
    slide = store.facts.slide
    options = {
        "name": f"{slide.name} tissue map{_by_model(store)}",
        "multiscale": True,
        "opacity": display.opacity,
        "colormap": result_colormap(store.taxonomy, display.hidden),
        "features": _features(store.taxonomy.names),
        "scale": (store.cell_um, store.cell_um),
        # the origin is the centre of the slide's first pixel, and the position of a cell is that of its centre
        "translate": ((store.cell_um - slide.mpp) / 2,) * 2,
        "units": MICRONS,
        "metadata": {METADATA: str(store.path), SLIDE: str(slide.path)},
    }
    return ResultView(store, display).levels, options, "labels"


def shows(layer: Layer, store: Path) -> bool:
    """Return whether a layer shows a map, or is made of it, such as a comparison."""
    metadata = layer.metadata
    return str(store) in (metadata.get(METADATA), *metadata.get(MADE_OF, ()))


def _by_model(store: ScoreStore) -> str:
    return f", model “{store.facts.model.run}”" if is_further(store.path.parent) else ""


def _first_thresholds(store: ScoreStore, usual: ThresholdSettings) -> ThresholdSettings:
    """Return the thresholds of the labels in a store, else the usual ones."""
    try:
        return open_labels(store)[1].thresholds
    except OutputError:
        return usual


def _features(names: Sequence[str]) -> dict[str, Any]:
    return {
        "index": [*range(len(names) + 1), UNASSIGNED],
        "class": [NOT_ANALYSED_NAME, *names, UNASSIGNED_NAME],
    }


def result_colormap(taxonomy: Taxonomy, hidden: frozenset[int] = frozenset()) -> DirectLabelColormap:
    """Return the colours of the labels of a map with these classes; hidden values are transparent."""
    colours = {n: one.rgb for n, one in enumerate(taxonomy, 1)} | {UNASSIGNED: UNASSIGNED_RGB}
    return label_colormap(colours, hidden)
