"""Layers that are added beside what the user has selected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.viewer import ViewerModel


@contextmanager
def selection_kept(viewer: ViewerModel) -> Iterator[None]:
    """Keep the selected layer while layers are added, because napari selects every new one."""
    selection = viewer.layers.selection
    before = selection.active
    try:
        yield
    finally:
        selection.active = before
