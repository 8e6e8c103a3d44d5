"""What has another name in another napari: one function each, for 0.6.6 to 0.9."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import Camera
    from napari.layers import Layer
    from napari.viewer import ViewerModel


def camera_of(viewer: ViewerModel) -> Camera:
    """The camera of a viewer, in its scene since 0.9; its zoom is in screen pixels a micrometre."""
    return getattr(viewer, "scene", viewer).camera


def scale_bar(viewer: ViewerModel) -> Any:
    """The scale bar: an overlay of the canvas since 0.9, which warns of ``viewer.scale_bar``."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.scale_bar if canvas is None else canvas.overlays.scale_bar


def fit(viewer: ViewerModel, layer: Layer) -> None:
    """Bring a layer into view, and leave the others out of it where napari can (since 0.7)."""
    try:
        viewer.reset_view(layers=[layer])
    except TypeError:
        viewer.reset_view()
