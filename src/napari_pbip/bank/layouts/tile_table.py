"""The layout ``csv``: a table of tiles with one 0/1 column per class."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from napari_pbip.bank.layouts.csv_table import OTHER_TABLES, TABLE_SUFFIXES, Table
from napari_pbip.bank.layouts.file_names import LABEL_IN_NAME
from napari_pbip.bank.layouts.given_classes import CLASSES, taxonomy_of
from napari_pbip.bank.layouts.masks import numbering_warning, read_masks
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.tiles import LabelledTile
from napari_pbip.errors import DataError
from napari_pbip.files import writing
from napari_pbip.folders import Listing
from napari_pbip.pictures import is_picture
from napari_pbip.taxonomy import Taxonomy

TABLE = "tiles.csv"
_FOR_TRAINING = {"train", "train_single"}
"""Splits that may have tiles in common, because nothing is scored on them."""


def find(folder: Path, here: Listing, layout: str) -> tuple[Table | None, list[str]]:
    """Return the table in a folder that lists labelled tiles, or None, and a note on each table that is not read.

    Raises
    ------
    DataError
        If several tables list tiles, a table and the file names both give labels, or the table cannot be read.
    """
    if layout not in ("auto", "csv"):
        return None, []
    paths = [path for path in here.files if path.suffix.lower() in TABLE_SUFFIXES]
    if layout == "csv":
        if len(paths) != 1:
            raise DataError(f"{folder} holds {len(paths)} CSV files; name the one with the labelled tiles.")
        return Table(paths[0]), []
    pictures = [path for path in here.files if is_picture(path)]
    if len(paths) == 1 and not pictures and not here.folders:
        return Table(paths[0]), []  # there is nothing else in the folder
    tables = {path: table for path in paths if (table := _stray_table(path)) is not None}
    labelled = [path for path, table in tables.items() if table.lists_labels()]
    if len(labelled) > 1:
        names = ", ".join(path.name for path in labelled)
        raise DataError(f"{folder} holds several tables of labelled tiles ({names}); name the one to use.")
    if labelled and any(LABEL_IN_NAME.fullmatch(path.stem) for path in pictures):
        raise DataError(
            f"{folder} holds a table of labelled tiles ({labelled[0].name}) and pictures with labels in their "
            f"names ({pictures[0].name}); use `data.layout=csv` to go by the table, or `data.layout=bcss` or "
            "`data.layout=luad` to go by the names."
        )
    notes = [f"{path.name} is not read: it does not list labelled tiles." for path in paths if not labelled]
    notes += [
        f"{path.name} is not read; save it as CSV if it lists the tiles."
        for path in here.files
        if path.suffix.lower() in OTHER_TABLES
    ]
    return (tables[labelled[0]] if labelled else None), notes


def read(
    table: Table, split: str, given: Taxonomy | None, left_out: LeftOut
) -> tuple[Taxonomy, tuple[LabelledTile, ...], list[str]]:
    """Return the classes, the tiles of a split, and warnings about what is probably wrong.

    Raises
    ------
    DataError
        If a column, path, label or mask is missing or invalid, or the split has no tiles.
    """
    if "path" not in table.columns:
        raise DataError(f"{table.path} has no column 'path'; it needs one, and a 0/1 column for each class.")
    if not table.rows:
        raise DataError(f"{table.path} lists no tiles; add a row for each.")
    names = given.names if given else table.class_columns
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(f"{table.path} has no column {missing[0]!r}; it needs a 0/1 column for each class.")
    if not names:
        raise DataError(f"{table.path} has no class columns; add a 0/1 column for each class.")
    taxonomy = given or taxonomy_of(names)
    tiles, rows, unknown = [], [], Counter[str]()
    elsewhere = set[str]()
    for row, values in enumerate(table.rows):
        if (of := table.split(row)) != split:
            if not {of, split} <= _FOR_TRAINING:
                elsewhere.add(values["path"])
            if of is None:
                unknown[values["split"]] += 1
            continue
        path = table.file(row, "path")
        if path is None:
            raise DataError(f"Row {table.lines[row]} of {table.path} names no file in the column 'path'.")
        labels, mask = table.labels(row, names), table.file(row, "mask")
        tiles.append(LabelledTile(path, labels, mask, table.origin(row, path)))
        rows.append(row)
    if not tiles:
        raise DataError(f"{table.path} lists no tiles of the split {split!r}; splits are given in a column 'split'.")
    for name, count in unknown.items():
        left_out.others.append(f"Left out: {count:,} rows of {table.path.name} (their split is {name!r}).")
    if "" in table.columns:
        left_out.others.append(f"Left out: a column of {table.path.name} (without a name).")
    if unused := [c for c in table.class_columns if c not in names]:
        left_out.others.append(f"Left out: {', '.join(unused)} (columns of {table.path.name} that are no class).")
    masked = [tile for tile in tiles if tile.mask is not None]
    _, values_of_masks = read_masks(masked, len(names))  # reports a wrong mask now
    warnings = [
        numbering_warning(values_of_masks, names, where=f" of the split {split}") if masked else None,
        _in_two_splits([table.rows[row]["path"] for row in rows], elsewhere, table, split),
        _listed_twice(table, tiles, rows, names),
        _shown_everywhere(tiles, names),
    ]
    return taxonomy, tuple(tiles), [warning for warning in warnings if warning]


def write_tables(
    folder: Path,
    taxonomy: Taxonomy,
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[object], AbstractSet[int]]],
) -> None:
    """Write ``tiles.csv``, and ``classes.txt`` beside it; without a row there is no ``tiles.csv``.

    Parameters
    ----------
    folder
        Where to write; relative paths in the table count from it.
    taxonomy
        The classes; a 0/1 column each follows the others.
    columns
        Those of :data:`CSV_COLUMNS` that are given.
    rows
        A value for each of them, and the indices of the classes that the tile shows.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    with writing(folder / CLASSES) as temporary:
        lines = [f"{c.name}\t{c.colour}\n" for c in taxonomy]
        temporary.write_text("".join(lines), encoding="utf-8")
    if not rows:
        (folder / TABLE).unlink(missing_ok=True)
        return
    with writing(folder / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*columns, *taxonomy.names))
        table.writerows((*values, *(int(n in labels) for n in range(len(taxonomy)))) for values, labels in rows)


