"""Train second stages on pseudo masks of trained models, and the same network on true masks (the upper limit), on GlaS.

    python benchmarks/prepare_glas.py GLAS DATA
    python benchmarks/second_stage.py GLAS DATA FIRST OUT [--variants default ceiling] [--seeds 0 1 2] [--steps 220]
        [--agree PROBE]
    python benchmarks/score_runs.py OUT/runs DATA --mpp 0.62 --smoothing 0 15 --split val

FIRST has a run of the first stage for each seed, as `benchmarks/weak_labels.py` leaves it (OUT/methods/runs/pbip). A
variant changes a few settings of the second stage's defaults; choose among them on the split `val`, and use `test` only
at the end. For each set of masks, it prints how many pixels of the crops with both classes have at least some
confidence, and how good their masks are. Finished trainings in OUT are not repeated.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_pbip.bank import LEFT_OUT
from napari_pbip.config import DataSettings, JobSettings
from napari_pbip.engine.inference.pseudo_masks import pseudo_masks
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.train import train
from napari_pbip.results.metrics import SegmentationScores
from prepare_glas import read
from weak_labels import run

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "ceiling": {"masks": "true"},
    "easy-examples": {"method": {"easy_examples": True}},
    "easy-examples-confident": {"method": {"easy_examples": True}, "min_confidence": 0.2},
    "easy-examples-ceiling": {"method": {"easy_examples": True}, "masks": "true"},
    "confident": {"min_confidence": 0.2},
    "agree": {"agree": True},
    "deeplab-v2": {"method": {"version": "v2"}},
}
"""What differs from the default: settings of the method, where its masks come from, or how they are purified."""
CONFIDENCES = 0.0, 0.1, 0.2, 0.3, 0.5
"""From which the quality of masks is measured."""


def main() -> None:
    """Make the masks and train, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glas", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("first", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["default", "ceiling"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=220, help="of the second stage")
    parser.add_argument("--agree", type=Path, help="the run whose model has to agree in the variant of that name")
    args = parser.parse_args()
    truth = true_masks(args.out / "true", args.glas, args.data)
    for seed in args.seeds:
        for name in args.variants:
            variant = VARIANTS[name]
            if variant.get("masks") == "true":
                data = truth
            else:
                sure, agree = variant.get("min_confidence", 0.0), args.agree if variant.get("agree") else None
                data = args.out / f"masks-{sure:g}{'-agree' if agree else ''}" / f"seed{seed}"
                pseudo(data, args.first / f"seed{seed}", args.data, sure, agree)
                print(f"{name}, seed {seed}: {quality(data, truth)}", flush=True)
            trained(args.out / "runs" / name / f"seed{seed}", data, variant.get("method", {}), args.steps, seed)


def trained(out: Path, data: Path, method: dict[str, Any], steps: int, seed: int) -> None:
    """Train, if that is not done."""
    values = {
        "data": {"folder": data, "mpp": 0.62},
        "method": {"name": "deeplab", **method},
        "train": {
            "steps": steps,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "warmup": 20,
            "stain_augmentation": 0.2,
            "validate_every": 1,
            "seed": seed,
        },
    }
    begun = (out / "run.json").exists()
    if not (begun and RunFacts.read(out).finished):
        summary = run(train(JobSettings.parse(values), out, resume=begun))
        print(f"{out.parent.name}, seed {seed}: validation mIoU {summary['miou']:.1f}", flush=True)


def pseudo(out: Path, first: Path, data: Path, min_confidence: float, agree: Path | None) -> None:
    """Make pseudo masks, if that is not done."""
    if not (out / "tiles.csv").exists():
        begun = (out / "pseudo.json").exists()
        settings = DataSettings(folder=data)
        job = pseudo_masks(first, settings, out, agree=agree, min_confidence=min_confidence, resume=begun)
        print(run(job), flush=True)


def quality(masks: Path, truth: Path) -> str:
    """Return the share of pixels with some confidence and a class, and their mIoU, of the crops with both classes."""
    names = (truth / "classes.txt").read_text().split()
    scores = {least: SegmentationScores(names) for least in CONFIDENCES}
    kept = dict.fromkeys(CONFIDENCES, 0)
    pixels = 0
    for path in sorted((truth / "train" / "mask").iterdir()):
        true = np.asarray(Image.open(path))
        if len(np.unique(true)) == 1:
            continue
        found = np.asarray(Image.open(masks / "masks" / path.name))
        confidence = np.asarray(Image.open(masks / "confidence" / path.name)) / 255
        pixels += true.size
        for least in CONFIDENCES:
            sure = (confidence >= least) & (found != LEFT_OUT)
            kept[least] += int(sure.sum())
            scores[least].add(np.where(sure, true, LEFT_OUT), found)
    return ", ".join(
        f"from {least:g} {100 * kept[least] / pixels:.1f} % of pixels, mIoU {scores[least].report()['miou']:.1f}"
        for least in CONFIDENCES
    )


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


if __name__ == "__main__":
    main()
