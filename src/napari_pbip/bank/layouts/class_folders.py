"""The layout ``folders``: one folder per class, with its tiles in it or in folders below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_pbip.bank.layouts.file_names import LABEL_IN_NAME
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.tiles import LabelledTile, Origin
from napari_pbip.errors import DataError
from napari_pbip.folders import ListFolder, listing, walk
from napari_pbip.pictures import FORMATS, is_picture
from napari_pbip.taxonomy import Taxonomy, class_name


def read(
    part: Path, taxonomy: Taxonomy, left_out: LeftOut, list_folder: ListFolder
) -> tuple[tuple[LabelledTile, ...], list[str]]:
    """Read the tiles in the folder of a split; return them with warnings about what is probably wrong.

    Raises
    ------
    DataError
        If there are no class folders, or one is of an unknown class or contains no pictures.
    """
    here = list_folder(part)
    left_out.beside(here)
    classes = classes_of(here.folders)
    if not classes:
        raise DataError(f"{part} holds no class folders; make one folder per class with its tiles in it.")
    if loose := [path for path in here.files if is_picture(path)]:
        left_out.others.append(f"Left out: {len(loose):,} pictures, such as {loose[0].name} (in no class folder).")
    tiles = []
    for name, folders in classes.items():
        if name not in taxonomy.names:
            raise DataError(
                f"The folder {folders[0]} is none of the classes {', '.join(taxonomy.names)}; "
                "rename it, or correct classes.txt or `data.classes`."
            )
        found = walk(folders, list_folder)
        pictures = left_out.but_pictures(found)
        if not pictures:
            holds = f" but {found.files[0].name}" if found.files else ""
            raise DataError(
                f"The class folder {folders[0]} holds no pictures ({FORMATS}){holds}; add tiles or remove it."
            )
        if len(folders) > 1:
            left_out.others.append(f"{len(folders)} folders are named {name}; they are read as one class.")
        labels = frozenset({taxonomy.index(name)})
        tiles += [LabelledTile(p, labels, origin=Origin.from_name(p.name)) for p in pictures]
    warnings = (_classes_one_level_down(here.folders), _other_label_in_name(tiles, len(taxonomy)))
    return tuple(tiles), [warning for warning in warnings if warning]


def classes_of(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return class folders by class name, sorted; names that differ only in Unicode normalisation are one class."""
    found: dict[str, list[Path]] = {}
    for path in folders:
        found.setdefault(class_name(path.name), []).append(path)
    return dict(sorted(found.items()))


def _classes_one_level_down(folders: Sequence[Path]) -> str | None:
    """Return a warning if the folders look like those of data sets or patients, each with all classes in it."""
    below = [{path.name for path in listing(folder).folders} for folder in folders]
    shared = sorted(set.intersection(*below)) if len(below) > 1 else []
    if len(shared) < 2:
        return None
    return (
        f"Each of {', '.join(path.name for path in folders)} holds the folders {', '.join(shared)}: if those are the "
        f"classes, name one of {folders[0].parent}/* instead, or put their tiles together."
    )


def _other_label_in_name(tiles: Sequence[LabelledTile], classes: int) -> str | None:
    """Return a warning on tiles whose names and folders give different labels, or None."""
    wrong = [
        tile.path.name
        for tile in tiles
        if (found := LABEL_IN_NAME.fullmatch(tile.path.stem))
        and len(digits := re.sub(r"[^01]", "", found[0].rpartition("[")[2])) == classes
        and {n for n, digit in enumerate(digits) if digit == "1"} != tile.labels
    ]
    if not wrong:
        return None
    return f"{len(wrong):,} tiles lie in a folder of another class than their names say, such as {wrong[0]}."
