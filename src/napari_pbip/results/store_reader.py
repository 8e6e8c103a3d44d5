"""Reading a score store: its scores and facts, and which of its cells count as tissue."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from napari_pbip.results.corrections import Corrections
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.places import regions_in
from napari_pbip.results.store_facts import parse_facts
from napari_pbip.results.store_files import get_array, no_store, reading
from napari_pbip.slides.geojson import cells_inside
from napari_pbip.slides.regions import WHOLE, Regions
from napari_pbip.taxonomy import Taxonomy


class StoredScores:
    """What a score store holds: the part of :class:`~napari_pbip.results.store.ScoreStore` that reads.

    Attributes
    ----------
    path
        Folder of the store.
    facts
        Slide, model, settings and grid of the store.
    taxonomy
        The classes.
    lattice
        The tiles on the grid of score cells.
    scores
        Levels of raw scores, finest first: zarr arrays (N, h, w), float16, NaN where not analysed.
    planned
        Tiles to be analysed, bool (rows, columns).
    tissue
        The tissue mask, bool, over the whole slide at its own resolution.
    regions
        The regions in the slide's folder of results, by which its cells count; see :meth:`use_regions`.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"]) -> None:
        self.path = path
        with reading(path):
            self._group = zarr.open_group(path, mode=mode, zarr_format=3)
            attributes = dict(self._group.attrs)
            if "pbip" not in attributes:
                raise no_store(path)
            self.facts = parse_facts(path, attributes["pbip"])
            self.taxonomy = Taxonomy(classes=self.facts.classes)
            ome: Any = attributes["ome"]
            self.scores = [get_array(self._group, dataset["path"]) for dataset in ome["multiscales"][0]["datasets"]]
            self.planned = np.asarray(get_array(self._group, "pbip/planned")[:], bool)
            self.tissue = np.asarray(get_array(self._group, "pbip/tissue")[:], bool)
        self.lattice = self.facts.lattice
        self.regions = regions_in(path.parent, self.facts.slide)

    @property
    def cell_um(self) -> float:
        """Side of a level-0 score cell in micrometres."""
        return self.facts.grid.cell * self.facts.grid.model_mpp

    @property
    def written(self) -> npt.NDArray[np.bool_]:
        """Finished blocks of level 0 (squares of ``lattice.BLOCK`` cells), bool; read from disk at each access."""
        return self._read("written")

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Planned tiles that lie wholly in finished blocks, bool (rows, columns); read from disk at each access."""
        lattice, done = self.lattice, self.planned.copy()
        for y, x in np.argwhere(~self.written) * BLOCK:
            rows = lattice.touching(y, min(y + BLOCK, lattice.height), lattice.rows)
            columns = lattice.touching(x, min(x + BLOCK, lattice.width), lattice.columns)
            done[rows.start : rows.stop, columns.start : columns.stop] = False
        return done

    @property
    def analysed(self) -> int:
        """Number of analysed tiles in finished blocks, without those that were skipped because the slide is damaged."""
        return int((self.done & np.isfinite(self.presence()[0])).sum())

    @property
    def progress(self) -> tuple[int, int]:
        """Number of tiles, (done, planned); tiles that were skipped as damaged count as done."""
        return int(self.done.sum()), int(self.planned.sum())

    def presence(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Read the probability of each class in these tiles, (N, rows, columns); NaN where not (yet) analysed."""
        return self._read("presence", np.s_[:, rows, columns])

    @property
    def ceiling(self) -> npt.NDArray[np.float32] | None:
        """:attr:`ModelFacts.ceiling` as the largest score of each class, (N,)."""
        ceiling = self.facts.model.ceiling
        return None if ceiling is None else np.full(len(self.taxonomy), ceiling, np.float32)

    def peak(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Read the largest raw score of each class in these tiles before blending; NaN where not (yet) analysed."""
        return self._read("peak", np.s_[:, rows, columns])

    def read_scores(self, level: int, y: slice, x: slice) -> npt.NDArray[np.float16]:
        """Read the raw scores, (N, h, w), of a rectangle of one level; NaN where not (yet) analysed."""
        with reading(self.path):
            return np.asarray(self.scores[level][:, y, x])

    def tiles_and_tissue(
        self, level: int, y: slice, x: slice
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return the positions of the cells of a rectangle of one level among the tiles, and which are tissue.

        Returns
        -------
        rows, columns, tissue
            Position of each row (h,) and column (w,) of cells among the tile centres (see
            :meth:`Lattice.positions`), and whether each cell is tissue that counts by the regions, bool (h, w).
        """
        rows, tissue_rows = self._tiles_and_mask(level, y, axis=0)
        columns, tissue_columns = self._tiles_and_mask(level, x, axis=1)
        tissue: npt.NDArray[np.bool_] = self.tissue[tissue_rows][:, tissue_columns]
        if self.regions:
            tissue &= self.counted(level, y, x)
        return rows, columns, tissue

    def counted(self, level: int, y: slice, x: slice) -> npt.NDArray[np.bool_]:
        """Return which cells of a rectangle of one level count by the regions, tissue or not, (h, w)."""
        return self.regions.counted(self._centres(level, y, axis=0), self._centres(level, x, axis=1))

    def cells_in(self, region: str, level: int, y: slice, x: slice) -> npt.NDArray[np.bool_]:
        """Return which cells of a rectangle of one level have their centre in a region that is analysed, (h, w)."""
        shape = self.regions.shapes[region]
        return cells_inside(shape, self._centres(level, y, axis=0), self._centres(level, x, axis=1))

    @cached_property
    def tissue_in(self) -> Mapping[str, int]:
        """Number of level-0 cells of tissue that count: on the slide, by the name ``WHOLE``, and in each region."""
        if not self.regions:
            return {WHOLE: self._all_tissue}
        cells = dict.fromkeys((WHOLE, *self.regions.shapes), 0)
        for top in range(0, self.lattice.height, BLOCK):
            strip = slice(top, top + BLOCK), slice(None)
            counted = self.tiles_and_tissue(0, *strip)[2]
            cells[WHOLE] += int(np.count_nonzero(counted))
            for name in self.regions.shapes:
                cells[name] += int(np.count_nonzero(counted & self.cells_in(name, 0, *strip)))
        return cells

    @property
    def tissue_cells(self) -> int:
        """Number of level-0 cells that are tissue and count by the regions."""
        return self.tissue_in[WHOLE]

    @property
    def left_out_mm2(self) -> float:
        """Area of tissue that does not count, because of the regions."""
        return (self._all_tissue - self.tissue_cells) * (self.cell_um / 1000) ** 2

    def use_regions(self, regions: Regions) -> None:
        """Count cells by these regions from now on; their file is not written."""
        self.regions = regions
        self.__dict__.pop("tissue_in", None)

    @cached_property
    def _all_tissue(self) -> int:
        height, width = self.tissue.shape
        rows = np.bincount(self._tiles_and_mask(0, slice(None), axis=0)[1], minlength=height)
        columns = np.bincount(self._tiles_and_mask(0, slice(None), axis=1)[1], minlength=width)
        # in parts, because einsum converts its input a little at a time, and a product all of it at once
        return int(np.einsum("y,yx,x->", rows, self.tissue, columns))

    def _centres(self, level: int, span: slice, axis: int) -> npt.NDArray[np.float64]:
        """Return the centres of cells along one axis in level-0 pixels."""
        cells = np.arange(*span.indices(self.scores[level].shape[1 + axis]), dtype=np.float64) + 0.5
        centres: npt.NDArray[np.float64] = cells * (2**level * self.cell_um / self.facts.slide.mpp)
        return centres

    def _tiles_and_mask(
        self, level: int, span: slice, axis: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return, for the centres of cells along one axis, their position among tiles and their tissue mask pixel."""
        slide = self.facts.slide
        centres = (np.arange(*span.indices(self.scores[level].shape[1 + axis])) + 0.5) * 2**level
        tiles = self.lattice.positions(centres - 0.5, (self.lattice.rows, self.lattice.columns)[axis])
        length = self.tissue.shape[axis]
        mask = centres * (self.cell_um / slide.mpp / (slide.height, slide.width)[axis] * length)
        return tiles, np.minimum(mask.astype(np.intp), length - 1)

    @cached_property
    def corrections(self) -> Corrections:
        """The corrections by hand, read from disk at the first access."""
        return Corrections(self.path, self.facts.score_shape)

    def _read(self, name: str, selection: Any = ...) -> npt.NDArray[Any]:
        with reading(self.path):
            return np.asarray(get_array(self._group, f"pbip/{name}")[selection])
