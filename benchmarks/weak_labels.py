"""Train variants of the methods on one data set, several seeds each, and tabulate both protocols.

    python benchmarks/weak_labels.py DATA OUT --study methods [--variants CAM] --seeds 0 1 2 --epochs 12
        [--slide S --slide-mask M]

DATA is a folder in one of the known layouts with a `test` split with masks. Finished trainings in OUT are not repeated.
All variants have the same backbone, steps, batch size, learning rate and augmentation, and differ in a few settings.
The script runs `napari-pbip compare` with these settings, and scores a slide in addition to the tiles. It prints the
tables of docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from PIL import Image

from napari_pbip.config import BackboneSettings, BankSettings, JobSettings, planned_runs
from napari_pbip.engine.compare import compare
from napari_pbip.engine.inference.segment import segment
from napari_pbip.events import Finished, Job, RunStep, Warned
from napari_pbip.results.label_files import open_labels
from napari_pbip.results.metrics import SegmentationScores
from napari_pbip.results.store import ScoreStore


def published(name: str, **options: Any) -> dict[str, Any]:
    """Return settings of a method with some changes, without mosaics, which no paper of these methods has."""
    return {"method": {"name": name, "synthesis": 0, **options}}


CAM, PBIP, LPD = published("cam"), published("pbip"), published("lpd")
# the network that is installed with the package is student and teacher
CONSTRUCT = {**published("construct"), "bank.encoder": "efficientnet-lite0"}
pbip, lpd = partial(published, "pbip"), partial(published, "lpd")

STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "methods": {  # by default, with mosaics
        "CAM": {"method": {"name": "cam"}},
        "PBIP": {"method": {"name": "pbip"}},
        "LPD": {"method": {"name": "lpd"}},
        "ConStruct": {"method": {"name": "construct"}, "bank.encoder": "efficientnet-lite0"},
    },
    "published": {"CAM": CAM, "PBIP": PBIP, "LPD": LPD, "ConStruct": CONSTRUCT},
    "presets": {
        "PBIP (ours)": PBIP,
        "PBIP (paper)": pbip(preset="paper"),
        "PBIP (released)": pbip(preset="released"),
        "PBIP, temperature 0.07 and beta 0.1": pbip(temperature=0.07, beta=0.1),
    },
    "table2": {  # loss terms
        "classification": pbip(theta_foreground=0, theta_background=0, sparsity=0),
        "+ foreground": pbip(theta_background=0),
        "+ background": pbip(theta_foreground=0),
        "+ both": PBIP,
    },
    "table5": {  # similarity maps, adaptive threshold
        "neither": pbip(similarity_maps=False, adaptive_threshold=False),
        "similarity maps": pbip(adaptive_threshold=False),
        "threshold": pbip(similarity_maps=False),
        "both": PBIP,
    },
    "recipe": {  # influence of the training on the baseline
        "CAM": CAM,
        "half the steps": {**CAM, "train.epochs": 1},
        "twice the steps": {**CAM, "train.epochs": 4},
        "no stain changes": {**CAM, "train.stain_augmentation": 0},
        "no flips and turns": {**CAM, "train.flip_and_turn": False},
    },
    "starts": {  # effect of the ImageNet weights, as start and as encoder
        "CAM, random": {**CAM, "backbone.weights": None},
        "CAM, ImageNet": CAM,
        "PBIP, random, texture": {**PBIP, "backbone.weights": None, "bank.encoder": "texture"},
        "PBIP, ImageNet, texture": {**PBIP, "bank.encoder": "texture"},
        "PBIP, ImageNet, ImageNet": {**PBIP, "bank.encoder": "efficientnet-lite0"},
    },
    "synthesis": {  # pixels of mosaics in addition to labels of images, and as much time without them
        "CAM": CAM,
        "CAM, half as many steps again": {**CAM, "train.epochs": 3},
        "CAM, synthesis": published("cam", synthesis=1),
        "PBIP": PBIP,
        "PBIP, synthesis": pbip(synthesis=1),
    },
    "diversity": {  # whether learned prototypes spread (benchmarks/prototype_spread.py)
        "without": lpd(diversity=0),
        "released": lpd(diversity_temperature=None),
        "ours": LPD,
    },
}


def run(job: Job) -> Mapping[str, Any]:
    """Run a job, print finished runs, and return the summary of its last event."""
    for event in job:
        match event:
            case RunStep() if event.finished:
                figures = "  ".join(f"{name} {value:.1f}" for name, value in event.values.items() if "miou" in name)
                print(f"{event.run}: {figures}", flush=True)
            case Warned():
                print(f"  note: {event.message}", flush=True)
            case Finished():
                return event.summary
            case _:
                pass
    raise AssertionError("a job ends with Finished")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the comparison that the arguments describe."""
    variants = {name: STUDIES[args.study][name] for name in args.variants or STUDIES[args.study]}
    every = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in args.set)}
    return {
        "data": {"folder": str(args.data), "mpp": args.mpp},
        "bank": {"encoder": args.encoder, "k": args.k},
        "backbone": {"name": args.backbone, **({} if args.weights is None else {"weights": args.weights})},
        "train": {
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "learning_rate": args.learning_rate,
            "warmup": args.warmup,
            "stain_augmentation": args.stain,
            "validate_every": args.validate_every,
        },
        "compare": {
            "axes": {"variant": {name: {**changes, **every} for name, changes in variants.items()}},
            "seeds": args.seeds,
        },
    }


