"""Compare methods that learn from few labelled tiles, and nothing else.

    python benchmarks/few_tiles.py DATA OUT --mpp 0.62 [--tiles 10 30] [--draws 2] [--variants probe PBIP] [--split val]

The given numbers of single-class tiles of each class are drawn from the split `train`, again for every draw. A variant
is trained on them without validation images, which somebody with so few tiles does not have, and its last model is
scored under *predicted* on images with masks. Finished trainings in OUT are not repeated. Choose with `--split val`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from napari_pbip.bank import load_tiles
from napari_pbip.config import DataSettings, JobSettings
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.train import train
from weak_labels import run

VARIANTS: dict[str, dict[str, Any]] = {
    "probe": {"method": {"name": "probe"}},
    "PBIP": {"method": {"name": "pbip"}},
    "PBIP alone": {"method": {"name": "pbip", "probe_share": 0}},
    "PBIP, no mosaics": {"method": {"name": "pbip", "synthesis": 0}},
    "PBIP, 60 steps": {"method": {"name": "pbip", "probe_share": 0}, "train": {"steps": 60}},
    "PBIP, 60 steps, no mosaics": {"method": {"name": "pbip", "synthesis": 0}, "train": {"steps": 60}},
    "PBIP, a rate of 5e-5, no mosaics": {
        "method": {"name": "pbip", "synthesis": 0},
        "train": {"learning_rate": 5e-5},
    },
    "CAM": {"method": {"name": "cam"}},
    "CAM, no mosaics": {"method": {"name": "cam", "synthesis": 0}},
    "CAM, 60 steps": {"method": {"name": "cam"}, "train": {"steps": 60}},
}


def main() -> None:
    """Draw, train, score and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="microns per pixel")
    parser.add_argument("--tiles", type=int, nargs="+", default=[10, 30], help="of each class")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["probe", "PBIP"])
    parser.add_argument("--split", default="val", choices=("val", "test"))
    args = parser.parse_args()
    print("| tiles of each class | " + " | ".join(args.variants) + " |\n|---|" + "---|" * len(args.variants))
    for count in args.tiles:
        cells = []
        for name in args.variants:
            figures = []
            for draw in range(args.draws):
                data = drawn(args.data, args.out / f"tiles-{count}-{draw}", count, draw)
                figures.append(scored(trained(data, name, draw, args.mpp), args.data, args.split, args.mpp))
                print(f"  {count} tiles, draw {draw}, {name}: {figures[-1]:.1f}", flush=True)
            cells.append(f"{mean(figures):.1f}" + (f" ± {stdev(figures):.1f}" if args.draws > 1 else ""))
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)


def drawn(data: Path, out: Path, count: int, draw: int) -> Path:
    """Return a folder with some of the single-class tiles, in the layout of the data; it is made once."""
    if not (out / "classes.txt").exists():
        tiles = load_tiles(data, "train", DataSettings())
        (out / "train").mkdir(parents=True, exist_ok=True)
        for n in range(len(tiles.taxonomy)):
            own = [tile.path for tile in tiles.single_class if tile.class_index == n]
            for i in np.random.default_rng((draw, count, n)).permutation(len(own))[:count]:
                shutil.copy(own[i], out / "train")
        shutil.copy(data / "classes.txt", out)
    return out


def trained(data: Path, name: str, seed: int, mpp: float) -> Path:
    """Train a variant, if that is not done, and return its run."""
    out = data / "runs" / name.replace(",", "").replace(" ", "-")
    values = {"data": {"folder": data, "mpp": mpp}, **VARIANTS[name]}
    values["train"] = {"seed": seed, "precision": "float32", **values.get("train", {})}
    begun = (out / "run.json").exists()
    if not (begun and RunFacts.read(out).finished):
        run(train(JobSettings.parse(values), out, resume=begun))
    return out


def scored(folder: Path, data: Path, split: str, mpp: float) -> float:
    """Return the mean IoU under *predicted*."""
    path = folder / f"{split}.json"
    if not path.exists():
        summary = run(evaluate(folder, DataSettings(folder=data, mpp=mpp), split, which="last"))
        path.write_text(json.dumps(summary["protocols"], indent=2))
    return float(json.loads(path.read_text())["predicted"]["miou"])


if __name__ == "__main__":
    main()