def write_tiles(folder: Path, taxonomy: Taxonomy, splits: Mapping[str, Iterable[LabelledTile]]) -> None:
    """Write the table of a data set whose pictures and masks stay where they are.

    Parameters
    ----------
    folder
        Where to write, as :func:`write_tables` does.
    taxonomy
        The classes.
    splits
        The tiles of each split by its name, such as ``train``.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    rows = [(_row(folder, split, tile), tile.labels) for split, tiles in splits.items() for tile in tiles]
    write_tables(folder, taxonomy, ("path", "mask", "split", "slide", "x", "y"), rows)


def _row(folder: Path, split: str, tile: LabelledTile) -> tuple[object, ...]:
    origin = tile.origin
    place = ("", "", "") if origin is None else (origin.slide, origin.x, origin.y)
    return (_relative(tile.path, folder), "" if tile.mask is None else _relative(tile.mask, folder), split, *place)


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to the folder of a table, or an absolute one if it is on another drive of Windows."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.resolve())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _stray_table(path: Path) -> Table | None:
    """Read a table in a folder; return None if it cannot be read and does not look like a table of tiles.

    Raises
    ------
    DataError
        If it cannot be read and looks like a table of tiles.
    """
    try:
        return Table(path)
    except DataError as error:
        with path.open("rb") as file:
            header = file.read(4096).replace(b"\0", b"").partition(b"\n")[0]
        if b"path" not in header.lower():
            return None
        raise DataError(f"{str(error).removesuffix('.')}, or leave it out with `data.layout=folders`.") from error


def _listed_twice(table: Table, tiles: Sequence[LabelledTile], rows: Sequence[int], names: Sequence[str]) -> str | None:
    """Return a warning on pictures that occur twice in the table, with equal or different labels, or None."""
    first: dict[Path, int] = {}
    again: list[tuple[int, int]] = []
    contradicting: list[tuple[int, int]] = []
    for i, tile in enumerate(tiles):
        before = first.setdefault(tile.path, i)
        if before == i:
            continue
        (again if tiles[before].labels == tile.labels else contradicting).append((before, i))
    if contradicting:
        before, i = contradicting[0]
        said = [", ".join(names[n] for n in sorted(tiles[j].labels)) or "no class" for j in (before, i)]
        return (
            f"{tiles[i].path.name} is labelled {said[0]} in row {table.lines[rows[before]]} of {table.path.name} and "
            f"{said[1]} in row {table.lines[rows[i]]} ({len(contradicting):,} such rows); remove what is wrong."
        )
    if again:
        return (
            f"{len(again):,} rows of {table.path.name} list a tile again, such as row {table.lines[rows[again[0][1]]]} "
            f"({tiles[again[0][1]].path.name}), which counts twice; remove them."
        )
    return None


def _in_two_splits(paths: Sequence[str], elsewhere: AbstractSet[str], table: Table, split: str) -> str | None:
    """Return a warning on tiles that are in other splits too, which makes scores too good, or None."""
    shared = [path for path in paths if path in elsewhere]
    if not shared:
        return None
    return (
        f"{len(shared):,} tiles of the split {split} are in another split of {table.path.name} too, such as "
        f"{shared[0]}, which makes scores look better than they are; list each in one."
    )


def _shown_everywhere(tiles: Sequence[LabelledTile], names: Sequence[str]) -> str | None:
    """Return a warning on a class that all tiles have, which usually is a column that is not a class, or None."""
    everywhere = [name for n, name in enumerate(names) if all(n in tile.labels for tile in tiles)]
    if not everywhere or len(names) < 3 or len(tiles) < 2:
        return None
    return (
        f"Every tile shows {everywhere[0]}, so nothing can be learned about it; if that column is no class, name the "
        "classes with `data.classes`."
    )
