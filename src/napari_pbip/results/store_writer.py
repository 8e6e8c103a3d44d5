"""The writing half of a score store: its empty arrays, and blocks with what belongs to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_pbip.results.blend import Region
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.pyramid import PyramidWriter, create_levels, mean_of_analysed, multiscales
from napari_pbip.results.store_facts import StoreFacts
from napari_pbip.results.store_files import get_array, reading, writing_to

_TILES = 64  # tiles along each axis in a chunk of the per-tile arrays
COMMIT_SECONDS = 0.5
_AXES = ("c", "y", "x")


def create_arrays(
    folder: Path, facts: StoreFacts, tissue: npt.NDArray[np.bool_], planned: npt.NDArray[np.bool_]
) -> None:
    """Make the arrays and attributes of an empty store in a folder."""
    root = zarr.create_group(folder, zarr_format=3)
    own = root.create_group("pbip")
    g, tiles = facts.grid, (facts.grid.rows, facts.grid.columns)
    for name, values in (("planned", planned), ("tissue", tissue)):
        array = own.create_array(name, shape=values.shape, chunks=values.shape, dtype="bool")
        array[:] = values
    for name in ("presence", "peak"):
        own.create_array(
            name,
            shape=(len(facts.classes), *tiles),
            chunks=(len(facts.classes), *(min(_TILES, n) for n in tiles)),
            dtype="float16",
            fill_value=np.nan,
        )
    blocks = (-(-facts.score_shape[0] // BLOCK), -(-facts.score_shape[1] // BLOCK))
    own.create_array("written", shape=blocks, chunks=blocks, dtype="bool", fill_value=False)
    levels = create_levels(
        root, (len(facts.classes), *facts.score_shape), chunk=BLOCK, dtype="float16", fill_value=np.nan, axes=_AXES
    )
    cell_um, pixel_um = g.cell * g.model_mpp, facts.slide.mpp
    first = (cell_um - pixel_um) / 2  # from the centre of the first pixel to that of the first cell
    entry = multiscales(facts.slide.name, len(levels), _AXES, (cell_um,) * 2, (first,) * 2)
    root.attrs.update({"ome": {"version": "0.5", "multiscales": entry}, "pbip": facts.model_dump(mode="json")})


class StoreWriter:
    """The writer of a store, which holds its small arrays in memory and commits them."""

    def __init__(self, path: Path, group: zarr.Group, scores: Sequence[zarr.Array[Any]]) -> None:
        self._path = path
        self._pyramid = PyramidWriter(scores, mean_of_analysed)
        with reading(path):
            self._arrays = {name: get_array(group, f"pbip/{name}") for name in ("presence", "peak", "written")}
            self._values = {name: np.array(array[:]) for name, array in self._arrays.items()}
        self._dirty: set[tuple[int, int]] = set()  # chunks of the per-tile arrays
        self._committed = time.monotonic()

    def write(self, region: Region) -> None:
        """Write a block; what belongs to it follows with the next commit."""
        with writing_to(self._path):
            self._pyramid.write(region.y, region.x, region.scores)
        rows, columns = region.tiles.T
        self._values["presence"][:, rows, columns] = region.presence.T
        self._values["peak"][:, rows, columns] = region.peak.T
        self._values["written"][region.y // BLOCK, region.x // BLOCK] = region.complete
        self._dirty |= {(row // _TILES, column // _TILES) for row, column in region.tiles.tolist()}
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def reopen(self, blocks: npt.NDArray[np.bool_]) -> None:
        """Record that these blocks are unfinished."""
        self._values["written"] &= ~blocks
        with writing_to(self._path):
            self._arrays["written"][:] = self._values["written"]

    def commit(self) -> None:
        """Write everything to disk that is still in memory."""
        if not self._dirty:
            return
        with writing_to(self._path):
            self._pyramid.flush()
            for row, column in self._dirty:
                chunk = np.s_[:, row * _TILES : (row + 1) * _TILES, column * _TILES : (column + 1) * _TILES]
                for name in ("presence", "peak"):
                    self._arrays[name][chunk] = self._values[name][chunk]
            self._arrays["written"][:] = self._values["written"]
        self._dirty.clear()
        self._committed = time.monotonic()
