"""Checks of all masks of a data set together, because a single mask does not show a wrong numbering."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from napari_pbip.bank.tiles import LEFT_OUT, LabelledTile


def read_masks(tiles: Sequence[LabelledTile], classes: int) -> tuple[list[frozenset[int]], frozenset[int]]:
    """Read the mask of every tile once, in threads.

    Returns
    -------
    present
        The classes in each mask.
    values
        All values in the files.

    Raises
    ------
    DataError
        As :meth:`~napari_pbip.bank.tiles.LabelledTile.read_mask` does.
    """

    def values(tile: LabelledTile) -> frozenset[int]:
        return frozenset(np.unique(tile.mask_values(classes)).tolist())

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(values, tiles))
    return [frozenset(v for v in one if v < classes) for one in found], frozenset[int]().union(*found)


def labelled_by_masks(tiles: Sequence[LabelledTile], present: Sequence[frozenset[int]]) -> tuple[LabelledTile, ...]:
    """Return the tiles, labelled with the classes in their masks."""
    return tuple(replace(tile, labels=labels) for tile, labels in zip(tiles, present, strict=True))


def numbering_warning(values: frozenset[int], names: Sequence[str], first: int = 0, where: str = "") -> str | None:
    """Return a warning on classes that occur in no mask, with what the values may mean instead; None if all occur.

    Parameters
    ----------
    values
        All values that occur in the masks.
    names
        Class names in label order.
    first
        The value of the first class.
    where
        Description of the masks, for example `` of the split test``.
    """
    numbers = range(first, first + len(names))
    missing = [name for n, name in zip(numbers, names, strict=True) if n not in values]
    if not missing:
        return None
    held = ", ".join(str(v) for v in sorted(values))
    shown = f"No mask{where} shows {', '.join(missing)}, so that is not evaluated: the masks contain {held}"
    if LEFT_OUT in values and len(values) == 2:
        return f"{shown}, and {LEFT_OUT} means left out. If it means a class, write the number of the class."
    if first not in values and numbers.stop in values:
        return f"{shown}, and {numbers.stop} means left out. If they count the classes from {first + 1}, subtract 1."
    return f"{shown}; {names[0]} is {first}, and so on."
