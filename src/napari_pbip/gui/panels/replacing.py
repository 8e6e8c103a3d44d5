"""The question whether the map of a slide is replaced, or kept beside the new one."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QWidget

from napari_pbip.gui.state.queued_slide import QueuedSlide
from napari_pbip.gui.state.segmenting import SegmentQueue
from napari_pbip.gui.widgets.question import ask


def ask_to_replace(parent: QWidget, queue: SegmentQueue, slide: QueuedSlide) -> None:
    """Segment a slide of the queue again, if the user agrees to lose its earlier map, or keeps both."""
    answers: dict[str, Callable[[], object]] = {"Replace it": lambda: queue.replace(slide)}
    question = f"Delete the map of {slide.path.name}, and segment it again?"
    if slide.can_keep_both:
        answers = {"Keep both": lambda: queue.keep_both([slide]), **answers}
        question = f"Keep the map of {slide.path.name} by “{slide.earlier}” beside the new one by “{slide.run.name}”?"
    lost = f"If it is replaced, its scores and the labels that were saved with them are lost: {slide.store}"
    ask(parent, "Replace a map", question, answers, lost)
