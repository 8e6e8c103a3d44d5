"""Measure how long it takes from labelled tiles to the map of a slide.

    python benchmarks/first_map.py [--json OUT]

Skin is labelled in the bundled project, about ten tiles a class. They are cut, a linear probe is fitted to them, and
the whole bundled slide is segmented with it, as *Label tiles* and *Segment* or the commands `bank cut`, `train --method
probe` and `segment` do. *Cold* is a new process with empty caches, from its start; *warm* is the same process once
more with one label taken back, so that libraries are loaded and features of the other tiles known. Seconds by the clock
and of the processor.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from report import finish, hardware
from spawned import in_process


def first_maps(folder: Path) -> dict[str, Any]:
    """Make the map from all labels, and again from all but one, in this process."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    began, processor = time.perf_counter(), 0.0
    found: dict[str, Any] = {}
    for name, without in (("cold", 0), ("warm", 1)):
        tiles = make(folder / name, without)
        found[name] = {
            "tiles": tiles,
            "wall s": time.perf_counter() - began,
            "processor s": time.process_time() - processor,
        }
        began, processor = time.perf_counter(), time.process_time()
    return found


def make(folder: Path, without: int) -> int:
    """Cut tiles, fit a probe and segment the slide; return the number of tiles."""
    from napari_pbip import samples
    from napari_pbip.config import ProbeSettings
    from napari_pbip.engine.banks.cut_tiles import cut_tiles
    from napari_pbip.engine.inference.segment import segment
    from napari_pbip.engine.sample_project import sample_labels, sample_settings
    from napari_pbip.engine.training.train import train

    labels = sample_labels()
    fewer = tuple(dict(list(of_slide.items())[without:]) for of_slide in labels.tiles)
    list(cut_tiles(replace(labels, tiles=fewer), folder / "tiles"))
    settings = sample_settings(folder / "tiles").model_copy(update={"method": ProbeSettings()})
    list(train(settings, folder / "probe"))
    list(segment(samples.slide(), folder / "probe", folder / "result", settings.segment, settings.thresholds))
    return sum(map(len, fewer))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"hardware": hardware(), **in_process(first_maps, Path(folder))}
    finish("first_map", found, arguments.json)


if __name__ == "__main__":
    main()
