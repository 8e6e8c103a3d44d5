"""The live map of a session: a layer over the view that is updated whenever a label or the view changes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels as LabelsLayer
from psygnal import Signal

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.engine.training.live_view import Coloured, Fit, Fitted, Labels, View, places_in, squares_for
from napari_pbip.errors import PbipError
from napari_pbip.events import Event, Job, Loading, Started, Step, Warned
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.jobs import NewestJob, RunningJob, State, loading
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.display import Display
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.slides import SlideLayer, in_view, placement
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import Position
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari_pbip.engine.training.live_map import LiveProbe
    from napari_pbip.gui.state.session import Session

# torch takes seconds to import, so modules that need it are imported in the threads of jobs

METADATA = "napari_pbip_live_map"
"""Key of the layer's metadata with the path of the slide."""
_MOST = 1_000
"""Largest number of squares that are coloured, so that their features fit into memory."""
_FOLLOW_MS = 60
"""Milliseconds between a change of a label or of the view and the update of the map."""
_CHECK_MS = 1_000
"""Milliseconds after the first fit to new labels before these are cross-validated."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The input of the map."""

    encoder: tuple[str, Path | None, str]
    """Name, weights and device of the encoder."""
    folder: Path
    """Folder of the labelled tiles."""
    labelled: LabelledSlides
    view: View

    @property
    def learned(self) -> tuple[object, ...]:
        """What the probe learns from."""
        return self.encoder, self.folder, self.labelled


