"""A column of widgets that scrolls vertically."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QScrollArea, QWidget


class ScrollColumn(QScrollArea):
    """A scroll area that is never narrower than its content, even if the content changes.

    Parameters
    ----------
    content
        The widget that scrolls.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._content = content
        self.setWidget(content)
        content.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Adapt the width to that of the content, which depends on the style and on what is visible."""
        if watched is self._content and event is not None and event.type() == QEvent.Type.LayoutRequest:
            bar = self.verticalScrollBar()
            self.setMinimumWidth(self._content.minimumSizeHint().width() + (bar.sizeHint().width() if bar else 0))
        return super().eventFilter(watched, event)
