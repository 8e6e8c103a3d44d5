"""Connections to signals that outlive a widget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from napari.utils.events import EventEmitter
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget


def listen(widget: QWidget, *connections: tuple[Any, Callable[..., None]]) -> None:
    """Connect signals to methods of a widget until the widget is gone.

    Parameters
    ----------
    widget
        Its end ends the connections.
    *connections
        A signal (Qt's, psygnal's or napari's) and what it calls.
    """
    for signal, slot in connections:
        signal.connect(slot)

    def part() -> None:
        for signal, slot in connections:
            # napari tells listeners apart with ==, which fails on a widget that is gone; the widget itself, by identity
            listener = getattr(slot, "__self__", slot) if isinstance(signal, EventEmitter) else slot
            with suppress(AttributeError):  # a viewer that is being taken apart has no listeners any more
                signal.disconnect(listener)

    widget.destroyed.connect(part)


def while_alive(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """A method of a widget as a callback that does nothing once the widget is gone."""

    def call(value: Any) -> None:
        if isalive(method.__self__):  # type: ignore[attr-defined, no-untyped-call]  # a bound method; qtpy's
            method(value)

    return call
