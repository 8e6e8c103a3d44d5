"""Differences between napari 0.6.6 and 0.9, with one function for each."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import Camera, LayerList
    from napari.layers import Layer
    from napari.viewer import ViewerModel


def camera_of(viewer: ViewerModel) -> Camera:
    """Return the camera of a viewer (of its scene since 0.9), whose zoom is in screen pixels per micrometre."""
    return getattr(viewer, "scene", viewer).camera


def scale_bar(viewer: ViewerModel) -> Any:
    """Return the scale bar; since 0.9, ``viewer.scale_bar`` causes a warning."""
    return overlays(viewer)["scale_bar"]


def grid_of(viewer: ViewerModel) -> Any:
    """Return the grid of views of a viewer; since 0.9, ``viewer.grid`` causes a warning."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.grid if canvas is None else canvas.grid


def overlays(viewer: ViewerModel) -> Any:
    """Return the overlays of the canvas by name, to which others can be added; private before 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return viewer._overlays if canvas is None else canvas.overlays


def show_overlay(overlay: Any, visible: bool) -> None:
    """Show or hide an overlay of the canvas.

    It is hidden by making it transparent. If ``visible`` were set to False and a layer were then removed, vispy would
    draw from freed memory, and the process could crash (seen with napari 0.9.2 and Mesa's software renderer).
    """
    overlay.visible = True
    overlay.opacity = float(visible)
    fields = getattr(type(overlay), "model_fields", None) or type(overlay).__fields__
    if "box" in fields:  # a text has none before 0.7
        overlay.box = visible and fields["box"].default


def show_scale_bar(viewer: ViewerModel, visible: bool) -> None:
    """Show or hide the scale bar, which is in micrometres."""
    bar = scale_bar(viewer)
    show_overlay(bar, visible)
    if "unit" in type(bar).__annotations__:  # before 0.8, the unit does not follow from the layers
        bar.unit = "um"


def batched_update(layers: LayerList) -> AbstractContextManager[object]:
    """Return a context in which several layers can be removed with one collection of garbage.

    Since 0.9 napari collects garbage whenever a layer is removed, which takes up to a second beside torch.
    """
    return layers.batched_update() if hasattr(layers, "batched_update") else nullcontext()


def plugin_preferences() -> Any | None:
    """Return what napari's preferences say about this plugin (``configurations`` in napari.yaml); None before 0.9."""
    import napari.settings

    if not hasattr(napari.settings, "get_plugin_settings"):
        return None
    return napari.settings.get_plugin_settings("napari-pbip")


def fit(viewer: ViewerModel, layer: Layer) -> None:
    """Fit the view to a layer; before napari 0.7, to all layers."""
    try:
        viewer.reset_view(layers=[layer])
    except TypeError:
        viewer.reset_view()
