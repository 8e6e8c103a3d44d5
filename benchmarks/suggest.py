"""Simulate labelling what is suggested: how good the probe is after a number of answers.

    python benchmarks/suggest.py DATA [--split val] [--pool 600] [--start 3] [--answers 100] [--seeds 5]
    python benchmarks/suggest.py --slide SLIDE --mask MASK [--mpp 0.5] ...

An oracle takes the place of the user. With DATA, it labels tiles of the split `train` by their labels, and the probe is
scored on the pictures of another split, which have masks. With a slide, it gives each square the classes that cover a
tenth of it, and the probe is scored on that slide. The oracle begins with --start random tiles of each class that show
it alone, and then answers in batches of --batch. Choose a strategy with `--split val` or with a slide for validation.

Scores are the mean IoU over cells without smoothing, mean and standard deviation over the seeds; in brackets, the
number of seeds in which it is higher than with random questions. An answer takes two seconds. Features are computed
once and cached, so that the rest is logistic regressions.

*Diversity* is what the window suggests; the others are strategies of scikit-activeml, too: *uncertainty* asks for the
tiles on which the probe decides by the smallest margin, *mixed* for the centres of groups of tiles that are weighted by
it (CLUE). While there is no probe, both ask as *diversity* does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Clue, UncertaintySampling
from sklearn.metrics import confusion_matrix

from napari_pbip.bank import LabelledTile, load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.dense import DenseFeatures
from napari_pbip.engine.loading import TileReader
from napari_pbip.engine.training.linear_probe import DEFAULT_STRENGTH, LinearProbe
from napari_pbip.engine.training.probe import ENOUGH, Cells, fit_with_mixed
from napari_pbip.engine.training.suggest import typical
from napari_pbip.models import encoders
from napari_pbip.slides import open_slide

CELLS, FITTED = 100, 3_000
"""Cells of a tile, and of a fit, as in the live map."""
SIDE = 224
PRESENT = 0.1
SECONDS = 2
STRATEGIES = "random", "uncertainty", "diversity", "mixed"


@dataclass
class Pool:
    """The tiles that can be asked for, and the pictures on which a probe is scored."""

    cells: np.ndarray
    """(n, CELLS, D)."""
    labels: list[frozenset[int]]
    scored: np.ndarray
    """Features of cells, (m, D)."""
    truth: np.ndarray
    """Their classes, (m,)."""

    @property
    def classes(self) -> int:
        return len(frozenset().union(*self.labels))


def main() -> None:
    """Simulate every strategy and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--pool", type=int, default=600, help="tiles of the split train that are drawn for the pool")
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--mpp", type=float, default=0.5, help="microns per pixel of squares of a slide")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--start", type=int, default=3, help="tiles of each class that are labelled before")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    args = parser.parse_args()
    dense = DenseFeatures(encoders.load(args.encoder))
    if args.slide is None:
        pool = of_tiles(dense, args.data, args.split, args.pool)
    else:
        pool = of_slide(dense, args.slide, args.mask, args.mpp)
    steps = [*range(args.batch, args.answers + 1, args.batch)]
    known = [n for n in (0, 10, 20, 30, 50, 100, 150, 200) if n == 0 or n in steps]
    print(f"{len(pool.labels)} tiles, {len(pool.truth)} cells are scored", flush=True)
    print("| answers | " + " | ".join(str(n) for n in known) + " |\n|---|" + "---|" * len(known))
    print("| minutes | " + " | ".join(f"{n * SECONDS / 60:.1f}" for n in known) + " |", flush=True)
    reference = None
    for strategy in args.strategies:
        runs = np.array([simulate(pool, strategy, args.start, steps, args.batch, seed) for seed in range(args.seeds)])
        runs = runs[:, [0, *(1 + steps.index(n) for n in known[1:])]]
        reference = runs if reference is None else reference
        better = (runs > reference).sum(0)
        print(
            f"| {strategy} | "
            + " | ".join(
                f"{m:.1f} ± {s:.1f}" + (f" ({b})" if runs is not reference else "")
                for m, s, b in zip(runs.mean(0), runs.std(0, ddof=1), better, strict=True)
            )
            + " |",
            flush=True,
        )


def of_tiles(dense: DenseFeatures, data: Path, split: str, count: int) -> Pool:
    """Return a pool of tiles of the split ``train``, and the pictures of another split."""
    train, other = (load_tiles(data, name, DataSettings()) for name in ("train", split))
    drawn = set(np.random.default_rng(0).permutation(len(train))[:count].tolist())
    chosen = [tile for i, tile in enumerate(train) if i in drawn]
    cells = np.stack([some(picture(dense, tile)) for tile in chosen])
    scored = [at_cells(picture(dense, tile), tile.read_mask(len(train.taxonomy))) for tile in other]
    features, truth = (np.concatenate(parts) for parts in zip(*scored, strict=True))
    return Pool(cells, [tile.labels for tile in chosen], features, truth)


def of_slide(dense: DenseFeatures, path: Path, mask: Path, mpp: float) -> Pool:
    """Return a pool of the squares of a slide, on whose cells a probe is scored."""
    truth, cells, labels, scored = tifffile.imread(mask), [], [], []
    with open_slide(path) as slide:
        side = SIDE * mpp / slide.require_mpp()
        for row, column in product(range(int(slide.height / side)), range(int(slide.width / side))):
            y, x = round(row * side), round(column * side)
            part = truth[y : y + round(side), x : x + round(side)]
            maps = dense([slide.read(x, y, SIDE, SIDE, mpp)])[0].astype(np.float32)
            share = np.bincount(part.ravel(), minlength=256)[:255] / part.size
            cells.append(some(maps))
            labels.append(frozenset(np.flatnonzero(share >= PRESENT).tolist()))
            scored.append(at_cells(maps, part))
    return Pool(np.stack(cells), labels, *(np.concatenate(parts) for parts in zip(*scored, strict=True)))


