"""Distinguishing clicks on the canvas from drags."""

from __future__ import annotations

from typing import Any

_STILL = 4
"""Screen pixels that the mouse may move between the press and the release of a click."""


def is_drag(pressed: Any, position: Any) -> bool:
    """Return whether the mouse has moved too far from where it was pressed for a click; both (2,), in canvas pixels."""
    return bool(max(abs(position - pressed)) > _STILL)
