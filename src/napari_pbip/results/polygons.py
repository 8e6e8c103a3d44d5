"""Polygons of the patches of a label image, exactly along the borders of its cells.

Each block of labels becomes the faces of the planar graph that its borders form. A patch within a block is finished at
once; the faces along the borders of blocks are kept, and those of one label are united at the end. The patches cover
the labelled cells without gaps or overlaps, and two patches that touch have the same vertices along their border.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from napari_pbip.taxonomy import NOT_ANALYSED

Polygons = npt.NDArray[np.object_]
Values = npt.NDArray[np.integer[Any]]


class Patches:
    """Connected cells with the same label as polygons with holes, in cells: x to the right, y downwards.

    Cells that touch only at a corner are not connected. Cells that were not analysed have no polygon.
    """

    def __init__(self) -> None:
        self._begun: dict[int, list[Polygons]] = {}

    def add(self, y: int, x: int, labels: Values) -> list[tuple[int, Polygons]]:
        """Add a block of labels, whose first cell is (y, x); return the patches that end within it, by label."""
        faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_borders(labels) + np.array([x, y], float))))
        rows, columns = _first_cells(faces)
        values = labels[rows - y, columns - x]
        left, top, right, bottom = shapely.bounds(faces).T
        inside = (left > x) & (top > y) & (right < x + labels.shape[1]) & (bottom < y + labels.shape[0])
        found = np.setdiff1d(values, NOT_ANALYSED).tolist()
        for value in found:
            self._begun.setdefault(value, []).append(faces[(values == value) & ~inside])
        return [(value, faces[(values == value) & inside]) for value in found]

    def finish(self) -> Iterator[tuple[int, Polygons]]:
        """Yield the patches that reach the border of a block, by label."""
        for value in sorted(self._begun):
            yield value, shapely.get_parts(shapely.coverage_union_all(np.concatenate(self._begun.pop(value))))


def _borders(labels: Values) -> npt.NDArray[np.intp]:
    """Return the ends (x, y), (S, 2, 2), of lines between different labels and around the block.

    They are divided at all places where lines meet, and around the block at every cell, because the labels of its
    neighbours are not known.
    """
    padded = np.pad(labels.astype(np.int32), 1, constant_values=-1)
    across, down = (
        part[:-1, 1:-1] != part[1:, 1:-1] for part in (padded, padded.T)
    )  # lines between rows, (h + 1, w), and between columns, (w + 1, h)
    outline = np.ones((labels.shape[0] + 1, labels.shape[1] + 1), bool)
    outline[1:-1, 1:-1] = False
    ends = _segments(across, outline | _touched(down).T), _segments(down, outline.T | _touched(across).T)[..., ::-1]
    return np.concatenate(ends)[..., ::-1]


def _touched(lines: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the corners of cells, (n, m + 1), at which lines of cell sides, (n, m), begin, end or pass."""
    sides = np.pad(lines, ((0, 0), (1, 1)))
    touched: npt.NDArray[np.bool_] = sides[:, :-1] | sides[:, 1:]
    return touched


def _segments(lines: npt.NDArray[np.bool_], stops: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the first and last corner, (S, 2, 2), of runs of cell sides, (n, m), that end at stops, (n, m + 1)."""
    sides = np.pad(lines, ((0, 0), (1, 1)))
    before, after = sides[:, :-1], sides[:, 1:]
    first = np.argwhere(after & (~before | stops))
    last = np.argwhere(before & (~after | stops))
    return np.stack([first, last], 1)


def _first_cells(faces: Polygons) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the row and column of a cell of each face: the leftmost of its topmost cells."""
    corners, face = shapely.get_coordinates(shapely.get_exterior_ring(faces), return_index=True)
    order = np.lexsort((corners[:, 0], corners[:, 1], face))
    x, y = corners[order[np.searchsorted(face, np.arange(len(faces)))]].astype(np.intp).T
    return y, x
