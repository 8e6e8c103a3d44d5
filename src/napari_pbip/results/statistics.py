"""Statistics of the labels of a slide: areas, patches, interfaces between classes, and distances between them.

The labels are read block by block with a margin, so that memory is limited and the values do not depend on the blocks.
The definitions are in ``docs/how-to/export-results.md``.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, combinations, pairwise, permutations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import distance_transform_edt

from napari_pbip.events import Event, Job, Started, Step
from napari_pbip.results.areas import LEFT_OUT_NAME, area_rows
from napari_pbip.results.label_files import REWRITE, CorrectedLabels, LabelFacts, open_labels
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.labels import Labels, deltas, score_window
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.polygons import Patches, Polygons
from napari_pbip.results.statistics_table import (
    AREA,
    CORRECTED,
    INTERFACE,
    LARGEST,
    MEDIAN,
    PATCHES,
    SHARE,
    SHARE_OF_BOTH,
    Statistic,
    write_rows,
)
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED

BANDS_UM = (0, 50, 100, 250)
"""Edges of the bands of distance in micrometres; one more band lies beyond the last."""
DELTA_FACTORS = (0.5, 1.5)
"""Factors of delta at which all is measured too, for its range."""
Image: TypeAlias = "CorrectedLabels | Labels | _LabelsIn | _LabelsAt"
"""Labels of which parts are read, (H, W)."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Row and column steps from a cell to half of its eight neighbours, so that each pair of cells is counted once."""


class SpatialStatistics:
    """Patches, interfaces and distances of the classes of a label image, to which blocks are added one by one.

    Blocks may have any size and order, and those without a class may be left out. Class n of N has the label n + 1;
    all other values are no class.

    Parameters
    ----------
    labels
        The label image, (H, W), of which parts are read.
    classes
        Number of classes, N.
    cell_um
        Side of a cell in micrometres.
    """

    def __init__(self, labels: Image, classes: int, cell_um: float) -> None:
        self._labels = labels
        self._values = classes + 1
        self._cell_um = cell_um
        self._margin = math.ceil(BANDS_UM[-1] / cell_um + 0.5)
        self._patches = Patches()
        self._sizes: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(classes)]
        self._cells = np.zeros(self._values, np.int64)
        self._contacts = np.zeros((2, self._values, self._values), np.int64)  # of sides, and of corners
        self._near = np.zeros((self._values, self._values, len(BANDS_UM)), np.int64)

    def add(self, y: int, x: int, side: int = CHUNK) -> None:
        """Add the block of at most ``side`` by ``side`` cells whose first cell is (y, x)."""
        window = self._window(y, x, side)
        margin = self._margin
        block = window[margin:-margin, margin:-margin]
        self._cells += np.bincount(block.ravel(), minlength=self._values)
        self._add_patches(self._patches.add(y, x, block))
        self._count_contacts(window, block)
        self._count_near(window, block)

    def finish(self) -> None:
        """Complete the patches that cross borders of blocks, after the last block."""
        self._add_patches(self._patches.finish())

    @property
    def cells(self) -> npt.NDArray[np.int64]:
        """The number of cells of each class, (N,)."""
        return self._cells[1:]

    def patches(self, n: int) -> npt.NDArray[np.float64]:
        """Return the area of each patch of class n in mm², (P,), in no order; complete after :meth:`finish`.

        Cells that touch only at a corner are not connected.
        """
        cells: npt.NDArray[np.float64] = np.concatenate([*self._sizes[n], np.empty(0)])
        return cells * (self._cell_um / 1000) ** 2

    def interface(self, n: int, m: int) -> float:
        """Return the length of the border between two classes in mm, by Crofton's formula in four directions."""
        sides, corners = self._contacts[:, n + 1, m + 1] + self._contacts[:, m + 1, n + 1]
        return float(math.pi / 8 * (sides + corners / math.sqrt(2)) * self._cell_um / 1000)

    def distances(self, n: int, m: int) -> npt.NDArray[np.float64]:
        """Return the share of class n in each band of distance from the edge of class m, (B,), in percent.

        The shares add up to 100; they are NaN if either class does not occur.
        """
        near, cells = self._near[n + 1, m + 1], self._cells[n + 1]
        if not cells or not self._cells[m + 1]:
            return np.full(len(BANDS_UM), np.nan)
        shares: npt.NDArray[np.float64] = 100 * np.append(near[:-1], cells - near[:-1].sum()) / cells
        return shares

    def _window(self, y: int, x: int, side: int) -> Labels:
        """Return a block with its margin, which contains no class beyond the label image."""
        margin, spans, pads = self._margin, [], []
        for first, length in zip((y, x), self._labels.shape, strict=True):
            start, stop = first - margin, min(first + side, length) + margin
            spans.append(slice(max(0, start), min(stop, length)))
            pads.append((max(0, -start), max(0, stop - length)))
        part = np.asarray(self._labels[spans[0], spans[1]])
        return np.pad(np.where(part < self._values, part, 0).astype(np.uint8), pads)

    def _add_patches(self, found: Iterable[tuple[int, Polygons]]) -> None:
        for value, polygons in found:
            self._sizes[value - 1].append(shapely.area(polygons))

    def _count_contacts(self, window: Labels, block: Labels) -> None:
        """Count the pairs of neighbours of different values; the second of a pair may lie in the margin."""
        height, width = block.shape
        for down, right in _NEIGHBOURS:
            y, x = self._margin + down, self._margin + right
            second = window[y : y + height, x : x + width]
            apart = block != second
            pairs = block[apart].astype(np.intp) * self._values + second[apart]
            counts = np.bincount(pairs, minlength=self._values**2)
            self._contacts[abs(down * right)] += counts.reshape(self._values, self._values)

    def _count_near(self, window: Labels, block: Labels) -> None:
        """Count the cells of each class in the bands of distance from each class; the last band is not complete."""
        margin, bands = self._margin, len(BANDS_UM)
        for other in np.setdiff1d(window, 0).tolist():
            cells = distance_transform_edt(window != other)[margin:-margin, margin:-margin]
            # from the centre of a cell to the side of the other one, which is half a cell before its centre
            band = np.searchsorted(BANDS_UM[1:], (cells - 0.5) * self._cell_um)
            counts = np.bincount((block.astype(np.intp) * bands + band).ravel(), minlength=self._values * bands)
            self._near[:, other] += counts.reshape(self._values, bands)


