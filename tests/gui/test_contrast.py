"""Texts of all docks can be read in both themes of napari, also those of what is disabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import QAbstractButton, QCheckBox, QLabel, QLineEdit, QRadioButton, QWidget

from napari_pbip.gui.sessions import session_of
from tests.gui.contrast import SCALE, picture, words
from tests.gui.qt_helpers import Settle, open_workflow, unfolded

FRAME, MARK = 5, 22
"""Pixels of the frame of a control, and of the mark before the text of a check box."""


def texts(panel: QWidget) -> Iterator[tuple[QWidget, str, QRect]]:
    """Return the widgets that show a text, the text, and where it is in the panel."""
    for one in panel.findChildren(QWidget):
        if not (one.isVisible() and isinstance(one, (QAbstractButton, QLabel, QLineEdit))):
            continue
        text = one.text() or (one.placeholderText() if isinstance(one, QLineEdit) else "")
        if any(mark in text for mark in "●■"):  # a key of colours
            continue
        frame = 0 if isinstance(one, QLabel) else FRAME
        left = MARK if isinstance(one, (QCheckBox, QRadioButton)) else frame
        place = one.visibleRegion().boundingRect().adjusted(left, frame, -frame, -frame)
        if text and text != "…" and place.width() > FRAME and place.height() > FRAME:
            yield one, text, place.translated(one.mapTo(panel, QPoint(0, 0)))


def test_all_texts_can_be_read_in_both_themes(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    """Text has a contrast of 4.5:1 as the Web Content Accessibility Guidelines ask, and what is disabled of 3:1."""
    viewer.window.resize(1000, 1900)  # so that nothing is scrolled out of sight
    panel, faint = open_workflow(viewer, settle), []
    measured = disabled = hints = 0
    for step, _ in unfolded(viewer, panel, settle, tmp_path):
        for theme in ("dark", "light"):
            viewer.theme = theme
            settle()
            pixels = picture(panel)
            for one, text, place in texts(panel):
                rows = slice(SCALE * place.top(), SCALE * (place.bottom() + 1))
                found = list(words(pixels[rows, SCALE * place.left() : SCALE * (place.right() + 1)]))
                if found:  # a label may have a picture alone
                    measured += 1
                    disabled += not one.isEnabled()
                    hints += isinstance(one, QLineEdit) and not one.text()
                    if min(found) < (4.5 if one.isEnabled() else 3.0):
                        faint.append((step.value, theme, text, round(min(found), 2)))
    assert faint == []
    assert measured > 500
    assert disabled > 20
    assert hints > 5
    session = session_of(viewer)
    settle(lambda: not session.jobs)
