"""What the user is told who duplicates a layer whose drawing is saved."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning

from napari_pbip.gui.layers.slides import METADATA

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import ViewerModel


class Copies:
    """Says of copies of corrections, tissue masks and regions that they are pictures, which no result follows.

    Parameters
    ----------
    viewer
        The viewer whose layers are followed; only a weak reference to it is kept.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        viewer.layers.events.inserted.connect(self._on_inserted)

    def _on_inserted(self, event: Any) -> None:
        viewer, layer = self._viewer(), event.value
        kind = layer.metadata.get("kind")
        if viewer is None or kind is None or METADATA not in layer.metadata:
            return
        original = next((one for one in viewer.layers if one is not layer and _is_like(one, layer)), None)
        if original is not None:  # a slide has one layer of each kind
            layer.metadata = {key: value for key, value in layer.metadata.items() if key != "kind"}
            show_warning(
                f"“{layer.name}” is a copy, and what is drawn in it is not used; draw in “{original.name}” instead."
            )


def _is_like(one: Layer, other: Layer) -> bool:
    return all(one.metadata.get(key) == other.metadata[key] for key in ("kind", METADATA))
