"""Connections of widgets to signals that live longer than the widgets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from napari.utils.events import EventEmitter
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget


def listen(widget: QWidget, *connections: tuple[Any, Callable[..., None]]) -> None:
    """Connect signals to methods of a widget until the widget is destroyed.

    Parameters
    ----------
    widget
        The widget; when it is destroyed, the signals are disconnected.
    *connections
        Pairs of a signal (Qt's, psygnal's or napari's) and the function that it calls.
    """
    for signal, slot in connections:
        signal.connect(slot)

    def part() -> None:
        for signal, slot in connections:
            # napari compares callbacks with ==, which fails on a destroyed widget, so callbacks are found by identity
            listener = getattr(slot, "__self__", slot) if isinstance(signal, EventEmitter) else slot
            with suppress(AttributeError):  # a viewer that is being closed has no callbacks any more
                signal.disconnect(listener)

    widget.destroyed.connect(part)


def while_alive(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a method of a widget as a callback that does nothing after the widget was destroyed."""

    def call(value: Any) -> None:
        if isalive(method.__self__):  # type: ignore[attr-defined, no-untyped-call]  # a bound method; qtpy's
            method(value)

    return call
