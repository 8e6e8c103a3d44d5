"""The display settings of a result, which the sliders, the legend and the layer all follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_pbip.config import ThresholdSettings


@dataclass(eq=False)
class Display:
    """The display settings of a result. Setting an attribute emits its event.

    ``display.events.thresholds``, ``.hidden`` and ``.opacity`` are emitted when the value changes.
    """

    thresholds: ThresholdSettings = field(default_factory=ThresholdSettings)
    """Thresholds by which scores become labels; those of classes that this result does not have are kept for others."""
    hidden: frozenset[int] = frozenset()
    """Label values that are hidden."""
    opacity: float = 0.5
    """Opacity of the map, in [0, 1]."""
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
