"""Statistics of the labels of a slide: areas, patches, interfaces between classes, and distances between them.

The labels are read block by block with a margin, so that memory is limited and the values do not depend on the blocks.
The definitions are in ``docs/how-to/export-results.md``.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import combinations, pairwise, permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import distance_transform_edt

from napari_pbip.events import Event, Job, Started, Step
from napari_pbip.files import write_table
from napari_pbip.results.areas import LEFT_OUT_NAME, Cells, area_rows
from napari_pbip.results.counts import LabelCounts
from napari_pbip.results.label_files import REWRITE, CorrectedLabels, open_labels
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.labels import Labels, deltas, score_window
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.polygons import Patches, Polygons
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED

BANDS_UM = (0, 50, 100, 250)
"""Edges of the bands of distance in micrometres; one more band lies beyond the last."""
DELTA_FACTORS = (0.5, 1.5)
"""Factors of delta at which areas are computed too, for their range."""
COLUMNS = (
    "slide", "identity", "result", "model", "region", "class", "other", "quantity", "unit", "value",
    "low", "high", "range",
)  # fmt: skip
"""The columns of a table of statistics, which are the fields of :class:`Statistic`."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Row and column steps from a cell to half of its eight neighbours, so that each pair of cells is counted once."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One row of the table of statistics."""

    slide: str
    identity: str
    """Identity of the slide."""
    result: str
    """Path of the score store; empty in a row of several results."""
    model: str
    """Name of the run."""
    region: str
    """Name of a region; ``WHOLE`` for all that counts on the slide."""
    name: str
    """Class name, ``not assigned``, or ``not analysed``."""
    other: str
    """Name of the other class of a quantity of two classes, else empty."""
    quantity: str
    unit: str
    """``mm2``, ``mm``, ``percent``, or ``count``."""
    value: float
    """An integer if it is a count."""
    low: float | None = None
    """Lower end of the range of values, or None if there is none."""
    high: float | None = None
    """Upper end."""
    range: str = ""
    """What the range is over: ``thresholds`` (:data:`DELTA_FACTORS`), or ``models``."""

    def between(self, values: Iterable[float], over: str) -> Statistic:
        """Return the row with the range of its value and these ones."""
        every = (self.value, *values)
        return replace(self, low=min(every), high=max(every), range=over)


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

    def __init__(self, labels: CorrectedLabels | _LabelsIn | Labels, classes: int, cell_um: float) -> None:
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

    def __init__(self, labels: CorrectedLabels, store: ScoreStore, region: str) -> None:
        self.shape = labels.shape
        self._labels, self._store, self._region = labels, store, region

    def __getitem__(self, place: tuple[slice, slice]) -> Labels:
        return np.where(self._store.cells_in(self._region, 0, *place), self._labels[place], NOT_ANALYSED)


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
    parts: dict[str, CorrectedLabels | _LabelsIn] = {WHOLE: labels}
    parts |= {name: _LabelsIn(labels, store, name) for name in store.regions.shapes}
    spatial = {name: SpatialStatistics(part, len(store.taxonomy), store.cell_um) for name, part in parts.items()}
    scaled = {} if facts.refined else {factor: LabelCounts(store) for factor in DELTA_FACTORS}
    largest, delta = np.array(facts.largest, np.float32), deltas(store.taxonomy, facts.thresholds)
    yield Started(f"Measuring {store.facts.slide.name}", total=len(places), unit="parts")
    for done, (row, column) in enumerate(places, 1):
        y, x = row * CHUNK, column * CHUNK
        with reading(folder, REWRITE):
            analysed = np.asarray(labels[y : y + CHUNK, x : x + CHUNK]) != NOT_ANALYSED
            for of_region in spatial.values():
                of_region.add(y, x)
        if scaled:
            spans = slice(y, y + analysed.shape[0]), slice(x, x + analysed.shape[1])
            scores = score_window(store, facts.thresholds, largest, 0, *spans)
            for factor, counts in scaled.items():
                other = scores.labels(np.minimum(delta * np.float32(factor), 1), facts.thresholds.presence)
                other = store.corrections.over(other, 0, *spans)
                counts.add(y, x, np.where(analysed, other, NOT_ANALYSED))
        yield Step(done)
    rows = []
    for region, of_region in spatial.items():
        of_region.finish()
        others = [counts.cells[region] for counts in scaled.values()]
        rows += [
            *_areas(store, region, facts.cells[region], facts.by_hand[region], others),
            *_spatial(store, region, of_region),
        ]
    if store.regions:
        rows.append(_row(store, WHOLE, LEFT_OUT_NAME, "", "area", "mm2", store.left_out_mm2))
    return rows


def write_statistics(path: Path, store: ScoreStore, folder: Path) -> Job:
    """Write the table of :func:`measure_statistics`, as :func:`write_table` does.

    Raises
    ------
    OutputError
        If the labels or the store are damaged, or the file cannot be written.
    """
    write_rows(path, (yield from measure_statistics(store, folder)))


def write_rows(path: Path, rows: Iterable[Statistic]) -> None:
    """Write statistics with the header :data:`COLUMNS`, as :func:`write_table` does; raises as it does."""
    write_table(path, COLUMNS, [astuple(row) for row in rows])


def mean_of_models(results: Sequence[Sequence[Statistic]]) -> Iterator[Statistic]:
    """Return the mean of each quantity over several results of one slide, and its range over them.

    A quantity that is not defined in all results has no row.
    """
    first, *others = results
    found = [{(row.region, row.name, row.other, row.quantity): row.value for row in other} for other in others]
    for row in first:
        key = row.region, row.name, row.other, row.quantity
        values = [other[key] for other in found if key in other]
        if len(values) == len(others):
            mean = float(np.mean([row.value, *values]))
            of_all = replace(row.between(values, "models"), value=mean)
            yield replace(of_all, result="", model=f"mean of {len(results)} models")


def _areas(
    store: ScoreStore, region: str, cells: Cells, by_hand: Cells, others: Sequence[Cells]
) -> Iterator[Statistic]:
    """Return areas and shares; their range is over these numbers of cells of each label value at other thresholds."""
    of, rows = partial(_row, store, region), area_rows(store, {region: cells}, {region: by_hand})
    at_others = [area_rows(store, {region: other}) for other in others]
    for row, *found in zip(rows, *at_others, strict=True):
        area = of(row.name, "", "area", "mm2", row.area_mm2)
        share = of(row.name, "", "share of tissue", "percent", row.percent_of_tissue)
        if found and row.label != NOT_ANALYSED:  # which no threshold changes
            area = area.between([other.area_mm2 for other in found], "thresholds")
            share = share.between([other.percent_of_tissue for other in found], "thresholds")
        yield from (area, share)
        if row.corrected_mm2:
            yield of(row.name, "", "area corrected by hand", "mm2", row.corrected_mm2)
    for (n, name), (m, other) in permutations(enumerate(store.taxonomy.names, 1), 2):
        value, *at = [_share_of_both(some[n], some[m]) for some in (cells, *others)]
        if value is not None:
            share = of(name, other, "share of both", "percent", value)
            defined = [one for one in at if one is not None]
            yield share.between(defined, "thresholds") if defined else share


def _share_of_both(one: int, other: int) -> float | None:
    return 100 * one / (one + other) if one + other else None


def _row(store: ScoreStore, region: str, name: str, other: str, quantity: str, unit: str, value: float) -> Statistic:
    facts = store.facts
    of = facts.slide.name, facts.slide.identity, str(store.path), facts.model.run
    return Statistic(*of, region, name, other, quantity, unit, value)


def _spatial(store: ScoreStore, region: str, spatial: SpatialStatistics) -> Iterator[Statistic]:
    names, of = store.taxonomy.names, partial(_row, store, region)
    for n, name in enumerate(names):
        patches = spatial.patches(n)
        yield of(name, "", "patches", "count", len(patches))
        if len(patches):
            yield of(name, "", "largest patch", "mm2", float(patches.max()))
            yield of(name, "", "median patch", "mm2", float(np.median(patches)))
    for n, m in combinations(range(len(names)), 2):
        yield of(names[n], names[m], "interface", "mm", spatial.interface(n, m))
    bands = [f"{start}-{stop} um from edge" for start, stop in pairwise(BANDS_UM)] + [f">{BANDS_UM[-1]} um from edge"]
    for n, m in permutations(range(len(names)), 2):
        for band, share in zip(bands, spatial.distances(n, m).tolist(), strict=True):
            if not math.isnan(share):
                yield of(names[n], names[m], band, "percent", share)
