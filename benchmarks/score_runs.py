"""Score trained models on images with masks with different widths of smoothing, and compare the methods image by image.

    python benchmarks/score_runs.py RUNS DATA --mpp 0.62 [--split test] [--smoothing 0 10 15 25 40] [--tested 15]
        [--window 224] [--slide-mask MASK]

RUNS is a folder with one folder per method, which contains one run per seed, as `benchmarks/weak_labels.py` and
`napari-pbip compare` leave it. Every image is looked at once for all widths. The first table has the figures of each
method as mean and standard deviation over its seeds. The second compares two methods at a time under *predicted* with
the width --tested: the mIoU of every image is averaged over the seeds, and the Wilcoxon signed-rank test over images
gets a p-value, with Holm's correction for the number of pairs. Choose a width, or the side of the windows in which
images are looked at (by default that of the training tiles), with `--split val` only.
With a mask of the slide that `weak_labels.py` has segmented, a third table has the mean IoU of its map.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import tifffile
import torch
from PIL import Image
from scipy.stats import wilcoxon

from napari_pbip.bank import TileSet, load_tiles
from napari_pbip.config import DataSettings, ThresholdSettings
from napari_pbip.engine.inference.evaluate import predict_labels
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.loading import TileReader
from napari_pbip.engine.runs import load_model
from napari_pbip.results.lazy import lazy_labels
from napari_pbip.results.metrics import PROTOCOLS, Metrics, SegmentationScores, count
from napari_pbip.results.resampling import holm
from napari_pbip.results.smoothing import deviation
from napari_pbip.results.store import ScoreStore

DEVICE = torch.device("cpu")
FIGURES = ("miou", "biou")


@dataclass
class Scored:
    """The figures of one run with one width."""

    reports: dict[str, SegmentationScores]
    """By protocol."""
    of_images: list[float] = field(default_factory=list)
    """The mIoU of each image under *predicted*."""


def main() -> None:
    """Score all runs, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="microns per pixel of the images")
    parser.add_argument("--split", default="test", choices=("test", "val"))
    parser.add_argument("--smoothing", type=float, nargs="+", default=[0.0, 10.0, 15.0, 25.0, 40.0], help="microns")
    parser.add_argument("--tested", type=float, default=15.0, help="the width of the second table, microns")
    parser.add_argument("--window", type=int, help="side in pixels")
    parser.add_argument("--slide-mask", type=Path)
    args = parser.parse_args()
    tiles = load_tiles(args.data, args.split, DataSettings(folder=args.data, mpp=args.mpp))
    widths = sorted({*args.smoothing, args.tested})
    methods: dict[str, dict[float, list[Scored]]] = {}
    print("| method | seeds | smoothing, µm | " + " | ".join(f"{p} {f}" for p in PROTOCOLS for f in FIGURES) + " |")
    for folder in sorted(path for path in args.runs.iterdir() if path.is_dir()):
        of_widths = methods[folder.name] = defaultdict(list)
        for run in sorted(path for path in folder.iterdir() if path.is_dir()):
            for width, scored in score(run, tiles, widths, args.mpp, args.window).items():
                of_widths[width].append(scored)
        for width, runs in of_widths.items():
            cells = [spread([run.reports[p].report()[f] for run in runs]) for p in PROTOCOLS for f in FIGURES]
            print(f"| {folder.name} | {len(runs)} | {width:g} | " + " | ".join(cells) + " |", flush=True)
    if len(methods) > 1:
        print("\n| pair | difference of mean mIoU per image | images better, worse | p | p, Holm |")
        for row in compared({name: of_widths[args.tested] for name, of_widths in methods.items()}):
            print(row)
    if args.slide_mask is not None:
        truth = tifffile.imread(args.slide_mask)
        print("\n| method | smoothing, µm | slide mIoU |")
        for name in methods:
            stores = sorted((args.runs / name).glob("*/slide/*.ome.zarr"))
            for width in widths:
                print(f"| {name} | {width:g} | {spread([on_slide(store, truth, width) for store in stores])} |")


def score(run: Path, tiles: TileSet, widths: list[float], mpp: float, window: int | None) -> dict[float, Scored]:
    """Return the figures of a run for each width of smoothing."""
    model = load_model(run, "best", DEVICE)
    predictor = Predictor.of_run(model.method.eval(), model.facts, DEVICE, mpp=mpp)
    if window is not None:
        predictor = replace(predictor, windows=replace(predictor.windows, side=window))
    names, read = tiles.taxonomy.names, TileReader()
    scored = {width: Scored({protocol: SegmentationScores(names) for protocol in PROTOCOLS}) for width in widths}
    for tile in tiles:
        image, truth = read(tile), tile.read_mask(len(names))
        (maps,) = predictor.maps([image])
        for width, figures in scored.items():
            smoothed = replace(maps, smoothing=deviation(width, mpp))
            labels = predict_labels(image, truth, smoothed)
            for protocol, predicted in labels.items():
                figures.reports[protocol].add(truth, predicted)
            figures.of_images.append(float(Metrics(count(truth, labels["predicted"], len(names))).miou))
    return scored


def on_slide(path: Path, truth: np.ndarray, width: float) -> float:
    """Return the mean IoU of a map; background and pixels that were not analysed count as errors."""
    store = ScoreStore.open(path)
    labels = np.asarray(lazy_labels(store, ThresholdSettings(smoothing_um=width)).data)
    small = Image.fromarray(truth).resize((labels.shape[1], labels.shape[0]), Image.Resampling.NEAREST)
    seen = np.where((labels == 0) | (labels == 255), 255, labels - 1)
    return float(Metrics(count(np.asarray(small), seen, len(store.taxonomy))).miou)


def compared(methods: dict[str, list[Scored]]) -> list[str]:
    """Return a row of the second table for each pair of methods."""
    means = {name: np.mean([run.of_images for run in runs], axis=0) for name, runs in methods.items()}
    pairs = list(combinations(means, 2))
    found = [float(wilcoxon(means[a], means[b]).pvalue) for a, b in pairs]
    corrected = holm(found)
    rows = []
    for (a, b), p, q in zip(pairs, found, corrected, strict=True):
        difference = means[a] - means[b]
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        rows.append(f"| {a} - {b} | {difference.mean():+.1f} | {better}, {worse} | {p:.2g} | {q:.2g} |")
    return rows


def spread(figures: list[float]) -> str:
    """Return mean and standard deviation over the seeds; a dash if there is none."""
    if not figures:
        return "–"
    return f"{mean(figures):.1f}" + (f" ± {stdev(figures):.1f}" if len(figures) > 1 else "")


if __name__ == "__main__":
    main()
