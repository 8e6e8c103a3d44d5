"""Open thousands of damaged slides: ``python -m tests.robustness.mutate_slides --count 10000 --seed 0``.

Every slide is to be read or to be answered by a sentence: no crash, no traceback, no more than ten seconds of processor
time, no more than 2 GiB of memory. Prints a table and exits 1 if that is not so. Mutation N of a seed is the same
every time; ``--only N --keep FOLDER`` makes it again.
"""

from __future__ import annotations

import argparse
import json
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.robustness.mutations import copy, mutate
from tests.robustness.slide_files import write_slides
from tests.robustness.slide_visitor import MEMORY

_WALL_SECONDS = 600
"""For a process that sleeps for ever; work is limited by the processor time that it takes."""
_FINE = ("read", "refused or told")


@dataclass
class Outcome:
    """The outcome of one damaged slide."""

    number: int
    kind: str
    what: str
    """The damage."""
    outcome: str
    said: str
    peak: int
    """Largest memory of the process so far, bytes."""

    @property
    def fine(self) -> bool:
        return self.outcome in _FINE


@dataclass
class Visitor:
    """The process that opens slides, replaced when it dies."""

    _noise: Path
    """Where what it prints beside its answers goes."""
    peak: int = 0
    _process: subprocess.Popen[str] | None = None

    def visit(self, path: Path) -> tuple[str, str]:
        """Open a slide; return the outcome and the messages."""
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(_WALL_SECONDS)
        line = process.stdout.readline() if ready else ""
        noise = self._noise.read_text(errors="replace")
        if not line:
            code = self._end(process)
            return ("hang", "") if not ready or code == -27 else ("crash", f"exit code {code}: {noise[-500:]}")
        answer = json.loads(line)
        self.peak = max(self.peak, int(answer["peak"]))
        if "Traceback" in noise:
            self.close()
            return "noise", noise[-2000:]
        return answer["outcome"], answer["said"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end(self._process)

    def _start(self) -> subprocess.Popen[str]:
        with self._noise.open("w") as noise:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.robustness.slide_visitor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                text=True,
            )
        return self._process

    def _end(self, process: subprocess.Popen[str]) -> int:
        """Kill the process, and return how it ended."""
        process.kill()
        process.stdin.close()
        process.stdout.close()
        self._process = None
        return process.wait()


def outcomes(folder: Path, numbers: range, seed: int, keep: Path | None = None):
    """Damage and open slides, and yield the outcome of each."""
    slides = write_slides(folder / "whole")
    kinds, visitor = list(slides), Visitor(folder / "noise.log")
    try:
        for number in numbers:
            rng = np.random.default_rng((seed, number))
            kind = kinds[number % len(kinds)]
            place = Path(tempfile.mkdtemp(dir=keep or folder))
            path = copy(slides[kind], place)
            what = "; ".join(mutate(path, rng) for _ in range(1 if rng.random() < 0.7 else 3))
            outcome, said = visitor.visit(path)
            if keep is None:
                shutil.rmtree(place)
            yield Outcome(number, kind, what, outcome, said, visitor.peak)
    finally:
        visitor.close()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one mutation")
    parser.add_argument("--keep", type=Path, help="folder for the damaged slides, which are deleted otherwise")
    given = parser.parse_args()
    numbers = range(given.count) if given.only is None else range(given.only, given.only + 1)
    began, table, bad = time.monotonic(), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as folder:
        for one in outcomes(Path(folder), numbers, given.seed, given.keep):
            table[one.kind, one.outcome] += 1
            if not one.fine or given.only is not None:
                bad += not one.fine
                print(f"{one.number} {one.kind}: {one.what}\n  {one.outcome}: {one.said}", flush=True)
    for kind in dict.fromkeys(kind for kind, _ in table):
        print(f"| {kind} | " + " | ".join(str(table[kind, name]) for name in _FINE) + " |")
    seconds, peak = time.monotonic() - began, one.peak / 2**20
    print(f"{sum(table.values())} slides in {seconds:.0f} s, {bad} of them wrong; most memory {peak:.0f} MiB")
    return int(bad > 0 or one.peak > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