class _LabelsIn:
    """The labels of a store in one region, as an array of which parts are read; the others are not analysed."""

    def __init__(self, labels: Image, store: ScoreStore, region: str) -> None:
        self.shape: tuple[int, ...] = labels.shape
        self._labels, self._store, self._region = labels, store, region

    def __getitem__(self, place: tuple[slice, slice]) -> Labels:
        labels = self._labels[place]
        if self._region == WHOLE:
            return labels
        return np.where(self._store.cells_in(self._region, 0, *place), labels, np.uint8(NOT_ANALYSED))


def measure_statistics(store: ScoreStore, folder: Path) -> Generator[Event, None, list[Statistic]]:
    """Return the statistics of the labels of a store; yield ``Started``, and a ``Step`` for each block.

    Quantities that are not defined, such as the median patch of a class without patches, have no row. Those of a region
    are of its cells alone: what crosses its border ends there.

    Parameters
    ----------
    store
        The store that the labels belong to.
    folder
        The label image.

    Raises
    ------
    OutputError
        If the labels or the store are damaged, or the regions have changed since the labels were written.
    """
    (labels, *_), facts = open_labels(store, folder)
    facts.check_regions(store)
    places = analysed_blocks(store)
    factors = () if facts.refined else DELTA_FACTORS
    images: list[Image] = [labels, *(_LabelsAt(store, labels, facts, factor) for factor in factors)]
    spatial = {
        region: [
            SpatialStatistics(_LabelsIn(image, store, region), len(store.taxonomy), store.cell_um) for image in images
        ]
        for region in (WHOLE, *store.regions.shapes)
    }
    yield Started(f"Measuring {store.facts.slide.name}", total=len(places), unit="parts")
    for done, (row, column) in enumerate(places, 1):
        with reading(folder, REWRITE):
            for one in chain.from_iterable(spatial.values()):
                one.add(row * CHUNK, column * CHUNK)
        yield Step(done)
    table: list[Statistic] = []
    for region, at_deltas in spatial.items():
        for one in at_deltas:
            one.finish()
        rows, *others = (list(_rows(store, region, one, facts)) for one in at_deltas)
        found = [{row.key: row.value for row in other} for other in others]
        table += [row.between([other[row.key] for other in found if row.key in other], "thresholds") for row in rows]
    if store.regions:
        table.append(_row(store, WHOLE, LEFT_OUT_NAME, "", AREA, "mm2", store.left_out_mm2))
    provenance = facts.provenance(store)
    return [replace(row, provenance=provenance) for row in table]


