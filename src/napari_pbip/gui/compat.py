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


def show_scale_bar(viewer: ViewerModel, visible: bool) -> None:
    """Show or hide the scale bar, which is in micrometres.

    It is hidden by making it transparent: where ``visible`` is set to False and a layer is removed then, vispy draws
    from memory that is freed, and the process may crash (seen with napari 0.9.2 and Mesa's software renderer).
    """
    bar = scale_bar(viewer)
    bar.visible = True
    bar.opacity = float(visible)
    bar.box = visible and (getattr(type(bar), "model_fields", None) or type(bar).__fields__)["box"].default
    if "unit" in type(bar).__annotations__:  # before 0.8 it does not ask the layers
        bar.unit = "um"


def fit(viewer: ViewerModel, layer: Layer) -> None:
    """Bring a layer into view, and leave the others out of it where napari can (since 0.7)."""
    try:
        viewer.reset_view(layers=[layer])
    except TypeError:
        viewer.reset_view()
