"""The tissue masks of slides, which are found, corrected with napari's brush, and saved.

The session owns them, so that corrections are saved whichever docks are open. A mask is a labels layer, and a file
among the results of its slide that segmentation reads. Any change of the layer (by brush, fill, undo, redo or a script)
is saved a moment later, and at once before a job starts, another project is opened or the layer is removed.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_pbip.engine.inference.tissue import outline_tissue
from napari_pbip.errors import PbipError
from napari_pbip.events import Job
from napari_pbip.files import writing
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.painting import Painting
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import METADATA, SlideLayer
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import TissueMap, TissueMask

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_pbip.gui.state.session import Session

KIND = "tissue"
"""Value of ``metadata["kind"]`` of the layers."""
_SETTLE_MS = 150
"""Milliseconds without a change after which a mask is saved."""
_COLOUR = "#56B4E9"


@dataclass(eq=False)
class ShownMask:
    """The mask of a slide and its layer."""

    layer: Labels
    painting: Painting
    file: Path
    scale: float
    """Level-0 pixels per mask pixel."""
    mpp: float
    """Microns per mask pixel."""
    threshold: float | None
    """Threshold that found the tissue; None for a mask that was drawn in another program."""
    corrected: bool
    """Whether the mask in the file was corrected by hand."""
    saved: npt.NDArray[np.bool_]
    """The mask in the file."""
    content: bytes
    """The file, which is a hundredth as large; the history keeps it, and a slide may have many corrections."""

    @property
    def by_hand(self) -> bool:
        """Whether the mask was corrected by hand."""
        return self.threshold is None or self.corrected or self.changed

    @property
    def changed(self) -> bool:
        """Whether the layer differs from the file."""
        return not np.array_equal(self.array(), self.saved)

    @property
    def area_mm2(self) -> float:
        """Area of the tissue in square millimetres."""
        return TissueMask(self.array(), self.scale, self.mpp).area_mm2

    def array(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.layer.data) > 0

    def as_painted(self) -> TissueMask:
        """Return the mask in the layer, marked as corrected by hand."""
        return TissueMask(self.array(), self.scale, self.mpp, self.threshold, corrected=True)


class Tissue:
    """The tissue masks of a viewer.

    Attributes
    ----------
    problems
        Why the mask of a slide could not be found, read or saved, by the path of the slide.
    """

    changed = Signal()
    """Emitted when a mask was added, changed or removed, or when the search for one has started or ended."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)
        self._masks: dict[Path, ShownMask] = {}
        self.problems: dict[Path, PbipError] = {}
        # of one slide only, because it has as many floats as the mask has pixels
        self._measure: tuple[tuple[Path, float | None], TissueMap] | None = None
        self._painted_meanwhile: dict[Path, TissueMask] = {}
        self._job: RunningJob | None = None
        self._searched: SlideLayer | None = None
        self._next: SlideLayer | None = None
        self._quiet = single_shot(_SETTLE_MS, self.flush)
        session.viewer.layers.events.removed.connect(self._on_removed)
        session.slides.changed.connect(self._place)
        session.folder_changed.connect(self._leave_project)

    def mask(self, slide: SlideLayer) -> ShownMask | None:
        """Return the mask of a slide, or None if it has no layer."""
        return self._masks.get(slide.slide.path)

    def is_searched(self, slide: SlideLayer) -> bool:
        """Return whether the tissue of a slide is being searched for."""
        return slide in (self._searched, self._next)

    def show(self, slide: SlideLayer) -> None:
        """Add a layer of the slide's mask on disk, if there is one."""
        file = self._session.tissue_file(slide.slide)
        if self.mask(slide) is None and file.exists():
            self._read(slide, file)
            self.changed.emit()

    def find(self, slide: SlideLayer) -> None:
        """Find the tissue with the present settings, and replace the present mask, even if it was corrected by hand."""
        if self._job is not None:  # one at a time; when it ends, the newest threshold is used
            self._next = slide
            return
        self.flush()
        self.problems.pop(slide.slide.path, None)
        path, mpp, out = slide.slide.path, slide.slide.mpp, self._session.tissue_file(slide.slide)
        settings = self._session.settings.segment.tissue
        measure = self._measure[1] if self._measure is not None and self._measure[0] == (path, mpp) else None

        def make() -> Job:
            return outline_tissue(path, settings, out, mpp=mpp, measure=measure)

        self._searched = slide
        job = self._job = self._session.start(make)
        job.ended.connect(lambda state: self._found(slide, mpp, job, out, state))
        self.changed.emit()

    def flush(self) -> None:
        """Save all changed masks."""
        self._quiet.stop()
        for path, mask in self._masks.items():
            if path != self._being_searched and mask.changed:
                self._save(path, mask)

    def close(self) -> None:
        """Save all changed masks; to be called when all jobs have ended."""
        self.flush()
        self._masks.clear()

    @property
    def _being_searched(self) -> Path | None:
        return None if self._searched is None else self._searched.slide.path

    def _found(self, slide: SlideLayer, mpp: float | None, job: RunningJob, file: Path, state: State) -> None:
        self._job = self._searched = None
        path = slide.slide.path
        if (painted := self._painted_meanwhile.pop(file, None)) is not None:  # its layer was removed
            try:
                painted.write(file)
            except PbipError as error:
                self.problems[path] = error
        mask = self._masks.get(path)
        if state is State.FAILED and job.error is not None:
            self.problems[path] = job.error
        elif job.result is not None:
            self._measure = (path, mpp), job.result.summary["measure"]
            if mask is not None and mask.changed:
                self._save(path, mask)  # it was corrected meanwhile, which takes precedence
            elif slide in list(self._session.slides) and file == self._session.tissue_file(slide.slide):
                before = None if mask is None else mask.content
                self._read(slide, file)
                if before is not None and (mask := self._masks.get(path)) is not None:
                    self._record(path, before, mask.content, "found")
        following, self._next = self._next, None
        if following is not None:
            self.find(following)
        self.changed.emit()

    def _read(self, slide: SlideLayer, file: Path) -> None:
        """Show the mask on disk in the layer of its slide."""
        path = slide.slide.path
        try:
            found, content = TissueMask.read(file, slide.slide), file.read_bytes()
        except PbipError as error:
            self.problems[path] = error
            return
        self.problems.pop(path, None)
        data = found.array.astype(np.uint8)
        shown = self._masks.get(path)
        if shown is not None and shown.layer.data.shape == data.shape:
            layer = shown.layer
            shown.saved, shown.content = found.array, content  # before events of the layer say that it changed
            shown.threshold, shown.corrected = found.threshold, found.corrected
            layer.data = data
        else:
            layer = self._add_layer(slide, data)
            self._masks[path] = ShownMask(
                layer,
                Painting(layer, self._quiet.start),
                file,
                found.scale,
                found.mpp,
                found.threshold,
                found.corrected,
                found.array,
                content,
            )
            self._place()

    def _add_layer(self, slide: SlideLayer, data: npt.NDArray[np.uint8]) -> Labels:
        viewer = self._session.viewer
        with selection_kept(viewer):
            layer: Labels = viewer.add_labels(
                data,
                name=f"tissue of {slide.slide.name}",
                colormap=label_colormap({1: _COLOUR}),
                opacity=0.35,
                units=MICRONS,
                metadata={METADATA: str(slide.slide.path), "kind": KIND},
            )
        layer.brush_size = 20
        return layer

    def _place(self) -> None:
        """Set scale and position of the masks, which change with the microns per pixel."""
        for slide in self._session.slides:
            mask = self.mask(slide)
            mpp = slide.slide.mpp
            if mask is not None and mpp is not None:
                mask.mpp = mpp * mask.scale
                mask.layer.scale = (mask.mpp, mask.mpp)
                mask.layer.translate = ((mask.mpp - mpp) / 2,) * 2
        self.changed.emit()

    def _save(self, path: Path, mask: ShownMask) -> None:
        """Write the mask in the layer to its file, as corrected by hand."""
        before, painted = mask.content, mask.as_painted()
        try:
            painted.write(mask.file)
        except PbipError as error:
            self.problems[path] = error
        else:
            self.problems.pop(path, None)
            mask.saved, mask.content, mask.corrected = painted.array, mask.file.read_bytes(), True
            self._record(path, before, mask.content, "painted")
        self.changed.emit()

    def _record(self, path: Path, before: bytes, after: bytes, how: str) -> None:
        """Record that the file of a mask changed."""
        undo, redo = partial(self._restore, path, before), partial(self._restore, path, after)
        self._session.history.push("tissue", undo, redo, about=(how, path), merge=how == "found")

    def _restore(self, path: Path, content: bytes) -> None:
        """Replace the mask of a slide, in its file and in its layer."""
        slide = self._session.slides.of_path(path)
        if slide is None or path == self._being_searched:
            return
        self.flush()
        file = self._session.tissue_file(slide.slide)
        try:
            with writing(file) as begun:
                begun.write_bytes(content)
        except PbipError as error:
            self.problems[path] = error
        else:
            self._read(slide, file)
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        for path, mask in list(self._masks.items()):
            if mask.layer is event.value:
                self.flush()
                self._forget(path)
                self.changed.emit()

    def _leave_project(self) -> None:
        """Save the masks of the previous project, and remove their layers."""
        self.flush()
        for path, mask in list(self._masks.items()):
            self._forget(path)
            self._session.viewer.layers.remove(mask.layer)
        self.problems.clear()
        self.changed.emit()

    def _forget(self, path: Path) -> None:
        mask = self._masks.pop(path)
        if path == self._being_searched and mask.changed:  # the search has yet to write the file
            self._painted_meanwhile[mask.file] = mask.as_painted()
        mask.painting.close()
