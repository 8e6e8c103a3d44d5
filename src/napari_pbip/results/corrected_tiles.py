"""The tiles of a slide that a corrected map tells the class of, from which a model can learn what was corrected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.config import ThresholdSettings
from napari_pbip.results.labels import label_region
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Position, SquareGrid

MOSTLY = 0.8
"""Share of a tile that a class must cover on the corrected map."""
BY_HAND = 0.25
"""Share of a tile that must have been given this class by hand."""


def corrected_tiles(
    store: ScoreStore, thresholds: ThresholdSettings, largest: npt.NDArray[np.floating], grid: SquareGrid
) -> dict[str, list[Position]]:
    """Return the tiles that mostly show one class since they were corrected by hand, by the name of the class.

    Parameters
    ----------
    store
        The store with the corrections.
    thresholds, largest
        Thresholds and largest scores of the labels that were not corrected, as in :func:`label_region`.
    grid
        The tiles, in level-0 pixels of the slide.

    Raises
    ------
    OutputError
        If the store is damaged.
    """
    cell = store.cell_um / store.facts.slide.mpp  # level-0 pixels
    given = store.corrections.cells
    found: dict[str, list[Position]] = {}
    if given is None:
        return found
    for place in _touched(given, cell, grid):
        x, y = (slice(round(edge / cell), round((edge + grid.side) / cell)) for edge in grid.corner(place))
        by_hand = np.bincount(given[y, x].ravel(), minlength=256)
        for n, name in enumerate(store.taxonomy.names, 1):
            if by_hand[n] >= BY_HAND * given[y, x].size:
                shown = label_region(store, thresholds, largest, 0, y, x)
                if np.count_nonzero(shown == n) >= MOSTLY * shown.size:
                    found.setdefault(name, []).append(place)
    return found


def _touched(given: npt.NDArray[np.uint8], cell: float, grid: SquareGrid) -> list[Position]:
    """Return the tiles in which something was corrected, row by row."""
    rows, columns = (
        (((cells + 0.5) * cell - first) // grid.side).astype(np.int64)
        for cells, first in zip(np.nonzero(given), (grid.y, grid.x), strict=True)
    )
    inside = (rows < grid.rows) & (columns < grid.columns)
    numbers = np.unique(rows[inside] * grid.columns + columns[inside]).tolist()
    return [(number % grid.columns, number // grid.columns) for number in numbers]
