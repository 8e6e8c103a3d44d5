"""Measure accuracy and speed of an encoder's features on single-class tiles, with one folder per class.

    python benchmarks/encoder_quality.py --folds LUNG --leave-one-out src/napari_pbip/samples/crc

Nearest prototype is the classification by an image bank (K clusters per class, cosine), nearest centroid is the same
with K = 1; the linear probe is a logistic regression on standardised features; the purity of a bank is the share of its
own tiles that are nearest to a prototype of their class. Accuracies are measured by stratified five-fold
cross-validation with five seeds, or by leave-one-out if there are few tiles (without classes of one tile). `--masked`
scores tiles with a random smooth mask (0 outside, as PBIP masks them) against prototypes of whole tiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneOut, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_pbip.bank import cosine_kmeans, load_tiles
from napari_pbip.bank.cluster import normalise
from napari_pbip.config import DataSettings
from napari_pbip.engine.loading import to_tensor
from napari_pbip.models import encoders
from texture_constants import masks

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
NEAREST = 100


def nearest_prototype(k: int) -> Predict:
    """Classify queries by the nearest of K prototypes per class, which are made as in the image bank."""

    def predict(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
        prototypes, of_class = [], []
        for n in np.unique(labels):
            own = features[labels == n]
            clusters = cosine_kmeans(own, min(k, len(own)))
            for c in range(clusters.k):
                members = np.flatnonzero(clusters.assignment == c)
                order = np.argsort(-clusters.similarity[members])[:NEAREST]
                prototypes.append(own[members[order]].mean(0))
                of_class.append(n)
        return np.array(of_class)[(normalise(queries) @ normalise(np.stack(prototypes)).T).argmax(1)]

    return predict


def linear_probe(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Classify queries by logistic regression."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return probe.fit(features, labels).predict(queries)


def accuracy(predict: Predict, features: np.ndarray, queries: np.ndarray, labels: np.ndarray, splits: list) -> str:
    """Return mean and deviation over seeds, in percent; ``queries`` are the features of the tested tiles."""
    seeds = []
    for split in splits:
        hits = [predict(features[a], labels[a], queries[b]) == labels[b] for a, b in split]
        seeds.append(100 * np.concatenate(hits).mean())
    return f"{np.mean(seeds):5.1f} ± {np.std(seeds):.1f}"


def report(folder: Path, encoder: encoders.Encoder, folds: bool, masked: bool) -> None:
    """Print the accuracies on one folder."""
    tiles = load_tiles(folder, "train", DataSettings(layout="folders"))
    images = to_tensor(np.stack([tile.read() for tile in tiles]))
    labels = np.array([tile.class_index for tile in tiles])
    several = np.bincount(labels)[labels] > 1
    images, labels = images[several], labels[several]
    with torch.no_grad():
        features = torch.cat([encoder(part) for part in images.split(25)]).numpy()
        queries = features
        if masked:
            images = images * masks(len(images), np.random.default_rng(1))
            queries = torch.cat([encoder(part) for part in images.split(25)]).numpy()
    splitters = [StratifiedKFold(5, shuffle=True, random_state=s) for s in range(5)] if folds else [LeaveOneOut()]
    splits = [list(splitter.split(features, labels)) for splitter in splitters]
    print(f"{folder.name}: {len(labels)} tiles of {len(set(labels))} classes{', masked' if masked else ''}")
    unit = normalise(features)
    print(f"  mean cosine of two tiles    {(unit @ unit.T).mean():.2f}")
    pure = nearest_prototype(3)(features, labels, features) == labels
    print(f"  purity of a bank, K = 3     {100 * pure.mean():.1f} %")
    for name, predict in (
        ("nearest prototype, K = 3", nearest_prototype(3)),
        ("nearest centroid", nearest_prototype(1)),
        ("linear probe", linear_probe),
    ):
        print(f"  {name:26s}  {accuracy(predict, features, queries, labels, splits)} %")


def speed(encoder: encoders.Encoder) -> None:
    """Print the time of a training step."""
    images = torch.rand(20, 3, 224, 224, requires_grad=True)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        encoder(images).sum().backward()
        seconds.append(time.perf_counter() - began)
    print(f"forward and backward, 20 x 224 x 224, {torch.get_num_threads()} threads: {1e3 * min(seconds[1:]):.0f} ms")


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, nargs="*", default=[], help="folders scored by cross-validation")
    parser.add_argument("--leave-one-out", type=Path, nargs="*", default=[], help="folders with few tiles")
    parser.add_argument("--masked", action="store_true")
    parser.add_argument("--encoder", default="texture")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    encoder = encoders.load(options.encoder, options.weights)
    for folder in options.folds:
        report(folder, encoder, folds=True, masked=options.masked)
    for folder in options.leave_one_out:
        report(folder, encoder, folds=False, masked=options.masked)
    speed(encoder)


if __name__ == "__main__":
    main()
