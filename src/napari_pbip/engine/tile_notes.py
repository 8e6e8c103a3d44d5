"""Notes and warnings about tiles, with which a job starts."""

from __future__ import annotations

from collections.abc import Iterator

from napari_pbip.bank import TileSet
from napari_pbip.events import Noted, Warned


def tile_notes(tiles: TileSet) -> Iterator[Noted | Warned]:
    """Yield what was recognised and left out as notes, and what is probably wrong as warnings."""
    said = [tiles.description]
    if others := [split for split in tiles.splits if split != tiles.split]:
        said.append(f"The data also hold {', '.join(others)}.")
    yield Noted(" ".join((*said, *tiles.notes)))
    yield from map(Warned, tiles.warnings)