def score_slide(run_folder: Path, settings: JobSettings, slide: Path, mask: Path) -> dict[str, Any]:
    """Segment a slide with a known mask and score its labels on the grid of the score store, if that is not done."""
    out, done = run_folder / "slide", run_folder / "slide.json"
    if done.exists():
        return json.loads(done.read_text())
    summary = run(segment(slide, run_folder, out, settings.segment, settings.thresholds, overwrite=out.exists()))
    store = ScoreStore.open(Path(summary["store"]))
    labels = np.asarray(open_labels(store)[0][0])
    truth = tifffile.imread(mask)
    small = Image.fromarray(truth).resize((labels.shape[1], labels.shape[0]), Image.Resampling.NEAREST)
    scores = SegmentationScores(store.taxonomy.names)
    # background and pixels that were not analysed count as errors
    predicted = np.where((labels == 0) | (labels == 255), 255, labels - 1).astype(np.uint8)
    scores.add(np.asarray(small), predicted)
    figures = {**scores.report(), "seconds": summary["seconds"]}
    done.write_text(json.dumps(figures, indent=2))
    return figures


def table(results: dict[str, list[dict[str, Any]]], slide: bool) -> str:
    """Return a table in Markdown with mean ± standard deviation over seeds."""
    head = "| variant | seeds |" + "".join(
        f" {p} {m} |" for p in ("oracle", "predicted") for m in ("mIoU", "FwIoU", "bIoU", "Dice")
    )
    head += (" slide mIoU |" if slide else "") + " s a step | trained, thousands |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, runs in results.items():
        cells = [name, str(len(runs))]
        for protocol in ("oracle", "predicted"):
            cells += [spread([r["protocols"][protocol][m] for r in runs]) for m in ("miou", "fwiou", "biou", "dice")]
        if slide:
            cells.append(spread([r["slide"]["miou"] for r in runs]))
        cells.append(f"{np.median([r['seconds_per_step'] for r in runs]):.2f}")
        cells.append(f"{runs[0]['parameters'] / 1000:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Return the mean ± sample standard deviation."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", choices=STUDIES, default="methods")
    parser.add_argument("--variants", nargs="+", help="those of the study, all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--stain", type=float, default=0.2)
    parser.add_argument("--validate-every", type=int, default=2)
    parser.add_argument("--encoder", default=BankSettings().encoder)
    parser.add_argument("--backbone", default=BackboneSettings().name)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--weights", help="start of the backbone, a file; by default that of the settings")
    parser.add_argument("--mpp", type=float, default=None)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--slide-mask", type=Path)
    parser.add_argument("--set", action="append", default=[], help="a setting for every variant, key=value")
    args = parser.parse_args()
    values, out = settings_of(args), args.out / args.study
    if failed := run(compare(values, out))["failed"]:
        raise SystemExit(f"{failed} runs failed; see {out / 'results.csv'}")
    results: dict[str, list[dict[str, Any]]] = {}
    for one in planned_runs(values)[1]:
        folder = out / "runs" / one.folder
        scores = json.loads((folder / "scores.json").read_text())
        if args.slide:
            scores["slide"] = score_slide(folder, one.settings, args.slide, args.slide_mask)
        results.setdefault(one.choices[0], []).append(scores)
    text = table(results, args.slide is not None)
    (args.out / f"{args.study}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
