"""Buttons."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QPushButton, QToolButton, QWidget


def push_button(text: str, tip: str = "", clicked: Callable[[], object] | None = None) -> QPushButton:
    """Return a button with a tooltip and the function that a click calls."""
    button = QPushButton(text)
    button.setToolTip(tip)
    if clicked is not None:
        button.clicked.connect(lambda: clicked())  # without the argument that Qt passes
    return button


def toggle_button(text: str, tip: str, toggled: Callable[..., object]) -> QPushButton:
    """Return a button that stays down until it is pressed again; the function may take whether it is down."""
    button = push_button(text, tip)
    button.setCheckable(True)
    button.toggled.connect(toggled)
    return button


def folding_button(text: str, tip: str, *panels: QWidget) -> QToolButton:
    """Return a button that shows and hides panels, which are hidden now; the Tab key skips what is in them then."""
    button = QToolButton()
    button.setToolTip(tip)
    button.setCheckable(True)
    button.setAutoRaise(True)

    def fold(opened: bool) -> None:
        button.setText(f"{'▾' if opened else '▸'} {text}")
        for panel in panels:
            panel.setVisible(opened)

    button.toggled.connect(fold)
    fold(False)
    return button
