"""The area of each tissue class on a slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from napari_pbip.files import write_table
from napari_pbip.results.label_files import open_labels
from napari_pbip.results.store import ScoreStore
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, UNASSIGNED_NAME

NOT_ANALYSED_NAME = "not analysed"


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
    corrected_mm2: float = 0.0
    """How much of the area has this label from a correction by hand."""


def areas(store: ScoreStore, folder: Path | None = None) -> list[Area]:
    """Return the area of each class, of unassigned and of not analysed tissue, from labels and corrections of a store.

    The percentages add up to 100. "Not analysed" is tissue in tiles that contain too little of it, or that had not
    been reached when the labels were written. Cells that reach beyond the edge of the slide count as whole cells.
    The parameters are those of :func:`open_labels`.

    Raises
    ------
    OutputError
        If the store holds no labels, or they are damaged.
    """
    _, facts = open_labels(store, folder)
    return area_rows(store, facts.cells, facts.by_hand)


def area_rows(store: ScoreStore, cells_of: Mapping[int, int], by_hand: Mapping[int, int] | None = None) -> list[Area]:
    """Return the table of :func:`areas` from the number of level-0 cells of each label value but 0.

    ``by_hand`` are the numbers of those that were corrected by hand, by default none.
    """
    tissue = store.tissue_cells
    cell_mm2 = (store.cell_um / 1000) ** 2
    counts = [(name, n + 1, cells_of[n + 1]) for n, name in enumerate(store.taxonomy.names)]
    counts.append((UNASSIGNED_NAME, UNASSIGNED, cells_of[UNASSIGNED]))
    counts.append((NOT_ANALYSED_NAME, NOT_ANALYSED, tissue - sum(cells for *_, cells in counts)))
    return [
        Area(
            name,
            label,
            cells,
            cells * cell_mm2,
            100 * cells / tissue if tissue else 0.0,
            (by_hand or {}).get(label, 0) * cell_mm2,
        )
        for name, label, cells in counts
    ]


def write_areas(path: Path, rows: Sequence[Area]) -> None:
    """Write the table as CSV (UTF-8, commas, decimal points), with the fields of :class:`Area` as its header.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full.
    """
    write_table(path, [field.name for field in fields(Area)], [astuple(row) for row in rows])
