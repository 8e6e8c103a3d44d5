"""The tissue masks of slides, which are found, corrected with napari's brush, and saved.

The session owns them, so that corrections are saved whichever docks are open. A mask is a labels layer, and a file
among the results of its slide that segmentation reads. Any change of the layer (by brush, fill, undo, redo or a script)
is saved a moment later, and at once before a job starts, another project is opened or the layer is removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_pbip.engine.inference.tissue import outline_tissue
from napari_pbip.errors import PbipError
from napari_pbip.events import Finished, Job
from napari_pbip.files import writing
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.painting import Painting
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import METADATA, SlideLayer
from napari_pbip.gui.layers.units import MICRONS
from napari_pbip.gui.timers import single_shot
from napari_pbip.results.places import TISSUE, result_folder
from napari_pbip.slides import Slide, TissueMap, TissueMask

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
        self._reading: dict[Path, list[Callable[[SlideLayer], object]]] = {}  # what is to be done afterwards
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
        """Add a layer of the slide's mask on disk, if there is one, which is read in a thread."""
        path, results = slide.slide.path, self._session.results_folder
        if self.mask(slide) is None and path not in self._reading:
            self._reading[path] = []
            self._session.in_thread(
                partial(_read_in, results, slide.slide),
                partial(self._arrive, slide, results),
                partial(self._arrive, slide, results),
            )

    def when_read(self, slide: SlideLayer, act: Callable[[SlideLayer], object]) -> None:
        """Call a function with the slide when its mask on disk has been read: at once if it is not being read."""
        if (waiting := self._reading.get(slide.slide.path)) is None:
            act(slide)
        else:
            waiting.append(act)

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

        found: list[tuple[TissueMask, bytes]] = []

        def make() -> Job:
            with closing(outline_tissue(path, settings, out, mpp=mpp, measure=measure)) as job:
                for event in job:
                    if isinstance(event, Finished):
                        found.append(_read(out, slide.slide))
                    yield event

        self._searched = slide
        job = self._job = self._session.start(make)
        job.ended.connect(lambda state: self._found(slide, mpp, job, out, found, state))
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

    def _arrive(
        self, slide: SlideLayer, results: Path, read: tuple[Path, TissueMask, bytes] | PbipError | None
    ) -> None:
        """Show what was read from disk, if it is still wanted."""
        if results != self._session.results_folder:
            return
        path = slide.slide.path
        waiting = self._reading.pop(path, [])
        if slide in list(self._session.slides) and self.mask(slide) is None and not self.is_searched(slide):
            if isinstance(read, PbipError):
                self.problems[path] = read
            elif read is not None:
                self._take(slide, *read)
            self.changed.emit()
        for act in waiting:
            act(slide)

    def _found(
        self,
        slide: SlideLayer,
        mpp: float | None,
        job: RunningJob,
        file: Path,
        found: list[tuple[TissueMask, bytes]],
        state: State,
    ) -> None:
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
                [(mask_on_disk, content)] = found
                self._take(slide, file, mask_on_disk, content)
                if before is not None:
                    self._record(path, before, content, "found")
        following, self._next = self._next, None
        if following is not None:
            self.find(following)
        self.changed.emit()

    def _take(self, slide: SlideLayer, file: Path, found: TissueMask, content: bytes) -> None:
        """Show the mask that is on disk in the layer of its slide."""
        path = slide.slide.path
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
            self._take(slide, file, *_read(file, slide.slide))
        except PbipError as error:
            self.problems[path] = error
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
        self._reading.clear()
        self.problems.clear()
        self.changed.emit()

    def _forget(self, path: Path) -> None:
        mask = self._masks.pop(path)
        if path == self._being_searched and mask.changed:  # the search has yet to write the file
            self._painted_meanwhile[mask.file] = mask.as_painted()
        mask.painting.close()


def _read_in(results: Path, slide: Slide) -> tuple[Path, TissueMask, bytes] | None:
    """Read the mask of a slide in the folder of all results, if there is one; called in a thread."""
    file = result_folder(results, slide.name, slide.identity) / TISSUE
    return (file, *_read(file, slide)) if file.exists() else None


def _read(file: Path, slide: Slide) -> tuple[TissueMask, bytes]:
    return TissueMask.read(file, slide), file.read_bytes()
