"""The sentence that says why most of a map is not assigned to any class, and what to change."""

from __future__ import annotations

from collections.abc import Iterable

from napari_pbip.results.areas import Area
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED

MOST = 0.8
"""Share of the analysed tissue from which it is said."""


def why_unassigned(areas: Iterable[Area]) -> str:
    """Return the sentence for the areas of a map, or of one of its regions; empty if enough tissue has a class."""
    cells = {area.label: area.cells for area in areas if area.label != NOT_ANALYSED}
    share = cells.get(UNASSIGNED, 0) / max(1, sum(cells.values()))
    if share <= MOST:
        return ""
    return (
        f"{share:.0%} of the analysed tissue is not assigned: no class is clear enough there. Lower “Class presence” "
        "or “All classes” in 6 Tune. If wrong classes then appear, label tiles of this tissue and train again."
    )