class LiveMap:
    """The live map of a session, which is active while it is :attr:`on` and its switch is :attr:`shown`.

    Attributes
    ----------
    display
        Opacity and hidden classes of the map.
    layer
        The layer, or None while there is nothing to show.
    note
        A sentence on what the map waits for or on its progress, or an empty string.
    warnings
        Sentences on labelled tiles that could not be used.
    problem
        The error because of which there is no map, or None.
    checked
        The result of cross-validating the labels, as in :attr:`~napari_pbip.engine.run_facts.RunFacts.fit`, with the
        ``names`` of the classes; empty while it is not known.
    """

    changed = Signal()
    """Emitted when the map was switched on or off, its sentences changed, or its layer was added or removed."""
    drawn = Signal()
    """Emitted when the pixels of the layer have changed."""
    checked_changed = Signal()
    """Emitted when :attr:`checked` has changed."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.display = Display()
        self.layer: LabelsLayer | None = None
        self.note = ""
        self.warnings: tuple[str, ...] = ()
        self.problem: PbipError | None = None
        self.checked: Mapping[str, Any] = {}
        self._on = False
        self._panels: weakref.WeakSet[object] = weakref.WeakSet()
        self._probe: tuple[object, LiveProbe] | None = None
        self._wanted: _Wanted | None = None
        self._tiles: dict[Position, Labels] = {}
        self._fit: Fit | None = None
        self._checked: tuple[object, ...] | None = None  # what is checked, or has been
        self._started: Started | None = None
        self._mapping, self._checking = NewestJob(session.start), NewestJob(session.start)
        self._soon = single_shot(_FOLLOW_MS, self._follow)
        self._quiet = single_shot(_CHECK_MS, self._check)
        self.display.events.hidden.connect(self._paint)
        self.display.events.opacity.connect(self._paint)
        session.classes.changed.connect(self._paint)
        session.labelling.changed.connect(self._follow_soon)
        session.settings_changed.connect(self._follow_soon)
        session.regions.changed.connect(self._follow_soon)
        camera = camera_of(session.viewer)
        camera.events.center.connect(self._follow_soon)
        camera.events.zoom.connect(self._follow_soon)
        session.viewer.layers.events.removed.connect(self._on_removed)

    @property
    def on(self) -> bool:
        """Whether the user has switched the map on."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            self._follow()

    @property
    def shown(self) -> bool:
        """Whether its switch is visible; the map pauses while it is not, because it could not be switched off."""
        return bool(self._panels)

    def show_in(self, panel: object, visible: bool) -> None:
        """Record whether a panel with the switch is visible; there may be several."""
        before = self.shown
        (self._panels.add if visible else self._panels.discard)(panel)
        if self.shown != before:
            self._follow()

    @property
    def busy(self) -> bool:
        """Whether an update of the map is running or about to start."""
        return self._soon.isActive() or self._mapping.job is not None

    @property
    def title(self) -> str:
        """Name of the map for the user."""
        return "Live map" if self.layer is None else str(self.layer.name)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the labels, in the colours in which they are shown."""
        taxonomy: Taxonomy = self._session.classes.coloured(self._session.labelling.labels.taxonomy)
        return taxonomy

    def go_to(self, picture: str) -> None:
        """Bring a labelled tile into view, given by its picture as in :attr:`checked`."""
        try:
            self._session.places.show_labelled(Path(picture))
        except PbipError as error:
            self._report("", error)

    def close(self) -> None:
        """Switch the map off and remove its layer, when the session ends."""
        self._on = False
        self._stop()

    # updates ---------------------------------------------------------------------------------------------------

    def _follow_soon(self, _: object = None) -> None:
        if self._on and self.shown:
            self._soon.start()

    def _follow(self) -> None:
        """Update the map, if its input has changed."""
        if self.checked and _classes_alone(self._session.labelling.labels.snapshot()) < 2:
            self._checked, self.checked = None, {}
            self.checked_changed.emit()
        wanted, note = self._input() if self._on and self.shown else (None, "")
        if wanted is None:
            self._stop()
            self._report(note)
        elif wanted != self._wanted:
            before, self._wanted = self._wanted, wanted
            if before is not None and before.learned != wanted.learned:
                self._stop_checking()  # it checks earlier labels, and slows down the fit
            if before is None or not _fits(before, wanted):
                self._remove()
            elif before.labelled != wanted.labelled:
                self._paint()
            self._report("Starting…" if before is None else self.note)
            self._mapping.start(lambda: self._make(wanted), lambda job: self._listen(job, wanted))

    def _input(self) -> tuple[_Wanted | None, str]:
        """Return the present input of the map, or None and a sentence on what it waits for."""
        session, labelling = self._session, self._session.labelling
        slide, facts = labelling.slide, labelling.facts
        if slide is None or facts is None:
            return None, ""  # the dock itself explains this
        labelled = labelling.labels.snapshot()
        if _classes_alone(labelled) < 2:
            return None, "The map begins as soon as two classes have a labelled tile each."
        rectangle = in_view(slide)
        if rectangle is None:
            return None, "The slide is out of sight; show its layer, and bring it into view."
        settings, regions = session.settings, session.regions.of(slide)
        size = squares_for(labelled.size)
        places = places_in(facts, size, rectangle, _MOST, regions)
        if not places:
            return None, "Nothing in view is to be analysed, because of the regions in Slides."
        view = View(
            facts,
            size,
            places,
            session.tissue_file(slide.slide),
            settings.segment.tissue,
            regions,
            settings.thresholds.smoothing_um,
        )
        encoder = settings.bank.encoder, settings.bank.weights, settings.train.device
        return _Wanted(encoder, session.tiles_folder, labelled, view), ""

    def _stop(self) -> None:
        """Stop all updates and remove the layer."""
        self._soon.stop()
        self._mapping.stop()
        self._stop_checking()
        self._wanted = None
        self._remove()

    def _stop_checking(self) -> None:
        """Stop the check of the labels, and forget that it had begun."""
        self._quiet.stop()
        if self._checking.job is not None:
            self._checking.stop()
            self._checked = None

    # the jobs --------------------------------------------------------------------------------------------------

    def _make(self, wanted: _Wanted) -> Job:
        """Return the job of an update; runs in its thread."""
        from napari_pbip.engine.training.live_map import LiveProbe, live_map

        if self._probe is None or self._probe[0] != wanted.encoder:
            self._probe = wanted.encoder, LiveProbe(*wanted.encoder)
        return live_map(self._probe[1], wanted.labelled, wanted.folder, wanted.view)

    def _listen(self, job: RunningJob, wanted: _Wanted) -> None:
        self.warnings, self._started = (), None
        job.events.connect(lambda events: self._on_events(events, wanted))
        job.ended.connect(lambda state: self._on_end(state, job, wanted))

    def _on_events(self, events: Sequence[Event], wanted: _Wanted) -> None:
        for event in events:
            # perhaps of an earlier update, which loads for all
            if isinstance(event, Loading) and self._wanted is not None:
                self._report(loading(event.what))
        if wanted is not self._wanted:
            return  # the events are those of an earlier update
        coloured = [event for event in events if isinstance(event, Coloured)]
        for event in events:
            if isinstance(event, Started):
                self._started = event
            elif isinstance(event, Fitted):
                self._fit = event.fit
                # a fit to more mosaics is one to the same labels
                if event.fit is not None and self._checked != _what(event.fit, wanted) and not self._quiet.isActive():
                    self._quiet.start()
            elif isinstance(event, Warned):
                self.warnings += (event.message,)
            elif isinstance(event, Step) and self._started is not None:
                started = self._started
                self._report(f"{started.job}: {event.done:,} of {started.total:,} {started.unit}.")
        for event in coloured:
            self._tiles.update(event.tiles)
        if coloured:
            self._draw(wanted)

    def _on_end(self, state: State, job: RunningJob, wanted: _Wanted) -> None:
        if wanted is not self._wanted:
            return
        if state is State.FAILED:
            self._report("", job.error)
        elif state is State.FINISHED:
            whole = len(wanted.view.places) < _MOST
            self._report("" if whole else "The middle of the view is coloured; zoom in to see all of it coloured.")

    def _check(self) -> None:
        fit, wanted = self._fit, self._wanted
        if fit is None or wanted is None:
            return
        if self._session.labelling.saving:
            self._quiet.start()  # the report shows pictures of tiles, which are being cut
            return
        checked = self._checked = _what(fit, wanted)

        def make() -> Job:
            from napari_pbip.engine.training.live_map import check_labels

            return check_labels(fit)

        def take(job: RunningJob) -> None:
            if checked != self._checked:
                return  # it was stopped
            if job.error is not None:
                self._report(self.note, job.error)
            elif job.result is not None:
                self.checked = {**job.result.summary, "names": fit.names}
                self.checked_changed.emit()

        self._checking.start(make, lambda job: job.ended.connect(lambda _: take(job)))

    def _report(self, note: str, problem: PbipError | None = None) -> None:
        self.note, self.problem = note, problem
        self.changed.emit()

    # the layer -------------------------------------------------------------------------------------------------

    def _draw(self, wanted: _Wanted) -> None:
        """Show the squares of the view whose labels are known."""
        slide = self._session.slides.of_path(wanted.view.slide.path)
        if slide is None or not self._tiles:
            return  # the slide was closed, or no square of it could be read
        places = np.array(wanted.view.places)
        (left, top), (right, bottom) = places.min(0), places.max(0) + 1
        height, width = next(iter(self._tiles.values())).shape
        data = np.zeros(((bottom - top) * height, (right - left) * width), np.uint8)
        for column, row in wanted.view.places:
            if (tile := self._tiles.get((column, row))) is not None:
                y, x = (row - top) * height, (column - left) * width
                data[y : y + height, x : x + width] = tile
        side = wanted.view.size.microns / wanted.view.slide.mpp
        options = _place(slide, (side / height, side / width), (top * side, left * side))
        if self.layer is None:
            self._add(slide, data, options)
        else:
            self.layer.data = data
            self.layer.translate = options["translate"]
        self.drawn.emit()

    def _add(self, slide: SlideLayer, data: Labels, options: Mapping[str, Any]) -> None:
        viewer, path = self._session.viewer, str(slide.slide.path)
        self.layer = LabelsLayer(
            data, name=f"Live map of {slide.slide.name}", metadata={METADATA: path, SLIDE: path}, **options
        )
        self.layer.editable = False
        self._paint()
        self.layer.events.opacity.connect(self._on_layer_opacity)
        below = [slide.layer, *(result.layer for result in self._session.results)]
        with selection_kept(viewer):
            viewer.layers.insert(1 + max(viewer.layers.index(layer) for layer in below), self.layer)
        self.changed.emit()

    def _paint(self, _: object = None) -> None:
        """Apply :attr:`display` and the colours of the classes to the layer."""
        if self.layer is not None:
            colours = {n: one.rgb for n, one in enumerate(self.taxonomy, 1)}
            self.layer.colormap = label_colormap(colours, self.display.hidden)
            titles = ["", *map(self._session.classes.title, self.taxonomy.names)]
            self.layer.features = {"index": [*range(len(titles))], "class": titles}
            self.layer.opacity = self.display.opacity

    def _on_layer_opacity(self) -> None:
        if self.layer is not None:
            self.display.opacity = self.layer.opacity

    def _on_removed(self, event: Any) -> None:
        """Switch the map off if the user has deleted its layer."""
        if event.value is self.layer:
            self.layer = None
            self.on = False

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        self._tiles = {}
        if layer is not None:
            viewer = self._session.viewer
            if layer in viewer.layers:
                viewer.layers.remove(layer)
            self.changed.emit()


def _fits(before: _Wanted, after: _Wanted) -> bool:
    """Return whether the labels of cells that are shown are still valid, or at least comparable."""
    lattices = [(wanted.view.slide, wanted.view.size, wanted.encoder) for wanted in (before, after)]
    return lattices[0] == lattices[1] and len(before.labelled.taxonomy) <= len(after.labelled.taxonomy)


def _classes_alone(labelled: LabelledSlides) -> int:
    """Return the number of classes that a tile shows alone."""
    return len({labels for tiles in labelled.tiles for labels in tiles.values() if len(labels) == 1})


def _what(fit: Fit, wanted: _Wanted) -> tuple[object, ...]:
    """Return what a check of labels depends on: the tiles of one class, and how they are encoded."""
    return wanted.encoder, fit.names, tuple(fit.single.tiles)


def _place(slide: SlideLayer, cell: tuple[float, float], corner: tuple[float, float]) -> dict[str, Any]:
    """Return scale, translation and units of a layer on a slide.

    In napari, the centre of a layer's first pixel is at its translation. The corner of the first cell is therefore half
    a cell before the translation, and the corner of the slide half a pixel before zero.

    Parameters
    ----------
    slide
        The slide.
    cell
        Height and width of a cell in level-0 pixels.
    corner
        Top and left edge of the layer in level-0 pixels.
    """
    where = placement(slide.slide)
    step = np.array(where["scale"])
    return {
        "scale": np.array(cell) * step,
        "translate": (np.array(corner) + np.array(cell) / 2 - 0.5) * step,
        "units": where["units"],
    }
