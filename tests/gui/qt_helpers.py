"""What a hand does on mouse and keyboard."""

from __future__ import annotations

from typing import Any


def click(button: Any) -> None:
    """Press a button that can be seen and pressed."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    assert button.isVisible(), button.text()
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def type_text(line: Any, text: str) -> None:
    """Replace what is written in a line."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    line.selectAll()
    QTest.keyClick(line, Qt.Key.Key_Delete)
    QTest.keyClicks(line, text)
