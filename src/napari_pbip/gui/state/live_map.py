"""The map that follows the labels while they are given, as a layer over what is in view."""

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
from napari_pbip.events import Event, Job, Started, Step, Warned
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.jobs import NewestJob, RunningJob, State
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.display import Display
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.slides import SlideLayer, in_view, placement
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import Position
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari_pbip.engine.training.live_map import LiveProbe
    from napari_pbip.gui.state.session import Session

# torch takes seconds to import: whatever needs it is imported in the thread that does

METADATA = "napari_pbip_live_map"
"""Key in the metadata of the layer: the path of the slide."""
_MOST = 1_000
"""Squares that are coloured at most: their features fit into memory."""
_FOLLOW_MS = 60
"""Time after a label or a move of the view before the map follows."""
_CHECK_MS = 1_000
"""Time without a new label after which the labels are checked."""
_TILE_ON_SCREEN = 250
"""Screen pixels a side of a tile that is gone to."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the map is to show."""

    encoder: tuple[str, Path | None, str]
    """Name, weights and device."""
    folder: Path
    """Where labelled tiles are cut to."""
    labelled: LabelledSlides
    view: View


class LiveMap:
    """The live map of a session: it is there while it is :attr:`on` and its switch is :attr:`shown`.

    Attributes
    ----------
    display
        How it is shown.
    layer
        Its layer, or None while there is nothing to show.
    note
        What it waits for, or how far it is: a sentence, or nothing.
    warnings
        What could not be used: sentences.
    problem
        Why there is no map.
    checked
        What cross-validation says of the labels, as the facts of a fitted run, with the ``names`` of the classes that
        were told apart; empty while that is not known.
    """

    changed = Signal()
    """It was switched, has something else to say, or its layer came or went."""
    drawn = Signal()
    """There are other pixels in the layer."""
    checked_changed = Signal()
    """:attr:`checked` is another one."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self.display = Display()
        self.layer: LabelsLayer | None = None
        self.note = ""
        self.warnings: tuple[str, ...] = ()
        self.problem: PbipError | None = None
        self.checked: Mapping[str, Any] = {}
        self._on = self._shown = False
        self._probe: tuple[object, LiveProbe] | None = None
        self._wanted: _Wanted | None = None
        self._tiles: dict[Position, Labels] = {}
        self._fit: Fit | None = None
        self._started: Started | None = None
        self._mapping, self._checking = NewestJob(session.start), NewestJob(session.start)
        self._soon = single_shot(_FOLLOW_MS, self._follow)
        self._quiet = single_shot(_CHECK_MS, self._check)
        self.display.events.hidden.connect(self._paint)
        self.display.events.opacity.connect(self._paint)
        session.labelling.changed.connect(self._follow_soon)
        session.settings_changed.connect(self._follow_soon)
        camera = camera_of(session.viewer)
        camera.events.center.connect(self._follow_soon)
        camera.events.zoom.connect(self._follow_soon)
        session.viewer.layers.events.removed.connect(self._on_removed)

    @property
    def on(self) -> bool:
        """Whether the user wants it."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            self._follow()

    @property
    def shown(self) -> bool:
        """Whether its switch is in sight: a map that goes on without it would surprise."""
        return self._shown

    @shown.setter
    def shown(self, shown: bool) -> None:
        if shown != self._shown:
            self._shown = shown
            self._follow()

    @property
    def busy(self) -> bool:
        """Whether it is behind what is wanted."""
        return self._soon.isActive() or self._mapping.job is not None

    @property
    def title(self) -> str:
        """What to call it."""
        return "Live map" if self.layer is None else str(self.layer.name)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the labels."""
        taxonomy: Taxonomy = self._session.labelling.labels.taxonomy
        return taxonomy

    def go_to(self, picture: str) -> None:
        """Bring a labelled tile into view, by the picture that :attr:`checked` names it by."""
        session, labelled = self._session, self._session.labelling.labels.snapshot()
        for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True):
            for column, row in tiles:
                if session.tiles_folder / labelled.picture(slide, (column, row)) == Path(picture):
                    try:
                        if session.current_slide is None or session.current_slide.slide.path != slide.path:
                            session.slides.open(slide.path, slide.mpp)
                    except PbipError as error:
                        self._say("", error)
                        return
                    camera, size = camera_of(session.viewer), labelled.size
                    camera.center = ((row + 0.5) * size.microns, (column + 0.5) * size.microns)
                    camera.zoom = _TILE_ON_SCREEN / size.microns
                    return

    def close(self) -> None:
        """Stop: the session ends."""
        self._on = False
        self._rest()

    # what is wanted --------------------------------------------------------------------------------------------

    def _follow_soon(self, _: object = None) -> None:
        if self._on and self._shown:
            self._soon.start()

    def _follow(self) -> None:
        """See what is wanted now, and have it made."""
        wanted, note = self._look() if self._on and self._shown else (None, "")
        if wanted is None:
            self._rest()
            self._say(note)
        elif wanted != self._wanted:
            before, self._wanted = self._wanted, wanted
            if before is None or not _fits(before, wanted):
                self._remove()
            elif before.labelled != wanted.labelled:
                self._checking.stop()  # it is of other labels, and the fit wants the processor
                self._paint()
            self._say(self.note)
            self._mapping.start(lambda: self._make(wanted), lambda job: self._listen(job, wanted))

    def _look(self) -> tuple[_Wanted | None, str]:
        """What is wanted, or what is waited for."""
        session, labelling = self._session, self._session.labelling
        slide, facts = labelling.slide, labelling.facts
        if slide is None or facts is None:
            return None, ""  # the dock says why
        labelled = labelling.labels.snapshot()
        alone = {labels for tiles in labelled.tiles for labels in tiles.values() if len(labels) == 1}
        if len(alone) < 2:
            return None, "The map begins as soon as two classes have a labelled tile each."
        rectangle = in_view(slide)
        if rectangle is None:
            return None, "The slide is out of sight; show its layer, and bring it into view."
        settings = session.settings
        size = squares_for(labelled.size)
        view = View(
            facts,
            size,
            places_in(facts, size, rectangle, _MOST),
            session.tissue_file(slide.slide),
            settings.segment.tissue,
        )
        encoder = settings.bank.encoder, settings.bank.weights, settings.train.device
        return _Wanted(encoder, session.tiles_folder, labelled, view), ""

    def _rest(self) -> None:
        """Show nothing and do nothing."""
        for timer in (self._soon, self._quiet):
            timer.stop()
        for jobs in (self._mapping, self._checking):
            jobs.stop()
        self._wanted = None
        self._remove()

    # the jobs --------------------------------------------------------------------------------------------------

    def _make(self, wanted: _Wanted) -> Job:
        """In the thread."""
        from napari_pbip.engine.training.live_map import LiveProbe, live_map

        if self._probe is None or self._probe[0] != wanted.encoder:
            self._probe = wanted.encoder, LiveProbe(*wanted.encoder)
        return live_map(self._probe[1], wanted.labelled, wanted.folder, wanted.view)

    def _listen(self, job: RunningJob, wanted: _Wanted) -> None:
        self.warnings, self._started = (), None
        job.events.connect(lambda events: self._on_events(events, wanted))
        job.ended.connect(lambda state: self._on_end(state, job, wanted))

    def _on_events(self, events: Sequence[Event], wanted: _Wanted) -> None:
        if wanted is not self._wanted:
            return  # there is a newer one
        coloured = [event for event in events if isinstance(event, Coloured)]
        for event in events:
            if isinstance(event, Started):
                self._started = event
            elif isinstance(event, Fitted):
                if event.fit is not self._fit:
                    self._fit = event.fit
                    self._quiet.start()
            elif isinstance(event, Warned):
                self.warnings += (event.message,)
            elif isinstance(event, Step) and self._started is not None:
                started = self._started
                self._say(f"{started.job}: {event.done:,} of {started.total:,} {started.unit}.")
        for event in coloured:
            self._tiles.update(event.tiles)
        if coloured:
            self._draw(wanted)

    def _on_end(self, state: State, job: RunningJob, wanted: _Wanted) -> None:
        if wanted is not self._wanted:
            return
        if state is State.FAILED:
            self._say("", job.error)
        elif state is State.FINISHED:
            whole = len(wanted.view.places) < _MOST
            self._say("" if whole else "The middle of the view is coloured; zoom in to see all of it coloured.")

    def _check(self) -> None:
        fit = self._fit
        if fit is None:
            return

        def make() -> Job:
            from napari_pbip.engine.training.live_map import check_labels

            return check_labels(fit)

        def take(job: RunningJob) -> None:
            if job.error is not None:
                self._say(self.note, job.error)
            elif job.result is not None and fit is self._fit:
                self.checked = {**job.result.summary, "names": fit.names}
                self.checked_changed.emit()

        self._checking.start(make, lambda job: job.ended.connect(lambda _: take(job)))

    def _say(self, note: str, problem: PbipError | None = None) -> None:
        self.note, self.problem = note, problem
        self.changed.emit()

    # the layer -------------------------------------------------------------------------------------------------

    def _draw(self, wanted: _Wanted) -> None:
        """Show the tiles of the view that have colours."""
        slide = self._session.slides.of_path(wanted.view.slide.path)
        if slide is None or not self._tiles:
            return  # it was closed meanwhile; or nothing of it can be read
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
        selected = viewer.layers.selection.active
        below = [slide.layer, *(result.layer for result in self._session.results)]
        viewer.layers.insert(1 + max(viewer.layers.index(layer) for layer in below), self.layer)
        viewer.layers.selection.active = selected
        self.changed.emit()

    def _paint(self, _: object = None) -> None:
        """Show the layer as :attr:`display` and the classes say."""
        if self.layer is not None:
            colours = {n: one.rgb for n, one in enumerate(self.taxonomy, 1)}
            self.layer.colormap = label_colormap(colours, self.display.hidden)
            self.layer.features = {"index": [*range(len(colours) + 1)], "class": ["", *self.taxonomy.names]}
            self.layer.opacity = self.display.opacity

    def _on_layer_opacity(self) -> None:
        if self.layer is not None:
            self.display.opacity = self.layer.opacity

    def _on_removed(self, event: Any) -> None:
        """The user deleted the layer, or the slide's."""
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
    """Whether cells that were coloured lie and mean the same still."""
    lattices = [(wanted.view.slide, wanted.view.size, wanted.encoder) for wanted in (before, after)]
    return lattices[0] == lattices[1] and len(before.labelled.taxonomy) <= len(after.labelled.taxonomy)


def _place(slide: SlideLayer, cell: tuple[float, float], corner: tuple[float, float]) -> dict[str, Any]:
    """Scale, place and units of a layer with cells of that height and width, and that top and left edge, on a slide.

    A layer's pixel 0 is centred on its translation: the corner of a cell is half a cell before it, and the corner of
    the slide half a pixel before zero.
    """
    where = placement(slide.slide)
    step = np.array(where["scale"])
    return {
        "scale": np.array(cell) * step,
        "translate": (np.array(corner) + np.array(cell) / 2 - 0.5) * step,
        "units": where["units"],
    }
