"""The question whether the result of a slide is replaced."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget

from napari_pbip.gui.state.segmenting import QueuedSlide, SegmentQueue
from napari_pbip.gui.widgets.question import ask


def ask_to_replace(parent: QWidget, queue: SegmentQueue, slide: QueuedSlide) -> None:
    """Segment a slide of the queue again, if the user agrees to lose its earlier result."""
    question = f"Delete the result of {slide.path.name}, and segment it again?"
    lost = f"Its scores, and the labels that were saved with them, are lost: {slide.store}"
    ask(parent, "Replace a result", question, {"Replace it": lambda: queue.replace(slide)}, lost)
