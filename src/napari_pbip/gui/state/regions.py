"""The regions of slides, which are drawn with napari's tools and saved at once.

The session owns them, so that they are saved whichever docks are open. The regions of a slide are a layer, and a file
among the results of its slide, by which its map is computed and measured. Any change of the layer is saved a moment
later, and at once before a job starts.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.gui.layers.regions import RegionsLayer
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.results.places import regions_file, result_folder
from napari_pbip.results.planning import needed_tiles
from napari_pbip.slides import Slide
from napari_pbip.slides.regions import Kind, Regions

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


@dataclass(eq=False)
class RegionsOfSlide:
    """The regions of a slide, and where they are."""

    file: Path
    regions: Regions
    layer: RegionsLayer | None = None
    problem: PbipError | None = None
    """Why the file cannot be used, which is then not replaced; or None."""
    drawn: str = ""
    """Identity of the regions as the layer has them, whose coordinates are rounded."""

    @classmethod
    def read(cls, slide: Slide, results: Path) -> Self:
        """Read the regions of a slide in the folder of all results; it may be called in a thread."""
        file = regions_file(result_folder(results, slide.name, slide.identity))
        try:
            if file.exists():
                regions = Regions.read(file)
                regions.check_on(slide)
                return cls(file, regions)
        except PbipError as error:
            return cls(file, Regions(), problem=error)
        return cls(file, Regions())


class DrawnRegions:
    """The regions of a viewer's slides.

    Attributes
    ----------
    problems
        Why the regions of a slide could not be read or saved, by the path of the slide.
    """

    changed = Signal()
    """Emitted when the regions of a slide have changed."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self._slides: dict[Path, RegionsOfSlide] = {}
        self.problems: dict[Path, PbipError] = {}
        session.viewer.layers.events.removed.connect(self._on_removed)
        session.slides.changed.connect(self._place)
        session.folder_changed.connect(self._leave_project)

    def of(self, slide: SlideLayer) -> Regions:
        """Return the regions of a slide, which are read from its file when they are first asked for, or before."""
        return self._of(slide).regions

    def take(self, path: Path, read: RegionsOfSlide) -> None:
        """Take the regions of a slide that is about to be opened, which were read in a thread."""
        if (known := self._slides.get(path)) is not None and known.layer is not None:
            return  # its layer was left open, and what is drawn there is newer
        self._slides[path] = read
        self.problems.pop(path, None)
        if read.problem is not None:
            self.problems[path] = read.problem

    def tiles_to_segment(self, slide: SlideLayer) -> int:
        """Return the number of tiles in the regions of a slide for which its open map has no scores."""
        stores = [result.store for result in self._session.results if self._is_of(result, self._of(slide))]
        return sum(
            int((needed_tiles(store) & np.isnan(store.presence()[0])).sum()) for store in stores if store.facts.regions
        )

    def show(self, slide: SlideLayer) -> None:
        """Add a layer of the slide's regions, if there are some."""
        if self.of(slide):
            self._show(slide)

    def draw(self, slide: SlideLayer, kind: Kind) -> None:
        """Choose the tool that draws regions of a kind on a slide."""
        if self._of(slide).problem is None:
            layer = self._show(slide)
            self._session.viewer.layers.selection.active = layer.layer
            layer.draw(kind)

    def change(self, slide: SlideLayer, regions: Regions) -> None:
        """Replace the regions of a slide; this can be undone."""
        path, before = slide.slide.path, self.of(slide)
        if regions.identity == before.identity or self._of(slide).problem is not None:
            return
        undo, redo = partial(self._restore, path, before), partial(self._restore, path, regions)
        self._session.history.push("regions", undo, redo, about=("regions", path))
        self._set(slide, regions)

    def flush(self) -> None:
        """Save what was drawn just now."""
        for path in list(self._slides):
            self._take(path)

    def _of(self, slide: SlideLayer) -> RegionsOfSlide:
        path = slide.slide.path
        if path not in self._slides:
            self.take(path, RegionsOfSlide.read(slide.slide, self._session.results_folder))
        return self._slides[path]

    def _show(self, slide: SlideLayer) -> RegionsLayer:
        of_slide = self._of(slide)
        if of_slide.layer is None:
            of_slide.layer = RegionsLayer(self._session.viewer, slide)
            of_slide.layer.show(of_slide.regions)
            of_slide.drawn = of_slide.layer.read(_size(slide)).identity
            of_slide.layer.changed.connect(partial(self._on_drawn, slide))
        return of_slide.layer

    def _on_drawn(self, slide: SlideLayer) -> None:
        self._take(slide.slide.path)
        of_slide = self._of(slide)
        if of_slide.layer is not None and len(of_slide.layer.read(_size(slide))) != of_slide.layer.layer.nshapes:
            of_slide.layer.show(of_slide.regions)  # without lines, which enclose nothing

    def _take(self, path: Path) -> None:
        """Take over what was drawn."""
        slide, of_slide = self._session.slides.of_path(path), self._slides[path]
        if slide is None or of_slide.layer is None:
            return
        drawn = of_slide.layer.read(_size(slide))
        if drawn.identity != of_slide.drawn:
            self.change(slide, drawn)

    def _set(self, slide: SlideLayer, regions: Regions) -> None:
        """Save the regions of a slide, and let its layer and its map follow."""
        path, of_slide = slide.slide.path, self._of(slide)
        of_slide.regions = replace(regions, size=_size(slide))
        layer = self._show(slide)
        if len(drawn := layer.read(_size(slide))) != layer.layer.nshapes or drawn.identity != regions.identity:
            layer.show(regions)
        of_slide.drawn = layer.read(_size(slide)).identity
        try:
            of_slide.regions.check_on(slide.slide)
            of_slide.regions.write(of_slide.file)
        except PbipError as error:
            self.problems[path] = error
        else:
            self.problems.pop(path, None)
            for result in self._session.results:
                if self._is_of(result, of_slide):
                    result.use_regions(of_slide.regions)
        self.changed.emit()

    @staticmethod
    def _is_of(result: ResultLayer, of_slide: RegionsOfSlide) -> bool:
        return regions_file(result.store.path.parent) == of_slide.file

    def _restore(self, path: Path, regions: Regions) -> None:
        if (slide := self._session.slides.of_path(path)) is not None:
            self._set(slide, regions)

    def _place(self) -> None:
        for slide in self._session.slides:
            of_slide = self._slides.get(slide.slide.path)
            if of_slide is not None and of_slide.layer is not None:
                of_slide.layer.place(slide)

    def _on_removed(self, event: Any) -> None:
        for path, of_slide in list(self._slides.items()):
            if of_slide.layer is not None and of_slide.layer.layer is event.value:
                self._take(path)
                of_slide.layer.close()
                of_slide.layer = None
                self.changed.emit()

    def _leave_project(self) -> None:
        """Save the regions of the previous project, and remove their layers."""
        self.flush()
        layers = self._session.viewer.layers
        for of_slide in list(self._slides.values()):
            if of_slide.layer is not None:
                layers.remove(of_slide.layer.layer)
        self._slides.clear()
        self.problems.clear()
        self.changed.emit()

    def close(self) -> None:
        """Save what was drawn just now, and follow no layer any more."""
        self.flush()
        for of_slide in self._slides.values():
            if of_slide.layer is not None:
                of_slide.layer.close()
        self._slides.clear()


def _size(slide: SlideLayer) -> tuple[int, int]:
    return slide.slide.width, slide.slide.height
