"""Docks of this package as tabs of one place; napari puts them below each other, until none has any room."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QDockWidget

_KNOWN = "napari-pbip has placed it"


class DockTabs(QObject):
    """Puts a new dock of this package on a tab in front of those that are on its side of the window already.

    The user may drag it elsewhere; a dock is placed once.

    Parameters
    ----------
    window
        Main window of napari, which owns this object.
    """

    def __init__(self, window: Any) -> None:
        super().__init__(window)
        self._window = window
        self._new: QDockWidget | None = None
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Notice a new dock, which gets its place right after the window has become its parent."""
        if event is not None and event.type() == QEvent.Type.ChildAdded:
            for dock in our_docks(self._window):
                if not dock.property(_KNOWN):
                    dock.setProperty(_KNOWN, True)
                    dock.dockLocationChanged.connect(self._place)
                    self._new = dock
        return False

    def _place(self) -> None:
        new, self._new = self._new, None
        if new is None:
            return
        new.dockLocationChanged.disconnect(self._place)
        side = self._window.dockWidgetArea(new)
        others = [dock for dock in our_docks(self._window) if dock is not new and not dock.isFloating()]
        there = [dock for dock in others if self._window.dockWidgetArea(dock) == side]
        if there:
            self._window.tabifyDockWidget(there[-1], new)
            new.show()
            new.raise_()


def our_docks(window: Any) -> list[QDockWidget]:
    """Return the docks of a window with widgets of this package."""
    docks: list[QDockWidget] = window.findChildren(QDockWidget)
    return [dock for dock in docks if type(dock.widget()).__module__.startswith("napari_pbip.")]
