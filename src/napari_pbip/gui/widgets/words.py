"""Names of classes, files and other texts of users in widgets: Qt would read ``<b>`` as HTML, ``&`` as a shortcut."""

from __future__ import annotations

import html

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel


class PlainLabel(QLabel):
    """A label that shows its text literally."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.PlainText)


def rich(text: object) -> str:
    """Escape a text for use in rich text."""
    return html.escape(str(text))


def tip(text: object) -> str:
    """Convert a text to a tooltip in rich text, which is wrapped and keeps its lines."""
    return f"<qt>{html.escape(str(text)).replace(chr(10), '<br>')}</qt>"


def caption(text: str) -> str:
    """Escape a text for use on a button, a check box or in a menu."""
    return text.replace("&", "&&")
