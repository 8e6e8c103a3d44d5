"""What the tests need of napari and napari does not show: all of it is here."""

from __future__ import annotations

from typing import Any

import numpy as np


def main_window(viewer: Any) -> Any:
    """The window of Qt."""
    return viewer.window._qt_window


def qt_viewer(viewer: Any) -> Any:
    """The widget that files can be dropped on, with the canvas."""
    return viewer.window._qt_viewer


def canvas_of(viewer: Any) -> Any:
    """The widget that layers are drawn on, and that gets the mouse and the keys."""
    return qt_viewer(viewer).canvas.native


def pixels_shown(layer: Any) -> np.ndarray:
    """What a layer holds of the present view."""
    return np.array(layer._slice.image.raw)


def set_data_level(layer: Any, level: int) -> None:
    """Have a layer take a level of its pyramid for the one in view."""
    layer._data_level = level


def duplicate(layers: Any) -> None:
    """As *Duplicate Layer* does with the selected layers."""
    from napari.layers._layer_actions import _duplicate_layer

    _duplicate_layer(layers)


def is_reader_dialog(dialog: Any) -> bool:
    """Whether it asks which plugin is to read a file."""
    from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog

    return isinstance(dialog, QtReaderDialog)


def as_plugins_get_it(viewer: Any) -> Any:
    """The viewer as napari hands it to a widget from the menu."""
    from napari.utils._proxies import PublicOnlyProxy

    return PublicOnlyProxy(viewer)
