"""The colours of label layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from napari.utils.colormaps import DirectLabelColormap

_TRANSPARENT = (0.0, 0.0, 0.0, 0.0)


def label_colormap(
    colours: Mapping[int, str | tuple[int, int, int]], hidden: Collection[int] = ()
) -> DirectLabelColormap:
    """Return a colormap of label values; hidden values, 0 and all values without a colour are transparent.

    Parameters
    ----------
    colours
        Colour of each value as ``#RRGGBB`` or RGB in 0..255.
    hidden
        Values to hide.
    """
    drawn: dict[int | None, Any] = {None: _TRANSPARENT, 0: _TRANSPARENT}
    for value, colour in colours.items():
        opaque = colour if isinstance(colour, str) else (*(part / 255 for part in colour), 1.0)
        drawn[value] = _TRANSPARENT if value in hidden else opaque
    return DirectLabelColormap(color_dict=drawn)
