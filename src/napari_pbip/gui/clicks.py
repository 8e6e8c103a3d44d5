"""Distinguishing clicks on the canvas from drags."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

_STILL = 4
"""Screen pixels that the mouse may move between the press and the release of a click."""


def is_drag(pressed: Any, position: Any) -> bool:
    """Return whether the mouse has moved too far from where it was pressed for a click; both (2,), in canvas pixels."""
    return bool(max(abs(position - pressed)) > _STILL)


def on_click(act: Callable[[Sequence[float]], object]) -> Callable[[Any, Any], Generator[None, None, None]]:
    """Return a callback for napari's drags that calls a function with the position of each click."""

    def follow(viewer: Any, event: Any) -> Generator[None, None, None]:
        pressed, moved = event.pos, event.button != 1
        yield
        while event.type == "mouse_move":
            moved = moved or is_drag(pressed, event.pos)
            yield
        if not moved:
            act(event.position)

    return follow
