"""Texts that napari's themes draw too faintly: those of controls that are disabled, and hints in empty fields."""

from __future__ import annotations

import weakref
from typing import Any

import napari.viewer
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject

from napari_pbip.gui.connections import listen
from napari_pbip.gui.dock_tabs import our_docks

_RULES = """
QWidget:disabled {{ color: rgba({text}, 60%); }}
QLineEdit {{ placeholder-text-color: rgba({text}, 80%); }}
"""
"""With them, hints have a contrast of more than 4.5:1, which the Web Content Accessibility Guidelines ask of texts, and
disabled controls one of more than 3:1; without, it is 2.8:1 and 2.0:1 in the light theme."""


class ReadableTexts(QObject):
    """Gives the docks of this package texts that can be read in every theme.

    Parameters
    ----------
    window
        Main window of napari, which owns this object.
    viewer
        The viewer, whose theme is used.
    """

    def __init__(self, window: Any, viewer: napari.viewer.ViewerModel) -> None:
        super().__init__(window)
        self._window, self._viewer = window, weakref.proxy(viewer)
        window.installEventFilter(self)
        listen(window, (viewer.events.theme, self._dress))
        self._dress()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Notice a new dock, which is still without its style."""
        if event is not None and event.type() == QEvent.Type.ChildAdded:
            self._dress()
        return False

    def _dress(self, _: object = None) -> None:
        red, green, blue = get_theme(self._viewer.theme).text.as_rgb_tuple()[:3]
        rules = _RULES.format(text=f"{red}, {green}, {blue}")
        for dock in our_docks(self._window):
            if (widget := dock.widget()) is not None and widget.styleSheet() != rules:
                widget.setStyleSheet(rules)
