"""A column of widgets that scrolls vertically, and docks whose parts are in one."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

_WIDEST = 440
"""Width in pixels up to which it grows with its content; beyond, it scrolls horizontally too."""
_CHANGES = frozenset({QEvent.Type.LayoutRequest, QEvent.Type.Show})
"""Events after which the content may need another width; when it is first shown, it gets the style of the window."""


class ScrollColumn(QScrollArea):
    """Scroll area that is as wide as its content at least, whatever is shown in it later, up to a limit for docks.

    Parameters
    ----------
    content
        The widget that scrolls.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)  # Tab goes to what is in it, which scrolls into view
        self._content = content
        self.setWidget(content)
        content.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Adapt the width to that of the content, which depends on the style and on what is visible."""
        if watched is self._content and event is not None and event.type() in _CHANGES:
            bar = self.verticalScrollBar()
            needed = self._content.minimumSizeHint().width() + (bar.sizeHint().width() if bar else 0)
            self.setMinimumWidth(min(needed, _WIDEST))
        return super().eventFilter(watched, event)


def scrolling_layout(dock: QWidget) -> QVBoxLayout:
    """Return the layout for the parts of a dock, or of one of its pages, which scroll if they are higher than it.

    A window grows to the least height of its docks, and with one that does not scroll it may become higher than the
    screen.
    """
    content = QWidget()
    outer = QVBoxLayout(dock)
    outer.setContentsMargins(0, 0, 0, 0)
    outer.addWidget(ScrollColumn(content))
    return QVBoxLayout(content)
