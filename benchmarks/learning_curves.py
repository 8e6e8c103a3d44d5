"""Measure trainings with different numbers of labelled tiles, from random weights and from ImageNet weights.

    python benchmarks/learning_curves.py DATA OUT --tiles 10 30 100 300 --seeds 0 1 2 [--method cam] [--mpp 0.5]

Every training has the same number of steps, whatever the number of tiles. The tiles are drawn again for each seed, and
all starts get the same tiles. DATA is as for weak_labels.py; models are scored on its `test` split. Finished trainings
in OUT are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from napari_pbip.bank import load_tiles
from napari_pbip.config import DataSettings, planned_runs
from napari_pbip.engine.compare import compare
from napari_pbip.results.metrics import PROTOCOLS
from weak_labels import run, spread

STARTS = {"random": None, "ImageNet": "builtin"}


def subset(data: Path, count: int, seed: int, out: Path) -> None:
    """Link ``count`` random training tiles, among which every class occurs, and all tiles of the other splits."""
    found = load_tiles(data, "train", DataSettings())
    tiles = found.tiles
    labels = np.array([[n in tile.labels for n in range(len(found.taxonomy))] for tile in tiles])
    rng = np.random.default_rng((seed, count))
    while True:
        chosen = rng.permutation(len(tiles))[:count]
        if labels[chosen].any(0).all():
            break
    (out / "train").mkdir(parents=True)
    for i in chosen:
        (out / "train" / tiles[i].path.name).symlink_to(tiles[i].path.resolve())
    for other in ("val", "test"):
        (out / other).symlink_to((data / other).resolve())
    shutil.copy(data / "classes.txt", out)


def main() -> None:
    """Train, score and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", default="cam")
    parser.add_argument("--steps", type=int, default=440)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mpp", type=float)
    args = parser.parse_args()
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for count in args.tiles:
        for seed in args.seeds:
            folder = args.out / f"{count}_{seed}"
            if not folder.exists():
                subset(args.data, count, seed, folder / "data")
            values = {
                "data": {"folder": str(folder / "data"), "mpp": args.mpp},
                "method": {"name": args.method},
                "train": {
                    "steps": args.steps,
                    # all tiles, if there are fewer than a batch
                    "batch_size": min(args.batch_size, count),
                    "learning_rate": 5e-4,
                    "warmup": 20,
                    "stain_augmentation": 0.2,
                    "validate_every": args.steps,
                },
                "compare": {
                    "axes": {"start": {name: {"backbone.weights": weights} for name, weights in STARTS.items()}},
                    "seeds": [seed],
                    "pictures": 0,
                },
            }
            run(compare(values, folder / "runs"))
            for one in planned_runs(values)[1]:
                scores = json.loads((folder / "runs" / "runs" / one.folder / "scores.json").read_text())
                figures = {protocol: scores["protocols"][protocol]["miou"] for protocol in PROTOCOLS}
                found.setdefault((count, one.choices[0]), []).append(figures)
    print("| labelled tiles |" + "".join(f" {start}, {p} |" for start in STARTS for p in PROTOCOLS))
    print("|---|" + "---|" * len(STARTS) * len(PROTOCOLS))
    for count in args.tiles:
        cells = [spread([r[p] for r in found[count, start]]) for start in STARTS for p in PROTOCOLS]
        print("| " + " | ".join([str(count), *cells]) + " |")


if __name__ == "__main__":
    main()
