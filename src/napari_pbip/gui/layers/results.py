"""Results as layers: the labels of a score store, computed from its scores while one looks.

Nothing is written and no network runs: a threshold that moves is arithmetic on the scores of the present view. The
layer follows a store that grows. It belongs to its slide by what the store says, whichever layer is active.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.utils.colormaps import DirectLabelColormap
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.measure import measure
from napari_pbip.errors import OutputError
from napari_pbip.events import Event, Job, RegionDone, Step
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.result_view import LabelLevel, ResultView
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.results import LargestScores, ScoreStore, open_labels
from napari_pbip.results.areas import NOT_ANALYSED_NAME, Area
from napari_pbip.results.labels import (
    BACKGROUND_NAME,
    BACKGROUND_RGB,
    deltas,
)
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.view import ViewedStore
from napari_pbip.taxonomy import BACKGROUND, NOT_ANALYSED

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer
    from napari.layers import Layer
    from napari.viewer import ViewerModel

METADATA = "napari_pbip_result"
"""Key in the metadata of a result's layer: the path of the score store."""
_OPACITY = 0.5
_ESTIMATE_MS = 120
_ARRIVED_MS = 40
_GROWN_MS = 600
"""Time after which written blocks are committed: the store does it after half a second."""
_MEASURE_MS = 400
"""Time that thresholds stay as they are before every cell is measured."""
_MEASURE_GROWING_MS = 3000
_CATCH_UPS = 16
"""Looks for a commit after the last news of a store that grows."""


