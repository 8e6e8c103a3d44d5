"""A part of a dock that can be opened in a window of its own, where it has more room."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import QDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.words import PlainLabel


class OwnWindow(QWidget):
    """Widget that holds another one, which moves into a window while :attr:`button` is down.

    A button in its place, and closing the window, bring it back.

    Parameters
    ----------
    part
        The widget that is held.
    title
        Title of the window: what is in it, in the plural.
    tip
        Tooltip of the button, which says what is gained.
    """

    def __init__(self, part: QWidget, title: str, tip: str) -> None:
        super().__init__()
        self._part = part
        self._title = title
        self.window_of_part: QDialog | None = None
        self.button = toggle_button("Enlarge", tip, self._toggle)
        self._hidden = single_shot(0, self._close_if_removed, self)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(part)
        self._instead = QWidget()
        instead = QHBoxLayout(self._instead)
        instead.setContentsMargins(0, 0, 0, 0)
        where = PlainLabel(f"{title} are in a window of their own.")
        where.setWordWrap(True)
        instead.addWidget(where, 1)
        instead.addWidget(push_button("Bring back", clicked=lambda: self.button.setChecked(False)))
        self._instead.hide()
        self._layout.addWidget(self._instead)

    def hideEvent(self, event: QHideEvent | None) -> None:
        super().hideEvent(event)
        self._hidden.start()

    def _close_if_removed(self) -> None:
        """Close the window if napari has taken the dock away, which outlives that; not if another step is in front."""
        outermost = self.window()
        if self.window_of_part is not None and outermost is not None and outermost.isHidden():
            self.window_of_part.close()

    def _toggle(self, on: bool) -> None:
        if on:
            self._open()
        elif self.window_of_part is not None:
            self.window_of_part.close()

    def _open(self) -> None:
        window = self.window_of_part = QDialog(self, Qt.WindowType.Window)
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        window.setWindowTitle(self._title)
        inside = QVBoxLayout(window)
        inside.addWidget(self._part)
        self._instead.show()
        if (screen := self.screen()) is not None:
            area = screen.availableGeometry()
            window.resize(area.width() * 19 // 20, area.height() // 2)
        window.finished.connect(self._bring_back)
        window.show()

    def _bring_back(self) -> None:
        self.window_of_part = None
        self._instead.hide()
        self._layout.addWidget(self._part)
        self.button.setChecked(False)
