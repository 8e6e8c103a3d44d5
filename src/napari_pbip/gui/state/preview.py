"""Previews: maps of the part in view that the image bank alone predicts, as layers that fill while computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from psygnal import Signal

from napari_pbip.engine.banks.preview import Coloured, preview
from napari_pbip.errors import SlideError
from napari_pbip.events import Event, Job
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.slides import SlideLayer, in_view, placement
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

METADATA = "napari_pbip_preview"
"""Key in the metadata of a preview layer: the path of the slide."""


class BankPreview:
    """Previews of slides, of which one runs at a time; each slide has one layer."""

    started = Signal(RunningJob)
    """Emitted when a preview has started."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._job: RunningJob | None = None

    @property
    def job(self) -> RunningJob | None:
        """The running preview, or None."""
        return self._job

    def start(self, taxonomy: Taxonomy) -> RunningJob:
        """Start a preview of the part of the current slide in view; a running preview is stopped.

        Parameters
        ----------
        taxonomy
            The classes of the bank.

        Raises
        ------
        SlideError
            If no slide is selected, or no part of it is in view.
        """
        session = self._session
        current = session.current_slide
        if current is None:
            raise SlideError("No slide is selected; open one, or select its layer.")
        rectangle = in_view(current)
        if rectangle is None:
            raise SlideError("The slide is out of sight; show its layer, and bring it into view.")
        if self._job is not None:
            self._job.cancel()
        slide, settings = current.slide, session.settings
        mpp, folder = slide.mpp, session.bank_folder

        def make() -> Job:
            return preview(
                slide.path,
                folder,
                rectangle,
                settings.data,
                slide_mpp=mpp,
                weights=settings.bank.weights,
                device=settings.train.device,
            )

        job = self._job = session.start(make)
        shown = _Shown(session, current, taxonomy)
        job.events.connect(lambda events: shown.update(events, job))
        job.ended.connect(lambda _: self._ended(job))
        self.started.emit(job)
        return job

    def _ended(self, job: RunningJob) -> None:
        if self._job is job:
            self._job = None


class _Shown:
    """The layer of a preview."""

    def __init__(self, session: Session, slide: SlideLayer, taxonomy: Taxonomy) -> None:
        self._session = session
        self._slide = slide
        self._taxonomy = taxonomy
        self._layer: Labels | None = None

    def update(self, events: Sequence[Event], job: RunningJob) -> None:
        newest = next((event for event in reversed(events) if isinstance(event, Coloured)), None)
        if newest is None or newest.labels is None or job.state.ended:
            return
        layers = self._session.viewer.layers
        if self._slide.layer not in layers or (self._layer is not None and self._layer not in layers):
            job.cancel()  # because the user has removed the layer
        elif self._layer is None:
            self._layer = self._add(newest)
        else:
            self._layer.data[...] = newest.labels
            self._layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _add(self, newest: Coloured) -> Labels:
        slide, viewer = self._slide.slide, self._session.viewer
        for layer in [one for one in viewer.layers if one.metadata.get(METADATA) == str(slide.path)]:
            viewer.layers.remove(layer)
        selected = viewer.layers.selection.active
        layer = Labels(newest.labels, **_options(self._slide, newest, self._taxonomy))
        layer.editable = False
        viewer.add_layer(layer)
        viewer.layers.selection.active = selected
        return layer


def _options(slide: SlideLayer, newest: Coloured, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the options of a layer whose cells lie over the pixels of the slide, in its units."""
    grid, where = newest.grid, placement(slide.slide)
    if grid is None:
        raise ValueError("a map needs its grid")
    step_y, step_x = where["scale"]
    # the translation of a layer is the centre of its first pixel: the first cell's corner lies half a cell before it,
    # and the slide's corner half a pixel before zero
    shift = grid.side / 2 - 0.5
    return {
        "name": f"Preview of {slide.slide.name}",
        "scale": (grid.side * step_y, grid.side * step_x),
        "translate": ((grid.y + shift) * step_y, (grid.x + shift) * step_x),
        "units": where["units"],
        "opacity": 0.5,
        "colormap": label_colormap({n: one.rgb for n, one in enumerate(taxonomy, 1)}),
        "properties": {"class": ["", *taxonomy.names]},
        "metadata": {METADATA: str(slide.slide.path), SLIDE: str(slide.slide.path)},
    }
