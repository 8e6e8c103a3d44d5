"""Events that PyQt passes as objects of another class."""

from __future__ import annotations

import pytest
from qtpy import PYQT6
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QKeyEvent, QMouseEvent

from napari_pbip.gui.qt_events import as_key, as_mouse

NO = Qt.KeyboardModifier.NoModifier


def as_object_of(event: QEvent, kind: type[QEvent]) -> QEvent:
    """Return an event as PyQt passes it when Qt has made it where an event of this class was."""
    from PyQt6 import sip

    return sip.cast(sip.cast(event, QEvent), kind)


@pytest.mark.skipif(not PYQT6, reason="the error is one of PyQt")
def test_an_event_of_another_class_is_what_its_type_says(application):
    key = QKeyEvent(QEvent.Type.KeyRelease, Qt.Key.Key_H, NO)
    button = Qt.MouseButton.LeftButton
    mouse = QMouseEvent(QEvent.Type.MouseButtonDblClick, QPointF(3, 4), QPointF(5, 6), button, button, NO)
    disguised = as_object_of(key, QMouseEvent), as_object_of(mouse, QKeyEvent)
    assert [type(one) for one in disguised] == [QMouseEvent, QKeyEvent]
    for one in (key, disguised[0]):
        assert (as_key(one).key(), as_key(one).type(), as_mouse(one)) == (Qt.Key.Key_H, QEvent.Type.KeyRelease, None)
    for one in (mouse, disguised[1]):
        assert (as_mouse(one).position(), as_key(one)) == (QPointF(3, 4), None)
    for one in (QEvent(QEvent.Type.Leave), None):
        assert (as_key(one), as_mouse(one)) == (None, None)
