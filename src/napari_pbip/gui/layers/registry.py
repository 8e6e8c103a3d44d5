"""Registries of the layers of one kind in a viewer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from psygnal import Signal

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import ViewerModel


class Shown(Protocol):
    """An object that a layer shows."""

    layer: Any

    def close(self) -> object:
        """Release resources after the layer was removed."""


Item = TypeVar("Item", bound=Shown)


class LayerRegistry(Generic[Item]):
    """The objects that the layers of one kind show, in the order in which the layers were added.

    A layer is found here whoever added it. When it is removed, its object is closed. Subclasses decide which layers are
    of their kind.

    Parameters
    ----------
    viewer
        The viewer whose layers are followed; only a weak reference to it is kept.
    """

    changed = Signal()
    """Emitted when a layer of this kind was added or removed."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._items: list[Item] = []
        for layer in viewer.layers:
            self._add(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def viewer(self) -> ViewerModel:
        """The viewer.

        Raises
        ------
        ReferenceError
            If it was closed.
        """
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("the viewer was closed")
        return viewer

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]

    def close(self) -> None:
        """Close all objects."""
        while self._items:
            self._close_item(self._items.pop())

    # for subclasses ------------------------------------------------------------------------------------------

    def _make(self, layer: Layer) -> Item | None:
        """Return the object that a layer shows, or None if the layer is of another kind."""
        raise NotImplementedError

    def _close_item(self, item: Item) -> None:
        item.close()

    def _on_added(self, item: Item) -> None:
        """Handle an added layer; called after :attr:`changed` was emitted."""

    def _on_gone(self, item: Item, place: int) -> None:
        """Handle a removed layer, which had this index; called after :attr:`changed` was emitted."""

    # following the viewer ------------------------------------------------------------------------------------

    def _add(self, layer: Layer) -> Item | None:
        item = self._make(layer)
        if item is not None:
            self._items.append(item)
            self.changed.emit()
        return item

    def _on_inserted(self, event: Any) -> None:
        item = self._add(event.value)
        if item is not None:
            self._on_added(item)

    def _on_removed(self, event: Any) -> None:
        for place, item in enumerate(self._items):
            if item.layer is event.value:
                del self._items[place]
                self._close_item(item)
                self.changed.emit()
                self._on_gone(item, place)
                return
