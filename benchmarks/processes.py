"""Compare a training in several processes of one thread each with one process of as many threads, on a processor.

    python benchmarks/processes.py [--processes 2] [--steps 5] [--rounds 2] [--precision float32] [--json OUT]

Data and settings are those of benchmarks/training.py. Both ways are measured in turn; seconds are those of the clock
for a step, of which the first of each training is left out and the median is printed. A machine that does other work
slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from training import compose, processor

RECORDED = "7.15 over 9.55 = 0.75, beside much other work"
"""In docs/benchmarks.md."""


def main() -> None:
    """Print the seconds of a step in one process and in several, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the folder, in a process that trains
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.steps, args.precision)
        return
    found: dict[str, list[float]] = {"threads": [], "processes": []}
    with tempfile.TemporaryDirectory() as folder:
        compose(Path(folder) / "data")
        for _ in range(args.rounds):
            for way, seconds in found.items():
                count = args.processes
                started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
                command = [sys.executable, *(started if way == "processes" else []), __file__, "--measure", folder]
                command += ["--steps", str(args.steps), "--precision", args.precision]
                environment = os.environ | {"OMP_NUM_THREADS": str(count if way == "threads" else 1)}
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                seconds += json.loads(done.stdout.splitlines()[-1])
    one, several = median(found["threads"]), median(found["processes"])
    print(f"{processor()}, {args.precision}: a step in one process of {args.processes} threads {one:.2f} s, in")
    print(f"{args.processes} processes of one thread {several:.2f} s; ratio {one / several:.2f}; recorded: {RECORDED}")
    if args.json:
        facts = {"processor": processor(), "precision": args.precision, "seconds": found}
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


def measure(folder: Path, steps: int, precision: str) -> None:
    """Train for some steps, with others if torchrun started this; the first process prints the seconds of each step."""
    from napari_pbip.config import JobSettings
    from napari_pbip.engine.training.train import train
    from napari_pbip.events import Step
    from napari_pbip.processes import process_rank

    train_settings = {"steps": steps + 1, "precision": precision, "device": "cpu", "validate_every": steps + 1}
    settings = JobSettings.parse({"data": {"folder": folder / "data"}, "train": train_settings})
    job = train(settings, folder / "run", overwrite=True)
    ends = [time.perf_counter() for event in job if isinstance(event, Step) and "loss" in event.values]
    if process_rank() == 0:
        print(json.dumps([after - before for before, after in pairwise(ends)]))


if __name__ == "__main__":
    main()
