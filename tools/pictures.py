"""What the scripts share that make pictures of the running plugin."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.qt import get_qapp
from PIL import Image, ImageQt


def settle(until: Callable[[], Any] | None = None, seconds: float = 300) -> None:
    """Run the event loop until a condition holds, or for a moment."""
    end = time.monotonic() + (seconds if until else 0.3)
    while time.monotonic() < end and not (until is not None and until()):
        get_qapp().processEvents()
        time.sleep(0.005)
    if until is not None and not until():
        raise TimeoutError("the window did not come so far")


def save_picture(viewer: Any, path: Path, most: int | None = None, other: Any = None) -> None:
    """Save a picture of the window, or of another one, as JPEG, with at most so many bytes."""
    for notification in viewer.window._qt_window.findChildren(NapariQtNotification):
        notification.close()  # it would cover the scale bar
    get_qapp().processEvents()
    if other is None:
        picture = Image.fromarray(viewer.screenshot(canvas_only=False)[..., :3])
    else:
        picture = ImageQt.fromqimage(other.grab().toImage()).convert("RGB")
    for quality in range(85, 20, -5):
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=quality)
        if most is None or len(encoded.getvalue()) < most:
            break
    path.write_bytes(encoded.getvalue())
