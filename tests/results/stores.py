"""Making small stores, tile by tile as a segmentation does; processes of the tests use it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_pbip.config import ThresholdSettings
from napari_pbip.results import ScoreStore, write_labels
from napari_pbip.taxonomy import BCSS

TILE, STRIDE = 28, 24


def facts(
    shape: tuple[int, int], *, identity: str = "a1", weights: str = "w1", tissue_mpp: float = 8
) -> dict[str, Any]:
    """Return the facts of a slide at 0.5 microns per pixel, segmented by a model at 1."""
    rows, columns = (max(1, -(-(cells - TILE) // STRIDE) + 1) for cells in shape)
    return {
        "slide": {
            "name": "slide",
            "path": "slide.svs",
            "identity": identity,
            "width": shape[1] * 16,
            "height": shape[0] * 16,
            "mpp": 0.5,
        },
        "model": {"run": "run", "hash": weights},
        "settings": {"tissue": {"mpp": tissue_mpp}, "min_tissue": 0.02},
        "grid": {
            "tile": TILE * 8,
            "overlap": (TILE - STRIDE) * 8,
            "stride": STRIDE * 8,
            "rows": rows,
            "columns": columns,
            "model_mpp": 1.0,
        },
    }


def create(path: Path, shape: tuple[int, int], planned: Any = None, tissue: Any = None, **options: Any) -> ScoreStore:
    """Return an empty store, of four classes unless other ones are given."""
    values = facts(shape)
    if planned is None:
        planned = np.ones((values["grid"]["rows"], values["grid"]["columns"]), bool)
    if tissue is None:
        tissue = np.ones((shape[0] // 4, shape[1] // 4), bool)
    given = {"taxonomy": BCSS, "score_shape": shape, "planned": planned, "tissue": tissue, **values, **options}
    return ScoreStore.create(path, **given)


def smooth_field(shape: tuple[int, int], classes: int = 4, seed: int = 0) -> np.ndarray:
    """Return scores like those of a network: smooth, of both signs, on the whole grid and one tile beyond."""
    rng = np.random.default_rng(seed)
    size = (shape[0] + 2 * TILE, shape[1] + 2 * TILE)
    return np.stack([gaussian_filter(rng.normal(size=size), 12) * 20 for _ in range(classes)]).astype(np.float32)


Answer = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def network(field: np.ndarray, seed: int = 0) -> Answer:
    """Return a tile's scores: those of the field, with changes in each tile, so that blending matters."""

    def answer(row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((seed, row, column))
        y, x = row * STRIDE, column * STRIDE
        own = rng.normal(size=(len(field), 1, 1)) * 0.1
        return field[:, y : y + TILE, x : x + TILE] + own.astype(np.float32), rng.random(len(field))

    return answer


def segment(store: ScoreStore, answer: Answer, blocks: int | None = None) -> None:
    """Write the missing tiles, and stop after a number of blocks."""
    blender = store.blender()
    with store:
        for row, column in blender.order:
            for region in blender.add(row, column, *answer(row, column)):
                store.write_region(region)
                blocks = None if blocks is None else blocks - 1
                if blocks == 0:
                    return


def halves(path: Path) -> ScoreStore:
    """Return a slide of 800 x 1200 cells: class 0 left, class 2 right, and a band that is left out at the bottom."""
    shape = (800, 1200)
    planned = np.ones((34, 50), bool)
    planned[30:] = False
    store = create(path, shape, planned)

    def answer(row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((4, 28, 28), -1.0)
        left = column * 24 + np.arange(28) < 600
        scores[0, :, left] = 2
        scores[2, :, ~left] = 5
        return scores, np.ones(4)

    segment(store, answer)
    write_labels(store, ThresholdSettings())
    return store
