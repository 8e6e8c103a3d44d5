"""What the table of a project's slides shows, which is read from disk in threads: tissue, areas and small pictures."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtGui import QPixmap

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.jobs import explained
from napari_pbip.errors import SlideError
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.pixmaps import READ, RGB, pixmap
from napari_pbip.gui.state.lazy import LazyValues
from napari_pbip.gui.state.queued_slide import QueuedSlide, Status
from napari_pbip.gui.state.thumbnails import Thumbnails
from napari_pbip.project import ProjectSlide
from napari_pbip.results.areas import of_whole
from napari_pbip.results.cohort import CohortRow, ResultSummary, summarise
from napari_pbip.results.labels import Labels
from napari_pbip.results.places import TISSUE
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.results.store_facts import StoreFacts
from napari_pbip.slides import TissueMask, open_slide
from napari_pbip.wording import Interface

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

SIDE = 48
"""Longer side of a picture in points."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is on disk of a slide."""

    maps: SlideMaps
    tissue_mm2: float | None = None
    result: ResultSummary | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CohortEntry:
    """A slide of the table."""

    row: CohortRow
    known: bool
    """Whether what is on disk of it has been read since it changed, such as by other thresholds."""
    state: str
    """How far its segmentation is."""
    problem: str
    """Why its result cannot be read, as a sentence; empty if it can."""
    maps: Mapping[str, Path]
    """The score stores of its maps by their titles, the first one first."""
    shown: str
    """Title of the map that is shown and counted; empty if there is none."""


@dataclass(frozen=True, slots=True)
class UsedThresholds:
    """For which slides the thresholds of another one are used now, and why not for others, by their names."""

    used: tuple[str, ...]
    other_model: tuple[str, ...]
    """Their maps are by another model, or of other classes."""
    without_map: tuple[str, ...]


class Cohort:
    """The slides of a session's project as a table.

    Attributes
    ----------
    order
        Name of the column by which the table is sorted, and whether from the largest to the smallest value; an empty
        name leaves the slides in the order in which they were added.
    filter
        The text that the rows have which are shown.
    """

    changed = Signal()
    """Emitted when entries or pictures have changed."""
    arranged = Signal()
    """Emitted when the table is sorted or filtered otherwise."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._found: LazyValues[_Found, _Found] = LazyValues(
            session.start, lambda found: found, kept=1_000_000, wanted=1_000_000
        )
        self.order: tuple[str, bool] = ("", False)
        self.filter = ""
        self._maps: dict[Path, tuple[Labels, QPixmap]] = {}
        self._pictures = Thumbnails(session.start, SIDE)
        self._followed: weakref.WeakSet[ResultLayer] = weakref.WeakSet()
        for values in (self._found, self._pictures):
            values.arrived.connect(self.changed.emit)
        session.project.changed.connect(self.changed.emit)
        session.segmenting.changed.connect(self.changed.emit)
        session.segmenting.updated.connect(self._on_queue)
        session.maps.changed.connect(self._recount)
        session.remembered.closed_changed.connect(self._on_closed_results)
        session.classes.changed.connect(self._recolour)
        session.results.changed.connect(self._on_results)
        session.tissue.changed.connect(self._on_tissue)

    def entries(self) -> list[CohortEntry]:
        """Return what is known of each slide; what is on disk is read in a thread."""
        session = self._session
        results, thresholds = session.results_folder, session.remembered.thresholds
        shown = {result.store.path: result for result in session.results}
        queued = {slide.path: slide for slide in session.segmenting.slides}
        missing = {slide.path for slide in session.project.missing}
        entries = []
        for slide in reversed(session.project.slides):  # what is asked for last is read first
            read = partial(_read, slide, results, thresholds)
            key = self._key(slide.identity)
            found = self._found.get(key, read)
            result = None if found is None else found.result
            layer = None if result is None else shown.get(result.store)
            if result is not None and layer is not None and layer.areas.rows:
                result = replace(result, areas=tuple(of_whole(layer.areas.rows)))  # they follow the sliders
            tissue = None if found is None else found.tissue_mm2
            row = CohortRow(slide.name, slide.path, slide.mpp, slide.mpp_from, tissue, result)
            state = _state(queued.get(slide.path), result, outdated=self._found.outdated(key))
            state = "not found" if slide.path in missing else state
            titles = {} if found is None else found.maps.titles
            entries.append(
                CohortEntry(
                    row,
                    found is not None and not self._found.outdated(key) and not _is_recounted(layer),
                    state,
                    "" if found is None else found.problem,
                    dict(zip(titles.values(), titles, strict=True)),
                    "" if found is None else titles.get(found.maps.store, ""),
                )
            )
        return entries[::-1]

    def use_thresholds(self, source: ResultLayer, entries: Iterable[CohortEntry]) -> UsedThresholds:
        """Show and count the maps of slides with the thresholds of an open result; one step undoes that for all.

        Maps of another model, or with other classes, are left out, because their scores are others.
        """
        facts, maps = source.store.facts, {}
        used, other, without = [], [], []
        for entry in entries:
            result = entry.row.result
            if result is None:
                without.append(entry.row.slide)
            elif result.store == source.store.path:
                continue
            elif not _comparable(result.provenance.facts, facts):
                other.append(entry.row.slide)
            else:
                used.append(entry.row.slide)
                maps[result.store] = result.provenance.thresholds or ThresholdSettings()
        if maps:
            self._session.remembered.use_thresholds(source.thresholds, maps)
        return UsedThresholds(tuple(used), tuple(other), tuple(without))

    def sort(self, column: str, descending: bool) -> None:
        """Sort the table; see :attr:`order`."""
        self.arrange((column, descending), self.filter)

    def show_only(self, text: str) -> None:
        """Show only slides that have a text in any column."""
        self.arrange(self.order, text)

    def arrange(self, order: tuple[str, bool], text: str) -> None:
        """Sort and filter the table; see :attr:`order` and :attr:`filter`."""
        if (order, text) != (self.order, self.filter):
            self.order, self.filter = order, text
            self.arranged.emit()

    def picture(self, path: Path) -> QPixmap | None:
        """Return a small picture of a slide: a null pixmap if it cannot be read, None while it is being read."""
        return self._pictures.get(path, partial(_thumbnail, path))

    def map(self, result: ResultSummary) -> QPixmap:
        """Return a small picture of the labels of a slide in the colours of the project, made when it is first seen."""
        made = self._maps.get(result.store)
        if made is None or made[0] is not result.labels:
            picture = pixmap(result.picture(self._session.classes.display.colours), SIDE)
            made = self._maps[result.store] = result.labels, picture
        return made[1]

    def _key(self, identity: str) -> tuple[Path, str]:
        return self._session.folder, identity

    def _on_queue(self, queued: QueuedSlide) -> None:
        slide = next((one for one in self._session.project.slides if one.path == queued.path), None)
        if slide is not None and not queued.status.active:
            self._found.renew(self._key(slide.identity))
        self.changed.emit()

    def _on_results(self) -> None:
        for closed in [result for result in self._followed if result not in list(self._session.results)]:
            self._followed.discard(closed)
            self._found.renew(self._key(closed.store.facts.slide.identity))  # its sliders may have moved since
        for result in self._session.results:
            if result not in self._followed:
                self._followed.add(result)
                result.areas.changed.connect(self.changed.emit)
                result.areas.counted.connect(partial(self._recount, result.store.facts.slide.identity))
        self.changed.emit()

    def _on_closed_results(self, stores: frozenset[Path]) -> None:
        self._found.renew_those(lambda found: found.maps.store in stores)
        self.changed.emit()

    def _recolour(self) -> None:
        self._maps.clear()
        self.changed.emit()

    def _recount(self, identity: str) -> None:
        self._found.renew(self._key(identity))
        self.changed.emit()

    def _on_tissue(self) -> None:
        mapped = {result.store.facts.slide.identity for result in self._session.results}
        for slide in self._session.slides:
            if slide.slide.identity not in mapped:
                self._found.renew(self._key(slide.slide.identity))
        self.changed.emit()


def _state(queued: QueuedSlide | None, result: ResultSummary | None, *, outdated: bool) -> str:
    """Return how far the segmentation of a slide is, in a word or two; a result that is read again may be finished."""
    if queued is not None and (queued.status is not Status.DONE or outdated):
        share = f" {100 * queued.done // queued.total} %" if queued.total and queued.status.active else ""
        return f"{queued.status.value}{share}"
    if result is None:
        return ""
    return "done" if result.done == result.planned else f"stopped at {100 * result.done // result.planned} %"


def _comparable(one: StoreFacts, other: StoreFacts) -> bool:
    """Return whether scores of two stores are of the same classes, by the same model."""
    names = [[tissue.name for tissue in facts.classes] for facts in (one, other)]
    return names[0] == names[1] and one.model.hash == other.model.hash


def _is_recounted(layer: ResultLayer | None) -> bool:
    """Return whether the areas of an open map are not yet those of its thresholds; while it grows, they never are."""
    return layer is not None and layer.areas.pending and not layer.store.growing


def _read(slide: ProjectSlide, results: Path, thresholds: Mapping[Path, ThresholdSettings]) -> _Found:
    """Read what is on disk of a slide; called in a thread."""
    maps = slide.maps_in(results)
    store = maps.store
    tissue = slide.folder_in(results) / TISSUE
    try:
        if store.exists():
            result = summarise(store, thresholds.get(store), READ * SIDE)
            return _Found(maps, result.tissue_mm2, result)
        if tissue.exists():
            with open_slide(slide.path) as opened:
                slide.give_mpp(opened)
                return _Found(maps, TissueMask.read(tissue, opened).area_mm2)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is of this slide, and the row says it
        return _Found(maps, problem=Interface.WINDOW.sentence(explained(error)))
    return _Found(maps)


def _thumbnail(path: Path) -> RGB | None:
    try:
        with open_slide(path) as slide:
            return np.ascontiguousarray(slide.thumbnail(READ * SIDE))
    except SlideError:  # the row says so
        return None
