"""Timers that fire once, a while after they were last started."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


def single_shot(milliseconds: int, call: Callable[[], object], parent: QObject | None = None) -> QTimer:
    """Return a timer that calls a function once, this long after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer
