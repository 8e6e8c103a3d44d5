"""The layouts ``bcss`` and ``luad`` of the published data sets: one digit per class in the file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_pbip.bank.tiles import LabelledTile, Origin
from napari_pbip.errors import DataError
from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy

LABEL_IN_NAME = re.compile(r".*\[[01]( ?[01])+\]")
"""A file name with the digits of several classes; a single ``[1]`` may be the mark of a second download."""
_PATTERNS = {
    "bcss": re.compile(r".*\[(?P<digits>[01]+)\]"),
    "luad": re.compile(r".*\[(?P<digits>[01](?: [01])+)\]"),
}
KNOWN: Mapping[str, Taxonomy] = {"bcss": BCSS, "luad": LUAD}
"""Classes of the data sets with such file names."""


def naming_of(pictures: Sequence[Path]) -> str:
    """Return which of the two layouts the file names have."""
    return "luad" if pictures and _PATTERNS["luad"].fullmatch(pictures[0].stem) else "bcss"


def digits_of(path: Path, layout: str) -> str:
    """Return the label digits in a file name, without spaces.

    Raises
    ------
    DataError
        If the file name has none.
    """
    found = _PATTERNS[layout].fullmatch(path.stem)
    if found is None:
        example = "name[101].png" if layout == "bcss" else "name-[1 0 1].png"
        raise DataError(
            f"The file name {path} carries no label; it has to end like {example}, a 0 or 1 for each class."
        )
    return found["digits"].replace(" ", "")


def read(pictures: Sequence[Path], digits: Sequence[str], taxonomy: Taxonomy) -> tuple[LabelledTile, ...]:
    """Return the tiles with the labels of their digits.

    Raises
    ------
    DataError
        If the number of digits of a tile is not the number of classes.
    """
    tiles = []
    for path, bits in zip(pictures, digits, strict=True):
        if len(bits) != len(taxonomy):
            raise DataError(
                f"{path} carries {len(bits)} labels but there are {len(taxonomy)} classes "
                f"({', '.join(taxonomy.names)}); correct the file name, classes.txt or `data.classes`."
            )
        labels = frozenset(n for n, bit in enumerate(bits) if bit == "1")
        tiles.append(LabelledTile(path, labels, origin=Origin.from_name(path.name)))
    return tuple(tiles)
