"""Where napari keeps the camera: in the scene since 0.9, in the viewer before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import Camera
    from napari.viewer import ViewerModel


def camera_of(viewer: ViewerModel) -> Camera:
    """The camera of a viewer; its zoom is in screen pixels a micrometre."""
    return getattr(viewer, "scene", viewer).camera
