"""Whether texts can be read: their contrast to what is behind them, measured on what widgets draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

SCALE = 3
"""Pixels of the picture for each of the screen, so that strokes of letters are not blurred away."""


def contrast(one: Any, other: Any) -> float:
    """Return the contrast of two colours that the Web Content Accessibility Guidelines define, 1 to 21."""
    return float(_contrast(*(np.array(colour.getRgb()[:3]) for colour in (one, other))))


def _contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the contrast of colours along the last axis, RGB of 0 to 255."""
    luminance = []
    for colour in (one, other):
        parts = colour / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        luminance.append(linear @ (0.2126, 0.7152, 0.0722))
    low, high = np.minimum(*luminance), np.maximum(*luminance)
    return (high + 0.05) / (low + 0.05)


def picture(widget: Any) -> np.ndarray:
    """Return what a widget and those in it draw, shape (height, width, 3), ``SCALE`` times as large."""
    from qtpy.QtGui import QImage, QPixmap

    drawn = QPixmap(widget.size() * SCALE)
    drawn.setDevicePixelRatio(SCALE)
    widget.render(drawn)
    image = drawn.toImage().convertToFormat(QImage.Format.Format_RGBA8888)
    data = image.constBits()
    if hasattr(data, "setsize"):
        data.setsize(image.sizeInBytes())
    return np.array(data, np.uint8).reshape(image.height(), image.width(), 4)[..., :3]


def words(pixels: np.ndarray) -> Iterator[float]:
    """Return the contrast of each word of a text to what is behind it, which has one colour."""
    coded = pixels.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colours, inverse, counts = np.unique(coded, return_inverse=True, return_counts=True)
    each = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
    strength = _contrast(each, each[counts.argmax()])[inverse].reshape(coded.shape)
    inked = strength > 1.15
    for top, bottom in _runs(inked.any(1), 1):
        for left, right in _runs(inked[top:bottom].any(0), 4 * SCALE):
            yield float(np.sort(strength[top:bottom, left:right], None)[-SCALE:].mean())


def _runs(there: np.ndarray, gap: int) -> Iterator[tuple[int, int]]:
    """Return begin and end of what is there, across gaps that are smaller."""
    places = np.flatnonzero(there)
    if len(places):
        breaks = np.flatnonzero(np.diff(places) > gap)
        yield from zip(places[[0, *(breaks + 1)]], places[[*breaks, -1]] + 1, strict=True)
