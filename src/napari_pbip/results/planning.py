"""The tiles of a slide that are to be analysed: those that hold enough tissue and touch what counts by the regions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import TileGrid, TissueMask
from napari_pbip.slides.regions import Regions


def planned_tiles(grid: TileGrid, tissue: TissueMask, least: float, regions: Regions) -> npt.NDArray[np.bool_]:
    """Return the tiles to be analysed, bool (rows, columns); ``least`` is the share of tissue that a tile needs."""
    side = grid.tile * grid.scale
    planned = tissue.fraction(*grid.corners(), side, side) >= least
    return planned & regions.touched(*grid.corners(), side) if regions else planned


def needed_tiles(store: ScoreStore) -> npt.NDArray[np.bool_]:
    """Return the tiles of a store that are to be analysed by its present regions, bool (rows, columns)."""
    slide, grid = store.facts.slide, store.facts.grid
    tiles = TileGrid(grid.rows, grid.columns, grid.tile, grid.overlap, grid.model_mpp / slide.mpp, (0, 0))
    return planned_tiles(tiles, stored_tissue(store), float(store.facts.settings["min_tissue"]), store.regions)


def stored_tissue(store: ScoreStore) -> TissueMask:
    """Return the tissue mask that a store was planned with."""
    slide = store.facts.slide
    scale = max(slide.width, slide.height) / max(store.tissue.shape)
    return TissueMask(store.tissue, scale, slide.mpp * scale)
