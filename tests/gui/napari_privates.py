"""All private parts of napari that the tests use."""

from __future__ import annotations

from typing import Any

import numpy as np


def main_window(viewer: Any) -> Any:
    """Return the window of Qt."""
    return viewer.window._qt_window


def layer_controls(viewer: Any) -> Any:
    """Return the dock with the controls of the selected layer."""
    return viewer.window._qt_viewer.dockLayerControls


def qt_viewer(viewer: Any) -> Any:
    """Return the widget with the canvas, on which files can be dropped."""
    return viewer.window._qt_viewer


def canvas_of(viewer: Any) -> Any:
    """Return the widget on which layers are drawn, and which gets mouse and keys."""
    return qt_viewer(viewer).canvas.native


def pixels_shown(layer: Any) -> np.ndarray:
    """Return the pixels of the present view that a layer has."""
    return np.array(layer._slice.image.raw)


def set_data_level(layer: Any, level: int) -> None:
    """Make a layer show a level of its pyramid."""
    layer._data_level = level


def duplicate(layers: Any) -> None:
    """Duplicate the selected layers as *Duplicate Layer* does."""
    from napari.layers._layer_actions import _duplicate_layer

    _duplicate_layer(layers)


def is_reader_dialog(dialog: Any) -> bool:
    """Return whether a dialog asks which plugin should read a file."""
    from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog

    return isinstance(dialog, QtReaderDialog)


def as_plugins_get_it(viewer: Any) -> Any:
    """Return the viewer as napari passes it to a widget from the menu."""
    from napari.utils._proxies import PublicOnlyProxy

    return PublicOnlyProxy(viewer)


def activity_bars(viewer: Any) -> list[Any]:
    """Return the progress bars in napari's activity dock."""
    from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar

    return viewer.window._qt_window._activity_dialog.findChildren(QtLabeledProgressBar)


def keys_of_napari() -> set[str]:
    """Return the keys of all actions of the viewer, of layers of all kinds and of the menus, as Qt writes them."""
    from napari import layers
    from napari._app_model import get_app_model
    from napari.components import ViewerModel
    from napari.utils.shortcuts import default_shortcuts

    bound = {key for keys in default_shortcuts.values() for key in keys}
    for owner in (ViewerModel, layers.Layer, *layers.Layer.__subclasses__(), layers.Labels):
        bound |= set(owner.class_keymap)
    bound |= {one.keybinding for one in get_app_model().keybindings}
    return {str(key).replace("Meta", "Ctrl") for key in bound}
