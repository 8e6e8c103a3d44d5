"""The events that Qt passes to event filters, as what they are.

PyQt passes an event as the Python object of an earlier one, and of its class, if somebody still has that object and Qt
has made the new event at the same place in memory. vispy keeps the last events of the mouse on the canvas, so that a
key may come as one of them. ``type()`` tells what an event is in any case.
"""

from __future__ import annotations

from typing import Any, TypeVar

from qtpy import PYQT6
from qtpy.QtCore import QEvent
from qtpy.QtGui import QKeyEvent, QMouseEvent

if PYQT6:
    from PyQt6 import sip

Kind = TypeVar("Kind", bound=QEvent)
_KEYS = frozenset({QEvent.Type.KeyPress, QEvent.Type.KeyRelease})
_MOUSE = frozenset(
    {
        QEvent.Type.MouseButtonPress,
        QEvent.Type.MouseButtonRelease,
        QEvent.Type.MouseButtonDblClick,
        QEvent.Type.MouseMove,
    }
)


def as_key(event: QEvent | None) -> QKeyEvent | None:
    """Return an event as that of a key, or None if no key is pressed or released."""
    return _as(event, QKeyEvent) if event is not None and event.type() in _KEYS else None


def as_mouse(event: QEvent | None) -> QMouseEvent | None:
    """Return an event as that of the mouse, or None if no button is pressed or released and the mouse does not move."""
    return _as(event, QMouseEvent) if event is not None and event.type() in _MOUSE else None


def _as(event: QEvent, kind: type[Kind]) -> Kind | None:
    if isinstance(event, kind):
        return event
    wrapping: Any = sip if PYQT6 else None  # its types are incomplete
    found: Kind | None = wrapping and wrapping.wrapinstance(wrapping.unwrapinstance(event), kind)
    return found
