"""Measure time and peak memory of each stage of the main job, as separate processes, on your own data.

    python benchmarks/stages.py DATA SLIDE OUT [--mpp 0.5] [--set key=value]

DATA is a folder with a `test` split with masks, in one of the known layouts. Every stage includes importing torch,
which is nearly all that `doctor` does. Peak memory is the largest resident set, in MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path


def stage(name: str, *arguments: object) -> None:
    """Run one command and print its row."""
    began = time.monotonic()
    process = subprocess.Popen(["napari-pbip", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # the peak of this child only
    if status:
        sys.exit(f"{name} failed:\n{errors.decode()}")
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in kB on Linux
    wall, busy = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    print(f"| {name} | {wall:.1f} | {busy:.1f} | {usage.ru_maxrss * scale / 1e6:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    bank, run = args.out / "bank", args.out / "run"
    extra = [part for assignment in args.set for part in ("--set", assignment)]
    training = ("--data", args.data, "--bank", bank, "--out", run, "--set", f"train.steps={args.steps}")
    print("| stage | wall s | processor s | peak MB |\n|---|---|---|---|")
    stage("doctor", "doctor", "--json")
    stage("bank build", "bank", "build", args.data, "--out", bank, *extra)
    stage(f"train, {args.steps} steps", "train", *training, "--set", f"data.mpp={args.mpp}", *extra)
    stage("evaluate", "evaluate", run, args.data, *extra)
    stage("segment", "segment", args.slide, "--model", run, "--out", args.out / "slide", *extra)


if __name__ == "__main__":
    main()
