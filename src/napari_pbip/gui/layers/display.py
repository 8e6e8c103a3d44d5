"""How a result is shown, said in one place: the sliders, the legend and the layer all follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_pbip.config import ThresholdSettings


@dataclass(eq=False)
class Display:
    """How a result is shown. Set an attribute, and whoever connected to its event follows.

    ``display.events.thresholds``, ``.hidden`` and ``.opacity`` are emitted when the value is another one than before.
    """

    thresholds: ThresholdSettings = field(default_factory=ThresholdSettings)
    """From scores to labels. A threshold for a class that the result does not have waits for one that has it."""
    hidden: frozenset[int] = frozenset()
    """Label values that are not drawn."""
    opacity: float = 0.5
    """How much the map covers the slide, in [0, 1]."""
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
