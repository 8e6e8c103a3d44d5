"""Measure what corrections of a map teach: on the part that was corrected, and on the rest of the slide.

    python benchmarks/teach.py [--tiles 1 3] [--seeds 5]

The slide is a mosaic of tiles of colorectal tissue, so that the class of every cell is known: real pixels, artificial
layout. A linear probe is trained on the given number of tiles of each class, which lie in the right half of the slide.
Where its map of the left half is wrong, it is corrected, as a careful person would; the tiles that the corrected map
tells the class of are labelled like those in the window, and the probe is trained again. The share of cells with the
right class is that of the model alone, without corrections.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import tifffile
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import Origin
from napari_pbip.bank.mosaics import partition
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.config import JobSettings, ThresholdSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.train import train
from napari_pbip.results import LargestScores, ScoreStore, lazy_labels
from napari_pbip.results.corrected_tiles import corrected_tiles
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.slides import SlideFacts, TileSize, open_slide

CLASSES = ("LYM", "MUC", "STR", "TUM")
SIDE, MPP = 1792, 0.5
SIZE = TileSize(pixels=112, mpp=MPP)
THRESHOLDS = ThresholdSettings()
_PIECES = 24


def main() -> None:
    """Train, correct, train again, and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 3], help="of each class, labelled at first")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| tiles of a class | tiles by corrections | right in the corrected half, % | right in the rest, % |")
    print("|---|---|---|---|")
    for count in args.tiles:
        rows = []
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(Path(folder), count, np.random.default_rng((seed, count))))
        added, before, after, rest_before, rest_after = zip(*rows, strict=True)
        print(
            f"| {count} | {mean(added):.0f} | {spread(before)} -> {spread(after)} | "
            f"{spread(rest_before)} -> {spread(rest_after)} |",
            flush=True,
        )


def measure(folder: Path, count: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the number of tiles that corrections added, and the shares of right cells before and after."""
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in CLASSES
    }
    mask = np.arange(_PIECES)[partition(SIDE, _PIECES, rng)] % len(CLASSES)
    planes = [plane(tiles[name], rng) for name in CLASSES]
    pixels = np.select([mask[..., None] == n for n in range(len(CLASSES))], planes)
    path = folder / "mosaic.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256))
    with open_slide(path, MPP) as opened:
        facts = SlideFacts.from_slide(opened)
    labels = SlideLabels()
    labels.resize(SIZE)
    labels.add_slide(facts)
    side = SIZE.pixels
    pure = {
        (column, row): int(tile[0, 0])
        for row, column in np.ndindex(SIDE // side, SIDE // side)
        if np.ptp(tile := mask[row * side : (row + 1) * side, column * side : (column + 1) * side]) == 0
    }
    for n, name in enumerate(CLASSES):
        there = [place for place, label in pure.items() if label == n and place[0] >= SIDE // side // 2]
        labels.annotate(facts.identity, {name: [there[i] for i in rng.permutation(len(there))[:count]]})
    truth = mask[4::8, 4::8]
    before, store = map_of(folder / "first", labels, path)
    names = store.taxonomy.names
    true = np.array([names.index(name) + 1 for name in CLASSES], np.uint8)[truth]
    left = np.zeros_like(true, bool)
    left[:, : left.shape[1] // 2] = True
    editor = CorrectionEditor(store.corrections, "")
    assert store.corrections.cells is not None
    store.corrections.cells[:] = np.where(left & (before != true), true, 0)
    editor.save()
    editor.close()
    largest = LargestScores(store).percentile(THRESHOLDS.percentile)
    found = corrected_tiles(store, THRESHOLDS, largest, facts.grid(SIZE))
    added = labels.annotate(facts.identity, found, origin=Origin.CORRECTED, add=False)
    after, _ = map_of(folder / "second", labels, path)
    return added, *(100 * np.mean((some == true)[part]) for part in (left, ~left) for some in (before, after))


def plane(tiles: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return tissue of one class that fills the slide: its tiles in random order, each turned at random."""
    count = SIDE // len(tiles[0])
    drawn = [[np.rot90(tiles[rng.integers(len(tiles))], rng.integers(4)) for _ in range(count)] for _ in range(count)]
    return np.vstack([np.hstack(row) for row in drawn])


def map_of(folder: Path, labels: SlideLabels, slide: Path) -> tuple[np.ndarray, ScoreStore]:
    """Train on these labels and segment the slide; return the labels of the model, and the store."""
    list(cut_tiles(labels.snapshot(), folder / "tiles"))
    values = {
        "data": {"folder": folder / "tiles", "mpp": MPP},
        "bank": {"encoder": "efficientnet-lite0"},
        "method": {"name": "probe"},
        "train": {"device": "cpu"},
        "segment": {"mpp": MPP, "device": "cpu", "precision": "float32"},
    }
    settings = JobSettings.parse(values)
    list(train(settings, folder / "run"))
    list(segment(slide, folder / "run", folder / "result", settings.segment, THRESHOLDS))
    store = ScoreStore.open(next((folder / "result").glob("*.ome.zarr")))
    return lazy_labels(store, THRESHOLDS, corrected=False).data.compute(), store


def spread(figures: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    return f"{mean(figures):.1f}" + (f" ± {stdev(figures):.1f}" if len(figures) > 1 else "")


if __name__ == "__main__":
    main()
