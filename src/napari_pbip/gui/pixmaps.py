"""Pictures of the window, as sharp as the screen is.

Sizes in the window are in points. A point is one pixel of an ordinary screen, and 1.5 or 2 pixels wide on a sharp one,
for which a picture therefore needs as many more pixels in each direction.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QGuiApplication, QImage, QPixmap

RGB = npt.NDArray[np.uint8]

READ = 2
"""Pixels for each point that are read from disk for a small picture, whatever the screen is."""


def pixmap(pixels: RGB | None, side: int | None = None) -> QPixmap:
    """Return a picture, RGB of shape (H, W, 3), as it is or with a longer side in points; a null pixmap for None."""
    if pixels is None:
        return QPixmap()
    height, width, _ = pixels.shape
    picture = QPixmap.fromImage(QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))
    return picture if side is None else fitted(picture, side)


def fitted(picture: QPixmap, side: int) -> QPixmap:
    """Return a picture with a longer side in points; a null pixmap stays one."""
    if picture.isNull():
        return picture
    ratio = _ratio()
    pixels = round(side * ratio)
    keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    scaled = picture.scaled(pixels, pixels, keep, smooth)
    scaled.setDevicePixelRatio(ratio)
    return scaled


def square(colour: QColor | str, side: int) -> QPixmap:
    """Return a square of a colour (``#RRGGBB``) with a side in points."""
    ratio = _ratio()
    pixels = round(side * ratio)
    picture = QPixmap(pixels, pixels)
    picture.setDevicePixelRatio(ratio)
    picture.fill(QColor(colour))
    return picture


def _ratio() -> float:
    """Return the pixels of a point, on the sharpest screen if there are several: Qt draws it smaller on the others."""
    application = QGuiApplication.instance()
    return application.devicePixelRatio() if isinstance(application, QGuiApplication) else 1.0
