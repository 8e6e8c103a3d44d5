"""What is known of the layers of a viewer that are of one kind."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from psygnal import Signal

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import ViewerModel


class Shown(Protocol):
    """Something that is shown by a layer."""

    layer: Any

    def close(self) -> object:
        """The layer was removed."""


Item = TypeVar("Item", bound=Shown)


class LayerRegistry(Generic[Item]):
    """What the layers of one kind show, in the order in which they came.

    Whatever adds such a layer, it is found here; when the layer is removed, what it shows is closed. Subclasses say
    which layers are of their kind.

    Parameters
    ----------
    viewer
        Its layers are followed, and it is not kept alive.
    """

    changed = Signal()
    """One came or went."""

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
        """Close all of them."""
        while self._items:
            self._close_item(self._items.pop())

    # for subclasses ------------------------------------------------------------------------------------------

    def _make(self, layer: Layer) -> Item | None:
        """What a layer shows, or None if it is of another kind."""
        raise NotImplementedError

    def _close_item(self, item: Item) -> None:
        item.close()

    def _on_added(self, item: Item) -> None:
        """A layer was inserted, and :attr:`changed` was emitted."""

    def _on_gone(self, item: Item, place: int) -> None:
        """A layer was removed that was at this place in the order, and :attr:`changed` was emitted."""

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
