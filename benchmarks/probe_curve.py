"""Measure a linear probe with few labelled tiles, compared with classification by the nearest prototype.

    python benchmarks/probe_curve.py DATA [--encoders efficientnet-lite0] [--tiles 1 3 10 30 100] [--draws 10]

The given numbers of single-class tiles of each class are drawn from the split `train`, again for every draw. The probe
is fitted as by `--method probe`, but with a fixed strength and without tiles of several classes, so that the curve
depends only on the features. The nearest prototype is the class whose mean standardised feature has the highest cosine.
If the split `test` has masks, both are scored on all its pixels (mean IoU, without true labels); otherwise on the tiles
that were not drawn, by the class of the mean score (balanced accuracy). Dense features are cached, so that a second
call takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score

from napari_pbip.bank import LabelledTile, find_splits, load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.dense import DenseFeatures
from napari_pbip.engine.loading import TileReader
from napari_pbip.engine.training.linear_probe import DEFAULT_STRENGTH, LinearProbe, fit
from napari_pbip.models import encoders
from napari_pbip.results.metrics import SegmentationScores

CELLS = 200
FEWEST = 4
"""Classes of fewer tiles are left out."""
Scorer = Callable[[np.ndarray], np.ndarray]
"""Scores (n, N) of features (n, D)."""


def main() -> None:
    """Draw, fit, score and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoders", nargs="+", default=["efficientnet-lite0"])
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 3, 10, 30, 100])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--pool", type=int, default=300, help="tiles of a class that are drawn from")
    args = parser.parse_args()
    settings = DataSettings()
    train = load_tiles(args.data, "train", settings)
    names = train.taxonomy.names
    rng = np.random.default_rng(0)
    pools = []
    for n in range(len(names)):
        own = [tile for tile in train.single_class if tile.class_index == n]
        if len(own) < FEWEST:
            continue
        pools.append([own[i] for i in sorted(rng.permutation(len(own))[: args.pool])])
    masked = "test" in find_splits(args.data, settings)
    test = load_tiles(args.data, "test", settings) if masked else None
    measure = "mIoU on test" if masked else "balanced accuracy on the tiles not drawn"
    print(f"| encoder, {measure} |" + "".join(f" {n} |" for n in args.tiles))
    print("|---|" + "---|" * len(args.tiles))
    for name in args.encoders:
        dense = DenseFeatures(encoders.load(name))
        features = [[cells(dense, tile) for tile in pool] for pool in pools]
        pictures = [(picture(dense, tile), tile.read_mask(len(names))) for tile in test] if test else []
        found: dict[str, list[list[float]]] = {"linear probe": [], "nearest prototype": []}
        for count in args.tiles:
            for figures in found.values():
                figures.append([])
            if min(map(len, pools)) < count + (test is None):  # some must remain for scoring
                continue
            for draw in range(args.draws):
                drawn = [
                    set(np.random.default_rng((draw, count, n)).permutation(len(p))[:count].tolist())
                    for n, p in enumerate(pools)
                ]
                probe = fitted(features, drawn)
                for rule, scorer in (
                    ("linear probe", probe.log_probability),
                    ("nearest prototype", prototypes(probe, features, drawn)),
                ):
                    figure = on_pixels(scorer, pictures, names) if pictures else on_tiles(scorer, features, drawn)
                    found[rule][-1].append(figure)
        for rule, rows in found.items():
            print(f"| {name}, {rule} | " + " | ".join(spread(figures) for figures in rows) + " |", flush=True)


def picture(dense: DenseFeatures, tile: LabelledTile) -> np.ndarray:
    """Return dense features (D, h, w), float32."""
    return dense([TileReader()(tile)])[0].astype(np.float32)


def cells(dense: DenseFeatures, tile: LabelledTile) -> np.ndarray:
    """Return some cells of a tile, always the same ones, (at most CELLS, D)."""
    maps = picture(dense, tile)
    flat = maps.reshape(len(maps), -1).T
    return flat[np.random.default_rng(0).permutation(len(flat))[:CELLS]]


def fitted(features: list[list[np.ndarray]], drawn: list[set[int]]) -> LinearProbe:
    """Return a probe that is fitted to the drawn tiles of each class."""
    parts = [(n, features[n][i]) for n, own in enumerate(drawn) for i in own]
    classes = np.concatenate([np.full(len(part), n) for n, part in parts])
    return fit(np.concatenate([part for _, part in parts]), classes, DEFAULT_STRENGTH)


def prototypes(probe: LinearProbe, features: list[list[np.ndarray]], drawn: list[set[int]]) -> Scorer:
    """Return cosines to the mean standardised feature of each class."""
    means = np.stack(
        [np.mean([probe.standardised(features[n][i]).mean(0) for i in own], axis=0) for n, own in enumerate(drawn)]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def score(some: np.ndarray) -> np.ndarray:
        unit = probe.standardised(some)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        return unit @ means.T

    return score


def on_pixels(scorer: Scorer, pictures: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...]) -> float:
    """Return the mean IoU in percent."""
    scores = SegmentationScores(names)
    for maps, mask in pictures:
        of_cells = scorer(maps.reshape(len(maps), -1).T).T.reshape(1, len(names), *maps.shape[1:])
        large = F.interpolate(torch.from_numpy(of_cells), mask.shape, mode="bilinear")
        scores.add(mask, large[0].argmax(0).numpy().astype(np.uint8))
    return float(scores.metrics.miou)


def on_tiles(scorer: Scorer, features: list[list[np.ndarray]], drawn: list[set[int]]) -> float:
    """Return the balanced accuracy, in percent, of the tiles that were not drawn."""
    others = [(n, part) for n, pool in enumerate(features) for i, part in enumerate(pool) if i not in drawn[n]]
    predicted = [int(scorer(part).mean(0).argmax()) for _, part in others]
    return 100 * float(balanced_accuracy_score([n for n, _ in others], predicted)) if others else float("nan")


def spread(figures: list[float]) -> str:
    """Return mean and deviation over the draws."""
    if not figures:
        return "–"
    return f"{mean(figures):.1f}" + (f" ± {stdev(figures):.1f}" if len(figures) > 1 else "")


if __name__ == "__main__":
    main()
