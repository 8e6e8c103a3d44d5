"""Buttons."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QPushButton


def push_button(text: str, tip: str = "", clicked: Callable[[], object] | None = None) -> QPushButton:
    """A button with a tooltip, and what a click on it calls."""
    button = QPushButton(text)
    button.setToolTip(tip)
    if clicked is not None:
        button.clicked.connect(lambda: clicked())  # without Qt's own argument
    return button


def toggle_button(text: str, tip: str, toggled: Callable[..., object]) -> QPushButton:
    """A button that stays down until it is pressed again; the function may be told whether it is down."""
    button = push_button(text, tip)
    button.setCheckable(True)
    button.toggled.connect(toggled)
    return button
