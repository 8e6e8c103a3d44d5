"""The area of each tissue class on a slide, and in each of its regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.results.label_files import open_labels
from napari_pbip.results.provenance import write_with_provenance
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, UNASSIGNED_NAME

Cells = Mapping[int, int] | npt.NDArray[np.int64]
"""Number of cells of each label value."""
CellsOf = Mapping[str, Cells]
"""The same by the name of the region."""
NOT_ANALYSED_NAME = "not analysed"
LEFT_OUT_NAME = "left out"
"""Name of tissue that does not count because of the regions."""


@dataclass(frozen=True, slots=True)
class Area:
    """One row of the table of areas."""

    name: str
    """Class name, ``not assigned``, or ``not analysed``."""
    label: int
    """Value of the class in the label image."""
    cells: int
    """Pixels of the label image's level 0."""
    area_mm2: float
    percent_of_tissue: float
    """Share of the tissue that counts, on the slide or in the region."""
    region: str = WHOLE
    """Name of a region; ``WHOLE`` for all that counts on the slide."""
    corrected_mm2: float = 0.0
    """How much of the area has this label from a correction by hand."""


def areas(store: ScoreStore, folder: Path | None = None) -> list[Area]:
    """Return the area of each class, of unassigned and of not analysed tissue, from labels and corrections of a store.

    The rows of the whole slide come first, and then those of each region that is analysed. What is left out, or lies
    outside the regions, counts nowhere. A cell counts for a region if its centre lies in it. The percentages of a
    region add up to 100. "Not analysed" is tissue in tiles that contain too little of it, or that had not been reached
    when the labels were written. Cells that reach beyond the edge of the slide count as whole cells. The parameters are
    those of :func:`open_labels`.

    Raises
    ------
    OutputError
        If the store holds no labels, they are damaged, or the regions have changed since they were written.
    """
    _, facts = open_labels(store, folder)
    facts.check_regions(store)
    return area_rows(store, facts.cells, facts.by_hand)


def area_rows(store: ScoreStore, cells: CellsOf, by_hand: CellsOf | None = None) -> list[Area]:
    """Return the table of :func:`areas` from the number of level-0 cells of each label value but 0, by region.

    ``by_hand`` are the numbers of those that were corrected by hand, by default none.
    """
    return [
        row for region, counts in cells.items() for row in _rows(store, region, counts, (by_hand or {}).get(region))
    ]


def of_whole(rows: Iterable[Area]) -> list[Area]:
    """Return the rows of all that counts on the slide."""
    return [row for row in rows if row.region == WHOLE]


def _rows(store: ScoreStore, region: str, cells_of: Cells, by_hand: Cells | None) -> list[Area]:
    tissue = store.tissue_in[region]
    cell_mm2 = (store.cell_um / 1000) ** 2
    counts = [(name, n + 1, int(cells_of[n + 1])) for n, name in enumerate(store.taxonomy.names)]
    counts.append((UNASSIGNED_NAME, UNASSIGNED, int(cells_of[UNASSIGNED])))
    left = tissue - sum(cells for *_, cells in counts)  # below 0 by a little if cells were counted at a coarser level
    counts.append((NOT_ANALYSED_NAME, NOT_ANALYSED, max(0, left)))
    return [
        Area(
            name,
            label,
            cells,
            cells * cell_mm2,
            100 * cells / tissue if tissue else 0.0,
            region,
            float(by_hand[label] * cell_mm2) if by_hand is not None and label != NOT_ANALYSED else 0.0,
        )
        for name, label, cells in counts
    ]


def write_areas(path: Path, store: ScoreStore, folder: Path | None = None) -> list[Area]:
    """Write the table of :func:`areas` as CSV (UTF-8, commas, decimal points), and return it.

    The columns are the fields of :class:`Area`, and what they come from
    (:data:`~napari_pbip.results.provenance.COLUMNS`).

    Raises
    ------
    OutputError
        As :func:`areas` does, or if the folder cannot be written or the disk is full.
    """
    rows, provenance = areas(store, folder), open_labels(store, folder)[1].provenance(store)
    header = [field.name for field in fields(Area)]
    write_with_provenance(path, header, [(astuple(row), provenance, row.name) for row in rows])
    return rows
