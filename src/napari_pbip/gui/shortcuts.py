"""The keys that work everywhere in a window of napari, whichever dock is in front."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QPushButton, QTabWidget

from napari_pbip.gui.keys import Key, bind
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.letters import find_entry
from napari_pbip.gui.qt_events import as_key
from napari_pbip.gui.scrolling import scroll_to
from napari_pbip.gui.state.steps import Step

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_HELD_S = 0.4
"""Seconds from which a key counts as held down rather than pressed."""


class Shortcuts(QObject):
    """Keys of a window for the tools, the slides and the map of its session.

    Parameters
    ----------
    window
        Main window of napari, which owns this object.
    session
        Its session.
    """

    def __init__(self, window: Any, session: weakref.ref[Session]) -> None:
        super().__init__(window)
        self._window, self._session = window, session
        self._before: dict[Any, bool] = {}
        self._pressed = 0.0
        for key, act in (
            (Key.LABEL_TILES, partial(self._press, Step.LABEL_TILES, Key.LABEL_TILES)),
            (Key.WHY, partial(self._press, Step.TUNE, Key.WHY)),
            (Key.NEXT_SLIDE, partial(self._move, 1)),
            (Key.PREVIOUS_SLIDE, partial(self._move, -1)),
            (Key.MAP, self._switch_map),
        ):
            bind(key, window, partial(self._act, key, act))

    @staticmethod
    def _act(key: Key, act: Callable[[], object]) -> None:
        if not find_entry(key.keys[-1].lower()):  # of Shift+N too
            act()

    # tools ---------------------------------------------------------------------------------------------------

    def _press(self, step: Step, key: Key) -> None:
        """Press the button that has the name of a key, or bring that of the workflow panel into sight, pressed."""
        buttons: list[QPushButton] = self._window.findChildren(QPushButton, key.name)
        button = next((one for one in buttons if one.isVisible()), None)
        in_sight = button is not None
        if button is None and (session := self._session()) is not None:
            dock, panel = session.viewer.window.add_plugin_dock_widget("napari-pbip", "Workflow")
            dock.show()
            dock.raise_()
            panel.show_step(step)
            button = panel.findChild(QPushButton, key.name)
            _bring_to_front(button)
        if button is not None and button.isVisible() and (in_sight or not button.isChecked()):
            button.click()
            scroll_to(button)

    # slides --------------------------------------------------------------------------------------------------

    def _move(self, places: int) -> None:
        """Show the slide so many places further in the project than the one that was asked for last, if there is one.

        That one may still be opening, or could not be opened; else it is the one in view.
        """
        if (session := self._session()) is None:
            return
        paths = [slide.path for slide in session.project.slides if slide not in session.project.missing]
        in_view = session.slide_in_view
        here = (session.project.asked, None if in_view is None else in_view.slide.path)
        place = places + next((paths.index(path) for path in here if path in paths), -1)
        if 0 <= place < len(paths):
            session.project.turn_to(paths[place])

    # the map -------------------------------------------------------------------------------------------------

    def _switch_map(self) -> None:
        """Hide the maps of the slide in view, or show them if they are hidden; until the key is released if held."""
        if (session := self._session()) is None:
            return
        slide = session.slide_in_view
        maps = [result.layer for result in session.results]
        if session.live_map.layer is not None:
            maps.append(session.live_map.layer)
        if slide is not None:
            maps = [layer for layer in maps if layer.metadata.get(SLIDE) == str(slide.slide.path)]
        self._before = {layer: layer.visible for layer in maps}
        show = not any(self._before.values())
        for layer in maps:
            layer.visible = show
        self._pressed = time.monotonic()
        if (application := QApplication.instance()) is not None:
            application.installEventFilter(self)  # the widget that has the focus gets the release

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait for the release of the key that hides the map, or for another window, which would get the release."""
        key = as_key(event)
        released = key is not None and key.type() == QEvent.Type.KeyRelease
        if key is not None and released:
            released = key.key() == Qt.Key.Key_H and not key.isAutoRepeat()
        if released or (event is not None and event.type() == QEvent.Type.WindowDeactivate):
            if (application := QApplication.instance()) is not None:
                application.removeEventFilter(self)
            if time.monotonic() - self._pressed > _HELD_S:
                for layer, visible in self._before.items():
                    layer.visible = visible
            self._before = {}
        return False


def _bring_to_front(button: QPushButton | None) -> None:
    """Show the tabs on which a button is."""
    above = None if button is None else button.parentWidget()
    while above is not None:
        if isinstance(above, QTabWidget):
            pages = [above.widget(n) for n in range(above.count())]
            above.setCurrentWidget(next(page for page in pages if page is not None and page.isAncestorOf(button)))
        above = above.parentWidget()
