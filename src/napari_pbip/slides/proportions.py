"""Pictures that are drawn over a whole slide."""

from __future__ import annotations

from napari_pbip.slides.facts import SlideFacts
from napari_pbip.slides.slide import Slide

_OFF = 0.02
"""Share of the shorter side by which the proportions of a picture may be off."""


def scale_over(slide: Slide | SlideFacts, height: int, width: int) -> float | None:
    """Return how many level-0 pixels a pixel of a picture of the whole slide is wide; None if it is not one.

    The size of such a picture is computed along the longer side; the other side is off by less than a pixel.

    Parameters
    ----------
    slide
        The slide, or what a result says of it.
    height, width
        Of the picture.
    """
    scale = max(slide.width, slide.height) / max(width, height)
    off = abs(slide.width - width * scale), abs(slide.height - height * scale)
    return None if max(off) > max(scale, _OFF * min(slide.width, slide.height)) else scale
