"""The colours of label layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from napari.utils.colormaps import DirectLabelColormap

_TRANSPARENT = (0.0, 0.0, 0.0, 0.0)


def label_colormap(
    colours: Mapping[int, str | tuple[int, int, int]], hidden: Collection[int] = ()
) -> DirectLabelColormap:
    """A colour for each label value; hidden values, 0 and whatever else there is are transparent.

    Parameters
    ----------
    colours
        ``#RRGGBB`` or RGB in 0..255 of each value.
    hidden
        Values that are not drawn.
    """
    drawn: dict[int | None, Any] = {None: _TRANSPARENT, 0: _TRANSPARENT}
    for value, colour in colours.items():
        opaque = colour if isinstance(colour, str) else (*(part / 255 for part in colour), 1.0)
        drawn[value] = _TRANSPARENT if value in hidden else opaque
    return DirectLabelColormap(color_dict=drawn)
