"""What is probably wrong with the labels of a data set, in a sentence each; None where nothing is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from napari_pbip.bank.names import LABEL_IN_NAME
from napari_pbip.bank.table import Table
from napari_pbip.bank.tiles import LabelledTile
from napari_pbip.folders import listing


def classes_one_level_down(folders: Sequence[Path]) -> str | None:
    """A sentence if the folders look like those of data sets or patients, each with all classes in it."""
    below = [{path.name for path in listing(folder).folders} for folder in folders]
    shared = sorted(set.intersection(*below)) if len(below) > 1 else []
    if len(shared) < 2:
        return None
    return (
        f"Each of {', '.join(path.name for path in folders)} holds the folders {', '.join(shared)}: if those are the "
        f"classes, name one of {folders[0].parent}/* instead, or put their tiles together."
    )


def other_label_in_name(tiles: Sequence[LabelledTile], classes: int) -> str | None:
    """A sentence on tiles whose name and folder say different things."""
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


def listed_twice(table: Table, tiles: Sequence[LabelledTile], rows: Sequence[int], names: Sequence[str]) -> str | None:
    """A sentence on pictures that are in the table twice, alike or contradicting."""
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


def in_two_splits(paths: Sequence[str], elsewhere: AbstractSet[str], table: Table, split: str) -> str | None:
    """A sentence on tiles that other splits hold too, which makes scores better than they are."""
    shared = [path for path in paths if path in elsewhere]
    if not shared:
        return None
    return (
        f"{len(shared):,} tiles of the split {split} are in another split of {table.path.name} too, such as "
        f"{shared[0]}, which makes scores look better than they are; list each in one."
    )


def shown_everywhere(tiles: Sequence[LabelledTile], names: Sequence[str]) -> str | None:
    """A sentence on a class that every tile shows: a column that was no class, as a rule."""
    everywhere = [name for n, name in enumerate(names) if all(n in tile.labels for tile in tiles)]
    if not everywhere or len(names) < 3 or len(tiles) < 2:
        return None
    return (
        f"Every tile shows {everywhere[0]}, so nothing can be learned of it; if that column is no class, name the "
        "classes with data.classes."
    )
