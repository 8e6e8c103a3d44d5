"""Compare the layer of the map with layers of dask arrays over the same store, in a real viewer.

    python benchmarks/dask_layer.py [--cells 3000] [--moves 20] [--json OUT.json]

There are three ways to show labels: ours (``gui.layers.results``); ``lazy_labels``, computed again for every move of a
slider; and one set of dask arrays whose blocks look up the thresholds when they are computed, which is the least work
for dask. The latter two have ``cache=False``, so that their blocks are computed in dask's threads whenever napari
slices. For each zoom, the milliseconds from a move to the swapped frame are measured, and their ratio to ours. Then
half of a store is shown, the other half is written, and the layer is refreshed; stale chunks are squares of 64 values
of the picture in which something is still not analysed, with one cell per pixel and at a coarse zoom. Without a screen,
run it under Xvfb.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import napari
import numpy as np
from napari.layers import Labels

from interaction import ZOOMS, look, make_store
from napari_pbip.config import ThresholdSettings
from napari_pbip.events import RegionDone
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import LargestScores, ScoreStore, label_region, lazy_labels
from napari_pbip.results.lattice import BLOCK
from score_store import STRIDE, TILE, create, smooth_field
from window import Window

ALL = slice(None)
SQUARE = 64
GROWING = {"a cell a pixel": 1.0, "from afar": 0.05}
"""Zooms at which a store that grows is looked at; from afar napari shows the coarsest level."""
USUAL = ThresholdSettings()


class OnDask:
    """A layer of dask arrays over a store."""

    def __init__(self, viewer: napari.Viewer, path: Path, *, anew: bool) -> None:
        self.store = ScoreStore.open(path)
        self.thresholds = USUAL
        self.largest = LargestScores(self.store).percentile(USUAL.percentile)
        self.anew = anew
        side = self.store.cell_um
        self.layer = viewer.add_labels(self._levels(), multiscale=True, scale=(side, side), cache=False)

    def _levels(self) -> list[da.Array]:
        levels = range(len(self.store.scores))
        lazy = [lazy_labels(self.store, self.thresholds, level, largest=self.largest).data for level in levels]
        if self.anew:
            return lazy
        return [array.map_blocks(self._label, level, dtype=np.uint8) for level, array in enumerate(map(_empty, lazy))]

    def _label(self, _: Any, level: int, block_info: Any = None) -> np.ndarray:
        (top, bottom), (left, right) = block_info[0]["array-location"]
        place = slice(top, bottom), slice(left, right)
        return label_region(self.store, self.thresholds, self.largest, level, *place)

    def move(self, thresholds: ThresholdSettings) -> None:
        """Show the labels of other thresholds."""
        self.thresholds = thresholds
        if self.anew:
            self.layer.data = self._levels()
        else:
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def grow(self, _: list[RegionDone]) -> None:
        """Show what was written."""
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)


class Ours:
    """The layer of the window."""

    def __init__(self, viewer: napari.Viewer, path: Path) -> None:
        self._session = session_of(viewer)
        self.result = self._session.results.open(path)
        self.store, self.layer = self.result.store, self.result.layer

    def move(self, thresholds: ThresholdSettings) -> None:
        """Show the labels of other thresholds."""
        self.result.display.thresholds = thresholds

    def grow(self, regions: list[RegionDone]) -> None:
        """Show what was written."""
        self.result.update(regions)


def _empty(array: da.Array) -> da.Array:
    return da.zeros(array.shape, chunks=array.chunks, dtype=np.uint8)


WAYS: dict[str, Callable[[napari.Viewer, Path], Any]] = {
    "ours": Ours,
    "dask, arrays anew": lambda viewer, path: OnDask(viewer, path, anew=True),
    "dask, thresholds looked up": lambda viewer, path: OnDask(viewer, path, anew=False),
}


def open_window() -> Window:
    """Return a window of 1920 x 1080 pixels."""
    return Window(1920, 1080)


def close(window: Window) -> None:
    """Close a window and its session."""
    window.run(3)  # until all work that follows a move has ended
    window.close()


def slider(path: Path, way: str, moves: int) -> dict[str, float]:
    """Return the median milliseconds from a move of delta to its picture, for each zoom."""
    window = open_window()
    shown, report = WAYS[way](window.viewer, path), {}
    window.run(5)
    for zoom, pixels in ZOOMS.items():
        look(window, shown.store.cell_um, pixels)
        ms = []
        for delta in np.linspace(0.05, 0.6, moves).tolist():
            thresholds = USUAL.model_copy(update={"delta": delta})
            ms.append(1e3 * window.following(lambda new=thresholds: shown.move(new)))
        report[zoom] = float(np.median(ms))
    close(window)
    return report


def stale(folder: Path, way: str, cells: int) -> dict[str, int]:
    """Return the number of squares of the screen that still show the half-written store after the rest was written."""
    path = folder / f"{list(WAYS).index(way)}.ome.zarr"
    create(path, cells)
    field, presence = smooth_field(cells), np.full(4, 0.9)
    regions = []
    with ScoreStore.open(path, "r+") as store:
        blender = store.blender()
        for row, column in blender.order:
            y, x = row * STRIDE, column * STRIDE
            regions += blender.add(row, column, field[:, y : y + TILE, x : x + TILE], presence)
        half = len(regions) // 2
        for region in regions[:half]:
            store.write_region(region)
        store.commit()
        window = open_window()
        shown = WAYS[way](window.viewer, path)
        for pixels in GROWING.values():
            look(window, shown.store.cell_um, pixels)  # before the store grows
        for region in regions[half:]:
            store.write_region(region)
        store.commit()
    shown.grow([RegionDone(one.x, one.y, BLOCK, BLOCK, True) for one in regions[half:]])
    window.run(6)
    found = {}
    for zoom, pixels in GROWING.items():
        look(window, shown.store.cell_um, pixels)
        # where scores are by now nothing may be called not analysed: the whole slide is tissue
        found[f"stale, {zoom}"] = len(unanalysed(shown.layer))
    close(window)
    return found


def unanalysed(layer: Labels) -> set[tuple[int, int]]:
    """Squares of ``SQUARE`` shown values, by row and column, in which one of every eighth value is not analysed."""
    scale = layer.downsample_factors[layer.data_level]
    rows, columns = (range(int(values)) for values in layer.level_shapes[layer.data_level])
    sampled = ((y, x) for y in rows[::8] for x in columns[::8])
    return {(y // SQUARE, x // SQUARE) for y, x in sampled if np.ravel(layer.get_value((y, x) * scale))[-1] == 0}


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=3000, help="side of the score grid")
    parser.add_argument("--moves", type=int, default=20, help="changes of a threshold at each zoom")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "slide.ome.zarr"
        make_store(path, arguments.cells)
        for way in WAYS:
            report[way] = slider(path, way, arguments.moves) | stale(folder, way, 1024)
    for way, figures in report.items():
        print(way)
        for figure, value in figures.items():
            ratio = f"{value / report['ours'][figure]:6.1f} times ours" if figure in ZOOMS else ""
            print(f"    {figure:28s}{value:8.1f} {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