def picture(dense: DenseFeatures, tile: LabelledTile) -> np.ndarray:
    """Return dense features (D, h, w)."""
    return dense([TileReader()(tile)])[0].astype(np.float32)


def some(maps: np.ndarray) -> np.ndarray:
    """Return sampled cells of a tile, (CELLS, D)."""
    flat = maps.reshape(len(maps), -1).T
    return flat[np.resize(np.random.default_rng(0).permutation(len(flat)), CELLS)]


def at_cells(maps: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (n, D) and the class (n,) in the middle of those cells that have one."""
    rows, columns = (
        ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(maps.shape[1:], mask.shape, strict=True)
    )
    truth = mask[np.ix_(rows, columns)].ravel()
    valid = truth != 255
    return maps.reshape(len(maps), -1).T[valid], truth[valid]


def simulate(pool: Pool, strategy: str, start: int, steps: Sequence[int], batch: int, seed: int) -> list[float]:
    """Return the mean IoU before the first batch and after each one."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.labels))
    asked: list[int] = []
    for n in range(pool.classes):
        asked += [int(i) for i in order if pool.labels[i] == {n}][:start]
    means = pool.cells.mean(1)
    probe = learn(pool, asked, None)
    scores = [score(pool, asked, probe)]
    for _ in steps:
        others = np.array([i for i in order if i not in set(asked)])
        chosen = query(means[others], means[asked], probe, batch, strategy, rng)
        asked += others[chosen].tolist()
        probe = learn(pool, asked, probe)
        scores.append(score(pool, asked, probe))
    return scores


class Fitted(SkactivemlClassifier):
    """A fitted probe as the strategies expect it."""

    def __init__(self, probe: LinearProbe, missing_label: float = np.nan) -> None:
        super().__init__(classes=[*range(len(probe.bias))], missing_label=missing_label)
        self.probe = probe

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Fitted:
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.exp(self.probe.log_probability(X.astype(np.float32)))


def query(
    candidates: np.ndarray,
    labelled: np.ndarray,
    probe: LinearProbe | None,
    count: int,
    strategy: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the candidates that a strategy asks for."""
    if strategy == "random":
        return rng.permutation(len(candidates))[:count]
    if strategy == "diversity" or probe is None:
        return typical(candidates, labelled, count)
    features = np.concatenate([labelled, candidates]).astype(np.float64)
    labels = np.zeros(len(features))
    labels[len(labelled) :] = np.nan
    asking: Any
    if strategy == "uncertainty":
        asking = UncertaintySampling(method="margin_sampling", random_state=0)
        found = asking.query(features, labels, Fitted(probe), fit_clf=False, batch_size=count)
    else:
        asking = Clue(method="margin_sampling", random_state=0, cluster_algo_dict={"random_state": 0, "n_init": 1})
        found = asking.query(features, labels, Fitted(probe), fit_estimator=False, batch_size=count)
    return np.asarray(found) - len(labelled)


def classes_of(pool: Pool, asked: Sequence[int]) -> list[int]:
    """Return the classes that at least one tile shows alone."""
    return sorted({n for i in asked if len(pool.labels[i]) == 1 for n in pool.labels[i]})


def learn(pool: Pool, asked: Sequence[int], start: LinearProbe | None) -> LinearProbe | None:
    """Fit the probe as the live map does, but without mosaics; None if there are fewer than two classes."""
    known = classes_of(pool, asked)
    if len(known) < 2:
        return None
    index = {n: i for i, n in enumerate(known)}
    single = [i for i in asked if len(pool.labels[i]) == 1]
    classes = np.array([index[next(iter(pool.labels[i]))] for i in single])
    enough = np.bincount(classes).min() >= ENOUGH
    mixed = [i for i in asked if enough and len(pool.labels[i]) > 1 and pool.labels[i] <= index.keys()]
    each = max(1, min(CELLS, FITTED // (len(single) + len(mixed))))

    def cells(tiles: Sequence[int]) -> Cells:
        named = [LabelledTile(Path(str(i)), frozenset(index[n] for n in pool.labels[i])) for i in tiles]
        return Cells(named, pool.cells[np.array(tiles, int), :each])

    return fit_with_mixed(
        cells(single),
        classes,
        cells(mixed),
        (np.empty((0, pool.cells.shape[2]), np.float32), np.empty(0, np.intp)),
        DEFAULT_STRENGTH,
        start if start is not None and len(start.bias) == len(known) else None,
    )


def score(pool: Pool, asked: Sequence[int], probe: LinearProbe | None) -> float:
    """Return the mean IoU of all cells in percent; 0 without a probe."""
    if probe is None:
        return 0.0
    predicted = np.array(classes_of(pool, asked))[probe.log_probability(pool.scored).argmax(1)]
    counts = confusion_matrix(pool.truth, predicted, labels=range(pool.classes))
    hit = counts.diagonal()
    return 100 * float((hit / (counts.sum(0) + counts.sum(1) - hit)).mean())


if __name__ == "__main__":
    main()
