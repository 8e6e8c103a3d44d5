"""Train a first stage, pseudo masks, a second stage, and the same network on true masks (the upper limit), on GlaS.

    python benchmarks/prepare_glas.py GLAS DATA
    python benchmarks/second_stage.py GLAS DATA OUT [--variants default ceiling] [--seed 0] [--split val]

Every variant changes a few settings of the second stage's defaults; choose among them on the split `val`, and use
`test` only at the end. Finished steps in OUT are not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from napari_pbip.config import DataSettings, JobSettings
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.pseudo_masks import pseudo_masks
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.train import train
from napari_pbip.results.metrics import PROTOCOLS
from prepare_glas import read
from weak_labels import run

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "ceiling": {"masks": "true"},
    "easy examples": {"method": {"easy_examples": True}},
    "easy examples, confident pixels": {"method": {"easy_examples": True}, "min_confidence": 0.2},
    "easy examples, ceiling": {"method": {"easy_examples": True}, "masks": "true"},
    "confident pixels": {"min_confidence": 0.2},
    "DeepLab-v2": {"method": {"version": "v2"}},
}
"""What differs from the default: settings of the method, where its masks come from, or how they are purified."""


def trained(out: Path, args: argparse.Namespace, data: Path, method: dict[str, Any], steps: int) -> Path:
    """Train, if that is not done, and return the folder of the training."""
    values = {
        "data": {"folder": data, "mpp": 0.62},
        "bank": {"encoder": "texture"},
        "method": method,
        "backbone": {"name": args.backbone, "weights": "builtin"},
        "train": {
            "steps": steps,
            "batch_size": 32,
            "learning_rate": 5e-4,
            "warmup": 20,
            "stain_augmentation": 0.2,
            "validate_every": 1,
            "seed": args.seed,
        },
    }
    begun = (out / "run.json").exists()
    if not (begun and RunFacts.read(out).finished):
        run(train(JobSettings.parse(values), out, resume=begun))
    return out


def pseudo(out: Path, first: Path, data: Path, min_confidence: float) -> Path:
    """Make pseudo masks, if that is not done, and return the folder of the data set."""
    if not (out / "tiles.csv").exists():
        begun = (out / "pseudo.json").exists()
        settings = DataSettings(folder=data)
        print(run(pseudo_masks(first, settings, out, min_confidence=min_confidence, resume=begun)), flush=True)
    return out


def true_masks(out: Path, glas: Path, data: Path) -> Path:
    """Return a data set of the same crops with the true masks."""
    if not (out / "classes.txt").exists():
        for kind in ("img", "mask"):
            (out / "train" / kind).mkdir(parents=True, exist_ok=True)
        masks: dict[str, Any] = {}
        for crop in sorted((data / "train").iterdir()):
            name, y, x = re.fullmatch(r"(.+)_(\d+)_(\d+)\[\d+\]", crop.stem).groups()
            if name not in masks:
                masks[name] = read(glas, name)[1]
            shutil.copy(crop, out / "train" / "img")
            width, height = Image.open(crop).size
            part = masks[name][int(y) : int(y) + height, int(x) : int(x) + width]
            Image.fromarray(part).save(out / "train" / "mask" / crop.name)
        (out / "val").symlink_to((data / "val").resolve())
        shutil.copy(data / "classes.txt", out)
    return out


def scores(folder: Path, data: Path, split: str) -> str:
    """Return mean and boundary IoU under both protocols, as the cells of a row."""
    path = folder / f"{split}.json"
    if not path.exists():
        path.write_text(json.dumps(run(evaluate(folder, DataSettings(folder=data), split))["protocols"], indent=2))
    found = json.loads(path.read_text())
    return " | ".join(f"{found[p]['miou']:.1f} | {found[p]['biou']:.1f}" for p in PROTOCOLS)


def main() -> None:
    """Train, score and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glas", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", default="pbip", help="method of the first stage")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["default", "ceiling"])
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--first-steps", type=int, default=220)
    parser.add_argument("--steps", type=int, default=120, help="of the second stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    out = args.out / f"seed{args.seed}"
    first = trained(out / args.first, args, args.data, {"name": args.first}, args.first_steps)
    print("| | oracle mIoU | bIoU | predicted mIoU | bIoU |\n|---|---|---|---|---|")
    print(f"| first stage: {args.first} | {scores(first, args.data, args.split)} |", flush=True)
    for name in args.variants:
        variant = VARIANTS[name]
        if variant.get("masks") == "true":
            data = true_masks(args.out / "true", args.glas, args.data)
        else:
            sure = variant.get("min_confidence", 0.0)
            data = pseudo(out / f"{args.first}-masks-{sure:g}", first, args.data, sure)
        method = {"name": "deeplab", **variant.get("method", {})}
        second = trained(out / f"{args.first}-{name}", args, data, method, args.steps)
        print(f"| second stage: {name} | {scores(second, args.data, args.split)} |", flush=True)


if __name__ == "__main__":
    main()
