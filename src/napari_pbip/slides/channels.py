"""Whether three channels are red, green and blue. The file's metadata decide, never the number of channels alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from napari_pbip.slides.reader import brief

_COLOURS = ("red", "green", "blue")
_NUMBERED = re.compile(r"(channel|ch|c)?[\s:_#-]*[\d:]*", re.IGNORECASE)
"""Names that programs give to unnamed channels: ``Channel:0:1``, ``C1``, ``0``."""
_LETTER_OR_NAME = [re.compile(rf"({colour[0]}|.*\b{colour}\b.*)", re.IGNORECASE) for colour in _COLOURS]


def why_not_rgb(names: Sequence[str], colours: Sequence[tuple[int, int, int] | None]) -> str | None:
    """Describe three channels that are not red, green and blue; return None if they may be.

    Programs that write RGB as three planes (libvips, bioformats2raw) leave names and colours out, or name the colours
    red, green and blue. Fluorescence scanners name the channels or give them other colours.

    Parameters
    ----------
    names
        Names in the file; an empty string for a channel without a name.
    colours
        Display colour of each channel as RGB, 0 to 255, or None.
    """
    if len(names) != 3:
        return f"it has {len(names)} channels"
    named = [name.strip() for name in names]
    if not all(_NUMBERED.fullmatch(name) for name in named) and not all(
        pattern.fullmatch(name) for pattern, name in zip(_LETTER_OR_NAME, named, strict=True)
    ):
        return f"its channels are {brief(', '.join(named))}"
    shown = [colour for colour in colours if colour not in (None, (255, 255, 255))]  # white is OME's default
    if shown and list(colours) != [(255, 0, 0), (0, 255, 0), (0, 0, 255)]:
        return "its channels are displayed in other colours than red, green and blue"
    return None
