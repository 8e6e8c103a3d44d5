"""Names of classes, files and other texts of users in widgets: Qt would read ``<b>`` as HTML, ``&`` as a shortcut."""

from __future__ import annotations

import html
from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

_NAMED = 3
"""Number of names of a list that are told."""


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


def some_of(names: Sequence[str]) -> str:
    """Return names as one text, of which only the first are told if there are many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def shortened(text: str, length: int) -> str:
    """Return a text with at most this many characters, without its middle if it is longer: names differ at the end."""
    if len(text) <= length:
        return text
    end = length // 2
    return f"{text[: length - end - 1]}…{text[-end:]}"


def caption(text: str) -> str:
    """Escape a text for use on a button, a check box or in a menu."""
    return text.replace("&", "&&")
