"""Words of users in widgets: Qt takes ``<b>`` for HTML and ``&`` for a shortcut, in names of classes and files too."""

from __future__ import annotations

import html

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel


class PlainLabel(QLabel):
    """A label that shows its text as it is written."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.PlainText)


def rich(text: object) -> str:
    """A text as it is written, within rich text."""
    return html.escape(str(text))


def tip(text: object) -> str:
    """A text as it is written, as a tooltip: rich text, which is wrapped, of lines."""
    return f"<qt>{html.escape(str(text)).replace(chr(10), '<br>')}</qt>"


def caption(text: str) -> str:
    """A text as it is written, on a button, a check box or in a menu."""
    return text.replace("&", "&&")
