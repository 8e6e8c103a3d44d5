"""Garbage collections that do not look through the modules that were imported.

napari collects garbage whenever a layer is removed. Beside torch there are more than half a million objects that are no
garbage, and the window stands still while they are looked through. ``gc.freeze`` leaves out all objects that there are.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from napari.qt import get_qapp
from qtpy.QtCore import Qt

from napari_pbip.gui import imports
from napari_pbip.gui.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import ViewerModel

_CHECK_MS = 500


class ModulesLeftOut:
    """Leaves modules out of garbage collections, from the end of the imports until the session closes.

    The layers of that moment are left out with them. If one is removed, everything is looked through the next time that
    the user turns to another program, because that takes half a second. What is large of a layer, its pixels and
    scores, is freed at once by those who close it.

    Parameters
    ----------
    viewer
        The viewer; only a weak reference to it is kept.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._active = self._due = False
        self._soon = single_shot(_CHECK_MS, self._check)

    def begin(self) -> None:
        """Leave the modules out as soon as they are imported."""
        if not imports.finished():  # else an earlier session has had the benefit, and its objects must be collected
            self._soon.start()

    def close(self) -> None:
        """Look through everything again."""
        self._soon.stop()
        imports.collect_again()
        viewer = self._viewer()
        if self._active and viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
        if self._active:
            self._active = False
            get_qapp().applicationStateChanged.disconnect(self._on_state)
            gc.unfreeze()

    def _check(self) -> None:
        viewer = self._viewer()
        if not imports.finished():
            self._soon.start()
        elif viewer is not None:
            self._active = True
            viewer.layers.events.removed.connect(self._on_removed)
            get_qapp().applicationStateChanged.connect(self._on_state)
            self._leave_out()
            imports.collect_again()

    def _leave_out(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            gc.freeze()
            self._layers = weakref.WeakSet(viewer.layers)

    def _on_removed(self, event: Any) -> None:
        self._due |= event.value in self._layers

    def _on_state(self, state: Qt.ApplicationState) -> None:
        if self._due and state != Qt.ApplicationState.ApplicationActive:
            self._due = False
            gc.unfreeze()
            gc.collect()
            self._leave_out()
