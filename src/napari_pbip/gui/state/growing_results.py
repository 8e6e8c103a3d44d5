"""The layers of the results of the queue, which grow while their slides are being segmented."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari_pbip.errors import PbipError
from napari_pbip.events import RegionDone
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.state.queued_slide import QueuedSlide

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class GrowingResults:
    """Opens the results of slides of the queue, and passes on what has been computed of them.

    Parameters
    ----------
    session
        The session.
    failed
        Function that takes a slide whose result cannot be opened, and the error.
    """

    def __init__(self, session: Session, failed: Callable[[QueuedSlide, PbipError], None]) -> None:
        self._session: Session = weakref.proxy(session)
        self._failed = failed
        self._shown: weakref.WeakSet[QueuedSlide] = weakref.WeakSet()
        self._missed: dict[QueuedSlide, list[RegionDone]] = {}  # of the results that are being opened

    def begin(self, slide: QueuedSlide) -> None:
        """Prepare for the segmentation of a slide: close the layer of a result that is about to be replaced."""
        self._shown.discard(slide)
        if slide.overwrite and (result := self._session.results.of_store(slide.store)) is not None:
            self._session.viewer.layers.remove(result.layer)

    def open_with_slide(self, slide: QueuedSlide) -> None:
        """Open a result if its slide is open; only once, so that a layer that the user removes is not added again."""
        if self._session.slides.of_path(slide.path) is not None and slide not in self._shown:
            self.open(slide)

    def open(self, slide: QueuedSlide) -> None:
        """Open the result of a slide, which is read in a thread."""
        self._shown.add(slide)
        if slide.store is None or slide in self._missed:
            return
        self._missed[slide] = []

        def then(result: ResultLayer) -> None:
            missed = self._missed.pop(slide, [])
            if missed:  # they were written while the store was read
                result.update(missed)

        def otherwise(error: PbipError) -> None:
            self._missed.pop(slide, None)
            self._failed(slide, error)

        self._session.opening.result(slide.store, then, otherwise, slide.settings.thresholds, select=False)

    def update(self, slide: QueuedSlide, regions: Sequence[RegionDone]) -> None:
        """Show what has been computed of a slide."""
        result = self._session.results.of_store(slide.store)
        if result is not None:
            result.update(regions)
        elif slide in self._missed:
            self._missed[slide] += regions

    def stop(self) -> None:
        """Wait for none of the results that are being opened."""
        self._missed.clear()
