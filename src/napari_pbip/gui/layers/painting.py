"""What tells that the user has painted on a layer of labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Labels

_CHANGES = ("paint", "labels_update", "set_data", "data")
"""Events of a labels layer after which its pixels may have changed; undo has no event of its own."""


class Painting:
    """Calls a function whenever pixels of a layer of labels may have changed, until it is closed."""

    def __init__(self, layer: Labels, painted: Callable[[], object]) -> None:
        self._layer, self._painted = layer, painted
        for name in _CHANGES:
            getattr(layer.events, name).connect(self._on_change)

    def close(self) -> None:
        """Stop."""
        for name in _CHANGES:
            getattr(self._layer.events, name).disconnect(self._on_change)

    def _on_change(self, event: Any = None) -> None:
        self._painted()
