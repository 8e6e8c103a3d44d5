"""Measure how much figures depend on which tiles are kept for validation and test.

    python benchmarks/tile_splits.py TILES [--splits 30]

TILES is a folder with one folder of tiles per class. Of each class, 60 / 15 / 25 % of the tiles are drawn for training,
validation and test, as in the mosaics of docs/benchmarks.md, whose split is that of seed 0. A linear probe is fitted to
cells of the training tiles, and scored on cells of the others: mean IoU of cells, and balanced accuracy of tiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score, jaccard_score

from napari_pbip.bank import load_tiles
from napari_pbip.config import BankSettings
from napari_pbip.engine.dense import DenseFeatures
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.training.linear_probe import DEFAULT_STRENGTH, fit
from napari_pbip.models import encoders

CELLS = 60


def main() -> None:
    """Score all splits and print that of seed 0, and the mean and standard deviation of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--splits", type=int, default=30)
    args = parser.parse_args()
    tiles = load_tiles(args.tiles).tiles
    classes = np.array([tile.class_index for tile in tiles])
    dense = DenseFeatures(encoders.load(BankSettings().encoder))
    drawn = np.random.default_rng(0)
    cells = []
    for batch in chunks(iter(tiles), 16):
        for features in dense([tile.read() for tile in batch]):
            of_tile = features.reshape(len(features), -1)
            cells.append(of_tile[:, drawn.permutation(of_tile.shape[1])[:CELLS]].T.astype(np.float32))
    figures = np.array([scores(np.stack(cells), classes, seed) for seed in range(args.splits)])
    print("| | validation mIoU | accuracy | test mIoU | accuracy |\n|---|---|---|---|---|")
    print("| seed 0 | " + " | ".join(f"{one:.1f}" for one in figures[0]) + " |")
    both = zip(figures.mean(0), figures.std(0, ddof=1), strict=True)
    print(f"| {args.splits} splits | " + " | ".join(f"{mean:.1f} ± {spread:.1f}" for mean, spread in both) + " |")
    gap = figures[:, 0] - figures[:, 2]
    print(
        f"validation - test, mIoU: {gap.mean():.1f} ± {gap.std(ddof=1):.1f}; {gap[0]:.1f} with seed 0, "
        f"which {(gap >= gap[0]).sum()} splits reach"
    )


def scores(cells: np.ndarray, classes: np.ndarray, seed: int) -> list[float]:
    """Return the two figures of validation and of test, in percent, of cells (T, cells, D)."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[int], ...] = ([], [], [])
    for n in range(classes.max() + 1):
        own = rng.permutation(np.flatnonzero(classes == n))
        ends = int(0.6 * len(own)), int(0.75 * len(own))
        for part, some in zip(parts, np.split(own, ends), strict=True):
            part.extend(some)
    dimension = cells.shape[2]
    probe = fit(cells[parts[0]].reshape(-1, dimension), classes[parts[0]].repeat(CELLS), DEFAULT_STRENGTH)
    figures = []
    for part in parts[1:]:
        of_cells = probe.log_probability(cells[part].reshape(-1, dimension)).reshape(len(part), CELLS, -1)
        seen, true = of_cells.argmax(2).ravel(), classes[part]
        figures.append(100 * float(jaccard_score(true.repeat(CELLS), seen, average="macro")))
        figures.append(100 * float(balanced_accuracy_score(true, of_cells.mean(1).argmax(1))))
    return figures


if __name__ == "__main__":
    main()