class _LabelsAt:
    """The labels of a store with the delta of every class times a factor, (H, W), which are computed when read.

    Only cells that have a label in the label image have one, because more may have been analysed since.
    """

    def __init__(self, store: ScoreStore, labels: CorrectedLabels, facts: LabelFacts, factor: float) -> None:
        self.shape = labels.shape
        self._store, self._labels, self._thresholds = store, labels, facts.thresholds
        self._largest = np.array(facts.largest, np.float32)
        self._delta = np.minimum(deltas(store.taxonomy, facts.thresholds) * np.float32(factor), 1)

    def __getitem__(self, spans: tuple[slice, slice]) -> Labels:
        window = score_window(self._store, self._thresholds, self._largest, 0, *spans)
        found = window.labels(self._delta, self._thresholds.presence)
        found = self._store.corrections.over(found, 0, *spans)
        return np.where(np.asarray(self._labels[spans]) == NOT_ANALYSED, np.uint8(NOT_ANALYSED), found)


def write_statistics(path: Path, store: ScoreStore, folder: Path) -> Job:
    """Write the table of :func:`measure_statistics`, as :func:`write_rows` does.

    Raises
    ------
    OutputError
        If the labels or the store are damaged, or the file cannot be written.
    """
    write_rows(path, (yield from measure_statistics(store, folder)))


def _rows(store: ScoreStore, region: str, spatial: SpatialStatistics, facts: LabelFacts) -> Iterator[Statistic]:
    """Return the statistics of labels in a region, without ranges."""
    of, names, cells = partial(_row, store, region), store.taxonomy.names, spatial.cells.tolist()
    unassigned = sum(facts.cells[region].values()) - sum(cells)
    counts = {region: {**dict(enumerate(cells, 1)), UNASSIGNED: unassigned}}
    for area in area_rows(store, counts, {region: facts.by_hand[region]}):
        yield of(area.name, "", AREA, "mm2", area.area_mm2)
        yield of(area.name, "", SHARE, "percent", area.percent_of_tissue)
        if area.corrected_mm2:
            yield of(area.name, "", CORRECTED, "mm2", area.corrected_mm2)
    for n, m in permutations(range(len(names)), 2):
        if both := cells[n] + cells[m]:
            yield of(names[n], names[m], SHARE_OF_BOTH, "percent", 100 * cells[n] / both)
    yield from _spatial(store, region, spatial)


def _row(store: ScoreStore, region: str, name: str, other: str, quantity: str, unit: str, value: float) -> Statistic:
    facts = store.facts
    of = facts.slide.name, facts.slide.identity, str(store.path), facts.model.run
    return Statistic(*of, region, name, other, quantity, unit, value)


def _spatial(store: ScoreStore, region: str, spatial: SpatialStatistics) -> Iterator[Statistic]:
    names, of = store.taxonomy.names, partial(_row, store, region)
    for n, name in enumerate(names):
        patches = spatial.patches(n)
        yield of(name, "", PATCHES, "count", len(patches))
        if len(patches):
            yield of(name, "", LARGEST, "mm2", float(patches.max()))
            yield of(name, "", MEDIAN, "mm2", float(np.median(patches)))
    for n, m in combinations(range(len(names)), 2):
        yield of(names[n], names[m], INTERFACE, "mm", spatial.interface(n, m))
    bands = [f"{start}-{stop} um from edge" for start, stop in pairwise(BANDS_UM)] + [f">{BANDS_UM[-1]} um from edge"]
    for n, m in permutations(range(len(names)), 2):
        for band, share in zip(bands, spatial.distances(n, m).tolist(), strict=True):
            if not math.isnan(share):
                yield of(names[n], names[m], band, "percent", share)
