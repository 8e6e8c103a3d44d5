"""The job that exports labelled tiles as a data set that other programs read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_pbip.bank import LabelledTile, TileSet
from napari_pbip.bank.layouts.tile_table import write_tables
from napari_pbip.engine.jobs import job
from napari_pbip.engine.outputs.export import Format
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import safe_name, writing_folder
from napari_pbip.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class TileFormat(Format):
    """A layout of a data set of tiles; with each, ``classes.txt`` lists the classes."""

    place: Callable[[str, LabelledTile, Taxonomy], str | None]
    """Path of a tile in the folder from its name without ending; None if it has no place."""
    table: bool = False
    """Whether ``tiles.csv`` lists the tiles."""


def _in_class_folder(name: str, tile: LabelledTile, taxonomy: Taxonomy) -> str | None:
    if tile.class_index is None:
        return None
    folder = taxonomy.names[tile.class_index]
    if safe_name(folder) != folder:
        raise OutputError(
            f"A folder cannot be called {folder!r} like this class; export a table of tiles, or rename it."
        )
    return f"{folder}/{name}"


def _with_digits(name: str, tile: LabelledTile, taxonomy: Taxonomy) -> str:
    return f"{name}[{''.join(str(int(n in tile.labels)) for n in range(len(taxonomy)))}]"


TILE_FORMATS: Mapping[str, TileFormat] = {
    "class-folders": TileFormat(
        ending=".tiles",
        title="Labelled tiles (class folders)",
        about="A folder for each class with its tiles; tiles of several classes are left out",
        place=_in_class_folder,
    ),
    "bcss-wsss": TileFormat(
        ending=".tiles",
        title="Labelled tiles (BCSS-WSSS)",
        about="Tiles with a digit for each class in their names, as in the data set BCSS-WSSS",
        place=_with_digits,
    ),
    "tile-table": TileFormat(
        ending=".tiles",
        title="Labelled tiles (CSV)",
        about="Tiles, and a table with their slide, position and classes",
        place=lambda name, *_: f"pictures/{name}",
        table=True,
    ),
}
"""The layouts by the name that the command line gives them."""


@job
def export_tiles(tiles: TileSet, target: Path | str, format: str) -> Job:
    """Copy labelled tiles into a new folder, which appears only when it is complete; ``load_tiles`` reads it again.

    Parameters
    ----------
    tiles
        The tiles.
    target
        The folder, which must not exist.
    format
        One of :data:`TILE_FORMATS`.

    Yields
    ------
    Event
        ``Warned`` if tiles have no place in this layout; ``Finished`` with the number of ``tiles`` that were written.

    Raises
    ------
    OutputError
        If the target exists or cannot be written, a picture cannot be read, or a class cannot have a folder.
    """
    target, chosen = Path(target), TILE_FORMATS[format]
    if target.exists():  # it is never replaced, because nothing tells it from the user's own data sets
        raise OutputError(f"{target} exists already; choose another name.")
    placed = _places(tiles, chosen)
    if left_out := len(tiles) - len(placed):
        yield Warned(
            f"{left_out:,} of {len(tiles):,} tiles have no single class and are left out; a table of tiles has all."
        )
    yield Started(f"Writing {target.name}", total=len(placed), unit="tiles")
    with writing_folder(target) as begun:
        for done, (place, tile) in enumerate(placed.items(), 1):
            copy = begun / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tile.path, copy)
            yield Step(done)
        rows = [
            (
                (place, *((tile.origin.slide, tile.origin.x, tile.origin.y) if tile.origin else ("", "", ""))),
                tile.labels,
            )
            for place, tile in placed.items()
        ]
        write_tables(begun, tiles.taxonomy, ("path", "slide", "x", "y"), rows if chosen.table else ())
    yield Finished(target, {"tiles": len(placed)})


def _places(tiles: TileSet, chosen: TileFormat) -> dict[str, LabelledTile]:
    """Return the tiles by their path in the folder; the slide and position are in their names, if they are known."""
    placed: dict[str, LabelledTile] = {}
    for number, tile in enumerate(tiles):
        origin = tile.origin
        name = f"{safe_name(origin.slide)}_xmin{origin.x}_ymin{origin.y}_" if origin else safe_name(tile.path.stem)
        for one in (name, f"{name}{number}"):  # names of tiles from several folders may be equal
            place = chosen.place(one, tile, tiles.taxonomy)
            if place is not None and (path := f"{place}{tile.path.suffix}") not in placed:
                placed[path] = tile
                break
    return placed
