"""Telling a click on the canvas from a drag."""

from __future__ import annotations

from typing import Any

_STILL = 4
"""Pixels of the screen that the mouse may move between press and release of a click."""


def is_drag(pressed: Any, position: Any) -> bool:
    """Whether the mouse is too far from where it was pressed for a click; both in pixels of the canvas, (2,)."""
    return bool(max(abs(position - pressed)) > _STILL)
