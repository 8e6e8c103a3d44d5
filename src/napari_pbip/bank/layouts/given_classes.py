"""Classes that the user gives for a data set: in the settings, or in the file ``classes.txt`` beside the tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy

CLASSES = "classes.txt"
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def given_classes(folder: Path, settings: DataSettings) -> Taxonomy | None:
    """Return the classes from the settings, else from ``classes.txt`` in a folder or beside a table, else None.

    Raises
    ------
    DataError
        If the file cannot be read, or the names cannot be used.
    """
    if settings.classes:
        return taxonomy_of(settings.classes)
    path = (folder if folder.is_dir() else folder.parent) / CLASSES
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read; it holds one class name a line, as UTF-8 text.") from error
    entries = [[part.strip() for part in line.split("\t")] for line in lines if line.strip()]
    if not entries:
        return None
    names = [name for name, *_ in entries]
    colours = [colour for _, *rest in entries for colour in rest[:1] if _COLOUR.fullmatch(colour)]
    return taxonomy_of(names, colours if len(colours) == len(names) else None)


def taxonomy_of(names: Sequence[str], colours: Sequence[str] | None = None) -> Taxonomy:
    """Return classes with these names; those of a published data set get its colours.

    Raises
    ------
    DataError
        If the names cannot be used.
    """
    for known in (BCSS, LUAD):
        if known.names == tuple(names) and colours is None:
            return known
    try:
        return Taxonomy.from_names(names, colours)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"The class names cannot be used: {reason}.") from error
