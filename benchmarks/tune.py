"""Measure how soon the map follows a slider: from the change of a threshold to the swapped frame, in a real viewer.

    python benchmarks/tune.py [--cells 5000] [--moves 40] [--store FOLDER] [--json OUT.json]

It shows a store of 40,000 x 40,000 model pixels (5,000 x 5,000 cells, four classes) in a window of 1920 x 1080 pixels,
at four zooms. Without a screen, run it under Xvfb; the processor then paints the picture, which is part of the time
("paint" is a frame without any change). For comparison, all scores are read and all labels computed again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from napari.qt import get_qapp
from qtpy.QtWidgets import QApplication

from canvas import canvas_of_window
from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import LargestScores, ScoreStore, label_region
from score_store import STRIDE, TILE, create, smooth_field, write_store

ZOOMS = {"whole slide": None, "two cells a pixel": 0.5, "a cell a pixel": 1.0, "four pixels a cell": 4.0}
ALL = slice(None)


def make_store(path: Path, cells: int) -> None:
    """Return a store whose scores repeat a patch of a quarter of its side."""
    create(path, cells)
    period = cells // 4 // STRIDE * STRIDE
    patch = smooth_field(period)[:, :period, :period].astype(np.float16)
    whole = -(-(cells + TILE) // period)
    write_store(path, np.tile(patch, (1, whole, whole)))


def wait(until: float) -> None:
    """Run the event loop for some seconds."""
    end = time.monotonic() + until
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


class Frames:
    """Measures the time from a change to the next swapped frame, ms."""

    def __init__(self) -> None:
        self.canvas = canvas_of_window()
        self._seen: list[float] = []
        self.canvas.frameSwapped.connect(lambda: self._seen.append(time.perf_counter()))

    def after(self, change: Callable[[], object]) -> float:
        wait(0.05)
        self._seen.clear()
        began = time.perf_counter()
        change()
        while not self._seen:
            QApplication.processEvents()
        return 1e3 * (self._seen[0] - began)


def moves(frames: Frames, result: ResultLayer, count: int, name: str) -> list[float]:
    """Return the milliseconds from each change of one threshold to its picture."""
    ms = []
    for value in np.linspace(0.05, 0.6, count).tolist():
        before = frames.canvas.grabFramebuffer()
        thresholds = result.thresholds.model_copy(update={name: value})
        ms.append(frames.after(lambda new=thresholds: setattr(result.display, "thresholds", new)))
        changed = frames.canvas.grabFramebuffer() != before
        assert changed or name == "presence", "the picture did not change"
    return ms


def everything(path: Path) -> float:
    """Return the milliseconds for reading all scores and computing all labels of level 0."""
    store = ScoreStore.open(path)
    largest = LargestScores(store).percentile(99.5)
    began = time.perf_counter()
    label_region(ScoreStore.open(path), ThresholdSettings(), largest, 0, ALL, ALL)
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000, help="side of the score grid")
    parser.add_argument("--moves", type=int, default=40, help="changes of a threshold at each zoom")
    parser.add_argument("--store", type=Path, help="where the store is kept for another run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        path = (arguments.store or Path(name)) / f"slide{arguments.cells}.ome.zarr"
        if not path.exists():
            make_store(path, arguments.cells)
        naive = everything(path)
        get_qapp()
        viewer = napari.Viewer()
        viewer.window.resize(1920, 1080)
        wait(1)
        result = session_of(viewer).results.open(path)
        frames = Frames()
        while not result.areas.exact:
            wait(0.1)
        for zoom, pixels in ZOOMS.items():
            viewer.reset_view()
            if pixels:
                camera_of(viewer).zoom = pixels / result.store.cell_um
            wait(1)
            paint = float(np.median([frames.after(frames.canvas.update) for _ in range(arguments.moves)]))
            for threshold in ("delta", "presence"):
                ms = moves(frames, result, arguments.moves, threshold)
                median, late = np.percentile(ms, [50, 95])
                report[f"{zoom}, {threshold}"] = {
                    "median ms": median,
                    "p95 ms": late,
                    "paint ms": paint,
                    "ratio": naive / median,
                }
        canvas = frames.canvas
        print(f"canvas {canvas.width()} x {canvas.height()}; everything read and computed again: {naive:.0f} ms")
        session_of(viewer).close()
        viewer.close()
    for case, figures in report.items():
        print(f"{case:32s}" + "".join(f"  {figure} {value:7.1f}" for figure, value in figures.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