class ResultLayer:
    """A result and its layer; made by :class:`ResultLayers`.

    Attributes
    ----------
    view
        What is shown.
    layer
        The napari layer.
    areas
        A row a class, then background, then tissue that was not analysed.
    areas_exact
        Whether every cell was counted for them; else a coarse level tells them approximately.
    error
        Why scores could not be read, if they could not: a sentence.
    """

    thresholds_changed = Signal(ThresholdSettings)
    """The thresholds as they are now."""
    hidden_changed = Signal()
    """Classes were shown or hidden."""
    areas_changed = Signal()
    """:attr:`areas` changed."""
    failed = Signal(str)
    """Scores could not be read: a sentence."""

    def __init__(self, view: ResultView, layer: LabelsLayer, viewer: ViewerModel) -> None:
        self.view = view
        self.layer = layer
        self.areas: list[Area] = []
        self.areas_exact = False
        self.error = ""
        self._camera = camera_of(viewer)
        self._hidden: frozenset[int] = frozenset()
        self._closed = False
        self._catching: Future[bool] | None = None
        self._catch_ups = 0
        self._counts: tuple[ScoreStore, LargestScores] | None = None
        self._measuring: RunningJob | None = None
        self._redraw_timer = _timer(0, self._redraw)
        self._arrived_timer = _timer(_ARRIVED_MS, self._look)
        self._grown_timer = _timer(_GROWN_MS, self._catch_up)
        self._estimate_timer = _timer(_ESTIMATE_MS, self._estimate)
        self._measure_timer = _timer(_MEASURE_MS, self._measure)
        self._camera.events.zoom.connect(self._on_zoom)
        layer.events.set_data.connect(self._on_drawn)
        self._on_zoom()
        self._estimate_timer.start()
        self._measure_timer.start()

    @property
    def store(self) -> ViewedStore:
        """The scores."""
        return self.view.store

    @property
    def thresholds(self) -> ThresholdSettings:
        """From scores to labels; replace it whole, and the layer follows.

        Raises
        ------
        ConfigError
            On replacing, if they name a class that there is not.
        """
        return self.view.thresholds

    @thresholds.setter
    def thresholds(self, thresholds: ThresholdSettings) -> None:
        if thresholds == self.view.thresholds:
            return
        deltas(self.store.taxonomy, thresholds)  # raises here, not while the layer is drawn
        if thresholds.percentile != self.view.thresholds.percentile:
            self.view.largest = self.store.guess_largest(thresholds.percentile)
        self.view.thresholds = thresholds
        self.thresholds_changed.emit(thresholds)
        self._redraw_timer.start()
        if not self._estimate_timer.isActive():  # areas follow a slider while it moves
            self._estimate_timer.start()
        if self._measuring is not None:
            self._measuring.cancel()
        self._measure_timer.start(_MEASURE_MS)

    @property
    def hidden(self) -> frozenset[int]:
        """Label values that are not drawn."""
        return self._hidden

    @hidden.setter
    def hidden(self, values: frozenset[int]) -> None:
        if values != self._hidden:
            self._hidden = values
            self.layer.colormap = _colormap(self.store, values)
            self.hidden_changed.emit()

    def update(self, regions: Sequence[RegionDone] = ()) -> None:
        """Show what is new in a store that grows; call it with every batch of events."""
        for region in regions:
            bottom, right = region.y + region.height, region.x + region.width
            rows, columns = range(region.y // BLOCK, -(-bottom // BLOCK)), range(region.x // BLOCK, -(-right // BLOCK))
            self.store.grown((row, column) for row in rows for column in columns)
        self._catch_ups = 0
        if not self._closed:  # news may come after the layer was removed
            self._catch_up()

    def value_at(self, position: Sequence[float]) -> tuple[int, npt.NDArray[np.float32]] | None:
        """Label and raw scores (N,) of what is drawn at a position in micrometres, or None beside the slide."""
        level = self.view.drawn_level(int(self.layer.data_level))
        row, column = (math.floor(p + 0.5) >> level for p in self.layer.world_to_data(position)[-2:])
        _, height, width = self.store.scores[level].shape
        if not (0 <= row < height and 0 <= column < width):
            return None
        cell = slice(row, row + 1), slice(column, column + 1)
        scores = self.store.read_scores(level, *cell)[:, 0, 0].astype(np.float32)
        return int(self.view.labels(level, *cell)[0, 0]), scores

    def close(self) -> RunningJob | None:
        """Stop computing and close the store, the layer was removed; returns the job that is still stopping."""
        if self._closed:
            return None
        self._closed = True
        for timer in (
            self._redraw_timer,
            self._arrived_timer,
            self._grown_timer,
            self._estimate_timer,
            self._measure_timer,
        ):
            timer.stop()
        self._camera.events.zoom.disconnect(self._on_zoom)
        self.layer.events.set_data.disconnect(self._on_drawn)
        self.view.close()
        if self._measuring is not None:
            self._measuring.cancel()
        return self._measuring

    # drawing -------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        self.view.renew_coarsest()
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _on_zoom(self) -> None:
        before = self.view.drawn_level(0)
        self.view.micrometres = 1 / self._camera.zoom
        if self.view.drawn_level(0) != before:
            self._redraw_timer.start()

    def _on_drawn(self) -> None:
        if self.store.lacking:
            self._arrived_timer.start()

    def _look(self) -> None:
        """Draw again once what the last picture lacked is there."""
        if self._catching is not None and self._catching.done():
            self._caught_up(self._catching.result())
        elif self.store.arrived():
            self._redraw()
        if self.store.lacking or self._catching is not None:
            self._arrived_timer.start()
        if self.store.error is not None and str(self.store.error) != self.error:
            self.error = str(self.store.error)
            self.failed.emit(self.error)

    # growing -------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        if self._catching is None:
            self._catching = self.store.catch_up()
            self._arrived_timer.start()
        else:
            self._grown_timer.start()

    def _caught_up(self, grown: bool) -> None:
        self._catching = None
        if grown:
            guess = self.store.guess_largest(self.thresholds.percentile)
            self.view.largest = guess if self._counts is None else np.maximum(self.view.largest, guess)
            self._redraw()
            self._estimate_timer.start()
            if not self._measure_timer.isActive():
                self._measure_timer.start(_MEASURE_GROWING_MS)
        if self.store.growing and self._catch_ups < _CATCH_UPS:
            self._catch_ups += 1
            self._grown_timer.start()

    # measuring -----------------------------------------------------------------------------------------------

    def _estimate(self) -> None:
        self.areas, self.areas_exact = self.view.areas(), False
        self.areas_changed.emit()

    def _measure(self) -> None:
        if self._measuring is not None:
            self._measure_timer.start()  # it is still stopping
            return
        thresholds = self.thresholds

        def make() -> Job:
            if self._counts is None:
                store = ScoreStore.open(self.store.path)
                self._counts = store, LargestScores(store)
            yield from measure(*self._counts, thresholds)

        self._measuring = RunningJob(make)
        self._measuring.events.connect(self._on_measured)
        self._measuring.ended.connect(self._on_measure_ended)

    def _on_measured(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Step) and event.values:
                largest = np.array([event.values[name] for name in self.store.taxonomy.names], np.float32)
                largest = np.where(largest > 0, largest, self.store.guess_largest(self.thresholds.percentile))
                if not np.array_equal(largest, self.view.largest):
                    self.view.largest = largest
                    self._redraw_timer.start()

    def _on_measure_ended(self, state: State) -> None:
        job, self._measuring = self._measuring, None
        if self._closed or job is None:
            return
        if state is State.FINISHED and job.result is not None and not self._measure_timer.isActive():
            self._estimate_timer.stop()
            self.areas = [Area(**row) for row in job.result.summary["areas"]]
            self.areas_exact = not self.store.growing
            self.areas_changed.emit()
            self.layer.refresh(highlight=False, extent=False)  # the thumbnail too
        elif state is State.FAILED and job.error is not None and str(job.error) != self.error:
            self.error = str(job.error)
            self.failed.emit(self.error)


class ResultLayers:
    """The results that are layers of a viewer, in the order in which they came.

    Whatever adds a layer of a result, it is found here; when the layer is removed the store is closed.
    """

    changed = Signal()
    """A result came or went."""
    selected = Signal(object)
    """The :class:`ResultLayer` that the user is looking at, or None."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._results: list[ResultLayer] = []
        self._stopping: list[RunningJob] = []
        for layer in viewer.layers:
            self._found(layer, viewer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)

    @property
    def current(self) -> ResultLayer | None:
        """The result of the active layer or of its slide; or else, if there is but one, that one."""
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        if active is not None:
            path = active.metadata.get(SLIDE)
            for result in self._results:
                if result.layer is active or (path is not None and path == str(result.store.facts.slide.path)):
                    return result
        return self._results[0] if len(self._results) == 1 else None

    def open(self, path: Path, thresholds: ThresholdSettings | None = None) -> ResultLayer:
        """The result of a score store, finished or growing, as a layer; or the one that it has already.

        Parameters
        ----------
        path
            Folder of the store.
        thresholds
            For a store without labels; those that labels were written with go first.

        Raises
        ------
        OutputError
            If there is no score store, or it is damaged.
        """
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("the viewer was closed")
        for result in self._results:
            if result.store.path == Path(path).absolute():
                return result
        levels, options, _ = layer_data(path, thresholds)
        viewer.add_labels(levels, **options)
        return self._results[-1]

    def of_layer(self, layer: Layer) -> ResultLayer | None:
        """The result of a layer, or None."""
        return next((result for result in self._results if result.layer is layer), None)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[ResultLayer]:
        return iter(self._results)

    def __getitem__(self, index: int) -> ResultLayer:
        return self._results[index]

    def close(self) -> None:
        """Close all results and wait for what they compute."""
        while self._results:
            self._close(self._results.pop())
        for job in list(self._stopping):
            job.wait()

    def _close(self, result: ResultLayer) -> None:
        job = result.close()
        if job is not None:
            self._stopping.append(job)
            job.ended.connect(lambda _: self._stopping.remove(job))

    def _on_inserted(self, event: Any) -> None:
        viewer = self._viewer()
        if viewer is not None:
            self._found(event.value, viewer)

    def _found(self, layer: Layer, viewer: ViewerModel) -> None:
        level = layer.data[0] if getattr(layer, "multiscale", False) else None
        if isinstance(level, LabelLevel):
            self._results.append(ResultLayer(level.view, layer, viewer))
            self.changed.emit()
            self.selected.emit(self.current)

    def _on_removed(self, event: Any) -> None:
        result = self.of_layer(event.value)
        if result is not None:
            self._results.remove(result)
            self._close(result)
            self.changed.emit()
            self.selected.emit(self.current)

    def _on_active(self) -> None:
        self.selected.emit(self.current)


def layer_data(path: Path, thresholds: ThresholdSettings | None = None) -> tuple[list[Any], dict[str, Any], str]:
    """A result as napari's layer data: levels, options of ``add_labels``, and ``"labels"``.

    ``thresholds`` are for a store without labels.

    Raises
    ------
    OutputError
        If there is no score store, or it is damaged.
    """
    store = ViewedStore.open(Path(path).absolute())
    view = ResultView(store, _first_thresholds(store, thresholds or ThresholdSettings()))
    slide = store.facts.slide
    names = [NOT_ANALYSED_NAME, *store.taxonomy.names, BACKGROUND_NAME]
    options = {
        "name": f"{slide.name} tissue map",
        "multiscale": True,
        "opacity": _OPACITY,
        "colormap": _colormap(store, frozenset()),
        "features": {"index": [*range(len(store.taxonomy) + 1), BACKGROUND], "class": names},
        "scale": (store.cell_um, store.cell_um),
        # the origin is the middle of the slide's first pixel, and a cell's position is that of its middle
        "translate": ((store.cell_um - slide.mpp) / 2,) * 2,
        "units": MICRONS,
        "metadata": {METADATA: str(store.path), SLIDE: str(slide.path)},
    }
    return view.levels, options, "labels"


def _first_thresholds(store: ScoreStore, usual: ThresholdSettings) -> ThresholdSettings:
    """The thresholds of the labels in a store, or else the usual ones, as far as they are of its classes."""
    try:
        return open_labels(store)[1].thresholds
    except OutputError:
        own = {name: delta for name, delta in usual.class_delta.items() if name in store.taxonomy.names}
        return usual.model_copy(update={"class_delta": own})


def _colormap(store: ScoreStore, hidden: frozenset[int]) -> DirectLabelColormap:
    """Colours of the label values; those of hidden ones are transparent."""
    transparent = (0.0, 0.0, 0.0, 0.0)
    drawn: dict[int | None, tuple[float, ...]] = {None: transparent, NOT_ANALYSED: transparent}
    colours = {n + 1: one.rgb for n, one in enumerate(store.taxonomy)} | {BACKGROUND: BACKGROUND_RGB}
    for value, rgb in colours.items():
        drawn[value] = transparent if value in hidden else (*(c / 255 for c in rgb), 1.0)
    return DirectLabelColormap(color_dict=drawn)


def _timer(milliseconds: int, call: Callable[[], None]) -> QTimer:
    timer = QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer
