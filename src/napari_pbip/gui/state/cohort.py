"""What the table of a project's slides shows, which is read from disk in threads: tissue, areas and small pictures."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtGui import QPixmap

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import PbipError, SlideError
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.pixmaps import READ, RGB, pixmap
from napari_pbip.gui.state.lazy import LazyValues
from napari_pbip.gui.state.segmenting import QueuedSlide, Status
from napari_pbip.gui.state.thumbnails import Thumbnails
from napari_pbip.project import ProjectSlide
from napari_pbip.results.areas import of_whole
from napari_pbip.results.cohort import CohortRow, ResultSummary, summarise
from napari_pbip.results.places import TISSUE
from napari_pbip.results.slide_maps import SlideMaps
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
    """Whether what is on disk of it has been read."""
    state: str
    """How far its segmentation is."""
    problem: str
    """Why its result cannot be read, as a sentence; empty if it can."""
    maps: Mapping[str, Path]
    """The score stores of its maps by their titles, the first one first."""
    shown: str
    """Title of the map that is shown and counted; empty if there is none."""
    map: QPixmap | None
    """A small picture of its labels."""


class Cohort:
    """The slides of a session's project as a table."""

    changed = Signal()
    """Emitted when entries or pictures have changed."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._found: LazyValues[_Found, tuple[_Found, QPixmap | None]] = LazyValues(
            session.start, _with_picture, kept=1_000_000, wanted=1_000_000
        )
        self._pictures = Thumbnails(session.start, SIDE)
        self._followed: weakref.WeakSet[ResultLayer] = weakref.WeakSet()
        for values in (self._found, self._pictures):
            values.arrived.connect(self.changed.emit)
        session.project.changed.connect(self.changed.emit)
        session.segmenting.changed.connect(self.changed.emit)
        session.segmenting.updated.connect(self._on_queue)
        session.maps.changed.connect(self._recount)
        session.results.changed.connect(self._on_results)
        session.tissue.changed.connect(self._on_tissue)

    def entries(self) -> list[CohortEntry]:
        """Return what is known of each slide; what is on disk is read in a thread."""
        session = self._session
        results, thresholds = session.results_folder, session.project.thresholds
        shown = {result.store.path: result for result in session.results}
        queued = {slide.path: slide for slide in session.segmenting.slides}
        missing = {slide.path for slide in session.project.missing}
        entries = []
        for slide in session.project.slides:
            read = partial(_read, slide, results, thresholds)
            key = self._key(slide.identity)
            found, picture = self._found.get(key, read) or (None, None)
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
                    found is not None,
                    state,
                    "" if found is None else found.problem,
                    dict(zip(titles.values(), titles, strict=True)),
                    "" if found is None else titles.get(found.maps.store, ""),
                    picture,
                )
            )
        return entries

    def picture(self, path: Path) -> QPixmap | None:
        """Return a small picture of a slide: a null pixmap if it cannot be read, None while it is being read."""
        return self._pictures.get(path, partial(_thumbnail, path))

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
    except PbipError as error:
        return _Found(maps, problem=Interface.WINDOW.sentence(error))
    return _Found(maps)


def _with_picture(found: _Found) -> tuple[_Found, QPixmap | None]:
    return found, None if found.result is None else pixmap(found.result.picture, SIDE)


def _thumbnail(path: Path) -> RGB | None:
    try:
        with open_slide(path) as slide:
            return np.ascontiguousarray(slide.thumbnail(READ * SIDE))
    except SlideError:  # the row says so
        return None
