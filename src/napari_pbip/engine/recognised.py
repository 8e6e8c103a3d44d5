"""What a job says of the tiles that it was given, before it begins with them."""

from __future__ import annotations

from collections.abc import Iterator

from napari_pbip.bank import TileSet
from napari_pbip.events import Noted, Warned


def recognised(*sets: TileSet) -> Iterator[Noted | Warned]:
    """What was found of each set and what was left out, and what is probably wrong with it."""
    for tiles in sets:
        yield Noted(" ".join((tiles.description, *tiles.notes)))
        yield from map(Warned, tiles.warnings)
