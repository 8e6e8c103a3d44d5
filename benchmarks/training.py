"""Measure a step of the default training by its parts, and compare it with that of an earlier version.

    python benchmarks/training.py [--before FOLDER] [--steps 5] [--rounds 2] [--threads 1] [--json OUT]

The data are images of bundled colorectal tiles, 224 pixels wide, composed as those of the demo. PBIP is trained on them
with the default settings and ten tiles a step, in both precisions. ``--before`` names a checkout of the earlier version
(``git worktree add ../before COMMIT``). Both versions are measured in turn, each in a process of its own, and the first
step of each is left out.

Seconds are those of the processor (all threads of the process for a step, the training's thread for a part), of which
the median is printed; on a machine that does other work, they vary less than those of the clock, which are printed
too. Without other work and with one thread they are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from report import finish, hardware

SIDE, IMAGES, VALIDATION = 224, 60, 10
PARTS = (
    "backbone, forward",
    "encoder, forward",
    "other forward",
    "encoder, backward",
    "other backward",
    "optimiser",
    "rest",
)


def main() -> None:
    """Print the seconds of a step and of its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the earlier version")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the process of one version
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.steps, args.threads, args.precision[0])))
        return
    versions = {"now": Path(__file__).parents[1]} | ({"before": args.before.resolve()} if args.before else {})
    found: dict[str, dict[str, list[Any]]] = {p: defaultdict(list) for p in args.precision}
    with tempfile.TemporaryDirectory() as folder:
        compose(Path(folder) / "data")
        for _ in range(args.rounds):
            for precision in args.precision:
                for version, checkout in versions.items():
                    command = [sys.executable, __file__, "--measure", folder, "--precision", precision]
                    command += ["--steps", str(args.steps), "--threads", str(args.threads)]
                    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
                    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    found[precision][version].append(json.loads(done.stdout.splitlines()[-1]))
    figures = {precision: medians(of_version) for precision, of_version in found.items()}
    finish("training", {"hardware": hardware() | {"threads": args.threads}, **figures}, args.json)


def medians(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the median seconds of a step and of its parts, by version, and their ratio."""
    figures: dict[str, Any] = {
        version: {
            "a step, processor s": median(s for run in runs for s in run["cpu"]),
            "a step, wall s": median(s for run in runs for s in run["clock"]),
            **{p: median(s for run in runs for s in run["parts"].get(p, [0])) for p in (*PARTS, "validation")},
        }
        for version, runs in found.items()
    }
    if "before" in figures:
        for clock in ("processor", "wall"):
            name = f"a step, {clock} s"
            figures[f"before over now, {clock}"] = figures["before"][name] / figures["now"][name]
    return figures


def compose(folder: Path) -> None:
    """Write training and validation images of the demo's classes, composed of different tiles."""
    import numpy as np
    from PIL import Image

    from napari_pbip import samples
    from napari_pbip.bank.mosaics import write_masked, write_training

    tiles: dict[str, list[Any]] = {}
    for name in ("LYM", "MUS", "TUM"):
        paths = sorted((samples.tiles() / name).iterdir())
        tiles[name] = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    learned, held_out = ({name: own[part] for name, own in tiles.items()} for part in (slice(2, None), slice(2)))
    write_training(folder, learned, IMAGES, SIDE, np.random.default_rng(0))
    write_masked(folder, "val", held_out, VALIDATION, SIDE, np.random.default_rng(1))


def measure(folder: Path, steps: int, threads: int, precision: str) -> dict[str, Any]:
    """Train for some steps in this process; return the seconds of all but the first, of the clock and the CPU."""
    import torch

    from napari_pbip.config import JobSettings
    from napari_pbip.engine.training import loop, train
    from napari_pbip.models.backbones import Backbone

    torch.set_num_threads(threads)
    parts: dict[str, list[float]] = defaultdict(list)
    trained: list[Any] = []
    of_step: dict[str, float] = defaultdict(float)
    clock: list[float] = []
    cpu: list[float] = []

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        of_step[part] += time.thread_time() - began

    def wrap(owner: Any, name: str, part: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            with timed(part):
                return original(*args, **options)

        setattr(owner, name, wrapped)

    run_step = loop.TrainingLoop._step
    run_stages = Backbone.up_to

    def stages(self: Any, count: int, images: torch.Tensor) -> Any:
        if not trained:  # the bank
            return run_stages(self, count, images)
        encoder = self is not trained[0]
        part = "encoder" if encoder else "backbone"
        with timed(f"{part}, forward"):
            maps = run_stages(self, count, images)
        if encoder and maps[-1].requires_grad:
            began: list[float] = []
            maps[-1].register_hook(lambda gradient: began.append(time.thread_time()))
            images.register_hook(lambda gradient: leave(began))
        return maps

    def leave(began: list[float]) -> None:
        of_step["encoder, backward"] += time.thread_time() - began[0]

    def step(self: Any, *args: Any) -> Any:
        trained[:] = [self.method.backbone]
        of_step.clear()
        began = time.perf_counter(), time.process_time(), time.thread_time()
        values = run_step(self, *args)
        clock.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
        whole = time.thread_time() - began[2]
        of_step["other forward"] = of_step["forward"] - of_step["backbone, forward"] - of_step["encoder, forward"]
        of_step["other backward"] = of_step["backward"] - of_step["encoder, backward"]
        of_step["rest"] = whole - of_step["forward"] - of_step["backward"] - of_step["optimiser"]
        for part in PARTS:
            parts[part].append(of_step[part])
        return values

    def validate(self: Any, *args: Any) -> Any:
        began = time.thread_time()
        result = yield from run_validation(self, *args)
        parts["validation"].append(time.thread_time() - began)
        return result

    trainer = _trainer()
    run_validation = trainer._validate
    wrap(trainer, "loss", "forward")
    wrap(torch.Tensor, "backward", "backward")
    wrap(torch.optim.AdamW, "step", "optimiser")
    Backbone.up_to = stages  # type: ignore[method-assign]
    loop.TrainingLoop._step = step  # type: ignore[method-assign]
    trainer._validate = validate
    settings = {"data": {"folder": folder / "data"}, "train": {"steps": steps + 1, "precision": precision}}
    for _ in train.train(JobSettings.parse(settings), folder / "run", overwrite=True):
        pass
    return {"clock": clock[1:], "cpu": cpu[1:], "parts": {k: v[1:] if k in PARTS else v for k, v in parts.items()}}


def _trainer() -> Any:
    """Return the class that trains, of this version or of one in which it was a part of the module of the job."""
    try:
        from napari_pbip.engine.training.trainer import Trainer
    except ImportError:
        from napari_pbip.engine.training import train

        return train._Trainer  # type: ignore[attr-defined]
    return Trainer


if __name__ == "__main__":
    main()
