"""Whether three channels are red, green and blue, by what a file says of them and never by their number alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from napari_pbip.slides.reader import brief

_COLOURS = ("red", "green", "blue")
_NUMBERED = re.compile(r"(channel|ch|c)?[\s:_#-]*[\d:]*", re.IGNORECASE)
"""Names that programs give to unnamed channels: ``Channel:0:1``, ``C1``, ``0``."""
_LETTER_OR_NAME = [re.compile(rf"({colour[0]}|.*\b{colour}\b.*)", re.IGNORECASE) for colour in _COLOURS]


def why_not_rgb(names: Sequence[str], colours: Sequence[tuple[int, int, int] | None]) -> str | None:
    """What is said of three channels that are not red, green and blue, or None if nothing speaks against it.

    Writers of plain RGB in three planes (libvips, bioformats2raw) say nothing, or that the colours are red, green and
    blue. Whoever scans fluorescence names the channels or their colours.

    Parameters
    ----------
    names
        As the file has them; empty where it has none.
    colours
        RGB in which each channel is to be shown, 0 to 255, or None.
    """
    if len(names) != 3:
        return f"it has {len(names)} channels"
    named = [name.strip() for name in names]
    if not all(_NUMBERED.fullmatch(name) for name in named) and not all(
        pattern.fullmatch(name) for pattern, name in zip(_LETTER_OR_NAME, named, strict=True)
    ):
        return f"its channels are {brief(', '.join(named))}"
    shown = [colour for colour in colours if colour not in (None, (255, 255, 255))]  # white is what OME takes for none
    if shown and list(colours) != [(255, 0, 0), (0, 255, 0), (0, 0, 255)]:
        return "its channels are to be shown in other colours than red, green and blue"
    return None
